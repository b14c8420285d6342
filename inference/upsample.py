"""From the engine's small depth map to the disparity grid, with the picture's own edges.

A guided filter is fitted at the engine's size and applied to the luma of the grid, so depth edges follow the outlines
that the engine was too coarse to see.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference import filters, geometry
from inference.jit import F32, F64, U8, VOID, array, compiled, view
from stereospot.media.model import Bars

EPSILON = 2e-3
"""Variance of luma (0…1) under which there is no edge: a step of about 9 % of the range."""

ENGINE_PIXELS = 192
"""The filter's radius is the engine's width over this: wide enough for edges that are a pixel or two off, narrow enough
not to copy the picture's texture into the depth (`bench.quality` and the sheets in docs/ compare radii)."""


@compiled(VOID(view(F32, 2), view(F32, 2), view(U8, 2), F64, F64, F64, F64, array(F32, 2)))
def _apply(slope, offset, guide, x_scale, x_low, y_scale, y_low, out):
    """Grid cell (y, x) lies at engine position (y * y_scale + y_low, x * x_scale + x_low)."""
    rows, columns = out.shape
    height, width = slope.shape
    line_a = np.empty(width, np.float32)
    line_b = np.empty(width, np.float32)
    first = np.empty(columns, np.int64)
    fraction = np.empty(columns, np.float32)
    for x in range(columns):
        g = min(max(x * x_scale + x_low, 0.0), width - 1.0)
        first[x] = min(np.int64(g), max(width - 2, 0))
        fraction[x] = np.float32(g - first[x])
    step = 1 if width > 1 else 0
    for y in range(rows):
        g = min(max(y * y_scale + y_low, 0.0), height - 1.0)
        top = np.int64(g)
        bottom = min(top + 1, height - 1)
        weight = np.float32(g - top)
        for x in range(width):
            line_a[x] = slope[top, x] + (slope[bottom, x] - slope[top, x]) * weight
            line_b[x] = offset[top, x] + (offset[bottom, x] - offset[top, x]) * weight
        for x in range(columns):
            i = first[x]
            a = line_a[i] + (line_a[i + step] - line_a[i]) * fraction[x]
            b = line_b[i] + (line_b[i + step] - line_b[i]) * fraction[x]
            value = a * (np.float32(guide[y, x]) * np.float32(1.0 / 255.0)) + b
            out[y, x] = min(max(value, np.float32(0)), np.float32(1))


class Upsampler:
    """Brings depth of one engine size to the grid of one source. Not thread-safe."""

    def __init__(self, width: int, height: int, bars: Bars, engine_width: int, engine_height: int) -> None:
        self.grid = geometry.grid(width, height)
        step = self.grid.step
        inner_width, inner_height = width - bars.left - bars.right, height - bars.top - bars.bottom
        x_scale, y_scale = step * engine_width / inner_width, step * engine_height / inner_height
        self._place = (
            x_scale,
            (step / 2 - bars.left) * engine_width / inner_width - 0.5,
            y_scale,
            (step / 2 - bars.top) * engine_height / inner_height - 0.5,
        )
        self._radius = max(1, round(engine_width / ENGINE_PIXELS))

    def upsample(
        self, depth: NDArray[np.float32], luma: NDArray[np.uint8], grid: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """[rows, columns] float32 0…1 on the grid; depth and luma at the engine's size, grid: luma on the grid."""
        slope, offset = filters.guided(luma, depth, self._radius, EPSILON)
        out = np.empty((self.grid.rows, self.grid.columns), np.float32)
        _apply(slope, offset, grid, *self._place, out)
        return out
