"""Depth for the frames between two that were estimated: carried along by block motion, from both sides.

    keys: every k-th frame of the film's own time grid, and the first frame of each shot
    between two keys of a shot ──block motion to either──> both depths fetched ──blend by time and by match──> depth

A network on every frame costs most of a conversion's time; motion between neighbours is cheap and finds what moved. A
frame's answer depends on itself and on the keys beside it, at most `every` frames away on each side: finite support, so
segments may be converted apart. Works on any engine's raw depth, at the engine's size.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from inference.jit import F32, I32, I64, U8, VOID, array, compiled, view

BLOCK = 8
LEVELS = 4
"""Pyramid levels; with the steps of `_search` motion of up to 30 pixels of the engine's picture is found."""

PENALTY = np.int32(10)
"""Sum of absolute differences, for 64 pixels, that one pixel of disagreement with the neighbours' motion costs."""

TOLERANCE = 6.0
"""Mean difference of luma codes at which a match counts half."""


@dataclass(frozen=True, slots=True)
class KeyGrid:
    """Which frames are keys: the first of each cell of `every` frames' duration, on the film's time axis."""

    every: int
    rate: Fraction
    time_base: Fraction

    def cell(self, pts: int) -> int:
        """Half a frame early, so that times rounded by a container do not stray over a border."""
        return (pts * self.time_base * self.rate + Fraction(1, 2)) // self.every

    def is_key(self, pts: int, previous: int | None, *, starts_shot: bool = False) -> bool:
        """previous: time of the frame before, None only where the film begins."""
        if self.every == 1 or starts_shot or previous is None or self.cell(pts) != self.cell(previous):
            return True
        # Frames that come much faster than the film's rate are all keys: more of them than `reach` would fill a cell.
        return (pts - previous) * self.time_base * self.rate * (self.every + 1) <= self.every

    @property
    def reach(self) -> int:
        """Frames of padding on each side in which the keys of every frame are found."""
        return 0 if self.every == 1 else self.every + 1


@compiled(VOID(view(U8, 2), array(U8, 2)))
def _halve(picture, out):  # type: ignore[no-untyped-def]
    rows, columns = out.shape
    for y in range(rows):
        top, bottom = picture[2 * y], picture[min(2 * y + 1, picture.shape[0] - 1)]
        for x in range(columns):
            x1 = min(2 * x + 1, picture.shape[1] - 1)
            total = np.int32(top[2 * x]) + np.int32(top[x1]) + np.int32(bottom[2 * x]) + np.int32(bottom[x1])
            out[y, x] = np.uint8((total + 2) >> 2)


@compiled(VOID(view(U8, 2), view(U8, 2), view(I32, 3), I64, I64, array(I32, 3), array(I32, 2)))
def _search(current, key, guess, coarse, reach, found, cost):  # type: ignore[no-untyped-def]
    """Motion of each block of `current` into `key`: found[b, a] = (dy, dx), cost[b, a] = its sum of differences.

    guess: [rows, columns, 2] motion of the coarser level, `coarse` 1, or any array with `coarse` 0.
    """
    height, width = current.shape
    rows, columns = cost.shape
    tried = np.empty((6, 2), np.int32)
    for b in range(rows):
        y0 = b * 8
        y1 = min(y0 + 8, height)
        for a in range(columns):
            x0 = a * 8
            x1 = min(x0 + 8, width)
            count = 1
            tried[0, 0], tried[0, 1] = 0, 0
            if coarse == 1:
                gb, ga = min(b >> 1, guess.shape[0] - 1), min(a >> 1, guess.shape[1] - 1)
                side_b = min(max(gb + (1 if b & 1 else -1), 0), guess.shape[0] - 1)
                side_a = min(max(ga + (1 if a & 1 else -1), 0), guess.shape[1] - 1)
                for i in range(3):
                    cb, ca = (gb, ga) if i == 0 else ((side_b, ga) if i == 1 else (gb, side_a))
                    tried[count, 0], tried[count, 1] = 2 * guess[cb, ca, 0], 2 * guess[cb, ca, 1]
                    count += 1
            if a > 0:
                tried[count, 0], tried[count, 1] = found[b, a - 1, 0], found[b, a - 1, 1]
                count += 1
            if b > 0:
                tried[count, 0], tried[count, 1] = found[b - 1, a, 0], found[b - 1, a, 1]
                count += 1
            like_y, like_x = tried[count - 1, 0], tried[count - 1, 1]
            best, best_y, best_x, best_sad = np.int32(1 << 30), np.int32(0), np.int32(0), np.int32(0)
            centre_y, centre_x = best_y, best_x
            for i in range(count + (2 * reach + 1) ** 2):
                if i < count:
                    dy, dx = tried[i, 0], tried[i, 1]
                else:
                    if i == count:
                        centre_y, centre_x = best_y, best_x
                    j = i - count
                    dy = np.int32(centre_y + j // (2 * reach + 1) - reach)
                    dx = np.int32(centre_x + j % (2 * reach + 1) - reach)
                # Blocks that would look outside are held to the picture.
                dy = min(max(dy, np.int32(-y0)), np.int32(height - y1))
                dx = min(max(dx, np.int32(-x0)), np.int32(width - x1))
                sad = np.int32(0)
                for y in range(y0, y1):
                    line, other = current[y], key[y + dy]
                    for x in range(x0, x1):
                        sad += abs(np.int32(line[x]) - np.int32(other[x + dx]))
                    if sad >= best:
                        break
                total = np.int32(sad + PENALTY * (abs(dy - like_y) + abs(dx - like_x)))
                if total < best:
                    best, best_y, best_x, best_sad = total, dy, dx, sad
            found[b, a, 0], found[b, a, 1] = best_y, best_x
            cost[b, a] = best_sad * np.int32(64) // np.int32((y1 - y0) * (x1 - x0))


@compiled(VOID(view(F32, 2), view(I32, 3), view(I32, 2), F32, F32, array(F32, 2), array(F32, 2)))
def _fetch(depth, motion, cost, share, tolerance, total, weight):  # type: ignore[no-untyped-def]
    """Add one key's depth, moved, to the weighted sums; motion and match are linear between the blocks' centres."""
    height, width = depth.shape
    rows, columns = cost.shape
    one = np.float32(1)
    for y in range(height):
        by = min(max((np.float32(y) - np.float32(3.5)) / np.float32(8), np.float32(0)), np.float32(rows - 1))
        b = min(np.int64(by), max(rows - 2, 0))
        b1 = min(b + 1, rows - 1)
        v = by - np.float32(b)
        for x in range(width):
            bx = min(max((np.float32(x) - np.float32(3.5)) / np.float32(8), np.float32(0)), np.float32(columns - 1))
            a = min(np.int64(bx), max(columns - 2, 0))
            a1 = min(a + 1, columns - 1)
            u = bx - np.float32(a)
            w00, w01, w10, w11 = (one - v) * (one - u), (one - v) * u, v * (one - u), v * u
            dy = w00 * motion[b, a, 0] + w01 * motion[b, a1, 0] + w10 * motion[b1, a, 0] + w11 * motion[b1, a1, 0]
            dx = w00 * motion[b, a, 1] + w01 * motion[b, a1, 1] + w10 * motion[b1, a, 1] + w11 * motion[b1, a1, 1]
            miss = w00 * cost[b, a] + w01 * cost[b, a1] + w10 * cost[b1, a] + w11 * cost[b1, a1]
            miss = miss / (np.float32(64) * tolerance)
            py = min(max(np.float32(y) + np.float32(dy), np.float32(0)), np.float32(height - 1))
            px = min(max(np.float32(x) + np.float32(dx), np.float32(0)), np.float32(width - 1))
            j, i = min(np.int64(py), max(height - 2, 0)), min(np.int64(px), max(width - 2, 0))
            j1, i1 = min(j + 1, height - 1), min(i + 1, width - 1)
            q, p = py - np.float32(j), px - np.float32(i)
            top = depth[j, i] + (depth[j, i1] - depth[j, i]) * p
            bottom = depth[j1, i] + (depth[j1, i1] - depth[j1, i]) * p
            say = share / (one + np.float32(miss) * np.float32(miss))
            total[y, x] += say * (top + (bottom - top) * q)
            weight[y, x] += say


def pyramid(luma: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """The picture and its halves, the finest first; made once a frame."""
    found = [np.ascontiguousarray(luma)]
    while len(found) < LEVELS and min(found[-1].shape) >= 2 * BLOCK:
        height, width = found[-1].shape
        smaller = np.empty(((height + 1) // 2, (width + 1) // 2), np.uint8)
        _halve(found[-1], smaller)
        found.append(smaller)
    return tuple(found)


def estimate(
    current: Sequence[NDArray[np.uint8]], key: Sequence[NDArray[np.uint8]]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Motion of `current` into `key`, two pyramids: ([rows, columns, 2] int32 (dy, dx), [rows, columns] int32 cost).

    One cell for each block of 8 x 8; the cost is the sum of absolute differences of a whole block.
    """
    motion = np.zeros((1, 1, 2), np.int32)
    cost = np.zeros((1, 1), np.int32)
    for level in range(len(current) - 1, -1, -1):
        height, width = current[level].shape
        shape = (-(-height // BLOCK), -(-width // BLOCK))
        found, cost = np.empty((*shape, 2), np.int32), np.empty(shape, np.int32)
        coarsest = level == len(current) - 1
        _search(current[level], key[level], motion, int(not coarsest), 3 if coarsest else 1, found, cost)
        motion = found
    return motion, cost


def carry(
    current: Sequence[NDArray[np.uint8]],
    keys: Sequence[tuple[Sequence[NDArray[np.uint8]], NDArray[np.float32], float]],
) -> NDArray[np.float32]:
    """Depth of a frame from one or two keys of its shot, each (pyramid, depth [h, w] float32, share in time)."""
    height, width = current[0].shape
    total, weight = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for picture, depth, share in keys:
        motion, cost = estimate(current, picture)
        _fetch(depth, motion, cost, np.float32(max(share, 1e-3)), np.float32(TOLERANCE), total, weight)
    return total / weight


def fill(
    lumas: Sequence[NDArray[np.uint8]],
    depths: Sequence[NDArray[np.float32] | None],
    starts: Sequence[bool],
) -> list[NDArray[np.float32] | None]:
    """Depth of every frame of a run, where `depths` has it for the keys only.

    lumas: [h, w] uint8 each; starts: whether a shot begins with that frame. None stays None where no key of the shot
    lies in the run.
    """
    pyramids = [pyramid(luma) for luma in lumas]
    before: list[int | None] = []
    for index, depth in enumerate(depths):
        inherited = None if index == 0 or starts[index] else before[index - 1]
        before.append(index if depth is not None else inherited)
    after: list[int | None] = [None] * len(depths)
    for index in range(len(depths) - 1, -1, -1):
        ends = index + 1 == len(depths) or starts[index + 1]
        after[index] = index if depths[index] is not None else None if ends else after[index + 1]
    out: list[NDArray[np.float32] | None] = []
    for index, depth in enumerate(depths):
        if depth is not None:
            out.append(depth)
            continue
        sides = [side for side in (before[index], after[index]) if side is not None]
        whole = sum(abs(index - side) for side in sides)
        keys = []
        for side in sides:
            found = depths[side]
            assert found is not None
            share = 1.0 if len(sides) == 1 else 1.0 - abs(index - side) / whole
            keys.append((pyramids[side], found, share))
        out.append(carry(pyramids[index], keys) if keys else None)
    return out
