"""Cuts: found where a new picture begins and stays, not for motion, flashes or fades."""

from __future__ import annotations

import numpy as np
import pytest

from inference import prepare, shots
from stereospot.media.model import Bars, Colour
from tests.unit import clips


def thumbnails(frames: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    height, width = frames[0][0].shape
    made = prepare.Preparer(width, height, "yuv420p", Colour(), Bars(), 192, 112)
    return [made.prepare(planes).thumbnail for planes in frames]


def found(pictures: list[np.ndarray]) -> list[int]:
    return [t for t in range(len(pictures)) if shots.is_cut(pictures[max(0, t - 3) : t], pictures[t : t + 3])]


def plain(tone: int, count: int = 1) -> list[np.ndarray]:
    return [np.full(prepare.THUMBNAIL, tone, np.uint8)] * count


def exposed(picture: np.ndarray, gain: float) -> np.ndarray:
    return np.round(16 + (picture.astype(float) - 16) * gain).astype(np.uint8)


def test_cuts_are_where_scenes_begin() -> None:
    cuts = (13, 27, 44)
    assert found(thumbnails(clips.pictures(60, 160, 90, cuts=cuts, seed=5))) == list(cuts)


def test_motion_and_grain_are_no_cut() -> None:
    assert found(thumbnails(clips.pictures(60, 160, 90, seed=6))) == []


def test_a_flash_is_no_cut() -> None:
    frames = clips.pictures(20, 160, 90, seed=8)
    frames[9] = (np.full_like(frames[9][0], 235), *frames[9][1:])
    assert found(thumbnails(frames)) == []


BOTH_TONES = pytest.mark.parametrize("tone", [16, 235])


@BOTH_TONES
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", [5, 21, 77])
def test_a_flash_between_two_scenes_ends_in_a_cut(seed: int, count: int, tone: int) -> None:
    one, other = (thumbnails(clips.pictures(12, 160, 90, seed=seed + more)) for more in (0, 1))
    assert found(one + plain(tone, count) + other) == [12 + count]


def test_a_longer_flash_is_a_shot() -> None:
    one, other = (thumbnails(clips.pictures(12, 160, 90, seed=seed)) for seed in (5, 6))
    assert found(one + plain(235, 3) + other) == [12, 15]


@BOTH_TONES
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("gain", [0.8, 0.95, 1.05])
def test_a_scene_goes_on_behind_a_flash_at_another_exposure(gain: float, count: int, tone: int) -> None:
    scene = thumbnails(clips.pictures(30, 160, 90, seed=8))
    behind = [exposed(picture, gain) for picture in scene[12 + count :]]
    assert found(scene[:12] + plain(tone, count) + behind) == []


@BOTH_TONES
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("speed", [1, 2, 4])
def test_a_flash_during_a_pan_is_no_cut(speed: int, count: int, tone: int) -> None:
    """The picture moves on behind it, at `speed` columns of the thumbnail's 32 a frame."""
    wide = np.concatenate(thumbnails(clips.pictures(40, 160, 90, cuts=tuple(range(40)), seed=3)), axis=1)
    wide = (wide[:, :-2] // 3 + wide[:, 1:-1] // 3 + wide[:, 2:] // 3).astype(np.uint8)
    pan = [np.ascontiguousarray(wide[:, speed * t : speed * t + 32]) for t in range(30)]
    assert found(pan) == []
    pan[15 : 15 + count] = plain(tone, count)
    assert found(pan) == []


@BOTH_TONES
def test_a_strobe_is_no_cut(tone: int) -> None:
    scene = thumbnails(clips.pictures(40, 160, 90, seed=8))
    assert found([picture for own in scene[:8] for picture in (own, *plain(tone))]) == []
    pairs = [picture for i in range(0, 30, 4) for picture in (scene[i], scene[i + 1], *plain(tone, 2))]
    assert found(pairs) == []


@pytest.mark.parametrize("held", [1, 2])
def test_motion_that_stops_is_no_cut(held: int) -> None:
    """A fast move, drawn on each frame or on every second, has large changes and ends for good; but nothing flashed."""
    wide = np.concatenate(thumbnails(clips.pictures(40, 160, 90, cuts=tuple(range(40)), seed=3)), axis=1)
    places = [20 * (min(t, 11) // held) for t in range(20)]
    assert found([np.ascontiguousarray(wide[:, place : place + 32]) for place in places]) == []


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_fade_through_black_is_no_cut(length: int) -> None:
    one, other = (thumbnails(clips.pictures(16, 160, 90, seed=seed)) for seed in (5, 6))
    gains = [i / (length + 1) for i in range(length, 0, -1)]
    out = [exposed(picture, gain) for picture, gain in zip(one[8:], gains, strict=False)]
    into = [exposed(picture, gain) for picture, gain in zip(other, reversed(gains), strict=False)]
    assert found(one[:8] + out + plain(16) + into + other[length:]) == []


def test_a_cut_into_a_black_frame_is_one_cut() -> None:
    """Where the step into the dark stands out by itself the shot begins there, and not once more behind it."""
    one, other = (thumbnails(clips.pictures(12, 160, 90, seed=seed)) for seed in (5, 6))
    dark = [exposed(picture, 0.2) for picture in other]
    bright = [255 - exposed(picture, 0.25) for picture in one]
    assert found(bright + plain(16) + dark) == [12]


def test_shots_of_two_frames_find_no_more_than_before() -> None:
    scenes = [thumbnails(clips.pictures(2, 160, 90, seed=seed)) for seed in range(16, 24)]
    assert found([picture for scene in scenes for picture in scene]) == []


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
