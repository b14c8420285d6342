"""What the inference server promises to any client, and its process."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from inference.contract import Converted, Frames
from inference.gpu.backend import Learned
from inference.gpu.batching import Shared
from inference.invocation import Films
from stereospot import errors
from stereospot.media.model import Bars, Plan, Segment
from stereospot.options import Layout, Options
from tests.media import sources
from tests.media.writing import Film, write
from tests.support import wait_until
from tests.system import remote
from tests.system.remote import HEIGHT, WIDTH, backend
from tests.system.test_planner import letterboxed
from tests.unit import clips
from tests.unit.test_gpu_convert import Ramp


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


@pytest.mark.parametrize("asked", ["samples", "export_depth", "backend", "engine"])
def test_what_only_a_job_gives_is_refused(asked: str) -> None:
    values = {"samples": [1.0], "export_depth": True, "backend": "http", "engine": "user"}
    body = {"input_uri": "s3://b/k", "output_uri": "s3://b/o", "options": {asked: values[asked]}}
    with remote.inference_server() as (url, _):
        found = httpx.post(url + "/invocations", json=body, timeout=10)
    assert (found.status_code, found.json()["code"]) == (400, "INVALID_OPTIONS")
    assert asked in found.json()["error"]


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


def test_a_film_has_its_own_depth_whatever_came_before(tmp_path: Path) -> None:
    """The engine is kept from one film to the next; what it remembers of a film is not."""
    made = {name: tmp_path / f"{name}.mp4" for name in ("first", "second")}
    write(Film(".mp4", frames=24), made["first"])
    write(Film(".mp4", frames=24, size=(176, 144)), made["second"])
    asked = Options(engine="depth-anything", crf=0, preset="ultrafast")

    def shown(*names: str) -> list[np.ndarray]:
        kept = Learned(Shared(Ramp()))

        def convert(decoder: Frames, plan: Plan, segment: Segment, stop: threading.Event | None) -> Converted:
            return kept.convert(decoder=decoder, plan=plan, segment=segment, stop=stop)

        target = tmp_path / "out.mp4"
        for name in names:
            Films(convert, remote.LIMITS, "flat")(made[name], target, asked)
        with av.open(str(target)) as film:
            return [frame.to_ndarray() for frame in film.decode(video=0)]

    found, alone = shown("first", "second"), shown("second")
    assert len(alone) == 24
    assert all(np.array_equal(a, b) for a, b in zip(found, alone, strict=True))


def test_bars_of_a_film_get_no_depth(tmp_path: Path) -> None:
    seen: list[Bars] = []

    def convert(decoder: Frames, plan: Plan, segment: Segment, stop: threading.Event | None) -> Converted:
        seen.append(plan.stereo.bars)
        return kept.convert(decoder=decoder, plan=plan, segment=segment, stop=stop)

    kept = Learned(Shared(Ramp()))
    film = letterboxed(tmp_path / "film.mp4", 24)
    Films(convert, remote.LIMITS, "flat")(film, tmp_path / "out.mp4", Options(engine="depth-anything"))
    assert seen
    assert all(bars == Bars(top=24, bottom=24) for bars in seen)


def test_a_full_disk_costs_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.mp4").write_bytes(b"abc")
    body = {"input_uri": (tmp_path / "in.mp4").as_uri(), "output_uri": (tmp_path / "out.mp4").as_uri()}

    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with remote.inference_server(roots=(tmp_path,), slots=1) as (url, server):
        with monkeypatch.context() as patched:
            patched.setattr(tempfile, "mkdtemp", full)
            assert httpx.post(url + "/invocations", json=body, timeout=10).status_code == 500
        assert httpx.post(url + "/invocations", json=body, timeout=10).status_code == 200
        wait_until(lambda: server.busy == 0, what="a free slot")


def test_a_failing_conversion_is_a_500(tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise errors.error("OUT_OF_MEMORY", "8 GiB wanted")

    (tmp_path / "in.mp4").write_bytes(b"abc")
    body = {"input_uri": (tmp_path / "in.mp4").as_uri(), "output_uri": (tmp_path / "out.mp4").as_uri()}
    with remote.inference_server(film=fails, roots=(tmp_path,), token="s3cret") as (url, server):
        assert httpx.post(url + "/invocations", json=body, timeout=10).status_code == 401
        strange = {b"Authorization": "Bearer s\u00e9cret".encode()}
        assert httpx.post(url + "/invocations", json=body, headers=strange, timeout=10).status_code == 401
        found = httpx.post(url + "/invocations", json=body, headers={"Authorization": "Bearer s3cret"}, timeout=10)
        assert found.status_code == 500
        assert found.json()["code"] == "OUT_OF_MEMORY"
        assert "8 GiB" in found.json()["error"]
        assert not (tmp_path / "out.mp4").exists()
        wait_until(lambda: server.busy == 0, what="a free slot")


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


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_the_process_needs_neither_stdout_nor_stderr(closed: str, tmp_path: Path) -> None:
    """As a service manager or `nohup` may start it; what is wrong is told by the exit status alone then."""
    environment = {**os.environ, "STEREOSPOT_DATA_DIR": str(tmp_path), "STEREOSPOT_SANDBOX": "off"}
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "inference.serve"]
    strangers = subprocess.run([*command, "--host", "0.0.0.0"], env=environment, timeout=60, check=False)
    assert strangers.returncode == errors.EXIT_MISCONFIGURED
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)], env=environment)
    try:
        wait_until(
            lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}"), seconds=60, what="the server"
        )
        assert process.poll() is None
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
