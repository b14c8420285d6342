"""Depth that is given and depth that is written out: the round trip, and what does not fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from inference import convert, depth, geometry
from inference.depth import export, user
from stereospot import errors
from stereospot.media.model import Segment
from stereospot.options import Layout
from tests.unit import clips

SIZE = (160, 90)


class DepthClip:
    """Frames of a depth film by number, as the decoder of the jail hands them out."""

    def __init__(self, pictures: list[np.ndarray]) -> None:
        self._inner = clips.Clip([(picture,) for picture in pictures])

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[Any]:
        return self._inner.frames(start, end, before=before, after=after)


def given(first: int, last: int) -> Segment:
    return clips.segment(0, first, last).model_copy(update={"depth": (first * clips.TICKS, last * clips.TICKS)})


def run(frames: list[Any], plan: Any, first: int, last: int, pictures: list[np.ndarray] | None = None) -> Any:
    clip: Any = clips.Clip(frames)
    part = given(first, last)
    if pictures is not None:
        clip = user.Paired(clip, DepthClip(pictures), part)
    return convert.convert_segment(decoder=clip, plan=plan, segment=part, engine=depth.load(plan.stereo.engine))


def read(body: Path) -> list[np.ndarray]:
    with av.open(str(body), "r") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.DEPTH, Layout.ANAGLYPH])
def test_exported_depth_given_back_makes_the_same_film(layout: Layout, tmp_path: Path) -> None:
    frames = clips.pictures(20, *SIZE, cuts=(9,))
    made = clips.plan(*SIZE, engine="cues", layout=layout, export_depth=True, divergence=4.0)
    plain = clips.plan(*SIZE, engine="cues", layout=layout, divergence=4.0)
    cuts = (0, 7, 13, 20)
    parts = [run(frames, made, *pair) for pair in itertools.pairwise(cuts)]
    assert export.join([part.depth for part in parts], tmp_path / "depth.mkv", Fraction(24)) == 20
    pictures = read(tmp_path / "depth.mkv")
    grid = geometry.grid(*SIZE)
    assert len(pictures) == 20
    assert pictures[0].shape == (grid.rows, grid.columns)
    assert pictures[0].dtype == np.uint16
    step = user.step_of(SIZE, (grid.columns, grid.rows))
    again = clips.plan(*SIZE, engine="user", layout=layout, divergence=4.0, grid_step=step)
    for (first, last), part in zip(itertools.pairwise(cuts), parts, strict=True):
        back = run(frames, again, first, last, pictures)
        assert back.fragment.media == part.fragment.media == run(frames, plain, first, last).fragment.media


def test_depth_of_every_pixel_moves_what_it_says() -> None:
    frames = clips.pictures(2, *SIZE)
    flat = [np.full((90, 160), 32768, np.uint16)] * 2
    near = [np.full((90, 160), 65535, np.uint16)] * 2
    plan = clips.plan(*SIZE, engine="user", layout=Layout.FULL_SBS, grid_step=1)
    still, moved = run(frames, plan, 0, 2, flat), run(frames, plan, 0, 2, near)
    assert still.fragment.media != moved.fragment.media
    assert (still.report.disparity_p1, still.report.disparity_p99) == (0, 0)
    assert moved.report.disparity_p50 == pytest.approx(1.5, abs=0.02)
    assert moved.report.engine.name == "user"


@pytest.mark.parametrize(("count", "text"), [(3, "depth for 3 frames"), (0, "depth for 0 frames")])
def test_too_few_pictures_are_an_error(count: int, text: str) -> None:
    plan = clips.plan(*SIZE, engine="user", grid_step=1)
    with pytest.raises(errors.Permanent, match=text) as caught:
        run(clips.pictures(5, *SIZE), plan, 0, 5, [np.zeros((90, 160), np.uint16)] * count)
    assert caught.value.code == "DEPTH_MISMATCH"


def test_frames_without_depth_are_an_error_and_no_other_engine() -> None:
    plan = clips.plan(*SIZE, engine="user", grid_step=1)
    with pytest.raises(errors.Permanent) as caught:
        run(clips.pictures(2, *SIZE), plan, 0, 2)
    assert caught.value.code == "DEPTH_MISSING"


def test_sizes_that_fit() -> None:
    assert user.step_of((1920, 1080), (1920, 1080)) == 1
    assert user.step_of((1920, 1080), (480, 270)) == 4
    assert user.step_of((33, 17), (17, 9)) == 2
    assert user.step_of((1, 1), (1, 1)) == 1
    for wrong in ((1920, 1088), (640, 360), (270, 480)):
        with pytest.raises(errors.Permanent) as caught:
            user.step_of((1920, 1080), wrong)
        assert caught.value.code == "DEPTH_MISMATCH"


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (1, 480), (480, 1), (2, 64), (33, 17)])
def test_depth_of_any_size_is_written(size: tuple[int, int], tmp_path: Path) -> None:
    writer = export.Writer(*size, Fraction(24000, 1001))
    picture = np.random.default_rng(1).integers(0, 65536, size[::-1]).astype(np.uint16)
    writer.write(picture)
    assert export.join([writer.finish()], tmp_path / "depth.mkv", Fraction(24000, 1001)) == 1
    assert np.array_equal(read(tmp_path / "depth.mkv")[0], picture)


def test_constant_depth_is_like_no_depth_but_for_a_shift() -> None:
    """Constant depth at the screen is the source, whatever the layout's parallax."""
    frames = clips.pictures(1, 64, 36)
    plan = clips.plan(64, 36, engine="user", layout=Layout.FULL_SBS, grid_step=1, divergence=10.0)
    flat = clips.plan(64, 36, engine="flat", layout=Layout.FULL_SBS, divergence=10.0)
    assert (
        run(frames, plan, 0, 1, [np.full((36, 64), 32768, np.uint16)]).fragment.media
        == run(frames, flat, 0, 1).fragment.media
    )
