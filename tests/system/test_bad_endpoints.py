"""Whole jobs, through the real daemon, by a server process that answers badly: a code on the job, a dead letter or
another try for the segment, and every other segment and job as if nothing had happened.

What each bad answer is called at the backend is in `test_http_answers.py`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stereospot import subjects
from stereospot.jobs import Phase
from tests.support import eventually, wait_until
from tests.system.misbehaving import MOODS, SPOILT
from tests.system.remote import converting, given_back
from tests.system.rig import ended

FRAMES, SEGMENTS = 96, 4
TIMEOUT_SECONDS = 8.0
"""Far above what a segment takes, far below what the server that never answers would."""


@contextmanager
def server(folder: Path, port: int = 0) -> Generator[tuple[str, subprocess.Popen[bytes]]]:
    """The server as a process of its own: its address, and the process."""
    told = folder / f"port-{len(list(folder.glob('port-*')))}"
    process = subprocess.Popen([sys.executable, "-m", "tests.system.misbehaving", str(told), str(port)])
    try:
        wait_until(lambda: told.exists() or process.poll() is not None, seconds=60, what="the server")
        yield f"http://127.0.0.1:{told.read_text()}", process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moods", [("HALF", "MORE"), pytest.param(tuple(MOODS), marks=pytest.mark.slow)])
async def test_answers_that_are_wrong_for_good_or_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moods: tuple[str, ...]
) -> None:
    """Every mood for good, every mood once, all of them beside a job that is converted here."""
    if "NEVER" in moods:
        monkeypatch.setenv("STEREOSPOT_INFERENCE_TIMEOUT_SECONDS", str(TIMEOUT_SECONDS))
    always, once = ([f"{mood}-{how}" for mood in moods] for how in ("always", "once"))
    with server(tmp_path) as (url, process):
        monkeypatch.setenv("STEREOSPOT_INFERENCE_URL", url)
        jobs = {**dict.fromkeys([*always, *once], "http"), "NEAR": "local"}
        async with converting(tmp_path, jobs, slots=4, max_attempts=2) as context:
            done = {name: await ended(context, name, seconds=240) for name in jobs}
            back = await given_back(context)
            letters = await context.bus.last_per_subject(subjects.DEAD, "stereospot.dead.convert.>")
            stored = {
                name: [item.key async for item in context.store.list(f"jobs/{name}/1/segments/")] for name in jobs
            }
        assert process.poll() is None
    assert done["NEAR"].phase is Phase.COMPLETED, done["NEAR"].failure
    for name in always:
        failure, code = done[name].failure, MOODS[name.partition("-")[0]]
        assert done[name].phase is Phase.FAILED, name
        assert failure is not None
        assert (failure.code, failure.segment_index) == ("ATTEMPTS_EXHAUSTED", SPOILT)
        assert failure.details["cause"]["code"] == code, failure
        assert not [key for key in stored[name] if f"{SPOILT:05d}.m4s" in key]
    for name in once:
        film, code = done[name].film, MOODS[name.partition("-")[0]]
        assert done[name].phase is Phase.COMPLETED, (name, done[name].failure)
        assert film is not None
        assert film.frames == FRAMES
        assert len([key for key in stored[name] if key.endswith(".m4s")]) == SEGMENTS
        assert back.pop(f"{name}.{SPOILT}") == [code]
    # Nothing but the segments that were spoilt was ever given back, and each that stayed so has its letter.
    assert set(back) <= {f"{name}.{SPOILT}" for name in always}
    assert len(letters) == len(always)


@pytest.mark.timeout(300)
async def test_an_endpoint_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with segments in its hands: they are tried again until a server is there, the job beside goes on."""
    with server(tmp_path) as (url, first):
        monkeypatch.setenv("STEREOSPOT_INFERENCE_URL", url)
        first.send_signal(signal.SIGSTOP)  # it has connections, and answers none
        async with converting(tmp_path, {"FAR": "http", "NEAR": "local"}, slots=4, max_attempts=8) as context:
            near = await ended(context, "NEAR", seconds=240)
            first.kill()
            await asyncio.to_thread(first.wait, 10)

            async def refused() -> bool:
                return bool(await given_back(context))

            await eventually(refused, seconds=60, every=0.1, what="a segment given back")
            with server(tmp_path, int(url.rpartition(":")[2])):
                far = await ended(context, "FAR", seconds=240)
                codes = await given_back(context)
    assert near.phase is Phase.COMPLETED, near.failure
    assert far.phase is Phase.COMPLETED, far.failure
    assert {code for found in codes.values() for code in found} == {"REMOTE_FAILED"}
