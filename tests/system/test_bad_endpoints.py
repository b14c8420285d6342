"""Whole jobs, through the real daemon, by a server process that answers badly: a code on the job, a dead letter or
another try for the segment, and every other segment and job as if nothing had happened.

What each bad answer is called at the backend is in `test_http_answers.py`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services import daemon, submit
from services.context import Context
from stereospot import records, subjects
from stereospot.jobs import Job, Phase
from stereospot.messages import SegmentEvent
from stereospot.options import Options
from tests.media import sources as films
from tests.support import eventually, wait_until
from tests.system.misbehaving import MOODS, SPOILT
from tests.system.rig import rig

SERVICES = frozenset({"planner", "collector", "converter", "assembler", "dead-letters"})
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


@asynccontextmanager
async def converting(tmp_path: Path, jobs: dict[str, str], **settings: Any) -> AsyncGenerator[Context]:
    """Jobs by id and backend, on a daemon that has its broker to itself."""
    async with (
        rig(tmp_path, slots=4, **settings) as context,
        daemon.running(context.settings, SERVICES, provisioned=False, alone=True),
    ):
        source = await submit.local_source(films.path("h264_mp4_silent"), None)
        for job_id, backend in jobs.items():
            options = Options(engine="flat", backend=backend, preset="ultrafast", segment_seconds=1.0)  # type: ignore[arg-type]
            await submit.create(context, source, options, job_id=job_id)
        yield context


async def ended(context: Context, *job_ids: str) -> dict[str, Job]:
    """The jobs once none is at work any more."""
    found: dict[str, Job] = {}

    async def are_over() -> bool:
        for job_id in job_ids:
            record = await records.get_job(context.bus, job_id)
            assert record is not None
            found[job_id] = record[0]
        return not any(job.is_active for job in found.values())

    await eventually(are_over, seconds=240, every=0.1, what=f"the end of {', '.join(job_ids)}")
    return found


async def given_back(context: Context) -> dict[str, list[str]]:
    """Codes of what segments were given back for, by `job.segment`."""
    found: dict[str, list[str]] = defaultdict(list)
    info = (await context.bus.stream_info(subjects.EVENT))["state"]
    for sequence in range(max(1, info["first_seq"]), info["last_seq"] + 1):
        stored = await context.bus.get(subjects.EVENT, sequence)
        if stored is None or ".event.segment." not in stored.subject:
            continue
        event = SegmentEvent.model_validate_json(stored.data)
        if event.state == "retrying" and event.failure is not None:
            job_id, _, index = stored.subject.split(".")[-3:]
            found[f"{job_id}.{index}"].append(event.failure.code)
    return found


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
        async with converting(tmp_path, jobs, max_attempts=2) as context:
            done = await ended(context, *jobs)
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
        async with converting(tmp_path, {"FAR": "http", "NEAR": "local"}, max_attempts=8) as context:
            near = (await ended(context, "NEAR"))["NEAR"]
            first.kill()
            await asyncio.to_thread(first.wait, 10)

            async def refused() -> bool:
                return bool(await given_back(context))

            await eventually(refused, seconds=60, every=0.1, what="a segment given back")
            with server(tmp_path, int(url.rpartition(":")[2])):
                far = (await ended(context, "FAR"))["FAR"]
                codes = await given_back(context)
    assert near.phase is Phase.COMPLETED, near.failure
    assert far.phase is Phase.COMPLETED, far.failure
    assert {code for found in codes.values() for code in found} == {"REMOTE_FAILED"}
