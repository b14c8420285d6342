"""The http backend against a real server of ours, and against endpoints that answer badly."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from inference import backends
from inference.backends import handover
from inference.backends.http import Endpoint, HttpBackend
from inference.contract import Converted
from inference.convert import padding
from inference.gpu import backend as gpu
from inference.gpu.batching import Shared
from inference.invocation import Films
from stereospot import errors
from stereospot.media.cmaf import Fragment, FragmentEncoder
from stereospot.media.model import Plan, Segment
from stereospot.options import Layout
from stereospot.storage.local import LocalStore
from tests.media import sources
from tests.support import wait_until
from tests.system import remote
from tests.unit import clips
from tests.unit.test_gpu_convert import Ramp

COUNT, WIDTH, HEIGHT = 40, 160, 90


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, ...]]:
    return clips.pictures(COUNT, WIDTH, HEIGHT, cuts=(17,))


def decoded(fragment: Fragment) -> list[np.ndarray]:
    with av.open(io.BytesIO(fragment.init + fragment.media), "r") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def backend(url: str, **values: Any) -> HttpBackend:
    store = values.pop("store", None)
    endpoint = Endpoint(url, timeout_seconds=values.pop("timeout_seconds", 60.0), **values)
    return HttpBackend(endpoint, limits=remote.LIMITS, open_store=None if store is None else lambda: store)


def locally(pictures: list[tuple[np.ndarray, ...]], plan: Plan, first: int, last: int) -> Converted:
    return remote.convert(clips.Clip(pictures), plan, clips.segment(3, first, last), None)


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


def test_through_shared_storage(tmp_path: Path, pictures: list[tuple[np.ndarray, ...]]) -> None:
    store = LocalStore(tmp_path / "store")
    plan = clips.plan(WIDTH, HEIGHT)
    with remote.inference_server(roots=(tmp_path / "store",)) as (url, _):
        found = backend(url, transport="storage", store=store).convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(3, 0, 9)
        )
    wanted = locally(pictures, plan, 0, 9)
    assert all(np.array_equal(a, b) for a, b in zip(decoded(found.fragment), decoded(wanted.fragment), strict=True))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_odd_sizes(pictures: list[tuple[np.ndarray, ...]]) -> None:
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


def answer(pictures: list[tuple[np.ndarray, ...]], plan: Plan, order: list[int]) -> bytes:
    """An answer whose pictures are those of the segment in another order."""
    wanted = locally(pictures, plan, 0, 12)
    shown = decoded(wanted.fragment)
    height, width = plan.encode.height, plan.encode.width
    encoder = FragmentEncoder(plan.encode)
    for place, index in enumerate(order):
        flat = shown[index].reshape(-1)
        y, u = height * width, height * width // 4
        planes = [
            flat[:y].reshape(height, width),
            flat[y : y + u].reshape(height // 2, width // 2),
            flat[y + u :].reshape(height // 2, width // 2),
        ]
        encoder.write(planes, place * clips.TICKS)
    made = encoder.finish(len(order) * clips.TICKS)
    return b'{"status": "ok"}\n' + made.init + made.media


WIRE = handover.WIRE_TYPE
FULL = list(range(12))


@pytest.mark.parametrize(
    ("status", "kind", "body", "code", "words"),
    [
        (200, "text/html", b"<html>", "REMOTE_INVALID", "text/html"),
        (200, WIRE, b"", "REMOTE_INVALID", "empty"),
        (200, WIRE, b"no json\nrubbish", "REMOTE_INVALID", "not JSON"),
        (200, WIRE, b'{"status": "sulking"}\n', "REMOTE_INVALID", "sulking"),
        (200, WIRE, b'{"status": "ok"}\n', "REMOTE_INVALID", "cannot be read"),
        (200, WIRE, b'{"status": "ok"}\n' + b"rubbish" * 999, "REMOTE_INVALID", "cannot be read"),
        (200, WIRE, b'{"status": "ok"}\n' + bytes(64 << 20), "REMOTE_INVALID", "more than"),
        (200, WIRE, FULL[:6], "REMOTE_INVALID", "6 of the segment's 12"),
        (200, WIRE, [*FULL, 11], "REMOTE_INVALID", "more than the segment's 12"),
        (200, WIRE, [*FULL[3:], 0, 1, 2], "REMOTE_INVALID", "out of order"),
        (200, WIRE, [0, *FULL[:11]], "REMOTE_INVALID", "out of order"),
        (500, "application/json", b'{"error": "no GPU", "code": "X"}', "REMOTE_FAILED", "HTTP 500: X no GPU"),
        (400, "application/json", b'{"error": "bad mode"}', "REMOTE_FAILED", "bad mode"),
        (307, "text/plain", b"", "REMOTE_FAILED", "HTTP 307"),
    ],
)
def test_bad_answers(status: int, kind: str, body: bytes | list[int], code: str, words: str) -> None:
    moving = fast(12)
    plan = clips.plan(WIDTH, HEIGHT, engine="flat", divergence=0.0)
    sent = body if isinstance(body, bytes) else answer(moving, plan, body)
    clip = clips.Clip(moving)
    with remote.serving(remote.Parrot(status, sent, kind)) as url, pytest.raises(errors.Transient) as caught:
        backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 12))
    assert caught.value.code == code
    assert words in str(caught.value)
    assert not clip.lent


def test_half_a_film_and_another_film() -> None:
    moving = fast(12)
    plan = clips.plan(WIDTH, HEIGHT, engine="flat", divergence=0.0)
    good = answer(moving, plan, FULL)
    other = answer(clips.pictures(12, WIDTH, HEIGHT, seed=99), plan, FULL)
    wide = clips.plan(2 * WIDTH, HEIGHT, engine="flat", divergence=0.0)
    sized = answer(clips.pictures(12, 2 * WIDTH, HEIGHT), wide, FULL)
    for sent, words in ((good[:-2000], ""), (other, "something else"), (sized, "not 160x90")):
        with remote.serving(remote.Parrot(200, sent, WIRE)) as url, pytest.raises(errors.Transient) as caught:
            backend(url).convert(decoder=clips.Clip(moving), plan=plan, segment=clips.segment(0, 0, 12))
        assert caught.value.code == "REMOTE_INVALID"
        assert words in str(caught.value)
    with remote.serving(remote.Parrot(200, good, WIRE)) as url:
        backend(url).convert(decoder=clips.Clip(moving), plan=plan, segment=clips.segment(0, 0, 12))


def fast(count: int) -> list[tuple[np.ndarray, ...]]:
    """Pictures whose brightness changes from frame to frame, so that their order shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return [
        (
            np.clip(60 + 90 * (np.sin((x + 14 * i) / 25.0) + 0.3 * np.sin(y / 9.0)), 16, 235).astype(np.uint8),
            chroma,
            chroma,
        )
        for i in range(count)
    ]


def test_an_endpoint_that_never_answers(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    began = time.monotonic()
    with remote.serving(remote.Parrot(200, b"", WIRE, hang=True)) as url, pytest.raises(errors.Transient) as caught:
        backend(url, timeout_seconds=0.5).convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5)
        )
    assert caught.value.code == "REMOTE_FAILED"
    assert "No answer" in str(caught.value)
    assert time.monotonic() - began < 15


def test_an_endpoint_that_is_not_there(pictures: list[tuple[np.ndarray, ...]]) -> None:
    with remote.serving(remote.Parrot(200, b"", WIRE)) as url:
        pass
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    with pytest.raises(errors.Transient) as caught:
        backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5))
    assert caught.value.code == "REMOTE_FAILED"


def test_a_broken_connection(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    parrot = remote.Parrot(200, b'{"status": "ok"}\nhalf', WIRE, cut=True)
    with remote.serving(parrot) as url, pytest.raises(errors.Transient) as caught:
        backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5))
    assert caught.value.code == "REMOTE_FAILED"


# ---- the contract of the server -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no json", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "input_uri"),
        (json.dumps({"s3_input_uri": "s3://b/k"}).encode(), "output_uri"),
        (json.dumps({"input_uri": "s3://b/k", "output_uri": "s3://b/o", "mode": "hologram"}).encode(), "mode"),
        (json.dumps({"input_uri": "ftp://b/k", "output_uri": "file:///etc/x"}).encode(), "below none"),
        (json.dumps({"input_uri": "file:///etc/passwd", "output_uri": "s3://b/o"}).encode(), "can reach"),
        (json.dumps({"input_uri": 5, "output_uri": "s3://b/o"}).encode(), "input_uri"),
        (b"x" * (2 << 20), "more than"),
    ],
)
def test_bad_requests(body: bytes, words: str) -> None:
    with remote.inference_server() as (url, server):
        found = httpx.post(url + "/invocations", content=body, timeout=10)
        assert found.status_code == 400
        assert words in found.json()["error"]
        assert found.json()["code"] == "INVALID_REQUEST"
        assert server.busy == 0
        assert httpx.get(url + "/elsewhere", timeout=5).status_code == 404
        assert httpx.get(url + "/invocations", timeout=5).status_code == 404


def test_the_plain_contract(tmp_path: Path) -> None:
    """The seed system's words: both spellings, `mode`, `{"status": "ok"}`; files only below the allowed folders."""
    modes: list[Any] = []

    def film(source: Path, target: Path, options: Any, stop: object) -> None:
        modes.append(options.layout)
        target.write_bytes(source.read_bytes()[::-1])

    (tmp_path / "in.mp4").write_bytes(b"abc")
    given = {"input_uri": (tmp_path / "in.mp4").as_uri(), "output_uri": (tmp_path / "a" / "out.mp4").as_uri()}
    with remote.inference_server(film=film, roots=(tmp_path,)) as (url, _):
        for body in (given, {**{f"s3_{k}": v for k, v in given.items()}, "mode": "sbs"}):
            found = httpx.post(url + "/invocations", json=body, timeout=10)
            assert (found.status_code, found.json()) == (200, {"status": "ok"})
            assert (tmp_path / "a" / "out.mp4").read_bytes() == b"cba"
        missing = {**given, "input_uri": (tmp_path / "none.mp4").as_uri()}
        assert httpx.post(url + "/invocations", json=missing, timeout=10).status_code == 400
        outside = {**given, "output_uri": (tmp_path / ".." / "out.mp4").as_uri()}
        assert httpx.post(url + "/invocations", json=outside, timeout=10).status_code == 400
    assert modes == [Layout.ANAGLYPH, Layout.FULL_SBS]


def test_a_whole_film_keeps_its_sound(tmp_path: Path) -> None:
    """What a client of the seed system gets: full side-by-side of every frame, with the sound of its input."""
    source = sources.path("h264_mp4")
    given = {"input_uri": source.as_uri(), "output_uri": (tmp_path / "out.mp4").as_uri(), "mode": "sbs"}
    films = Films(remote.convert, remote.LIMITS, "flat")
    with remote.inference_server(film=films, roots=(tmp_path, source.parent)) as (url, _):
        found = httpx.post(url + "/invocations", json=given, timeout=60)
        assert (found.status_code, found.json()) == (200, {"status": "ok"})
        rubbish = {**given, "input_uri": (tmp_path / "rubbish.mp4").as_uri()}
        (tmp_path / "rubbish.mp4").write_bytes(b"rubbish" * 1000)
        failed = httpx.post(url + "/invocations", json=rubbish, timeout=60)
        assert failed.status_code == 500
        assert failed.json()["code"] in ("UNSUPPORTED_CONTAINER", "CORRUPT_INPUT")
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert len(after.streams.audio) == len(before.streams.audio)
        assert after.streams.video[0].width == 2 * before.streams.video[0].width
        wanted = [frame.time for frame in before.decode(video=0)]
        assert [frame.time for frame in after.decode(video=0)] == pytest.approx(wanted)


def test_a_failing_conversion_is_a_500(tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise errors.error("OUT_OF_MEMORY", "8 GiB wanted")

    (tmp_path / "in.mp4").write_bytes(b"abc")
    body = {"input_uri": (tmp_path / "in.mp4").as_uri(), "output_uri": (tmp_path / "out.mp4").as_uri()}
    with remote.inference_server(film=fails, roots=(tmp_path,), token="s3cret") as (url, server):
        assert httpx.post(url + "/invocations", json=body, timeout=10).status_code == 401
        found = httpx.post(url + "/invocations", json=body, headers={"Authorization": "Bearer s3cret"}, timeout=10)
        assert found.status_code == 500
        assert found.json()["code"] == "OUT_OF_MEMORY"
        assert "8 GiB" in found.json()["error"]
        assert not (tmp_path / "out.mp4").exists()
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
    packed = handover.pack(clips.Clip(pictures), plan, clips.segment(0, 20, 25), padding=8)
    assert (packed.handover.before, packed.handover.after) == (8, 8)
    assert handover.padding(plan) == padding(plan) >= 8
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


def test_the_server_as_a_process(pictures: list[tuple[np.ndarray, ...]], tmp_path: Path) -> None:
    """`python -m inference.serve`: converts by the default engine's settings, stops on SIGTERM, refuses strangers."""
    environment = {**os.environ, "STEREOSPOT_DATA_DIR": str(tmp_path), "STEREOSPOT_SANDBOX": "off"}
    command = [sys.executable, "-m", "inference.serve"]
    open_to_all = subprocess.run([*command, "--host", "0.0.0.0"], env=environment, capture_output=True, timeout=60)
    assert open_to_all.returncode == errors.EXIT_MISCONFIGURED
    assert b"STEREOSPOT_INFERENCE_TOKEN" in open_to_all.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([*command, "--port", str(port)], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(url), seconds=60, what="the server")
        plan = clips.plan(WIDTH, HEIGHT, engine="flat")
        found = backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 3, 9))
        assert found.fragment.frames == 6
        process.terminate()
        assert process.wait(20) in (0, -15)
    finally:
        process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/ping", timeout=1).text == "OK"
    except httpx.HTTPError:
        return False
