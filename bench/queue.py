"""What a long queue costs: the dispatcher's view with ten thousand jobs that wait, and 10,000 jobs through a fleet.

queue   one tick with 10,000 queued jobs of 50 segments and 64 slots: a completion arrives, and what goes out next is
        chosen. Beside it the same choice by sorting all of them.
jobs    jobs of one segment each, put in with eight callers, converted by stub workers, each with a film at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import measure
from services.view import View
from stereospot import jobs
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
