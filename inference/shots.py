"""Where one shot ends and the next begins: a pure function of a few neighbouring thumbnails.

Every worker decides for its own range and padding; nothing is remembered, so all workers agree. A cut is a change that
is large in itself, larger than what happens around it, and that stays: a flash returns to what was before. Behind one
or two white or black frames (three are a shot of their own) a shot begins if another scene goes on there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REACH = 3
"""Frames before and after a boundary that are looked at: the boundary before frame t needs t-3 … t+2."""

LEVEL = 0.07
"""Least change; between two unrelated pictures it is mostly 0.2 to 0.6, within a shot mostly under 0.03."""

PROMINENCE = 2.0
"""How much larger than the changes around it."""

PLAIN = 5.0
"""Standard deviation of luma codes up to which a picture shows nothing, as a white or black frame does."""

UNLIKE = 0.6
"""Correlation of two scenes across a flash: unrelated pictures mostly stay below 0.4, a scene keeps 0.9 and more. It
does not change with exposure, and exposure does change behind a flash."""

_BINS = 16


def change(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """0 (the same) to 1: half mean difference of the thumbnails, half of their histograms, which motion keeps."""
    difference = float(np.abs(a.astype(np.int32) - b.astype(np.int32)).sum()) / (255.0 * a.size)
    count_a = np.bincount(a.ravel() >> 4, minlength=_BINS)
    count_b = np.bincount(b.ravel() >> 4, minlength=_BINS)
    spread = float(np.abs(count_a - count_b).sum()) / (2.0 * a.size)
    return 0.5 * difference + 0.5 * spread


def _steps(run: Sequence[NDArray[np.uint8]]) -> list[float]:
    return [change(a, b) for a, b in itertools.pairwise(run)]


def _covariance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """In codes squared; sums are whole numbers, so every machine gets the same."""
    x, y = a.ravel().astype(np.int64), b.ravel().astype(np.int64)
    return (x.size * int(x @ y) - int(x.sum()) * int(y.sum())) / x.size**2


def _likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Correlation; two plain pictures count as alike, whatever their grain."""
    floor = PLAIN**2
    return (_covariance(a, b) + floor) / math.sqrt((_covariance(a, a) + floor) * (_covariance(b, b) + floor))


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
    return _stands_out(before, after, step) or _is_behind_flash(before, after, step)


def _stands_out(before: Sequence[NDArray[np.uint8]], after: Sequence[NDArray[np.uint8]], step: float) -> bool:
    if step < PROMINENCE * max(_steps(before) + _steps(after), default=0.0):
        return False
    lasting = step
    if len(before) > 1:
        lasting = min(lasting, change(before[-2], after[0]))
    if len(after) > 1:
        lasting = min(lasting, change(before[-1], after[1]))
    return lasting >= LEVEL


def _is_behind_flash(before: Sequence[NDArray[np.uint8]], after: Sequence[NDArray[np.uint8]], step: float) -> bool:
    """Whether before[-1], or the last two, are plain and what follows is another scene than what was before them."""
    if len(after) < 2:
        return False
    for count in range(1, len(before)):
        old, flash = before[:-count], before[-count:]
        if _covariance(flash[0], flash[0]) > PLAIN**2:
            return False
        into = change(old[-1], flash[0])
        calm = max(_steps(old) + _steps(flash) + _steps(after))
        # With so large a step into the flash the shot began there.
        if min(into, step) < max(LEVEL, PROMINENCE * calm) or into >= PROMINENCE * step:
            continue
        # Motion goes on behind a flash: as far as in the frames around it, times those it hides.
        lasting = min(change(old[-1], picture) for picture in after)
        if lasting < max(LEVEL, PROMINENCE * (count + 1) * calm):
            continue
        if max(_likeness(old[-1], picture) for picture in after) < UNLIKE:
            return True
    return False
