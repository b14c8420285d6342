"""Black bars around the picture, found from a few sampled frames: they get no depth, and no engine sees them. Pure.

A bar is at least 2 % of the side, black in every usable sample, and has a partner on the other side: a dark floor or a
dark wall alone is no bar. Samples that are black as a whole say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stereospot.media.model import Bars, Colour

LEVEL = 10
"""Luma codes (of 8 bits) above black up to which a line still counts as black; noise and ringing stay below."""

SMALLEST, LARGEST = 0.02, 0.3
"""Limits of a bar, as a part of the side."""

FEWEST = 2
"""Usable samples needed."""


def find(lumas: Sequence[NDArray[Any]], pixel_format: str, colour: Colour) -> Bars:
    """Bars of a film from luma planes [h, w] of frames spread over it, all of one size; none when in doubt."""
    shift = 2 if pixel_format.endswith("10le") else 0
    limit = ((0 if colour.full_range else 16) + LEVEL) << shift
    rows: list[NDArray[np.bool_]] = []
    columns: list[NDArray[np.bool_]] = []
    for luma in lumas:
        bright = luma > limit
        # A line is dark when nearly all of it is: single bright pixels are dirt or ringing at the bar's edge.
        dark_rows = bright.mean(axis=1) <= 0.002
        dark_columns = bright.mean(axis=0) <= 0.002
        if dark_rows.mean() < 0.9 and dark_columns.mean() < 0.9:
            rows.append(dark_rows)
            columns.append(dark_columns)
    if len(rows) < FEWEST:
        return Bars()
    top, bottom = _pair(np.logical_and.reduce(rows))
    left, right = _pair(np.logical_and.reduce(columns))
    return Bars(top=top, bottom=bottom, left=left, right=right)


def _pair(dark: NDArray[np.bool_]) -> tuple[int, int]:
    """Dark lines at the beginning and at the end, or none if either side has none worth the name."""
    size = len(dark)
    if dark.all():
        return 0, 0
    first, last = int(np.argmin(dark)), int(np.argmin(dark[::-1]))
    if min(first, last) < max(2, SMALLEST * size) or max(first, last) > LARGEST * size:
        return 0, 0
    return first, last
