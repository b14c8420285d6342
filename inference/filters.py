"""Box means and the guided filter's coefficients, on small pictures; plain loops in a fixed order, one thread."""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.jit import F32, F64, I64, U8, VOID, array, compiled, inner, view


@inner
def _box(picture, radius, line, out):
    """Mean over (2 radius + 1) squared, cut at the borders; float64 sums, so that the running update does not drift."""
    rows, columns = picture.shape
    for x in range(columns):
        line[x] = 0.0
    for y in range(min(radius, rows)):
        for x in range(columns):
            line[x] += np.float64(picture[y, x])
    for y in range(rows):
        if y + radius < rows:
            for x in range(columns):
                line[x] += np.float64(picture[y + radius, x])
        if y - radius - 1 >= 0:
            for x in range(columns):
                line[x] -= np.float64(picture[y - radius - 1, x])
        height = min(y + radius, rows - 1) - max(y - radius, 0) + 1
        total = 0.0
        for x in range(min(radius, columns)):
            total += line[x]
        for x in range(columns):
            if x + radius < columns:
                total += line[x + radius]
            if x - radius - 1 >= 0:
                total -= line[x - radius - 1]
            width = min(x + radius, columns - 1) - max(x - radius, 0) + 1
            out[y, x] = np.float32(total / (height * width))


@compiled(VOID(view(F32, 2), I64, array(F32, 2)))
def _box_mean(picture, radius, out):
    _box(picture, radius, np.empty(picture.shape[1], np.float64), out)


def box_mean(picture: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """[rows, columns] float32: the mean of each pixel's square neighbourhood."""
    out = np.empty_like(picture)
    _box_mean(picture, radius, out)
    return out


@compiled(VOID(view(U8, 2), view(F32, 2), I64, F64, array(F32, 2), array(F32, 2)))
def _guided(guide, depth, radius, epsilon, slope, offset):
    rows, columns = depth.shape
    line = np.empty(columns, np.float64)
    light = np.empty((rows, columns), np.float32)
    work = np.empty((rows, columns), np.float32)
    mean_light = np.empty((rows, columns), np.float32)
    mean_depth = np.empty((rows, columns), np.float32)
    mean_square = np.empty((rows, columns), np.float32)
    mean_product = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            light[y, x] = np.float32(guide[y, x]) * np.float32(1.0 / 255.0)
    _box(light, radius, line, mean_light)
    _box(depth, radius, line, mean_depth)
    for y in range(rows):
        for x in range(columns):
            work[y, x] = light[y, x] * light[y, x]
    _box(work, radius, line, mean_square)
    for y in range(rows):
        for x in range(columns):
            work[y, x] = light[y, x] * depth[y, x]
    _box(work, radius, line, mean_product)
    for y in range(rows):
        for x in range(columns):
            variance = np.float64(mean_square[y, x]) - np.float64(mean_light[y, x]) * np.float64(mean_light[y, x])
            shared = np.float64(mean_product[y, x]) - np.float64(mean_light[y, x]) * np.float64(mean_depth[y, x])
            a = shared / (max(variance, 0.0) + epsilon)
            mean_square[y, x] = np.float32(a)
            mean_product[y, x] = np.float32(np.float64(mean_depth[y, x]) - a * np.float64(mean_light[y, x]))
    _box(mean_square, radius, line, slope)
    _box(mean_product, radius, line, offset)


def guided(
    guide: NDArray[np.uint8], depth: NDArray[np.float32], radius: int, epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coefficients a and b with which `a * guide / 255 + b` is `depth` with the guide's edges.

    He, Sun, Tang: "Guided image filtering", 2013; as "Fast guided filter", 2015, they may be enlarged and applied to a
    larger guide. epsilon: variance of the guide, in squares of 0…1, below which it has no say.
    """
    slope, offset = np.empty_like(depth), np.empty_like(depth)
    _guided(guide, depth, radius, epsilon, slope, offset)
    return slope, offset
