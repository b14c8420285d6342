"""Films whose frames come now densely and now sparsely: segments apart equal a serial run, bit for bit.

By its mean rate nothing can be told of such a film: seconds of it have one frame, or a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from inference import backends, curves, geometry
from inference.backends import handover
from inference.backends.handover import Packed
from inference.contract import Converted
from inference.curves import Window
from inference.depth import EngineInfo
from inference.gpu import backend
from inference.gpu.batching import Shared
from inference.gpu.samples import Known, Lookup, Sampler
from inference.invocation import Workshop
from stereospot.errors import StereoSpotError
from stereospot.media import frames, probe
from stereospot.media import plan as planning
from stereospot.media.cutter import Cutter
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.media.source import FileSource
from stereospot.media.surroundings import around
from stereospot.options import Layout, Options
from tests.media import writing
from tests.unit.clips import decoded

LIMITS = Limits(sandbox="off")
GAPS = [40] * 30 + [700] * 22 + [8] * 50 + [900] * 12 + [8] * 40 + [40] * 20
"""Milliseconds from each frame to the next: 7 frames a second, if one divides."""


def fading(number: int, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A picture whose contrast, and so an engine's scale, changes from frame to frame."""
    array = writing.picture(number, width, height).astype(np.float32)
    share = 0.25 + 0.7 * abs((number * 7) % 80 - 40) / 40
    array[:height] = 16 + (array[:height] - 16) * share
    return av.VideoFrame.from_ndarray(np.round(array).astype(np.uint8), format=pixel_format)


@dataclass(frozen=True)
class Planned:
    """The film, opened and planned once for every engine."""

    source: FileSource
    info: Any
    pts: list[int]
    end: int

    def plan(self, engine: str) -> Plan:
        return planning.head(
            self.info, Options(crf=0, preset="ultrafast"), job_id="j", generation=1, source_key="s", engine=engine,
            divergence=2.0, output=geometry.output_size(self.info, Layout.HALF_SBS), created_at=0.0,
        )  # fmt: skip

    def segments(self, engine: str, seconds: float = 2.5) -> list[Segment]:
        cutter = Cutter(self.info, seconds, curves.support(engine, self.info))
        found = cutter.feed(planning.FrameBatch(self.pts, [False] * len(self.pts), True, self.end))
        return found + cutter.finish()[0]

    def whole(self, engine: str) -> Segment:
        support = curves.support(engine, self.info)
        lies_around = None if support is None else around(self.pts, 0, len(self.pts), support, final=True)
        return Segment(
            index=0, start=self.pts[0], end=None, frames=len(self.pts), last=self.pts[-1],
            duration=self.end - self.pts[0], around=lies_around,
        )  # fmt: skip


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planned]:
    pts = [500]
    for gap in GAPS:
        pts.append(pts[-1] + gap)
    path = tmp_path_factory.mktemp("variable") / "film.mkv"
    made = writing.Film(
        ".mkv", frames=len(pts), pts=pts, time_base=Fraction(1, 1000), size=(160, 90), picture=fading,
        options={"preset": "ultrafast", "g": "25", "bf": "2", "crf": "18"},
    )  # fmt: skip
    writing.write(made, path)
    source = FileSource(path)
    info = probe.probe(source, limits=LIMITS)
    batches = list(planning.scan(source, info, limits=LIMITS))
    found, end = [value for batch in batches for value in batch.pts], batches[-1].end_pts
    assert found == pts
    assert end is not None
    yield Planned(source, info, found, end)
    source.close()


class Scaled:
    """An engine that needs a curve: raw depth whose scale is that of the picture's luma."""

    def __init__(self) -> None:
        self.info = EngineInfo("scaled", "1", None, 64, 36, 2.0, needs_curve=True, batch=4)

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        return rgb.astype(np.float32).mean(3) * 7 + 40

    def close(self) -> None:
        """Nothing is held."""


def learned(every: int, **lookup: Any) -> backend.Learned:
    return backend.Learned(Shared(Scaled()), every=every, **lookup)


def shown(film: Planned, made: Any, engine: str, segments: list[Segment]) -> list[NDArray[Any]]:
    """The pictures of some segments, each by a decoder and on its own."""
    plan, found = film.plan(engine), list[NDArray[Any]]()
    for segment in segments:
        with frames.Decoder(film.source, plan.decode, film.info, limits=LIMITS) as decoder:
            found += decoded(made().convert(decoder=decoder, plan=plan, segment=segment).fragment)
    return found


def equal(apart: list[NDArray[Any]], serial: list[NDArray[Any]]) -> bool:
    return len(apart) == len(serial) and all(np.array_equal(a, b) for a, b in zip(apart, serial, strict=True))


@pytest.mark.parametrize("engine", ["relief", "cues"])
def test_neighbours_are_counted(film: Planned, engine: str) -> None:
    segments = film.segments(engine)
    assert len(segments) > 10
    assert all(segment.around is None for segment in segments)

    def made() -> Any:
        return backends.load("local", engine=engine)

    serial = shown(film, made, engine, [film.whole(engine)])
    assert len(serial) == len(film.pts)
    assert equal(shown(film, made, engine, segments), serial)


@pytest.mark.parametrize("every", [1, 8])
def test_a_curve_reaches_to_the_outermost_frames(film: Planned, every: int) -> None:
    """And no window of it is missing where those that the plan names were taken ahead."""
    engine = "depth-anything"
    plan, segments = film.plan(engine), film.segments(engine)
    serial = shown(film, lambda: learned(every), engine, [film.whole(engine)])
    sampler = Sampler(plan, Shared(Scaled()), Known())
    asked: set[int] = set()
    with frames.Decoder(film.source, plan.decode, film.info, limits=LIMITS) as decoder:
        spans = [curves.span(plan, segment) for segment in segments]
        stored = {
            index: sampler.measure(decoder, index)
            for index in range(min(first for first, _ in spans), max(last for _, last in spans) + 1)
        }
    apart: list[NDArray[Any]] = []
    for segment in segments:
        first, last = curves.span(plan, segment)
        own = {index: stored[index] for index in range(first, last + 1)}

        def lookup(index: int, own: dict[int, Window] = own) -> Window | None:
            asked.add(index)
            return own.get(index)

        def windows(plan: Plan, lookup: Lookup = lookup) -> Lookup:
            return lookup

        with frames.Decoder(film.source, plan.decode, film.info, limits=LIMITS) as decoder:
            made = learned(every, lookup=windows)
            converted = made.convert(decoder=decoder, plan=plan, segment=segment)
        assert converted.report.model_dump()["windows_taken"] == 0
        apart += decoded(converted.fragment)
    assert asked == set(stored)
    assert equal(apart, serial)


def test_a_remote_gets_all_that_a_segment_depends_on(film: Planned, tmp_path: Path) -> None:
    engine, every = "depth-anything", handover.MOST_EVERY
    plan = film.plan(engine)
    serial = shown(film, lambda: learned(every), engine, [film.whole(engine)])

    def convert(decoder: Any, plan: Plan, segment: Segment, stop: Any) -> Converted:
        return learned(every).convert(decoder=decoder, plan=plan, segment=segment, stop=stop)

    def no_films(*_: object) -> None:
        raise AssertionError("a segment is no film")

    shop = Workshop(convert, no_films, LIMITS)

    def exchange(packed: Packed, target: Path, stop: Any) -> dict[str, Any]:
        sent = target.with_name("sent.mp4")
        sent.write_bytes(packed.video)
        # As it is on the wire.
        wanted = handover.Handover.model_validate_json(packed.handover.model_dump_json())
        return shop.segment(sent, target, wanted, stop)

    with frames.Decoder(film.source, plan.decode, film.info, limits=LIMITS) as decoder:
        for segment in film.segments(engine)[1::2]:
            folder = tmp_path / str(segment.index)
            folder.mkdir()
            found = handover.converted(
                decoder, plan, segment, exchange, folder=folder, padding=handover.padding(plan, segment), limits=LIMITS
            )
            first = film.pts.index(segment.start)
            assert equal(decoded(found.fragment), serial[first : first + segment.frames]), segment.index


@pytest.mark.parametrize("pad", [-1, 1])
def test_padding_that_is_lost_is_not_sent(film: Planned, pad: int) -> None:
    """A remote would make other depth of it."""
    engine = "depth-anything"
    plan, segment = film.plan(engine), film.segments(engine)[3]
    wanted = handover.padding(plan, segment)

    class Losing(frames.Decoder):
        """Without those frames of one side that the plan names, but for the nearest ones."""

        def frames(self, *args: Any, **options: Any) -> Iterator[frames.Frame]:
            left = 3
            for frame in super().frames(*args, **options):
                if frame.pad == pad and (left := left - 1) < 0:
                    frame.release()
                else:
                    yield frame

    with (
        Losing(film.source, plan.decode, film.info, limits=LIMITS) as decoder,
        pytest.raises(StereoSpotError) as raised,
    ):
        handover.pack(decoder, plan, segment, padding=wanted)
    assert raised.value.code == "SEGMENT_MISMATCH"
