"""Where one shot ends and the next begins: a pure function of a few neighbouring thumbnails.

Every worker decides for its own range and padding; nothing is remembered, so all workers agree. A cut is a change that
is large in itself, larger than what happens around it, and that stays: a flash returns to what was before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REACH = 3
"""Frames before and after a boundary that are looked at: the boundary before frame t needs t-3 … t+2."""

LEVEL = 0.07
"""Least change; between two unrelated pictures it is mostly 0.2 to 0.6, within a shot mostly under 0.03."""

PROMINENCE = 2.0
"""How much larger than the changes around it."""

_BINS = 16


def change(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """0 (the same) to 1: half mean difference of the thumbnails, half of their histograms, which motion keeps."""
    difference = float(np.abs(a.astype(np.int32) - b.astype(np.int32)).sum()) / (255.0 * a.size)
    count_a = np.bincount(a.ravel() >> 4, minlength=_BINS)
    count_b = np.bincount(b.ravel() >> 4, minlength=_BINS)
    spread = float(np.abs(count_a - count_b).sum()) / (2.0 * a.size)
    return 0.5 * difference + 0.5 * spread


def is_cut(before: Sequence[NDArray[np.uint8]], after: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether a shot begins with after[0].

    before: up to REACH thumbnails that precede the boundary, after: up to REACH that follow, in the order of time;
    fewer only where the film begins or ends.
    """
    if not before or not after:
        return False
    before, after = before[-REACH:], after[:REACH]
    step = change(before[-1], after[0])
    if step < LEVEL:
        return False
    around = [change(a, b) for a, b in itertools.pairwise(before)]
    around += [change(a, b) for a, b in itertools.pairwise(after)]
    if around and step < PROMINENCE * max(around):
        return False
    lasting = step
    if len(before) > 1:
        lasting = min(lasting, change(before[-2], after[0]))
    if len(after) > 1:
        lasting = min(lasting, change(before[-1], after[1]))
    return lasting >= LEVEL
