"""Small pictures: what depth, shots and upsampling see of a frame. One pass over the planes, bars cropped.

planes ─ block means ─> luma on the disparity grid ─┐
                   └──> luma and chroma ─ resampled ┴─> RGB at the engine's size, luma at that size, a thumbnail
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import colours, geometry
from inference.jit import F32, F64, I32, I64, U8, VOID, array, compiled, per_sample, view
from stereospot.media.model import Bars, Colour

THUMBNAIL = (18, 32)
"""Rows and columns of the picture by which shots are told apart."""

_PQ_GAIN = 1.5
"""PQ codes put white at 58 % of the range; engines learned from pictures that use all of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Small:
    """One frame, small. All of it depends on this frame alone.

    grid: [rows, columns] uint8 luma codes on the disparity grid; rgb: [h, w, 3] uint8 at the engine's size, cropped;
    luma: [h, w] uint8, the luma codes at that place; thumbnail: THUMBNAIL uint8, of the whole cropped picture.
    """

    grid: NDArray[np.uint8]
    rgb: NDArray[np.uint8]
    luma: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]


@per_sample(lambda p: VOID(view(p, 2), I64, I64, I64, I64, I64, array(U8, 2)))
def block_means(plane, width, height, across, down, shift, out):
    """Means of blocks of `across` x `down` samples, rounded, shifted down by `shift` bits; cut blocks at the ends."""
    rows, columns = out.shape
    sums = np.empty(columns * across, np.uint32)
    for y in range(rows):
        first = y * down
        count = min(down, height - first)
        line = plane[first]
        for x in range(width):
            sums[x] = np.uint32(line[x])
        for dy in range(1, count):
            line = plane[first + dy]
            for x in range(width):
                sums[x] = np.uint32(sums[x] + np.uint32(line[x]))
        whole = width // across
        area = np.uint32(count * across << shift)
        # Whole blocks are powers of two, so their division is a shift; only the last rows may be cut.
        if count == down:
            half = np.uint32(area >> 1)
            bits = np.uint32(0)
            while np.uint32(1) << bits < area:
                bits += np.uint32(1)
            target = out[y]
            if across == 4:
                for x in range(whole):
                    left = np.uint32(sums[4 * x] + sums[4 * x + 1])
                    right = np.uint32(sums[4 * x + 2] + sums[4 * x + 3])
                    target[x] = min(np.uint32(np.uint32(left + right) + half) >> bits, np.uint32(255))
            elif across == 2:
                for x in range(whole):
                    pair = np.uint32(sums[2 * x] + sums[2 * x + 1])
                    target[x] = min(np.uint32(pair + half) >> bits, np.uint32(255))
            else:
                for x in range(whole):
                    total = half
                    for dx in range(across):
                        total = np.uint32(total + sums[x * across + dx])
                    target[x] = min(total >> bits, np.uint32(255))
        else:
            for x in range(whole):
                total = np.uint32(area >> 1)
                for dx in range(across):
                    total = np.uint32(total + sums[x * across + dx])
                out[y, x] = min(total // area, np.uint32(255))
        if whole < columns:
            rest = width - whole * across
            total = np.uint32(0)
            for dx in range(rest):
                total = np.uint32(total + sums[whole * across + dx])
            area = np.uint32(count * rest << shift)
            out[y, whole] = min(np.uint32(total + (area >> 1)) // area, np.uint32(255))


_ROWS = 4


@compiled(VOID(view(U8, 2), view(I32, 1), view(F32, 2), view(I32, 1), view(F32, 2), array(F32, 2)))
def resample(picture, y_first, y_weights, x_first, x_weights, out):
    """out[j, i] = sum over a, b of y_weights[j, a] x_weights[i, b] picture[y_first[j] + a, x_first[i] + b].

    Four rows at once: one sum of a few products waits for itself.
    """
    rows, columns = out.shape
    source = picture.shape[1]
    lines = np.empty((_ROWS, source), np.float32)
    y_taps = y_weights.shape[1]
    x_taps = x_weights.shape[1]
    for top in range(0, rows, _ROWS):
        count = min(_ROWS, rows - top)
        for j in range(count):
            line = lines[j]
            for x in range(source):
                line[x] = np.float32(0)
            for a in range(y_taps):
                weight = y_weights[top + j, a]
                if weight != 0:
                    row = picture[y_first[top + j] + a]
                    for x in range(source):
                        line[x] += weight * np.float32(row[x])
        line0, line1, line2, line3 = lines[0], lines[1], lines[2], lines[3]
        for i in range(columns):
            total0 = total1 = total2 = total3 = np.float32(0)
            first = np.uint64(x_first[i])
            for b in range(x_taps):
                weight, at = x_weights[i, b], first + np.uint64(b)
                total0 += weight * line0[at]
                total1 += weight * line1[at]
                total2 += weight * line2[at]
                total3 += weight * line3[at]
            out[top, i] = total0
            if count > 1:
                out[top + 1, i] = total1
            if count > 2:
                out[top + 2, i] = total2
            if count > 3:
                out[top + 3, i] = total3


@compiled(VOID(view(F32, 2), view(F32, 2), view(F32, 2), view(F64, 1), array(U8, 3), array(U8, 2)))
def _to_rgb(luma, blue, red, matrix, rgb, codes):
    """matrix: black, luma gain, Cr to R, Cb to G, Cr to G, Cb to B. A row's colours apart first, as vectors."""
    rows, columns = luma.shape
    black, gain, red_red = matrix[0], matrix[1], matrix[2]
    green_blue, green_red, blue_blue = matrix[3], matrix[4], matrix[5]
    r, g, b = np.empty(columns, np.uint8), np.empty(columns, np.uint8), np.empty(columns, np.uint8)
    for y in range(rows):
        luma_line, blue_line, red_line, code_line = luma[y], blue[y], red[y], codes[y]
        for x in range(columns):
            code = np.float64(luma_line[x])
            value = (code - black) * gain
            u = np.float64(blue_line[x]) - 128.0
            v = np.float64(red_line[x]) - 128.0
            r[x] = np.int32(min(max(value + red_red * v, 0.0), 255.0) + 0.5)
            g[x] = np.int32(min(max(value + green_blue * u + green_red * v, 0.0), 255.0) + 0.5)
            b[x] = np.int32(min(max(value + blue_blue * u, 0.0), 255.0) + 0.5)
            code_line[x] = np.int32(min(max(code, 0.0), 255.0) + 0.5)
        line = rgb[y]
        for x in range(columns):
            line[x, 0], line[x, 1], line[x, 2] = r[x], g[x], b[x]


@dataclass(frozen=True, slots=True, eq=False)
class _Scale:
    first: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, cells: int, low: float, high: float, size: int) -> _Scale:
        """From `cells` samples, of which `low … high` are the picture, to `size`: areas down, linear up."""
        ratio = (high - low) / size
        reach = max(ratio, 1.0)
        taps = min(int(np.ceil(reach)) + 2, cells)
        first = np.empty(size, np.int32)
        weights = np.zeros((size, taps))
        for index in range(size):
            centre = low + (index + 0.5) * ratio
            start = min(max(int(np.floor(centre - reach / 2 - 0.5)), 0), cells - taps)
            first[index] = start
            cell = np.arange(start, start + taps)
            if ratio >= 1.0:
                edge = (max(centre - ratio / 2, 0.0), min(centre + ratio / 2, float(cells)))
                weights[index] = np.clip(np.minimum(cell + 1, edge[1]) - np.maximum(cell, edge[0]), 0, None)
            else:
                centre = min(max(centre, 0.5), cells - 0.5)
                weights[index] = np.clip(1 - np.abs(cell + 0.5 - centre), 0, None)
        weights /= weights.sum(1, keepdims=True)
        return cls(first, weights.astype(np.float32))


class Preparer:
    """Makes the small pictures of one plan; not thread-safe.

    width, height, pixel_format: of the displayed source; engine_width, engine_height: of the engine's input.
    """

    def __init__(
        self,
        width: int,
        height: int,
        pixel_format: str,
        colour: Colour,
        bars: Bars,
        engine_width: int,
        engine_height: int,
    ) -> None:
        self.grid = geometry.grid(width, height)
        self._shift = 2 if pixel_format.endswith("10le") else 0
        self._sizes = geometry.plane_sizes(width, height, pixel_format)
        self._engine = (engine_height, engine_width)
        step = self.grid.step
        x, y = geometry.subsampling(pixel_format)
        self._blocks = ((step, step), (max(1, step >> x), max(1, step >> y)))
        self._scales: list[tuple[_Scale, _Scale]] = []
        inner_x, inner_y = (bars.left, width - bars.right), (bars.top, height - bars.bottom)
        for plane, (across, down) in enumerate(self._blocks):
            cells_x, cells_y = self._cells(plane)
            pixel_x, pixel_y = across << (x * plane), down << (y * plane)
            self._scales.append(
                (
                    _Scale.of(cells_y, inner_y[0] / pixel_y, min(inner_y[1] / pixel_y, cells_y), engine_height),
                    _Scale.of(cells_x, inner_x[0] / pixel_x, min(inner_x[1] / pixel_x, cells_x), engine_width),
                )
            )
        self._thumbnail = (
            _Scale.of(engine_height, 0, engine_height, THUMBNAIL[0]),
            _Scale.of(engine_width, 0, engine_width, THUMBNAIL[1]),
        )
        self._matrix = _matrix(colour, height)

    def prepare(self, planes: tuple[NDArray[Any], ...]) -> Small:
        """The small pictures of one frame; planes as the jail hands them over."""
        means: list[NDArray[np.uint8]] = []
        for index, (plane, size) in enumerate(zip(planes, self._sizes, strict=True)):
            columns, rows = self._cells(min(index, 1))
            out = np.empty((rows, columns), np.uint8)
            across, down = self._blocks[min(index, 1)]
            tight = plane if plane.flags.c_contiguous else np.ascontiguousarray(plane)
            block_means(tight, size[1], size[0], across, down, self._shift, out)
            means.append(out)
        scaled: list[NDArray[np.float32]] = []
        for index, picture in enumerate(means):
            vertical, horizontal = self._scales[min(index, 1)]
            out = np.empty(self._engine, np.float32)
            resample(picture, vertical.first, vertical.weights, horizontal.first, horizontal.weights, out)
            scaled.append(out)
        rgb, luma = np.empty((*self._engine, 3), np.uint8), np.empty(self._engine, np.uint8)
        _to_rgb(*scaled, self._matrix, rgb, luma)
        thumbnail = np.empty(THUMBNAIL, np.float32)
        vertical, horizontal = self._thumbnail
        resample(luma, vertical.first, vertical.weights, horizontal.first, horizontal.weights, thumbnail)
        return Small(means[0], rgb, luma, np.round(thumbnail).astype(np.uint8))

    def _cells(self, plane: int) -> tuple[int, int]:
        height, width = self._sizes[plane]
        across, down = self._blocks[plane]
        return -(-width // across), -(-height // down)


def _matrix(colour: Colour, height: int) -> NDArray[np.float64]:
    kr, kb = colours.weights(colour, height)
    kg = 1.0 - kr - kb
    black, luma, chroma = (0.0, 1.0, 1.0) if colour.full_range else (16.0, 255 / 219, 255 / 224)
    gain = _PQ_GAIN if colour.transfer == 16 else 1.0
    red, blue = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    return np.array([black, luma * gain, *(c * gain for c in (red, -blue * kb / kg, -red * kr / kg, blue))])
