"""Bytes in and bytes out of the relief network's graph: a frame as it takes it, relief of what it gives.

Place in the flow: `relief.py` paints each frame and finishes each answer; `inference/training` exports a graph that
fits. The graph could do all of this itself, and did: it takes longer to make floats of bytes, to join planes and to
move pixels.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.jit import F32, U8, VOID, array, compiled, view

MIDDLE = np.float32(0.5)
"""Relief of what is flat or unknown: the screen plane."""


def blank(height: int, width: int) -> NDArray[np.uint8]:
    """What the graph takes, of a black frame: [1, h / 2 + 1, w / 2 + 1, 20] uint8; `paint` puts another one on it.

    The sides are even. Planes are red, green, blue and x and y, 0 to 255 across the frame; around it there is a border
    of one pixel, black and in the middle of x and y. The planes of 2 x 2 pixels lie side by side: the same first
    convolution, from longer runs of memory.
    """
    out = np.zeros((height // 2 + 1, 2, width // 2 + 1, 2, 5), np.uint8)
    whole = out.reshape(height + 2, width + 2, 5)
    whole[..., 3:] = 128
    whole[1:-1, 1:-1, 3] = np.round(np.linspace(0, 255, width))
    whole[1:-1, 1:-1, 4] = np.round(np.linspace(0, 255, height))[:, None]
    return np.ascontiguousarray(out.transpose(0, 2, 1, 3, 4)).reshape(1, height // 2 + 1, width // 2 + 1, 20)


@compiled(VOID(view(U8, 3), array(U8, 3)))
def _paint(rgb, canvas):
    rows, columns, _ = canvas.shape
    for b in range(rows):
        for side in range(2):
            y = 2 * b + side - 1
            if y < 0 or y >= rgb.shape[0]:  # the border
                continue
            line, target = rgb[y], canvas[b]
            for a in range(columns):
                at = 10 * side
                if a > 0:
                    for c in range(3):
                        target[a, at + c] = line[2 * a - 1, c]
                if a + 1 < columns:
                    for c in range(3):
                        target[a, at + 5 + c] = line[2 * a, c]


def paint(rgb: NDArray[np.uint8], canvas: NDArray[np.uint8]) -> None:
    """Put a frame [h, w, 3] on its canvas; ValueError where it has another size."""
    _, rows, columns, _ = canvas.shape
    if rgb.shape != (2 * rows - 2, 2 * columns - 2, 3):
        raise ValueError(f"a frame of {rgb.shape} on a canvas of {canvas.shape}")
    _paint(np.ascontiguousarray(rgb), canvas[0])


@compiled(VOID(view(U8, 3), view(F32, 2), F32, array(F32, 2)))
def _fade(lanes, trust, kept, relief):
    rows, columns = trust.shape
    quarter_height, quarter_width, _ = lanes.shape
    height, width = 4 * quarter_height, 4 * quarter_width
    code, half, one, zero = np.float32(1 / 255), np.float32(0.5), np.float32(1), np.float32(0)
    whole = kept >= one
    for b in range(rows):
        for a in range(columns):
            whole = whole and trust[b, a] >= one
    for y in range(height):
        line = lanes[y >> 2]
        at = 4 * (y & 3)
        for x in range(quarter_width):
            for c in range(4):
                relief[y, 4 * x + c] = np.float32(line[x, at + c]) * code
    if whole:
        return
    left, right, part = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.float32)
    down, across = np.float32(rows / height), np.float32(columns / width)
    for x in range(width):
        at = max((np.float32(x) + half) * across - half, zero)
        left[x] = np.int64(at)
        right[x] = min(left[x] + 1, columns - 1)
        part[x] = at - np.float32(left[x])
    line = np.empty(columns, np.float32)
    for y in range(height):
        at = max((np.float32(y) + half) * down - half, zero)
        b = np.int64(at)
        low = min(b + 1, rows - 1)
        for a in range(columns):
            line[a] = kept * (trust[b, a] + (trust[low, a] - trust[b, a]) * (at - np.float32(b)))
        for x in range(width):
            share = line[left[x]] + (line[right[x]] - line[left[x]]) * part[x]
            relief[y, x] = MIDDLE + share * (relief[y, x] - MIDDLE)


def finish(lanes: NDArray[np.uint8], trust: NDArray[np.float32], kept: float = 1.0) -> NDArray[np.float32]:
    """Relief [h, w] float32 of what the graph gives: the bytes of each 4 x 4 pixels in a row, faded to flat by trust.

    lanes: [h / 4, w / 4, 16] uint8; trust: [rows, columns] float32, linear between its blocks' centres; kept:
    share of it all. No trust is the middle of the range.
    """
    out = np.empty((4 * lanes.shape[0], 4 * lanes.shape[1]), np.float32)
    _fade(lanes, trust, np.float32(kept), out)
    return out
