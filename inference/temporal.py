"""Depth that does not flicker: a mean over neighbouring frames wherever the picture stands still.

A finite filter on the film's own frame grid: `RADIUS` frames on each side, never across a cut. Each neighbour counts as
far as its luma around the pixel equals the frame's own, so moving edges keep their depth and static ones lose the
engine's noise (with 17 frames the frame-to-frame change of independent noise falls to a seventeenth). Frames that were
not estimated themselves (`inference.cadence`) take theirs from the others in the same way. Being finite and symmetric,
it gives a segment converted alone exactly what a serial run gives.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.jit import F32, F64, U8, VOID, array, compiled, view

RADIUS = 8
"""Frames on each side."""

NEAREST = 0.02
"""Least say of the nearest estimated frames in a frame that has no depth of its own."""

TOLERANCE = 14.0
"""Difference of the 3 x 3 mean of luma codes from which on a neighbour has no say; noise and grain stay below."""


@compiled(VOID(view(U8, 2), array(F32, 2)))
def _soften(luma, out):
    """3 x 3 mean, cut at the borders."""
    rows, columns = luma.shape
    line = np.empty(columns, np.float32)
    for y in range(rows):
        above, below = luma[max(y - 1, 0)], luma[min(y + 1, rows - 1)]
        here = luma[y]
        for x in range(columns):
            line[x] = np.float32(above[x]) + np.float32(here[x]) + np.float32(below[x])
        for x in range(columns):
            total = line[max(x - 1, 0)] + line[x] + line[min(x + 1, columns - 1)]
            out[y, x] = total * np.float32(1.0 / 9.0)


@compiled(VOID(view(F32, 2), view(F32, 2), view(F32, 2), F64, F64, array(F32, 2), array(F32, 2)))
def _accumulate(own, luma, depth, tolerance, least, total, weight):
    """Add one neighbour to the weighted sums; `least`: its say where the picture differs."""
    rows, columns = depth.shape
    scale = np.float32(1.0 / tolerance)
    floor = np.float32(least)
    one, zero = np.float32(1), np.float32(0)
    for y in range(rows):
        for x in range(columns):
            difference = abs(luma[y, x] - own[y, x]) * scale
            gate = max(one - difference * difference, zero)
            gate = gate * gate + floor
            total[y, x] += gate * depth[y, x]
            weight[y, x] += gate


@compiled(VOID(array(F32, 2), view(F32, 2)))
def _divide(total, weight):
    rows, columns = total.shape
    for y in range(rows):
        for x in range(columns):
            total[y, x] = total[y, x] / weight[y, x]


def soften(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[h, w] float32: the luma by which frames are compared; computed once a frame."""
    out = np.empty(luma.shape, np.float32)
    _soften(luma, out)
    return out


def smooth(
    depths: Sequence[NDArray[np.float32] | None], lumas: Sequence[NDArray[np.float32]], own: int
) -> NDArray[np.float32]:
    """Depth of frame `own`, smoothed; the sequences hold it and the neighbours of its shot, in the order of time.

    depths: [h, w] float32, or None for frames that were not estimated, at least one is; lumas: of `soften`.
    """
    least = _nearest(depths, own)
    total, weight = np.zeros_like(lumas[own]), np.zeros_like(lumas[own])
    for index, (luma, depth) in enumerate(zip(lumas, depths, strict=True)):
        if depth is not None:
            _accumulate(lumas[own], luma, depth, TOLERANCE, least.get(index, 0.0), total, weight)
    _divide(total, weight)
    return total


def _nearest(depths: Sequence[NDArray[np.float32] | None], own: int) -> dict[int, float]:
    """The estimated frames nearest to one that is not, before and after it, with their least say."""
    if depths[own] is not None:
        return {}
    before = next((i for i in range(own - 1, -1, -1) if depths[i] is not None), None)
    after = next((i for i in range(own + 1, len(depths)) if depths[i] is not None), None)
    sides = [side for side in (before, after) if side is not None]
    whole = sum(abs(side - own) for side in sides)
    if len(sides) == 1:
        return {sides[0]: NEAREST}
    return {side: NEAREST * (whole - abs(side - own)) / whole for side in sides}
