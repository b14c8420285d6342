"""Conversions by engines that need a curve: segments apart equal a serial run, batches give way, errors have codes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import backends, geometry, shots
from inference.channel import Halt
from inference.contract import Converted
from inference.depth import EngineInfo
from inference.depth.motion import KeyGrid
from inference.gpu import backend
from inference.gpu.batching import Shared
from inference.gpu.convert import convert_learned, padding
from inference.gpu.depths import Depths, Entry
from inference.gpu.samples import Known, Sampler, cuts
from inference.prepare import THUMBNAIL, Small
from inference.tonemap import ToneMapper
from inference.upsample import Upsampler
from stereospot import errors
from stereospot.media import frames, probe
from stereospot.media import plan as planning
from stereospot.media.limits import Limits
from stereospot.media.model import Bars, Colour, Segment
from stereospot.media.source import FileSource
from stereospot.options import Layout, Options
from tests.media import sources
from tests.unit import clips, tiny_depth
from tests.unit.clips import decoded

WIDTH, HEIGHT, COUNT = 160, 90, 96


class Ramp:
    """A depth engine whose scale drifts with the picture: raw depth from luma, a constant batch, and limits."""

    def __init__(self, *, batch: int = 4, fits: int = 1000, fails: bool = False) -> None:
        self.info = EngineInfo("ramp", "1", None, 64, 36, 2.0, needs_curve=True, batch=batch)
        self.fits, self.fails = fits, fails
        self.calls: list[int] = []
        self.frames = 0
        self.closed = 0

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.fails:
            raise errors.error("WORKER_LOST", "The GPU stopped answering.")
        if len(rgb) > self.fits:
            raise errors.error("OUT_OF_MEMORY", f"{len(rgb)} frames")
        self.calls.append(len(rgb))
        self.frames += len(rgb)
        luma = rgb.astype(np.float32).mean(3)
        return luma * 7 + np.linspace(0, 300, rgb.shape[1], dtype=np.float32)[None, :, None] + 40

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, ...]]:
    """Scenes; the last one begins behind a flash."""
    found = clips.pictures(COUNT, WIDTH, HEIGHT, cuts=(13, 15, 40, 41, 70))
    found[69] = (np.full_like(found[69][0], 235), *found[69][1:])
    return found


def run(
    made: backend.Learned, pictures: list[tuple[np.ndarray, ...]], first: int, last: int, **stereo: Any
) -> Converted:
    clip = clips.Clip(pictures)
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything", **stereo)
    found = made.convert(decoder=clip, plan=plan, segment=clips.segment(0, first, last))
    assert not clip.lent
    # Frames are copied at once: however large a batch is, the decoder's ring is never exhausted.
    assert clip.most_lent <= 2
    return found


def learned(every: int = 1, **engine: Any) -> backend.Learned:
    return backend.Learned(Shared(Ramp(**engine)), every=every)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("batch", [1, 5])
def test_segments_apart_equal_a_serial_run(pictures: list[tuple[np.ndarray, ...]], every: int, batch: int) -> None:
    serial = decoded(run(learned(every, batch=batch), pictures, 0, COUNT).fragment)
    assert len(serial) == COUNT
    places = [0, 14, 37, 42, 69, COUNT]
    fresh: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    one_worker = learned(every, batch=batch)
    for first, last in itertools.pairwise(places):
        fresh += decoded(run(learned(every, batch=batch), pictures, first, last).fragment)
        kept += decoded(run(one_worker, pictures, first, last).fragment)
    for found in (fresh, kept):
        assert all(np.array_equal(a, b) for a, b in zip(found, serial, strict=True))


def test_carried_depth_needs_fewer_inferences(pictures: list[tuple[np.ndarray, ...]]) -> None:
    counts: list[int] = []
    shown: list[list[np.ndarray]] = []
    for every in (1, 4):
        engine = Ramp(batch=1)
        found = run(backend.Learned(Shared(engine), every=every), pictures, 0, COUNT, layout=Layout.DEPTH)
        counts.append(engine.frames)
        shown.append(decoded(found.fragment))
    assert counts[0] == COUNT
    assert counts[1] < COUNT * 0.45
    # The painted depth beside the source: carried depth is near the inferred one.
    difference = [
        np.abs(a[:HEIGHT, WIDTH:].astype(int) - b[:HEIGHT, WIDTH:]).mean() for a, b in zip(*shown, strict=True)
    ]
    assert float(np.mean(difference)) < 6.0


def test_the_result_says_what_ran(pictures: list[tuple[np.ndarray, ...]]) -> None:
    told = run(learned(2, batch=3), pictures, 0, 30).report.model_dump()
    assert told["engine"]["name"] == "ramp"
    assert (told["batch"], told["every"], told["device"], told["dtype"]) == (3, 2, "cpu", "float32")
    assert told["limiting"] in told["stages"]
    assert {"decode", "prepare", "sample", "depth", "carry", "smooth", "warp", "encode"} <= set(told["stages"])
    assert told["fps"] > 0
    assert told["cuts"] >= 1
    assert told["disparity_p1"] < told["disparity_p99"]


def test_out_of_memory_halves_the_batch_once(pictures: list[tuple[np.ndarray, ...]]) -> None:
    whole = decoded(run(learned(batch=8), pictures, 0, 20).fragment)
    tight = Ramp(batch=8, fits=4)
    found = run(backend.Learned(Shared(tight)), pictures, 0, 20)
    assert max(tight.calls) == 4
    assert found.report.model_dump()["batch"] == 4
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), whole, strict=True))
    with pytest.raises(errors.Exhausted) as caught:
        run(backend.Learned(Shared(Ramp(batch=8, fits=3))), pictures, 0, 20)
    assert caught.value.code == "OUT_OF_MEMORY"
    with pytest.raises(errors.Exhausted):
        run(backend.Learned(Shared(Ramp(batch=1, fits=0))), pictures, 0, 20)


def test_a_group_that_another_segment_halves_is_not_overshot() -> None:
    handed: list[int] = []

    class Seen(Shared):
        def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
            handed.append(len(rgb))
            return super().infer(rgb)

    engine = Seen(Ramp(batch=8, fits=4))
    rgb = np.zeros((8, 36, 64, 3), np.uint8)
    flat = np.zeros((36, 64), np.uint8)

    def taken() -> Iterator[Entry[None]]:
        for pts in range(17):
            if pts == 3 + shots.REACH:  # four wait: a shot is decided with what follows
                Shared.infer(engine, rgb)  # the other segment, for which the memory does not suffice
            yield Entry(pts, Small(flat, rgb[0], flat, np.zeros(THUMBNAIL, np.uint8)), None)

    video = clips.plan(WIDTH, HEIGHT, engine="ramp").source.video
    keys = KeyGrid(1, video.average_rate, video.average_rate**-1)
    upsampler = Upsampler(WIDTH, HEIGHT, Bars(), 64, 36)
    Depths[None](Halt(None), upsampler, engine, Known(), keys, None, 0.5).infer(taken())
    assert engine.group == 4
    assert handed == [5, 4, 4, 4]


def test_a_gpu_that_disappears(pictures: list[tuple[np.ndarray, ...]]) -> None:
    engine = Ramp()
    made = backend.Learned(Shared(engine))
    run(made, pictures, 0, 10)
    engine.fails = True
    with pytest.raises(errors.Transient) as caught:
        run(made, pictures, 50, 70)
    assert caught.value.code == "WORKER_LOST"


def test_two_segments_share_an_engine(pictures: list[tuple[np.ndarray, ...]]) -> None:
    shared = Shared(Ramp(batch=4))
    alone = [decoded(run(learned(batch=4), pictures, first, first + 30).fragment) for first in (0, 40)]
    found: dict[int, list[np.ndarray]] = {}

    def one(first: int) -> None:
        found[first] = decoded(run(backend.Learned(shared), pictures, first, first + 30).fragment)

    threads = [threading.Thread(target=one, args=(first,)) for first in (0, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for first, wanted in zip((0, 40), alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found[first], wanted, strict=True))


def test_cancel_and_a_failing_decoder(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything")
    stop = threading.Event()
    clip = clips.Clip(pictures)
    with pytest.raises(errors.Permanent) as caught:
        learned().convert(
            decoder=clip, plan=plan, segment=clips.segment(0, 0, COUNT), stop=stop, on_frame=lambda count: stop.set()
        )
    assert caught.value.code == "CANCELLED"
    assert not clip.lent
    broken = clips.Clip(pictures, fail_at=60)
    with pytest.raises(RuntimeError, match="fails here"):
        learned().convert(decoder=broken, plan=plan, segment=clips.segment(0, 30, 70))
    assert not broken.lent
    short = clips.segment(0, 0, 20).model_copy(update={"frames": 21})
    with pytest.raises(errors.Permanent) as mismatch:
        learned().convert(decoder=clips.Clip(pictures), plan=plan, segment=short)
    assert mismatch.value.code == "SEGMENT_MISMATCH"


def test_windows_of_others_are_used(pictures: list[tuple[np.ndarray, ...]]) -> None:
    """What `work.analyse` stored is what the converter would have measured."""
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything")
    engine = Shared(Ramp(batch=1))
    sampler = Sampler(plan, engine, Known())
    stored = {index: sampler.measure(clips.Clip(pictures), index) for index in reversed(range(-1, 3))}
    assert sum(len(window.samples) for window in stored.values()) >= 9
    asked: list[int] = []

    def lookup(index: int) -> Any:
        asked.append(index)
        return stored.get(index)

    ramp = Ramp(batch=1)
    given = backend.Learned(Shared(ramp), lookup=lambda plan: lookup)
    found = run(given, pictures, 20, 60)
    assert asked
    assert ramp.frames == 40 + 2 * padding(1)
    wanted = run(learned(batch=1), pictures, 20, 60)
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))


def test_cuts_are_those_of_the_window(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT)
    sampler = Sampler(plan, Shared(Ramp()), Known())
    smalls: list[Small] = [sampler._preparer.prepare(planes) for planes in pictures]  # pyright: ignore[reportPrivateUsage]
    found = [i for i, cut in enumerate(cuts([small.thumbnail for small in smalls])) if cut]
    assert 70 in found
    assert set(found) <= {13, 15, 40, 41, 70}


def test_one_engine_a_process(tmp_path: Path, pictures: list[tuple[np.ndarray, ...]]) -> None:
    """The real network, tiny: loaded once, shaped to the picture, closed by its last user."""
    tiny_depth.write(tmp_path / "small")
    arguments: dict[str, Any] = {
        "folder": tmp_path,
        "device": "cpu",
        "download": False,
        "size": (112, 56),
        "threads": 2,
    }
    one = backend.load(engine="depth-anything", **arguments)
    other = backend.load(engine="depth-anything", every=4, **arguments)
    assert len(backend._engines) == 1  # pyright: ignore[reportPrivateUsage]
    apart = decoded(run(one, pictures, 8, 20).fragment) + decoded(run(one, pictures, 20, 30).fragment)
    serial = run(one, pictures, 8, 30)
    assert all(np.array_equal(a, b) for a, b in zip(apart, decoded(serial.fragment), strict=True))
    assert serial.report.engine.model_sha256
    assert run(other, pictures, 8, 20).report.model_dump()["every"] == 4
    one.close()
    assert len(backend._engines) == 1  # pyright: ignore[reportPrivateUsage]
    other.close()
    assert not backend._engines  # pyright: ignore[reportPrivateUsage]


def test_hdr_is_mapped_down_where_the_plan_says_so() -> None:
    """Without parallax the left eye is the source, mapped."""
    shown = clips.pictures(4, WIDTH, HEIGHT, "yuv420p10le")
    plan = clips.plan(WIDTH, HEIGHT, "yuv420p10le", engine="depth-anything", layout=Layout.LEFT, divergence=0.0)
    colour = Colour(primaries=9, transfer=16, matrix=9)
    video = plan.source.video.model_copy(update={"colour": colour})
    plan = plan.model_copy(
        update={
            "source": plan.source.model_copy(update={"video": video}),
            "encode": plan.encode.model_copy(update={"pixel_format": "yuv420p", "colour": Colour(matrix=1)}),
        }
    )
    found = decoded(learned().convert(decoder=clips.Clip(shown), plan=plan, segment=clips.segment(0, 0, 4)).fragment)
    mapper = ToneMapper(WIDTH, HEIGHT, "yuv420p10le", colour)
    for made, planes in zip(found, shown, strict=True):
        np.testing.assert_array_equal(made[:HEIGHT], mapper.map(planes)[0])


@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.ANAGLYPH])
def test_the_warp_on_a_device(pictures: list[tuple[np.ndarray, ...]], layout: Layout) -> None:
    """Groups of frames through torch's kernel: the same pictures and the same report as by the CPU's."""
    pytest.importorskip("torch", reason="torch is not installed (extra gpu)")
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything", layout=layout)
    found: list[Converted] = []
    for device in (None, "cpu"):
        engine, known = Shared(Ramp()), Known()
        found.append(
            convert_learned(
                decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 10, 31), engine=engine,
                sampler=Sampler(plan, engine, known), known=known, warp_device=device,
            )
        )  # fmt: skip
    one, other = (decoded(item.fragment) for item in found)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    told = [item.report.model_dump(exclude={"seconds", "stages", "fps", "limiting"}) for item in found]
    assert told[0] == told[1]


def test_the_settings_choose_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_depth.write(tmp_path / "small")
    monkeypatch.setenv("STEREOSPOT_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("STEREOSPOT_DEVICE", "cpu")
    monkeypatch.setenv("STEREOSPOT_DEPTH_DTYPE", "bfloat16")
    made = backends.load("local", engine="depth-anything")
    assert isinstance(made, backend.Learned)
    made.close()
    monkeypatch.setenv("STEREOSPOT_DEVICE", "cuda:63")
    with pytest.raises(errors.Misconfigured) as caught:
        backends.load("local", engine="depth-anything")
    assert caught.value.code == "ENGINE_UNAVAILABLE"


def test_a_real_film_through_the_jail() -> None:
    """B-frames, a first window before the film's start, ranges that jump back for the curve: apart equals serial."""
    limits = Limits(sandbox="off")
    source = FileSource(sources.path("h264_mp4"))
    info = probe.probe(source, limits=limits)
    times = [pts for batch in planning.scan(source, info, limits=limits) for pts in batch.pts]
    plan = planning.head(
        info, Options(crf=0, preset="ultrafast"), job_id="j", generation=1, source_key="s", engine="depth-anything",
        divergence=2.0, output=geometry.output_size(info, Layout.HALF_SBS), created_at=0.0,
    )  # fmt: skip
    step = times[1] - times[0]

    def converted(places: list[int]) -> list[np.ndarray]:
        made = learned(2, batch=3)
        shown: list[np.ndarray] = []
        with frames.Decoder(source, plan.decode, info, limits=limits) as decoder:
            for first, last in itertools.pairwise(places):
                own = times[first:last]
                segment = Segment(
                    index=0, start=own[0], end=own[-1] + step, frames=len(own), last=own[-1],
                    duration=own[-1] + step - own[0],
                )  # fmt: skip
                found = made.convert(decoder=decoder, plan=plan, segment=segment)
                assert found.fragment.pts == own
                shown += decoded(found.fragment)
        return shown

    serial, apart = converted([0, 40]), converted([0, 11, 40])
    assert len(serial) == 40
    assert all(np.array_equal(a, b) for a, b in zip(apart, serial, strict=True))
    source.close()
