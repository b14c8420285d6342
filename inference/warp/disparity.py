"""From relative depth on the grid to disparity in fixed point, with what the comfort report wants to know of it."""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference import warp
from inference.jit import F32, F64, I32, I64, VOID, array, compiled, view

BINS = 1201
"""Bins of the histogram of parallax, from -6 % to +6 % of the picture's width; beyond is counted at the ends."""

BIN_PERCENT = 0.01
LOWEST_PERCENT = -6.005

EDGE_PERCENT = 0.25
"""Parallax in front of the screen beside the left or right border that counts as a window violation, % of the width."""


@compiled(
    VOID(view(F32, 2), view(I32, 1), view(I32, 1), F64, F64, F64, I64, array(I32, 2), array(I64, 1), array(I64, 1))
)
def _convert(depth, across, down, scale, convergence, per_bin, edge, out, histogram, tally):
    rows, columns = depth.shape
    bins = histogram.shape[0]
    middle = bins // 2
    for y in range(rows):
        if down[y] == 0:
            for x in range(columns):
                out[y, x] = 0
            continue
        violated = False
        for x in range(columns):
            if across[x] == 0:
                out[y, x] = 0
                continue
            value = np.float64(depth[y, x])
            if not (value >= -1.0 and value <= 2.0):
                tally[1] += 1
                value = convergence
            parallax = np.floor((value - convergence) * scale + 0.5)
            index = middle + np.int64(np.floor(parallax * per_bin + 0.5))
            histogram[min(max(index, 0), bins - 1)] += 1
            fixed = np.int64(parallax)
            if fixed > edge and across[x] < 65536:
                violated = True
            out[y, x] = np.int32((fixed * np.int64(across[x])) >> 16)
        tally[0] += 1 if violated else 0
        tally[2] += 1


class Disparity:
    """Turns depth grids of one field into disparity, and keeps count; not thread-safe.

    `histogram`: [BINS] int64, cells by parallax before the fade at the borders.
    `tally`: [3] int64, rows with something well in front of the screen at a border, cells that were not finite
    (they count as lying at the screen), rows in all.
    """

    def __init__(self, field: warp.Field) -> None:
        self.field = field
        self.histogram = np.zeros(BINS, np.int64)
        self.tally = np.zeros(3, np.int64)
        self._across = _fade(field.width, field.grid.step, field.bars.left, field.bars.right, field.taper)
        self._down = _fade(field.height, field.grid.step, field.bars.top, field.bars.bottom, 0)

    def convert(self, depth: NDArray[np.float32]) -> NDArray[np.int32]:
        """[rows, columns] float32 depth on the grid to int32 disparity, 1/65536 source pixel, 0 inside the bars."""
        field = self.field
        out = np.empty(depth.shape, np.int32)
        percent = field.width / 100.0 * 65536.0
        _convert(
            depth, self._across, self._down, field.scale, field.convergence, 100.0 / percent,
            int(EDGE_PERCENT * percent), out, self.histogram, self.tally,
        )  # fmt: skip
        return out


def _fade(size: int, step: int, before: int, after: int, taper: int) -> NDArray[np.int32]:
    """Weight of each cell in 1/65536: 0 inside the bars, rising to 65536 within `taper` pixels from them."""
    centre = np.minimum((2 * np.arange(-(-size // step)) + 1) * step, 2 * size - 1) / 2.0
    distance = np.minimum(centre - before, size - after - centre)
    weight = np.where(distance <= 0, 0.0, np.clip(distance / taper, 0.0, 1.0) if taper else 1.0)
    return np.round(weight * 65536).astype(np.int32)
