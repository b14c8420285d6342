"""A segment converted alone gives the pictures of a serial run; and what happens when something goes wrong."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from inference import backends, convert, depth
from inference.depth.relief import ReliefEngine
from inference.recent import Recent
from stereospot import errors, settings
from stereospot.options import Layout
from tests.unit import clips
from tests.unit.clips import decoded


def run(clip: clips.Clip, made: clips.Plan, first: int, last: int, recent: Recent | None = None) -> convert.Converted:
    engine = depth.load(made.stereo.engine)
    return convert.convert_segment(
        decoder=clip, plan=made, segment=clips.segment(0, first, last), engine=engine, recent=recent
    )


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("layout", "pixel_format"),
    [
        (Layout.HALF_SBS, "yuv420p"),
        (Layout.FULL_SBS, "yuv420p10le"),
        (Layout.HALF_TB, "yuv422p"),
        (Layout.ANAGLYPH, "yuv444p"),
        (Layout.DEPTH, "yuv420p"),
    ],
)
def test_segments_equal_the_serial_run(layout: Layout, pixel_format: str) -> None:
    count, width, height = 60, 160, 90
    frames = clips.pictures(count, width, height, pixel_format, cuts=(11, 24, 40, 41))
    made = clips.plan(width, height, pixel_format, layout=layout)
    whole = run(clips.Clip(frames), made, 0, count)
    serial = decoded(whole.fragment)
    assert len(serial) == count
    assert whole.report.cuts >= 2
    places = sorted(int(p) for p in np.random.default_rng(3).choice(np.arange(1, count), 5, replace=False))
    recent = Recent()
    for part, kept in ((None, "fresh"), (recent, "with the depth of the segment before")):
        pieces: list[np.ndarray] = []
        for first, last in itertools.pairwise([0, *places, count]):
            found = run(clips.Clip(frames), made, first, last, part)
            assert found.fragment.pts == [index * clips.TICKS for index in range(first, last)]
            pieces += decoded(found.fragment)
        assert equal(pieces, serial), kept


def test_segments_equal_the_serial_run_where_only_some_frames_are_estimated() -> None:
    """Engine `relief` looks at every second frame of 24; shots of one and two frames have none of their own."""
    count, width, height = 64, 160, 90
    frames = clips.pictures(count, width, height, cuts=(11, 12, 13, 30, 32, 50))
    made = clips.plan(width, height, engine="relief")
    serial = decoded(run(clips.Clip(frames), made, 0, count).fragment)
    for seed in range(3):
        places = sorted(int(p) for p in np.random.default_rng(seed).choice(np.arange(1, count), 6, replace=False))
        recent = Recent() if seed == 1 else None
        pieces: list[np.ndarray] = []
        for first, last in itertools.pairwise([0, *places, count]):
            pieces += decoded(run(clips.Clip(frames), made, first, last, recent).fragment)
        assert equal(pieces, serial)


class Uneven(clips.Clip):
    """Frames with times of their own: the tenth comes early, in the cell of the one before it."""

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[clips.Picture]:
        for picture in super().frames(start, end, before=before, after=after):
            if picture.pts == 9 * clips.TICKS:
                picture.pts = round(8.4 * clips.TICKS)
            yield picture


def test_depth_that_another_range_estimated_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that begins with a frame of which nobody there knows whether it is a key takes it for one."""

    def loud(_: object, rgb: np.ndarray) -> np.ndarray:
        """Depth that tells which frame it is of."""
        values = [int(picture.astype(np.int64).sum()) % 97 / 97 for picture in rgb]
        return np.stack(
            [np.full(picture.shape[:2], value, np.float32) for picture, value in zip(rgb, values, strict=True)]
        )

    monkeypatch.setattr(ReliefEngine, "infer", loud)
    made = clips.plan(160, 90, engine="relief")
    first = 9 + convert.padding(made)
    frames = clips.pictures(first + 2, 160, 90)  # few enough to be remembered
    recent = Recent()
    run(Uneven(frames), made, first, first + 2, recent)
    assert equal(
        decoded(run(Uneven(frames), made, 16, first, recent).fragment),
        decoded(run(Uneven(frames), made, 16, first).fragment),
    )


def test_depth_follows_the_cut_and_not_the_shot_before() -> None:
    """Without the reset at cuts the frames around one would share depth; so each shot alone gives the same."""
    frames = clips.pictures(30, 160, 90, cuts=(15,))
    made = clips.plan(160, 90)
    both = decoded(run(clips.Clip(frames), made, 0, 30).fragment)
    alone = decoded(run(clips.Clip(frames[:15]), made, 0, 15).fragment)
    assert equal(both[:15], alone)


@pytest.mark.parametrize("tone", [16, 235])
@pytest.mark.parametrize("count", [1, 2])
def test_a_flash_between_two_scenes_keeps_their_depth_apart(tone: int, count: int) -> None:
    frames = clips.pictures(30, 160, 90, cuts=(15,))
    for index in range(15 - count, 15):
        frames[index] = (np.full_like(frames[index][0], tone), *frames[index][1:])
    made = clips.plan(160, 90)
    both = run(clips.Clip(frames), made, 0, 30)
    assert (both.report.cuts, both.report.cut_at_start) == (1, False)
    assert run(clips.Clip(frames), made, 15, 20).report.cut_at_start
    alone = run(clips.Clip(frames[15:]), made, 0, 15)
    assert equal(decoded(both.fragment)[15:], decoded(alone.fragment))
    pieces = [
        decoded(run(clips.Clip(frames), made, first, last).fragment) for first, last in ((0, 14), (14, 17), (17, 30))
    ]
    assert equal([picture for piece in pieces for picture in piece], decoded(both.fragment))


def test_identity_gives_the_source_back() -> None:
    frames = clips.pictures(8, 66, 34)
    made = clips.plan(66, 34, engine="identity", layout=Layout.FULL_SBS)
    found = decoded(run(clips.Clip(frames), made, 2, 7).fragment)
    for picture, planes in zip(found, frames[2:7], strict=True):
        assert np.array_equal(picture[:34], planes[0])
    assert convert.padding(made) == 0


def test_flat_puts_everything_at_the_screen() -> None:
    frames = clips.pictures(4, 64, 36)
    made = clips.plan(64, 36, engine="flat", layout=Layout.FULL_SBS)
    found = run(clips.Clip(frames), made, 0, 4)
    for picture, planes in zip(decoded(found.fragment), frames, strict=True):
        assert np.array_equal(picture[:36, :64], planes[0])
        assert np.array_equal(picture[:36, 64:], planes[0])
    assert found.report.disparity_p99 == found.report.disparity_p1 == 0


def test_report_tells_what_was_measured() -> None:
    frames = clips.pictures(40, 160, 90, cuts=(20,))
    clip = clips.Clip(frames)
    made = clips.plan(160, 90)
    found = run(clip, made, 10, 30).report
    assert found.frames == 20
    assert found.cuts == 1
    assert found.folds == 0
    assert -1.5 <= found.disparity_p1 <= found.disparity_p50 <= found.disparity_p99 <= 1.5
    assert found.disparity_p1 < found.disparity_p99
    assert 0 <= found.stretch_ratio < 0.1
    assert {"decode", "prepare", "depth", "smooth", "warp", "encode"} <= set(found.stages)
    assert found.engine.name == "cues"
    assert sum(found.histogram) > 0
    assert not clip.lent, "every frame was released"
    # The window, a batch, two queues of two, and a frame in the hands of each stage that has the decoder's own.
    assert clip.most_lent <= convert.padding(made) + depth.load("cues").info.batch + 2 * 2 + 3


def test_a_single_frame() -> None:
    frames = clips.pictures(1, 160, 90)
    found = run(clips.Clip(frames), clips.plan(160, 90), 0, 1)
    assert found.fragment.frames == 1


def test_other_frames_than_planned_are_a_mismatch() -> None:
    clip = clips.Clip(clips.pictures(10, 64, 36))
    with pytest.raises(errors.Permanent) as caught:
        run(clip, clips.plan(64, 36), 5, 15)
    assert caught.value.code == "SEGMENT_MISMATCH"
    assert "egment" not in caught.value.detail, "which one it was is said by whoever tells of it"
    assert caught.value.details == {"expected": 10, "found": 5}


def test_a_decoder_that_fails_fails_the_segment_with_its_own_error() -> None:
    clip = clips.Clip(clips.pictures(30, 64, 36), fail_at=20)
    with pytest.raises(RuntimeError, match="fails here"):
        run(clip, clips.plan(64, 36), 0, 30)
    assert not clip.lent


def test_stop_ends_the_work() -> None:
    clip = clips.Clip(clips.pictures(60, 64, 36))
    stop = threading.Event()
    made = clips.plan(64, 36)

    def on_frame(count: int) -> None:
        if count == 3:
            stop.set()

    before = threading.active_count()
    with pytest.raises(errors.StereoSpotError) as caught:
        convert.convert_segment(
            decoder=clip, plan=made, segment=clips.segment(0, 0, 60), engine=depth.load("cues"), stop=stop,
            on_frame=on_frame,
        )  # fmt: skip
    assert caught.value.code == "CANCELLED"
    assert not clip.lent
    assert threading.active_count() == before


class Poisoned:
    """An engine whose answers are no numbers, in batches of three."""

    info = depth.EngineInfo("poisoned", "1", None, 32, 18, 1.0, batch=3)

    def infer(self, rgb: np.ndarray) -> np.ndarray:
        assert len(rgb) == 3, "the batch always has the same shape"
        return np.full(rgb.shape[:3], np.nan, np.float32)

    def close(self) -> None: ...


def test_depth_that_is_no_number_is_flat_and_counted() -> None:
    frames = clips.pictures(5, 64, 36)
    made = clips.plan(64, 36, layout=Layout.FULL_SBS)
    found = convert.convert_segment(
        decoder=clips.Clip(frames), plan=made, segment=clips.segment(0, 0, 5), engine=Poisoned()
    )
    assert found.report.not_finite == 5 * 32 * 18
    for picture, planes in zip(decoded(found.fragment), frames, strict=True):
        assert np.array_equal(picture[:36, :64], planes[0])


@pytest.mark.parametrize("size", [(2, 2), (3, 1), (17, 31), (1, 64)])
def test_tiny_and_odd_pictures(size: tuple[int, int]) -> None:
    """The stages before encoding take any size; what an encoder takes is the planner's to say."""
    from inference import layouts, prepare, upsample

    made = clips.plan(*size)
    stereo, colour = made.stereo, made.encode.colour
    preparer = prepare.Preparer(*size, "yuv420p", colour, stereo.bars, 192, 112)
    upsampler = upsample.Upsampler(*size, stereo.bars, 192, 112)
    small = preparer.prepare(clips.pictures(1, *size)[0])
    raw = depth.load("cues").infer(small.rgb[None])[0]
    grid = upsampler.upsample(raw, small.luma, small.grid)
    out = layouts.Compositor(*size, "yuv420p", stereo, colour).compose(clips.pictures(1, *size)[0], grid)
    assert out[0].shape == (made.encode.height, made.encode.width)


def test_a_plan_of_another_size_is_refused_before_anything_is_decoded() -> None:
    made = clips.plan(64, 36)
    wrong = made.model_copy(update={"encode": made.encode.model_copy(update={"width": 66})})
    with pytest.raises(errors.StereoSpotError, match="66x36"):
        run(clips.Clip([]), wrong, 0, 1)


def test_backends_lend_engines_and_keep_them() -> None:
    made = clips.plan(64, 36)
    frames = clips.pictures(12, 64, 36)
    serial = decoded(run(clips.Clip(frames), made, 0, 12).fragment)
    pool = backends.Backends(settings.Settings())
    pieces: list[np.ndarray] = []
    seen: list[backends.Backend] = []
    for first, last in ((0, 5), (5, 12)):
        with pool.borrow(made) as backend:
            seen.append(backend)
            found = backend.convert(decoder=clips.Clip(frames), plan=made, segment=clips.segment(0, first, last))
        pieces += decoded(found.fragment)
    assert seen[0] is seen[1]
    assert equal(pieces, serial)
    pool.close()


def test_the_stub_copies_and_fails_as_told() -> None:
    frames = clips.pictures(3, 64, 36)
    made = clips.plan(64, 36, layout=Layout.FULL_SBS)
    clip = clips.Clip(frames)
    found = backends.load("stub", seconds=0.05).convert(decoder=clip, plan=made, segment=clips.segment(0, 0, 3))
    assert np.array_equal(decoded(found.fragment)[1][:36, :64], frames[1][0])
    assert found.report.seconds >= 0.05
    assert not clip.lent
    with pytest.raises(errors.Transient) as caught:
        backends.load("stub", failures=1.0).convert(
            decoder=clips.Clip(frames), plan=made, segment=clips.segment(0, 0, 3)
        )
    assert caught.value.code == "REMOTE_FAILED"
    with pytest.raises(errors.Misconfigured):
        backends.load("abacus")


def test_importing_backends_and_sizes_brings_no_compiler() -> None:
    """The command line and the gateway import these; numba alone takes most of a second."""
    code = (
        "import sys, inference.backends.stub, inference.geometry, inference.comfort; sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
