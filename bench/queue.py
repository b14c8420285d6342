"""What a long queue costs: the dispatcher's view with ten thousand jobs that wait, and 10,000 jobs through a fleet.

queue   one tick with 10,000 queued jobs of 50 segments and 64 slots: a completion arrives, and what goes out next is
        chosen. Beside it the same choice by sorting all of them.
jobs    10,000 jobs of one segment each, handed to the gateway by eight callers; then planners, stub workers and
        assemblers are started, and for six minutes they become films (`all-jobs`: until the last one has). Gateway and
        collector are processes of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench import measure
from bench.collector import deployment, until
from bench.scale import film
from services.context import Context
from services.view import View
from stereospot import jobs, log, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import SourceRef, Worker
from stereospot.schedule import Candidate, schedule

SLOTS = 64


def filled(count: int, segments: int) -> View:
    """A view of so many jobs that wait in the pool `cpu`, with a worker for it."""
    view = View()
    for number in range(count):
        job = Job(
            job_id=f"J{number}", created_at=float(number), updated_at=1.0, source=SourceRef(key="input/a/source.mp4")
        )
        for phase in (Phase.PLANNING, Phase.CONVERTING):
            job = jobs.advance(job, phase, at=1.0)
        view.set_job(job)
        view.set_state(Completion(job_id=job.job_id, generation=1, total=segments, planned=segments))
    view.set_worker(Worker(worker_id="w", host="h", pid=1, pool="cpu", slots=SLOTS, started_at=0, seen_at=0))
    return view


def timed(turn: Callable[[int], object], turns: int = 50) -> tuple[float, float]:
    """Milliseconds of processor time: median and worst."""
    found: list[float] = []
    for number in range(turns):
        started = time.process_time()
        turn(number)
        found.append((time.process_time() - started) * 1000)
    found.sort()
    return found[len(found) // 2], found[-1]


def queue(count: int = 10_000, segments: int = 50) -> str:
    """Processor time of one tick."""
    started = time.process_time()
    view = filled(count, segments)
    filling = (time.process_time() - started) * 1e6 / count
    everyone = [
        Candidate(f"J{number}", 1, "cpu", (1 << segments) - 1, created_at=float(number)) for number in range(count)
    ]

    def tick(number: int) -> None:
        state = Completion(job_id=f"J{number}", generation=1, total=segments, planned=segments, done=1, sent=1)
        view.set_state(state)
        assert schedule(view.candidates("cpu"), view.slots("cpu"), in_flight=view.in_flight("cpu"))

    ours = timed(tick)
    theirs = timed(lambda _: schedule(everyone, SLOTS), 10)
    rows: list[list[object]] = [
        ["a completion, then the choice", ours[0], ours[1]],
        ["the choice by sorting all", theirs[0], theirs[1]],
    ]
    title = f"queue: {count:,} jobs wait; {filling:.0f} us a job to take over; target < 50 ms a tick"
    return measure.table(title, ["what", "ms, median", "ms, worst"], rows)


# ---- jobs through a fleet --------------------------------------------------------------------------------
CALLERS = 8

FLEET = ("planner", "planner", "converter", "assembler", "assembler")
"""Processes that make films of the jobs: on two cores more of them wait for each other."""

COMPLETED = f"{subjects.PREFIX}.event.job.*.completed"

FILM_SECONDS = 360.0
"""How long films are waited for, unless all of them are."""


@asynccontextmanager
async def child(service: str, variables: Mapping[str, str]) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`stereospot run SERVICE…` for as long as the block lasts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
    command = [sys.executable, "-m", "services.cli", "run", *service.split()]
    process = await asyncio.create_subprocess_exec(
        *command, env={**environment, **variables}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def resident(process: asyncio.subprocess.Process) -> float:
    """Megabytes that a process has in memory (Linux)."""
    fields = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _accept(port: int, source: Path, count: int) -> float:
    """Jobs a second that the gateway takes; one request after the other from each caller."""
    body = {"path": str(source), "options": {"backend": "stub", "preset": "ultrafast"}}
    address = f"http://127.0.0.1:{port}/api/v1/jobs"

    def post(number: int) -> None:
        data = json.dumps(body | {"title": f"Film {number}"}).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status in (200, 201, 202)

    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in pool.map(post, range(count)):
            pass
    return count / (time.perf_counter() - started)


async def _through(count: int, limit_seconds: float | None) -> list[list[object]]:
    async with deployment() as context:
        source = context.settings.data_dir / "film.mp4"
        await asyncio.to_thread(film, source, 1)
        port = _free_port()
        token = context.settings.nats_token
        variables = {
            "STEREOSPOT_DATA_DIR": str(context.settings.data_dir), "STEREOSPOT_POOL": "stub",
            "STEREOSPOT_NATS_URL": context.settings.nats_url or "", "STEREOSPOT_PORT": str(port),
            "STEREOSPOT_NATS_TOKEN": token.get_secret_value() if token else "",
            "STEREOSPOT_ROOTS": json.dumps([str(source.parent)]), "STEREOSPOT_LOG_LEVEL": "error",
            "STEREOSPOT_SLOTS": "8",
        }  # fmt: skip
        async with child("gateway", variables) as gateway, child("collector", variables) as collector:
            await until(lambda: asyncio.to_thread(_ready, port), 0.1)
            rows: list[list[object]] = [["memory before, MB", resident(gateway), resident(collector)]]
            rate = await asyncio.to_thread(_accept, port, source, count)
            rows.append([f"memory with {count:,} jobs accepted, MB", resident(gateway), resident(collector)])
            rows.append(["jobs accepted a second", rate, ""])
            films, seconds = await _films(context, variables, count, limit_seconds)
            rows.append([f"films finished in {seconds:.0f} s", films, ""])
            rows.append(["films finished a second", films / seconds, ""])
            rows.append([f"memory with {films:,} of them converted, MB", resident(gateway), resident(collector)])
            return rows


async def _films(
    context: Context, variables: Mapping[str, str], count: int, limit_seconds: float | None
) -> tuple[int, float]:
    """(films, seconds) from the first film on, so that the start of the processes is left out."""
    films = 0
    first = 0.0
    async with AsyncExitStack() as stack:
        for service in FLEET:
            await stack.enter_async_context(child(service, variables))
        # Told and not asked for: to read ten thousand records every second would cost more than to make them films.
        tail = await stack.enter_async_context(context.bus.tail(subjects.EVENT, COMPLETED))
        while films < count:
            rest = None if limit_seconds is None or not films else first + limit_seconds - time.perf_counter()
            try:
                async with asyncio.timeout(rest):
                    await anext(tail)
            except TimeoutError:
                break
            films += 1
            first = first or time.perf_counter()
        return films, time.perf_counter() - first


def through(count: int = 10_000, limit_seconds: float | None = FILM_SECONDS) -> str:
    """Accept rate, films a second, memory of gateway and collector; None: wait for the film of every job."""
    log.configure("error")
    rows = asyncio.run(_through(count, limit_seconds))
    title = f"jobs: {count:,} jobs of one segment; {', '.join(FLEET)} (8 stub slots)"
    return measure.table(title, ["what", "gateway, or all", "collector"], rows)


def all_through() -> str:
    """The same until the last film is there."""
    return through(limit_seconds=None)
