"""The warp once more, slowly, in float64 and without a trick: what the kernels are tested against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def source_positions(row: Floats, step: int, width: int, share: float, outputs: Floats) -> Floats:
    """Where one grid row of disparity (pixels) sends the output positions of an eye; nothing folds.

    `share` is the eye's signed part of the parallax: +0.5 and -0.5 for symmetric eyes.
    """
    last = float(width - 1)
    centres = np.clip(np.arange(len(row)) * step + (step - 1) / 2, 0, last)
    place = np.concatenate([[0.0], centres, [last]])
    moved = np.concatenate([[0.0], centres + share * row, [last]])
    if share < 0:
        return last - source_positions_from_left(last - place[::-1], last - moved[::-1], last - outputs)
    return source_positions_from_left(place, moved, outputs)


def source_positions_from_left(place: Floats, moved: Floats, outputs: Floats) -> Floats:
    """The first place, from the left, whose moved position reaches each output position."""
    found = np.empty_like(outputs)
    for index, target in enumerate(outputs):
        if target <= 0 or target >= place[-1]:
            found[index] = min(max(target, 0.0), place[-1])
            continue
        k = int(np.argmax(moved[1:] >= target))
        found[index] = place[k] + (target - moved[k]) * (place[k + 1] - place[k]) / (moved[k + 1] - moved[k])
    return found


def displacement(disparity: Floats, step: int, width: int, knot: int, share: float, knots: int) -> Floats:
    """[rows, knots]: what is to be added to the output position of each knot; disparity [rows, columns] in pixels."""
    last = float(width - 1)
    nominal = np.asarray(knot * np.arange(knots), np.float64)
    out = np.empty((len(disparity), knots))
    for y, row in enumerate(disparity):
        found = source_positions(row, step, width, share, nominal)
        out[y] = np.where(nominal > last, nominal, found) - nominal
    return out


def eye(
    plane: NDArray[np.unsignedinteger],
    moves: Floats,
    step: int,
    knot: int,
    eye_width: int,
    eye_height: int,
    *,
    shift_x: int = 0,
    shift_y: int = 0,
    half_width: bool = False,
    half_height: bool = False,
) -> Floats:
    """One eye of one plane before rounding: [eye_height, eye_width]; `moves` as `displacement` gives them."""
    source = plane.astype(np.float64)
    height, width = source.shape
    rows, knots = moves.shape
    out = np.empty((eye_height, eye_width))
    for y in range(eye_height):
        if half_height:
            line = (source[min(2 * y, height - 1)] + source[min(2 * y + 1, height - 1)]) / 2
        else:
            line = source[min(y, height - 1)]
        line = np.append(line, line[-1])
        if half_width:
            line = np.append((line[:-1] + line[1:]) / 2, line[-1])
        centre = ((2 * y + 1) * 2 ** (shift_y + half_height) - 1) / 2
        g = np.clip((centre + 0.5) / step - 0.5, 0, rows - 1)
        low = int(g)
        high = min(low + 1, rows - 1)
        move = moves[low] + (moves[high] - moves[low]) * (g - low)
        x = np.arange(eye_width) * 2.0**half_width
        moved = x + np.interp(x * 2**shift_x, float(knot) * np.arange(knots), move) / 2**shift_x
        position = np.clip(moved, 0, width - 1)
        first = position.astype(np.int64)
        fraction = position - first
        out[y] = line[first] * (1 - fraction) + line[np.minimum(first + 1, width)] * fraction
    return out
