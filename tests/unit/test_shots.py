"""Cuts: found where a new picture begins and stays, not for motion, flashes or fades."""

from __future__ import annotations

import numpy as np

from inference import prepare, shots
from stereospot.media.model import Bars, Colour
from tests.unit import clips


def thumbnails(frames: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    height, width = frames[0][0].shape
    made = prepare.Preparer(width, height, "yuv420p", Colour(), Bars(), 192, 112)
    return [made.prepare(planes).thumbnail for planes in frames]


def found(pictures: list[np.ndarray]) -> list[int]:
    return [t for t in range(len(pictures)) if shots.is_cut(pictures[max(0, t - 3) : t], pictures[t : t + 3])]


def test_cuts_are_where_scenes_begin() -> None:
    cuts = (13, 27, 44)
    assert found(thumbnails(clips.pictures(60, 160, 90, cuts=cuts, seed=5))) == list(cuts)


def test_motion_and_grain_are_no_cut() -> None:
    assert found(thumbnails(clips.pictures(60, 160, 90, seed=6))) == []


def test_a_flash_is_no_cut() -> None:
    frames = clips.pictures(20, 160, 90, seed=8)
    frames[9] = (np.full_like(frames[9][0], 235), *frames[9][1:])
    assert found(thumbnails(frames)) == []


def test_a_fade_is_no_cut() -> None:
    frames = clips.pictures(40, 160, 90, seed=9)
    faded = [
        ((16 + (planes[0].astype(float) - 16) * max(0.0, 1 - index / 30)).astype(np.uint8), *planes[1:])
        for index, planes in enumerate(frames)
    ]
    assert found(thumbnails(faded)) == []


def test_the_window_is_bounded() -> None:
    """More than REACH thumbnails on a side change nothing."""
    pictures = thumbnails(clips.pictures(30, 160, 90, cuts=(15,), seed=5))
    for t in range(30):
        near = shots.is_cut(pictures[max(0, t - 3) : t], pictures[t : t + 3])
        assert shots.is_cut(pictures[:t], pictures[t:]) == near
