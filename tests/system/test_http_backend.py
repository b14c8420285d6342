"""The http backend against a real server of ours: the same pictures as at home, whatever the way there."""

from __future__ import annotations

import bisect
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from inference import backends, depth
from inference.backends import handover
from inference.contract import Converted
from inference.convert import convert_segment, padding
from inference.gpu import backend as gpu
from inference.gpu.batching import Shared
from stereospot import errors
from stereospot.media import clocks
from stereospot.media.model import Colour, Plan, Segment
from stereospot.options import Layout
from stereospot.storage.local import LocalStore
from tests.support import wait_until
from tests.system import remote
from tests.system.remote import COUNT, HEIGHT, WIDTH, backend, convert, locally
from tests.unit import clips
from tests.unit.clips import decoded
from tests.unit.test_gpu_convert import Ramp


@pytest.mark.parametrize(
    ("layout", "pixel_format"),
    [
        (Layout.HALF_SBS, "yuv420p"),
        (Layout.HALF_TB, "yuv420p10le"),
        (Layout.ANAGLYPH, "yuv420p"),
        (Layout.CROSS_EYED, "yuv422p"),
    ],
)
def test_a_remote_segment_is_the_local_one(layout: Layout, pixel_format: str) -> None:
    """Lossless there and back, padding included: the same pictures, the same init, the source's own times."""
    pictures = clips.pictures(COUNT, WIDTH, HEIGHT, pixel_format, cuts=(17,))
    plan = clips.plan(WIDTH, HEIGHT, pixel_format, layout=layout)
    clip = clips.Clip(pictures)
    with remote.inference_server() as (url, _):
        found = backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(3, 14, 26))
    wanted = locally(pictures, plan, 14, 26)
    assert found.fragment.pts == wanted.fragment.pts
    assert found.fragment.init_sha256 == wanted.fragment.init_sha256
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))
    assert not clip.lent
    assert found.report.engine.name == "cues"
    assert found.report.frames == 12
    assert {"pack", "remote", "unpack"} <= set(found.report.stages)
    assert found.report.disparity_p99 == wanted.report.disparity_p99


class Early(clips.Clip):
    """The same frames half a second earlier: the film begins before 0."""

    AHEAD = 12 * clips.TICKS

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[clips.Picture]:
        moved = [None if time is None else time + self.AHEAD for time in (start, end)]
        for picture in super().frames(moved[0], moved[1], before=before, after=after):
            picture.pts -= self.AHEAD
            yield picture


@pytest.mark.parametrize("first", [-12, -6, 2])
def test_a_film_that_begins_before_zero(first: int, pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT)
    video = plan.source.video.model_copy(update={"first_pts": -Early.AHEAD})
    info = plan.source.model_copy(update={"video": video})
    encode = plan.encode.model_copy(update={"origin": clocks.fragment_origin(info)})
    plan = plan.model_copy(update={"source": info, "encode": encode})
    segment = clips.segment(0, first, first + 8)
    with remote.inference_server() as (url, _):
        found = backend(url).convert(decoder=Early(pictures), plan=plan, segment=segment)
    wanted = convert(Early(pictures), plan, segment, None)
    assert found.fragment.pts == wanted.fragment.pts == [n * clips.TICKS for n in range(first, first + 8)]
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))


def test_a_learned_engine_far_away() -> None:
    """The range that travels holds all that the curve looks at: the remote's depth scale is the film's."""
    pictures = clips.pictures(300, WIDTH, HEIGHT, cuts=(130, 190))
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything")

    def learned(decoder: Any, plan: Plan, segment: Segment, stop: Any) -> Converted:
        made = gpu.Learned(Shared(Ramp(batch=3)), every=4)
        return made.convert(decoder=decoder, plan=plan, segment=segment, stop=stop)

    segment = clips.segment(3, 145, 157)
    with remote.inference_server(make=learned) as (url, _):
        found = backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=segment)
    wanted = learned(clips.Clip(pictures), plan, segment, None)
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))
    serial = learned(clips.Clip(pictures), plan, clips.segment(0, 0, 300), None)
    own = decoded(serial.fragment)[145:157]
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), own, strict=True))


def test_a_far_segment_does_not_depend_on_the_one_before() -> None:
    """Each range ends inside windows of the curve: the engine that is kept does not take their samples for whole."""
    pictures = clips.pictures(500, WIDTH, HEIGHT)
    plan = clips.plan(WIDTH, HEIGHT, engine="depth-anything")
    kept = gpu.Learned(Shared(Ramp(batch=3)), every=4)

    def learned(decoder: Any, plan: Plan, segment: Segment, stop: Any) -> Converted:
        return kept.convert(decoder=decoder, plan=plan, segment=segment, stop=stop)

    pieces = [clips.segment(3, 120, 132), clips.segment(4, 132, 220), clips.segment(5, 220, 232)]
    with remote.inference_server(make=learned) as (url, _):
        found = [backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=piece) for piece in pieces]
    fresh = gpu.Learned(Shared(Ramp(batch=3)), every=4)
    for piece, answer in zip(pieces, found, strict=True):
        wanted = fresh.convert(decoder=clips.Clip(pictures), plan=plan, segment=piece)
        assert all(
            np.array_equal(a, b) for a, b in zip(decoded(answer.fragment), decoded(wanted.fragment), strict=True)
        ), piece.index


class Varying(clips.Clip):
    """The same frames at times of a variable rate: the first two thirds stand for half as long."""

    def __init__(self, frames: list[tuple[np.ndarray, ...]]) -> None:
        super().__init__(frames)
        quick = 2 * len(frames) // 3
        self.times = [clips.TICKS // 2 * (n if n < quick else 2 * n - quick) for n in range(len(frames))]

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[clips.Picture]:
        places = [None if time is None else bisect.bisect_left(self.times, time) * clips.TICKS for time in (start, end)]
        for picture in super().frames(places[0], places[1], before=before, after=after):
            picture.pts = self.times[picture.pts // clips.TICKS]
            yield picture


def test_far_away_the_frames_that_are_estimated_are_those_of_the_film(pictures: list[tuple[np.ndarray, ...]]) -> None:
    """The film's average rate says which, not that of the range."""
    plan = clips.plan(WIDTH, HEIGHT, engine="relief", layout=Layout.DEPTH)
    clip = Varying(pictures)
    own = clip.times[2:12]
    segment = clips.segment(0, 2, 12).model_copy(
        update={"start": own[0], "last": own[-1], "end": clip.times[12], "duration": clip.times[12] - own[0]}
    )

    def convert(decoder: Any, plan: Plan, segment: Segment, stop: Any) -> Converted:
        # Cues at relief's cadence: what relief makes of these pictures hardly differs from one to the next.
        return convert_segment(decoder=decoder, plan=plan, segment=segment, engine=depth.load("cues"), stop=stop)

    with remote.inference_server(make=convert) as (url, _):
        found = backend(url).convert(decoder=clip, plan=plan, segment=segment)
    wanted = convert(Varying(pictures), plan, segment, None)
    assert found.fragment.pts == wanted.fragment.pts == own
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))


def test_a_report_that_no_converter_makes_is_left_out(pictures: list[tuple[np.ndarray, ...]]) -> None:
    """The film counts; what would end the job when all reports are put together does not get so far."""
    wrong: dict[str, Any] = {}

    def boasting(*arguments: Any) -> Converted:
        made = remote.convert(*arguments)
        return replace(made, report=made.report.model_copy(update=wrong))

    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    with remote.inference_server(make=boasting) as (url, _):
        for update in ({"histogram": (10**30,) * 401}, {"histogram": (1,) * 5000}, {"more": "x" * 100_000}):
            wrong.clear()
            wrong.update(update)
            found = backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 4))
            assert found.fragment.frames == 4
            assert (found.report.engine.version, found.report.histogram) == ("remote", ())


@pytest.mark.parametrize("transfer", [16, 18])
def test_a_tone_mapped_fade_from_far_away(transfer: int) -> None:
    pictures = [
        tuple(
            np.full(plane.shape, 64 + number * 24 if not index else 512, np.uint16) for index, plane in enumerate(one)
        )
        for number, one in enumerate(clips.pictures(24, WIDTH, HEIGHT, "yuv420p10le"))
    ]
    plan = clips.plan(WIDTH, HEIGHT, "yuv420p10le", engine="flat")
    colours = [Colour(matrix=9, primaries=9, transfer=transfer), Colour(matrix=1, primaries=1, transfer=1)]
    video = plan.source.video.model_copy(update={"colour": colours[0]})
    encode = plan.encode.model_copy(update={"pixel_format": "yuv420p", "colour": colours[1]})
    plan = plan.model_copy(update={"source": plan.source.model_copy(update={"video": video}), "encode": encode})
    with remote.inference_server() as (url, _):
        found = backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 24))
    wanted = locally(pictures, plan, 0, 24)
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))


def test_through_shared_storage(tmp_path: Path, pictures: list[tuple[np.ndarray, ...]]) -> None:
    store = LocalStore(tmp_path / "store")
    plan = clips.plan(WIDTH, HEIGHT)
    with remote.inference_server(roots=(tmp_path / "store",)) as (url, _):
        found = backend(url, transport="storage", store=store).convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(3, 0, 9)
        )
    wanted = locally(pictures, plan, 0, 9)
    assert found.report.engine == wanted.report.engine
    assert found.report.disparity_p99 == wanted.report.disparity_p99
    assert found.report.histogram == wanted.report.histogram
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_odd_sizes() -> None:
    odd = clips.pictures(8, 161, 91)
    plan = clips.plan(161, 91)
    with remote.inference_server() as (url, _):
        found = backend(url).convert(decoder=clips.Clip(odd), plan=plan, segment=clips.segment(0, 0, 8))
    assert found.fragment.frames == 8
    assert decoded(found.fragment)[0].shape == (92 * 3 // 2, 164)


def test_a_busy_server_is_waited_for(pictures: list[tuple[np.ndarray, ...]]) -> None:
    go = threading.Event()
    begun = threading.Semaphore(0)

    def slow(*arguments: Any) -> Converted:
        begun.release()
        assert go.wait(20)
        return remote.convert(*arguments)

    plan = clips.plan(WIDTH, HEIGHT)
    results: list[Converted] = []
    with remote.inference_server(make=slow, slots=1, retry_seconds=0.1) as (url, server):

        def one() -> None:
            results.append(
                backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5))
            )

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert begun.acquire(timeout=20)
        # Converting, it answers pings, and refuses what it has no slot for.
        answer = httpx.get(url + "/ping", timeout=5)
        assert (answer.status_code, answer.text) == (200, "OK")
        refused = httpx.post(url + "/invocations", json={}, timeout=5)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        go.set()
        for thread in threads:
            thread.join(30)
        assert len(results) == 2
        wait_until(lambda: server.busy == 0, what="a free slot")


def test_cancel_stops_the_server_too(pictures: list[tuple[np.ndarray, ...]]) -> None:
    stopped = threading.Event()
    begun = threading.Event()

    def endless(decoder: Any, plan: Any, segment: Any, stop: threading.Event) -> Converted:
        begun.set()
        assert stop.wait(20)
        stopped.set()
        raise errors.error("CANCELLED")

    stop = threading.Event()
    plan = clips.plan(WIDTH, HEIGHT)
    with remote.inference_server(make=endless) as (url, server):
        threading.Thread(target=lambda: begun.wait(20) and stop.set()).start()
        with pytest.raises(errors.Permanent) as caught:
            backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5), stop=stop)
        assert caught.value.code == "CANCELLED"
        assert stopped.wait(10)
        wait_until(lambda: server.busy == 0, what="a free slot")


def test_the_token_is_sent(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    with remote.inference_server(token="s3cret") as (url, _):
        found = backend(url, token="s3cret").convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 4)
        )
        assert found.fragment.frames == 4
        with pytest.raises(errors.Transient, match="401"):
            backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 4))


def test_plain_endpoints_make_two_layouts_only(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    with pytest.raises(errors.Permanent) as caught:
        backend("http://127.0.0.1:9", dialect="plain").convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 4)
        )
    assert caught.value.code == "INVALID_OPTIONS"


def test_the_padding_travels(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT)
    packed = handover.pack(clips.Clip(pictures), plan, clips.segment(0, 20, 25), padding=(8, 8))
    assert (packed.handover.before, packed.handover.after) == (8, 8)
    assert handover.padding(plan, clips.segment(0, 20, 25)) == (padding(plan), padding(plan))
    assert padding(plan) >= 8
    with av.open(io.BytesIO(packed.video), "r") as container:
        shown = [(frame.pts, frame.to_ndarray()) for frame in container.decode(video=0)]
    assert [pts for pts, _ in shown] == [i * clips.TICKS for i in range(12, 33)]
    for (_, found), wanted in zip(shown, pictures[12:33], strict=True):
        assert np.array_equal(found[:HEIGHT], wanted[0])


def test_the_settings_name_the_server(
    pictures: list[tuple[np.ndarray, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEREOSPOT_INFERENCE_URL", raising=False)
    for name in ("http", "sagemaker"):
        with pytest.raises(errors.Misconfigured, match="needs STEREOSPOT_") as caught:
            backends.load(name, engine="cues", model=None)
        assert caught.value.code == "ENGINE_UNAVAILABLE"
    monkeypatch.setenv("STEREOSPOT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("STEREOSPOT_SANDBOX", "off")
    monkeypatch.setenv("STEREOSPOT_INFERENCE_TRANSPORT", "storage")
    with remote.inference_server(roots=(tmp_path,)) as (url, _):
        monkeypatch.setenv("STEREOSPOT_INFERENCE_URL", url)
        made = backends.load("http", engine="cues", model=None)
        plan = clips.plan(WIDTH, HEIGHT, engine="flat")
        found = made.convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 6))
    assert found.fragment.frames == 6
