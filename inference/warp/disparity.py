"""From relative depth on the grid to disparity in fixed point, with what the comfort report wants to know of it.

Depth counts in 16 bits, so that depth written out and read again (`inference.depth.user`) gives the same film.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference import warp
from inference.jit import F32, F64, I32, I64, U16, VOID, array, compiled, view

CODES = 65535
"""The code of depth 1."""

BINS = 2005
"""Bins of the histogram of parallax: all that a divergence of 10 % can give, around a bin for 0."""

BIN_PERCENT = 0.01
LOWEST_PERCENT = -10.025
"""The lower end of the first bin, percent of the picture's width."""

EDGE_PERCENT = 0.25
"""Parallax in front of the screen beside the left or right border that counts as a window violation, % of the width."""


SAMPLED = 4
"""Every so many rows of the grid go into the histogram."""


@compiled(VOID(view(F32, 2), I64, array(U16, 2), array(I64, 1)))
def _codes(depth, convergence, out, tally):
    """16-bit codes of depth 0 … 1; what is no number counts as lying at the screen."""
    rows, columns = depth.shape
    for y in range(rows):
        bad = np.int64(0)
        for x in range(columns):
            value = np.float64(depth[y, x])
            good = value >= -1.0 and value <= 2.0
            bad += 0 if good else 1
            code = np.floor(min(max(value, 0.0), 1.0) * 65535.0 + 0.5)
            out[y, x] = np.uint16(code if good else convergence)
        tally[1] += bad


@compiled(VOID(view(U16, 2), *[view(I32, 1)] * 2, F64, I64, F64, I64, array(I32, 2), array(I64, 1), array(I64, 1)))
def _convert(depth, across, down, scale, convergence, per_bin, edge, out, histogram, tally):
    """scale: parallax of one code in 1/65536 pixel; convergence: the code that lies at the screen."""
    rows, columns = depth.shape
    bins = histogram.shape[0]
    middle = np.float64(bins // 2)
    largest = np.float64(bins - 1)
    total = np.int64(0)
    whole = np.empty(columns, np.float64)
    grown = np.empty(columns, np.int64)
    for y in range(rows):
        target = out[y]
        if down[y] == 0:
            for x in range(columns):
                target[x] = 0
            continue
        line = depth[y]
        for x in range(columns):
            grown[x] = np.int64(line[x])
        for x in range(columns - 1):
            grown[x] = max(grown[x], np.int64(line[x + 1]))
        for x in range(1, columns):
            grown[x] = max(grown[x], np.int64(line[x - 1]))
        for x in range(columns):
            whole[x] = np.floor(np.float64(grown[x] - convergence) * scale + 0.5)
        violated = np.int64(0)
        for x in range(columns):
            fixed = np.int64(whole[x])
            violated += 1 if (fixed > edge and 0 < across[x] < 65536) else 0
            moved = (fixed * np.int64(across[x])) >> 16
            total += moved
            target[x] = np.int32(moved)
        if y % SAMPLED == 0:
            for x in range(columns):
                if across[x] > 0:
                    histogram[np.int64(min(max(middle + np.floor(whole[x] * per_bin + 0.5), 0.0), largest))] += 1
        tally[0] += 1 if violated > 0 else 0
        tally[2] += 1
    tally[3] = total


class Disparity:
    """Turns depth grids of one field into disparity, and keeps count; not thread-safe.

    `histogram`: [BINS] int64, cells of every SAMPLED-th row by parallax before the fade at the borders.
    `tally`: [4] int64, rows with something well in front of the screen at a border, cells that were not finite
    (they count as lying at the screen), rows in all, and the sum of the disparity of the last picture.
    """

    def __init__(self, field: warp.Field) -> None:
        self.field = field
        self.histogram = np.zeros(BINS, np.int64)
        self.tally = np.zeros(4, np.int64)
        self._screen = int(np.floor(field.convergence * CODES + 0.5))
        self._across = _fade(field.width, field.grid.step, field.bars.left, field.bars.right, field.taper)
        self._down = _fade(field.height, field.grid.step, field.bars.top, field.bars.bottom, 0)

    @property
    def mean_percent(self) -> float:
        """Mean parallax of the last picture, percent of the width."""
        cells = self.field.grid.rows * self.field.grid.columns
        return float(self.tally[3]) / cells / 655.36 / self.field.width

    def codes(self, depth: NDArray[np.float32] | NDArray[np.uint16]) -> NDArray[np.uint16]:
        """[rows, columns] depth on the grid as 16-bit codes, which it may be already; counts what is no number."""
        if depth.dtype == np.uint16:
            return depth.astype(np.uint16, copy=False)
        out = np.empty(depth.shape, np.uint16)
        _codes(depth, self._screen, out, self.tally)
        return out

    def convert(self, depth: NDArray[np.float32] | NDArray[np.uint16]) -> NDArray[np.int32]:
        """[rows, columns] depth on the grid, float32 0…1 or its codes, to int32 disparity.

        1/65536 source pixel, 0 inside the bars.
        """
        field = self.field
        codes = self.codes(depth)
        out = np.empty(depth.shape, np.int32)
        percent = field.width / 100.0 * 65536.0
        _convert(
            codes, self._across, self._down, field.scale / CODES, self._screen, 100.0 / percent,
            int(EDGE_PERCENT * percent), out, self.histogram, self.tally,
        )  # fmt: skip
        return out


def _fade(size: int, step: int, before: int, after: int, taper: int) -> NDArray[np.int32]:
    """Weight of each cell in 1/65536: 0 inside the bars, rising to 65536 within `taper` pixels from them."""
    centre = np.minimum((2 * np.arange(-(-size // step)) + 1) * step, 2 * size - 1) / 2.0
    distance = np.minimum(centre - before, size - after - centre)
    weight = np.where(distance <= 0, 0.0, np.clip(distance / taper, 0.0, 1.0) if taper else 1.0)
    return np.round(weight * 65536).astype(np.int32)
