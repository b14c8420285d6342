"""Smoothing over time: still pixels keep still, moving ones keep their own depth."""

from __future__ import annotations

import itertools

import numpy as np

from inference import temporal


def test_noise_of_the_engine_is_averaged_where_the_picture_stands_still() -> None:
    rng = np.random.default_rng(0)
    luma = temporal.soften(rng.integers(0, 255, (40, 60), dtype=np.uint8))
    raw = [(0.5 + 0.05 * rng.standard_normal((40, 60))).astype(np.float32) for _ in range(40)]
    smooth = [temporal.smooth(raw[i - 8 : i + 9], [luma] * 17, 8) for i in range(8, 32)]
    before = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(raw)])
    after = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(smooth)])
    assert after < before / 10


def test_what_moves_keeps_its_own_depth() -> None:
    lumas, depths = [], []
    for index in range(13):
        luma = np.full((40, 80), 60, np.uint8)
        depth = np.full((40, 80), 0.2, np.float32)
        luma[10:30, 4 * index : 4 * index + 16] = 200
        depth[10:30, 4 * index : 4 * index + 16] = 0.9
        lumas.append(temporal.soften(luma))
        depths.append(depth)
    found = temporal.smooth(depths, lumas, 6)
    assert np.abs(found - depths[6]).max() < 0.02


def test_a_lone_frame_is_itself() -> None:
    depth = np.random.default_rng(1).random((9, 7), np.float32)
    luma = temporal.soften(np.zeros((9, 7), np.uint8))
    assert np.array_equal(temporal.smooth([depth], [luma], 0), depth)


def test_softening_is_the_mean_of_nine() -> None:
    luma = np.random.default_rng(2).integers(0, 255, (6, 5), dtype=np.uint8)
    wide = np.pad(luma.astype(float), 1, mode="edge")
    expected = sum(wide[y : y + 6, x : x + 5] for y in range(3) for x in range(3)) / 9
    assert np.allclose(temporal.soften(luma), expected, atol=1e-3)


def test_frames_without_depth_take_it_from_their_neighbours() -> None:
    """A still background from all of them; what moves, and matches nothing, half way between the nearest two."""
    lumas: list[np.ndarray] = []
    depths: list[np.ndarray | None] = []
    for index in range(5):
        luma = np.full((40, 80), 60, np.uint8)
        luma[10:30, 16 * index : 16 * index + 16] = 200
        lumas.append(temporal.soften(luma))
        depth = np.full((40, 80), 0.2, np.float32)
        depth[10:30, 16 * index : 16 * index + 16] = 0.8
        depths.append(None if index == 2 else depth)
    found = temporal.smooth(depths, lumas, 2)
    assert np.abs(found[:8] - 0.2).max() < 0.01
    assert np.abs(found[14:26, 36:44] - 0.2).max() < 0.01
