"""Black bars around the picture, found from a few sampled frames: they get no depth, and no engine sees them. Pure.

A bar is at least 2 % of the side, black in every usable sample, and has a partner on the other side: a dark floor or a
dark wall alone is no bar. Samples that are black as a whole say nothing.
"""

from __future__ import annotations

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


class Samples:
    """What lines were black in all samples so far; of a picture nothing else is kept."""

    def __init__(self, pixel_format: str, colour: Colour) -> None:
        shift = 2 if pixel_format.endswith("10le") else 0
        self._limit = ((0 if colour.full_range else 16) + LEVEL) << shift
        self._rows: NDArray[np.bool_] | None = None
        self._columns: NDArray[np.bool_] | None = None
        self.count = 0

    def add(self, luma: NDArray[Any]) -> None:
        """A luma plane [h, w], all of one size; one that is black as a whole is left out."""
        bright = luma > self._limit
        # A line is dark when nearly all of it is: single bright pixels are dirt or ringing at the bar's edge.
        rows = bright.mean(axis=1) <= 0.002
        columns = bright.mean(axis=0) <= 0.002
        if rows.mean() >= 0.9 or columns.mean() >= 0.9:
            return
        self._rows = rows if self._rows is None else self._rows & rows
        self._columns = columns if self._columns is None else self._columns & columns
        self.count += 1

    def bars(self) -> Bars:
        """The bars that all samples have; none when in doubt. A further sample can only take some away."""
        if self._rows is None or self._columns is None or self.count < FEWEST:
            return Bars()
        top, bottom = _pair(self._rows)
        left, right = _pair(self._columns)
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
