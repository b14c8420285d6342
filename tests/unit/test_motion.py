"""Carried depth: it follows what moves, keeps to its shot, and is the same however the film is cut."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.depth import motion

SHAPE = (84, 126)


def texture(shape: tuple[int, int], seed: int) -> NDArray[np.floating]:
    random = np.random.default_rng(seed)
    coarse = random.uniform(30, 220, (shape[0] // 6 + 2, shape[1] // 6 + 2))
    return np.kron(coarse, np.ones((6, 6)))[: shape[0], : shape[1]]


def scene(index: int, *, speed: int = 3, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A near square of 30 x 30 that moves over a still, far background: luma and depth."""
    luma = texture(SHAPE, seed)
    depth = np.full(SHAPE, 1.0, np.float32)
    x, y = 10 + speed * index, 20 + index
    luma[y : y + 30, x : x + 30] = texture((30, 30), seed + 100)
    depth[y : y + 30, x : x + 30] = 5.0
    return luma.astype(np.uint8), depth


def test_depth_follows_a_moving_thing() -> None:
    frames = [scene(i) for i in range(5)]
    keyed = [frames[0][1], None, None, None, frames[4][1]]
    found = motion.fill([luma for luma, _ in frames], keyed, [True, False, False, False, False])
    for index in (1, 2, 3):
        depth, truth = found[index], frames[index][1]
        assert depth is not None
        carried = float(np.abs(depth - truth).mean())
        held = float(np.abs(frames[0][1] - truth).mean())
        assert carried < 0.12
        if index > 1:  # after one frame even depth that was held is not far off
            assert carried < 0.6 * held


def test_motion_is_found_over_a_wide_range() -> None:
    wide = texture((168, 336), 4)
    for dy, dx in ((0, 0), (4, -9), (-7, 21), (2, 28)):
        current = np.roll(wide, (dy, dx), (0, 1)).astype(np.uint8)
        found, _ = motion.estimate(motion.pyramid(current), motion.pyramid(wide.astype(np.uint8)))
        inner = found[4:-4, 6:-6].reshape(-1, 2)
        assert np.median(inner, axis=0).tolist() == [-dy, -dx]


def test_a_shot_keeps_to_itself() -> None:
    one, other = [scene(i) for i in range(4)], [scene(i, seed=50) for i in range(4)]
    lumas = [luma for luma, _ in one + other]
    starts = [i in (0, 4) for i in range(8)]
    depths: list[NDArray[np.float32] | None] = [None] * 8
    depths[0], depths[4] = one[0][1], np.full(SHAPE, 9.0, np.float32)
    found = motion.fill(lumas, depths, starts)
    assert all(depth is not None and depth.max() <= 5.001 for depth in found[:4])
    assert all(depth is not None and depth.min() >= 8.999 for depth in found[4:])
    depths[4] = None
    assert motion.fill(lumas, depths, starts)[4:] == [None] * 4


@pytest.mark.parametrize("cut", [7, 8, 9, 10, 11])
def test_apart_equals_serial(cut: int) -> None:
    """A worker that begins at frame `cut`, with the padding that the grid asks for, has the serial run's depth."""
    grid = motion.KeyGrid(4, Fraction(25), Fraction(1, 25))
    frames = [scene(i, speed=2) for i in range(20)]

    def run(first: int, last: int) -> list[NDArray[np.float32] | None]:
        low, high = max(first - grid.reach, 0), min(last + grid.reach, len(frames))
        keys = [grid.is_key(i, i - 1 if i else None) for i in range(low, high)]
        keyed = [frames[i][1] if key else None for i, key in zip(range(low, high), keys, strict=True)]
        found = motion.fill([frames[i][0] for i in range(low, high)], keyed, [i == 0 for i in range(low, high)])
        return found[first - low : last - low]

    serial = run(0, 20)
    apart = run(0, cut) + run(cut, 20)
    for one, other in zip(serial, apart, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one, other)


def test_the_grid_is_the_films() -> None:
    grid = motion.KeyGrid(4, Fraction(24000, 1001), Fraction(1, 1000))
    times = [round(i * 1001 / 24) for i in range(200)]
    keys = [i for i in range(1, 200) if grid.is_key(times[i], times[i - 1])]
    assert keys == list(range(4, 200, 4))
    assert grid.is_key(5, None)
    assert grid.is_key(times[5], times[4], starts_shot=True)
    assert motion.KeyGrid(1, Fraction(25), Fraction(1, 25)).reach == 0


@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_in_a_burst_every_frame_has_its_keys_within_reach(every: int) -> None:
    """A telephone's slow motion: 240 frames a second for a while, in a film of 34 on average."""
    times = [*range(0, 1000, 5), *range(1000, 4000, 40), *range(4000, 5000, 5), *range(5000, 7000, 31)]
    grid = motion.KeyGrid(every, Fraction(34), Fraction(1, 1000))
    keys = [i for i in range(len(times)) if grid.is_key(times[i], times[i - 1] if i else None)]
    assert len(keys) == len(times) or every > 1
    for number in range(len(times) - every):
        assert any(0 <= number - key <= grid.reach for key in keys), number
        assert any(0 <= key - number <= grid.reach for key in keys), number
