"""HDR down to 8-bit BT.709 where a user asks for it: PQ or HLG in BT.2020 to what an ordinary screen shows.

The curve is that of ITU-R BT.2390 (a Hermite knee in PQ space) from the film's peak to 203 cd/m2, the reference white
of BT.2408, applied to the largest of R, G and B so that colours keep their hue; BT.2020 to BT.709 in linear light;
BT.1886 back. All of it is worked out once, in float64, for the corners of a 33 x 33 x 33 lattice of YUV codes; frames
are interpolated in that lattice with integers.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from inference import colours, geometry
from inference.contract import Planes
from inference.jit import I32, I64, U8, U16, VOID, array, compiled, view
from stereospot.media.model import Colour

WHITE = 203.0
"""cd/m2 of the brightest thing on the SDR screen."""

_NODES = 33
_FINE = 6
"""Bits below a code in the lattice's values."""

_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""BT.2020 to BT.709 primaries in linear light (ITU-R BT.2087)."""


@compiled(VOID(*[view(U16, 2)] * 3, I64, I64, view(I32, 2), *[array(U8, 2)] * 3))
def _apply(luma, blue, red, shift_x, shift_y, lattice, out_y, out_u, out_v):
    """Trilinear in the lattice [33^3, 3]; chroma gets the mean over the luma pixels that share it."""
    height, width = out_y.shape
    rows, columns = out_u.shape
    for cy in range(rows):
        for cx in range(columns):
            u, v = min(np.int64(blue[cy, cx]), 1023), min(np.int64(red[cy, cx]), 1023)
            u0, v0 = u >> 5, v >> 5
            fu, fv = u & 31, v & 31
            sum_u, sum_v, count = np.int64(0), np.int64(0), np.int64(0)
            for y in range(cy << shift_y, min((cy + 1) << shift_y, height)):
                for x in range(cx << shift_x, min((cx + 1) << shift_x, width)):
                    code = min(np.int64(luma[y, x]), 1023)
                    y0, fy = code >> 5, code & 31
                    total_y, total_u, total_v = np.int64(0), np.int64(0), np.int64(0)
                    for corner in range(8):
                        dy, du, dv = corner >> 2, (corner >> 1) & 1, corner & 1
                        weight = (fy if dy else 32 - fy) * (fu if du else 32 - fu) * (fv if dv else 32 - fv)
                        node = ((y0 + dy) * 33 + u0 + du) * 33 + v0 + dv
                        total_y += weight * lattice[node, 0]
                        total_u += weight * lattice[node, 1]
                        total_v += weight * lattice[node, 2]
                    out_y[y, x] = (total_y + (1 << 20)) >> 21
                    sum_u += total_u
                    sum_v += total_v
                    count += 1
            out_u[cy, cx] = (sum_u // count + (1 << 20)) >> 21
            out_v[cy, cx] = (sum_v // count + (1 << 20)) >> 21


class ToneMapper:
    """From the 10-bit planes of an HDR source to 8-bit planes of the same size; not thread-safe."""

    def __init__(self, width: int, height: int, pixel_format: str, colour: Colour) -> None:
        self._lattice = lattice(colour, height)
        self._shifts = geometry.subsampling(pixel_format)
        self._out = tuple(np.empty(size, np.uint8) for size in geometry.plane_sizes(width, height, pixel_format))

    def map(self, planes: Planes) -> tuple[NDArray[np.uint8], ...]:
        """Planes that are valid until the next call."""
        tight = (plane if plane.flags.c_contiguous else np.ascontiguousarray(plane) for plane in planes)
        _apply(*tight, *self._shifts, self._lattice, *self._out)
        return self._out


def lattice(colour: Colour, height: int) -> NDArray[np.int32]:
    """[33^3, 3] int32: Y, U and V of 8 bits, in 1/64 code, at every 32nd code of 10-bit Y, U and V."""
    code = np.arange(_NODES) * 32.0
    y, u, v = (axis.ravel() for axis in np.meshgrid(code, code, code, indexing="ij"))
    kr, kb = colours.weights(colour if colour.matrix != 2 else colour.model_copy(update={"matrix": 9}), height)
    if colour.full_range:
        luma, blue, red = y / 1023, (u - 512) / 1023, (v - 512) / 1023
    else:
        luma, blue, red = (y - 64) / 876, (u - 512) / 896, (v - 512) / 896
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    light = _display_light(np.clip(np.stack([r, g, b]), 0, 1), colour)
    brightest = np.maximum(light.max(0), 1e-6)
    light = light * (_knee(brightest, _peak(colour)) / brightest) / WHITE
    coded = np.clip(_TO_709 @ light, 0, 1) ** (1 / 2.4)
    kr, kb = 0.2126, 0.0722
    luma = kr * coded[0] + (1 - kr - kb) * coded[1] + kb * coded[2]
    blue, red = (coded[2] - luma) / (2 * (1 - kb)), (coded[0] - luma) / (2 * (1 - kr))
    planes = np.stack([16 + 219 * luma, 128 + 224 * blue, 128 + 224 * red], 1)
    return np.ascontiguousarray(np.round(planes * (1 << _FINE)), np.int32)


def _display_light(coded: NDArray[np.float64], colour: Colour) -> NDArray[np.float64]:
    """cd/m2 of coded R, G, B [3, n]: PQ, or HLG on a screen of 1000 cd/m2 (ITU-R BT.2100)."""
    if colour.transfer == 18:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
        return 1000.0 * scene * np.maximum((np.array([0.2627, 0.678, 0.0593]) @ scene), 1e-9) ** 0.2
    power = coded ** (1 / 78.84375)
    return 10000.0 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)


def _pq(light: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (np.maximum(light, 0) / 10000.0) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def _knee(light: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """BT.2390: unchanged below the knee, bent so that `peak` becomes WHITE."""
    scale = float(_pq(np.array([peak]))[0])
    most = float(_pq(np.array([WHITE]))[0]) / scale
    value = np.minimum(_pq(light) / scale, 1.0)
    start = 1.5 * most - 0.5
    t = np.clip((value - start) / (1 - start), 0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * (1 - start) + (3 * t**2 - 2 * t**3) * most
    return _display_light(np.clip(np.where(value < start, value, bent) * scale, 0, 1), Colour(transfer=16))


def _peak(colour: Colour) -> float:
    """cd/m2 of the brightest thing in the film: MaxCLL, the mastering display's maximum, or 1000."""
    found = 0.0
    if colour.content_light is not None and colour.content_light[0]:  # 0: not known (CTA-861.3)
        found = float(colour.content_light[0])
    elif colour.mastering is not None and (match := re.search(r"L\((\d+),", colour.mastering)):
        found = int(match[1]) / 10000.0
    return min(max(found or 1000.0, 1.5 * WHITE), 10000.0)
