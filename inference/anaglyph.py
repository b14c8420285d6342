"""Anaglyphs: two full eyes mixed into one picture for coloured glasses, and the painting of a depth map. Integers only.

Dubois' matrices (E. Dubois, "A projection method to generate anaglyph stereo images", ICASSP 2001, and his later
green-magenta and amber-blue sets) project in linear light, so the eyes are linearised (sRGB), mixed, clipped and
brought back. The half-colour and grey mixes are defined on the coded values, and so is everything for PQ and HLG.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import colours, geometry
from inference.jit import F32, I32, I64, VOID, array, per_sample, view
from stereospot.media.model import Colour
from stereospot.options import Layout

_GREY = (0.299, 0.587, 0.114)
_NONE = (0.0, 0.0, 0.0)

MATRICES: dict[Layout, tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]] = {
    Layout.ANAGLYPH: (
        ((0.4561, 0.500484, 0.176381), (-0.0400822, -0.0378246, -0.0157589), (-0.0152161, -0.0205971, -0.00546856)),
        ((-0.0434706, -0.0879388, -0.00155529), (0.378476, 0.73364, -0.0184503), (-0.0721527, -0.112961, 1.2264)),
    ),
    Layout.ANAGLYPH_GREEN_MAGENTA: (
        ((-0.062, -0.158, -0.039), (0.284, 0.668, 0.143), (-0.015, -0.027, 0.021)),
        ((0.529, 0.705, 0.024), (-0.016, -0.015, -0.065), (0.009, 0.075, 0.937)),
    ),
    Layout.ANAGLYPH_AMBER_BLUE: (
        ((1.062, -0.205, 0.299), (-0.026, 0.908, 0.068), (-0.038, -0.173, 0.022)),
        ((-0.016, -0.123, -0.017), (0.006, 0.062, -0.017), (0.094, 0.185, 0.911)),
    ),
    Layout.ANAGLYPH_HALF_COLOUR: ((_GREY, _NONE, _NONE), (_NONE, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))),
    Layout.ANAGLYPH_GREY: ((_GREY, _NONE, _NONE), (_NONE, _GREY, _GREY)),
}
"""Per layout the matrices of the left and the right eye; rows are the R, G and B that come out."""

_LINEAR = frozenset({Layout.ANAGLYPH, Layout.ANAGLYPH_GREEN_MAGENTA, Layout.ANAGLYPH_AMBER_BLUE})


@per_sample(
    lambda p: VOID(
        *[view(p, 2)] * 6, view(I64, 1), view(I64, 1), view(I64, 2), view(I32, 1), view(I32, 1), I64, I64,
        *[array(p, 2)] * 3,
    )
)  # fmt: skip
def _mix(
    ly, lu, lv, ry, ru, rv, decode, encode, matrix, linear, coded, shift_x, shift_y, out_y, out_u, out_v
):  # fmt: skip
    """decode, encode: of `_codes`; matrix: [3, 6] in 1/16384; linear: [1024] to 0…65535; coded: [16384] and back."""
    height, width = out_y.shape
    rgb = np.empty(6, np.int64)
    block = np.empty(3, np.int64)
    black, neutral, top = decode[6], decode[7], decode[8]
    for cy in range(height >> shift_y):
        for cx in range(width >> shift_x):
            block[:] = 0
            for dy in range(1 << shift_y):
                for dx in range(1 << shift_x):
                    y, x = (cy << shift_y) + dy, (cx << shift_x) + dx
                    for eye in range(2):
                        if eye == 0:
                            luma, u, v = np.int64(ly[y, x]), np.int64(lu[cy, cx]), np.int64(lv[cy, cx])
                        else:
                            luma, u, v = np.int64(ry[y, x]), np.int64(ru[cy, cx]), np.int64(rv[cy, cx])
                        luma = (luma - black) * decode[0]
                        u -= neutral
                        v -= neutral
                        red = (luma + decode[1] * v + 32768) >> 16
                        green = (luma + decode[2] * u + decode[3] * v + 32768) >> 16
                        blue = (luma + decode[4] * u + 32768) >> 16
                        rgb[3 * eye] = linear[min(max(red, 0), 1023)]
                        rgb[3 * eye + 1] = linear[min(max(green, 0), 1023)]
                        rgb[3 * eye + 2] = linear[min(max(blue, 0), 1023)]
                    total = np.int64(0)
                    for c in range(3):
                        mixed = np.int64(8192)
                        for i in range(6):
                            mixed += matrix[c, i] * rgb[i]
                        value = np.int64(coded[min(max(mixed >> 14, 0), 65535) >> 2])
                        block[c] += value
                        total += encode[c] * value
                    out_y[y, x] = min(max(black + ((total + 32768) >> 16), 0), top)
            area = np.int64(shift_x + shift_y)
            u_sum, v_sum = np.int64(0), np.int64(0)
            for c in range(3):
                u_sum += encode[3 + c] * block[c]
                v_sum += encode[6 + c] * block[c]
            half = np.int64(32768) << area
            out_u[cy, cx] = min(max(neutral + ((u_sum + half) >> (16 + area)), 0), top)
            out_v[cy, cx] = min(max(neutral + ((v_sum + half) >> (16 + area)), 0), top)


@per_sample(lambda p: VOID(array(p, 2), view(F32, 2), I64, I64, I64, I64))
def paint_depth(out, depth, step, low, span, x0):
    """Depth 0…1 on the grid, enlarged linearly, as grey levels `low … low + span` from column x0 of `out` on."""
    rows, columns = depth.shape
    height, width = out.shape
    for y in range(height):
        g = min(max((y + 0.5) / step - 0.5, 0.0), rows - 1.0)
        y_low = np.int64(g)
        y_high = min(y_low + 1, rows - 1)
        down = g - y_low
        for x in range(width - x0):
            g = min(max((x + 0.5) / step - 0.5, 0.0), columns - 1.0)
            left = np.int64(g)
            right = min(left + 1, columns - 1)
            across = g - left
            top = depth[y_low, left] * (1.0 - across) + depth[y_low, right] * across
            bottom = depth[y_high, left] * (1.0 - across) + depth[y_high, right] * across
            value = top * (1.0 - down) + bottom * down
            if not (value >= 0.0):
                value = 0.0
            out[y, x0 + x] = low + np.int64(np.floor(min(value, 1.0) * span + 0.5))


class Mixer:
    """Mixes the two full eyes that the warp wrote into `eyes` into one picture of the same size."""

    def __init__(self, layout: Layout, pixel_format: str, colour: Colour, width: int, height: int) -> None:
        dtype = np.uint16 if pixel_format.endswith("10le") else np.uint8
        sizes = geometry.plane_sizes(width, height, pixel_format)
        self.eyes = tuple(tuple(np.empty(size, dtype) for size in sizes) for _ in range(2))
        self._shifts = geometry.subsampling(pixel_format)
        left, right = MATRICES[layout]
        self._matrix = np.round(np.concatenate([left, right], axis=1) * 16384).astype(np.int64)
        self._decode, self._encode = _codes(colour, height, 10 if dtype is np.uint16 else 8)
        self._linear, self._coded = _curves(layout in _LINEAR and not colour.is_hdr)

    def mix(self, out: tuple[NDArray[Any], ...]) -> None:
        """Write the anaglyph of `eyes` into the planes `out`."""
        _mix(
            *self.eyes[0], *self.eyes[1], self._decode, self._encode, self._matrix, self._linear, self._coded,
            *self._shifts, *out,
        )  # fmt: skip


def _codes(colour: Colour, height: int, bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """YUV codes to RGB of 0…1023 and back, in 1/65536; decode ends with black, neutral and the largest code."""
    kr, kb = colours.weights(colour, height)
    kg = 1.0 - kr - kb
    scale = 1 << (bits - 8)
    top = (1 << bits) - 1
    black, luma, chroma = (0, top, top) if colour.full_range else (16 * scale, 219 * scale, 224 * scale)
    v_red, u_blue = 2 * (1 - kr) / chroma, 2 * (1 - kb) / chroma
    decode = [1 / luma, v_red, -u_blue * kb / kg, -v_red * kr / kg, u_blue, 0.0]
    encode = [
        *(k * luma for k in (kr, kg, kb)),
        *(k / (2 * (1 - kb)) * chroma for k in (-kr, -kg, 1 - kb)),
        *(k / (2 * (1 - kr)) * chroma for k in (1 - kr, -kg, -kb)),
    ]
    return (
        np.array([*(round(c * 1023 * 65536) for c in decode), black, 128 * scale, top], np.int64),
        np.array([round(c / 1023 * 65536) for c in encode], np.int64),
    )


def _curves(linear: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Code 0…1023 to 0…65535, and back from 0…16383; straight unless `linear` light is asked for."""
    code = np.arange(1024) / 1023
    light = (np.arange(16384) + 0.5) / 16384
    light[0] = 0.0
    if linear:
        code = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
        light = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(code * 65535).astype(np.int32), np.round(light * 1023).astype(np.int32)
