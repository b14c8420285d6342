"""What the dispatcher sees: active jobs, their completion sets and the slots of each pool. In memory, never the truth.

Fed by tails of three buckets and by what this process writes itself. It may lag by milliseconds; then a segment is sent
twice (the broker drops the second by its id) or a moment later.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field

from stereospot import errors
from stereospot.completion import Completion
from stereospot.jobs import COMPUTING, Job
from stereospot.messages import Worker
from stereospot.schedule import DEPTH, Candidate, Ranking

WORKER_SECONDS = 15.0
"""A worker that has not been heard of for so long counts no more; the bucket forgets it then too."""

WAITING_SECONDS = 20.0
"""A job that a worker gave back and of which nothing was done for so long waits for a worker that is not there. What it
has in its pool's queue rests nearly all the time: it takes no room from other jobs, and gets none until it goes on."""

RESTING = 256
"""Segments of such jobs that take no room in a pool; a consumer bears 4,096 messages that were given out."""

LACKING = 64
"""Jobs for which windows are asked for at a time."""

_GIVEN_BACK = errors.ELSEWHERE - {"STORAGE_FULL", "STORAGE_UNAVAILABLE"}
"""Warnings of a job that wants another worker; where the storage is the matter, whoever waits holds a result."""


@dataclass(slots=True)
class _Pool:
    waiting: Ranking = field(default_factory=Ranking)
    hurried: set[str] = field(default_factory=set[str])
    given_back: set[str] = field(default_factory=set[str])
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Lacking:
    """Windows of its curve that a job needs next."""

    job: Job
    state: Completion
    windows: tuple[int, ...]


@dataclass(slots=True)
class _Share:
    """What one job adds to its pool's numbers, and since when (`time.monotonic`) nothing of it was done."""

    pool: str
    in_flight: int
    done: tuple[int, int, int]
    since: float


class View:
    """Candidates by pool, kept up to date by small steps: a change costs the one job, never all of them."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._generations: dict[str, int] = {}
        self._states: dict[str, Completion] = {}
        self._pools: dict[str, _Pool] = {}
        self._shares: dict[str, _Share] = {}
        self._lacking: dict[str, Lacking] = {}
        self._workers: dict[str, tuple[Worker, float]] = {}

    # ---- what the tails bring ---------------------------------------------------------------------------
    def set_job(self, job: Job) -> None:
        """Take over a record; only jobs that are being worked on are kept."""
        self._generations[job.job_id] = job.generation
        if job.phase in COMPUTING:
            self._jobs[job.job_id] = job
        else:
            self._jobs.pop(job.job_id, None)
        self._refresh(job.job_id)

    def drop_job(self, job_id: str) -> None:
        """The record is gone."""
        for known in (self._generations, self._jobs, self._states):
            known.pop(job_id, None)
        self._refresh(job_id)

    def set_state(self, state: Completion) -> None:
        """Take over a completion set; an older generation than the known one is ignored."""
        known = self._states.get(state.job_id)
        if known is not None and known.generation > state.generation:
            return
        if state.is_complete:
            self._states.pop(state.job_id, None)
        else:
            self._states[state.job_id] = state
        self._refresh(state.job_id)

    def drop_state(self, job_id: str, generation: int) -> None:
        """The set of this generation, or a newer one, cannot be read."""
        known = self._states.get(job_id)
        if known is not None and known.generation <= generation:
            del self._states[job_id]
            self._refresh(job_id)

    def set_worker(self, worker: Worker) -> None:
        self._workers[worker.worker_id] = (worker, time.monotonic() + WORKER_SECONDS)

    def drop_worker(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)

    # ---- what the dispatcher asks -----------------------------------------------------------------------
    def is_old(self, job_id: str, generation: int) -> bool:
        """Whether the job is known to have a newer generation; False does not say that it has not."""
        return self._generations.get(job_id, 0) > generation

    def pools(self) -> list[str]:
        """Pools for which something waits that may be sent now: there is room, or somebody watches."""
        return [name for name, pool in self._pools.items() if pool.hurried or (pool.waiting and self._has_room(name))]

    def _has_room(self, name: str) -> bool:
        return self.in_flight(name) < max(self.slots(name), 1) * DEPTH

    def _resting(self, name: str) -> set[str]:
        """Jobs that wait for a worker that is not there: given back once, and with none at work on them since."""
        given_back = self._pools[name].given_back
        if not given_back:
            return set()
        before = time.monotonic() - WAITING_SECONDS
        at_work = {segment.partition(".")[0] for worker in self._living() for segment in worker.busy}
        return {job_id for job_id in given_back - at_work if self._shares[job_id].since <= before}

    def candidates(self, pool: str) -> list[Candidate]:
        """Those that may get a segment now: as many as there is room for, and whoever is watched."""
        found, resting = self._pools[pool], self._resting(pool)
        room = max(self.slots(pool), 1) * DEPTH - self.in_flight(pool)
        first = found.waiting.first(max(0, room) + len(found.hurried) + len(resting))
        chosen = {item.job_id: item for item in first if item.job_id not in resting}
        for job_id in found.hurried:
            candidate = found.waiting.get(job_id)
            if candidate is not None:
                chosen[job_id] = candidate
        return list(chosen.values())

    def in_flight(self, pool: str) -> int:
        """Segments that were sent and not done, as far as they take room."""
        resting = sum(self._shares[job_id].in_flight for job_id in self._resting(pool))
        return self._pools[pool].in_flight - min(resting, RESTING)

    def slots(self, pool: str) -> int:
        """Slots of the pool's living workers."""
        return sum(worker.slots for worker in self._living() if worker.pool == pool)

    def _living(self) -> list[Worker]:
        """Workers that were heard of lately; the others are forgotten."""
        now = time.monotonic()
        for worker_id in [key for key, (_, until) in self._workers.items() if until < now]:
            del self._workers[worker_id]
        return [worker for worker, _ in self._workers.values()]

    def is_at(self, job_id: str, generation: int, attempt: int) -> bool:
        """Whether this is what is being worked on of a job."""
        job = self._jobs.get(job_id)
        return job is not None and (job.generation, job.attempt) == (generation, attempt)

    def lacking(self) -> list[Lacking]:
        """Jobs that wait for windows of their curve: the highest priority first, then the oldest; so many at most that
        thousands behind them cost nothing."""
        return heapq.nsmallest(
            LACKING, self._lacking.values(), key=lambda item: (-item.job.priority, item.job.created_at)
        )

    def state(self, job_id: str) -> Completion | None:
        return self._states.get(job_id)

    def job(self, job_id: str) -> Job | None:
        """The record of a job that is being worked on."""
        return self._jobs.get(job_id)

    def _refresh(self, job_id: str) -> None:
        before = self._shares.pop(job_id, None)
        if before is not None:
            pool = self._pools[before.pool]
            pool.in_flight -= before.in_flight
            pool.waiting.drop(job_id)
            pool.hurried.discard(job_id)
            pool.given_back.discard(job_id)
        self._lacking.pop(job_id, None)
        job, state = self._jobs.get(job_id), self._states.get(job_id)
        if job is None or state is None or (state.generation, state.attempt) != (job.generation, job.attempt):
            return
        in_flight = (state.sent & ~state.done).bit_count()
        done = (state.generation, state.attempt, state.done)
        now = time.monotonic()
        since = before.since if before is not None and before.done == done and before.in_flight else now
        self._shares[job_id] = _Share(job.pool, in_flight, done, since)
        pool = self._pools.setdefault(job.pool, _Pool())
        pool.in_flight += in_flight
        if in_flight and any(item.code in _GIVEN_BACK for item in job.warnings):
            pool.given_back.add(job_id)
        waiting, windows = state.ahead(job.playhead or 0)
        if windows:
            self._lacking[job_id] = Lacking(job, state, windows)
        if waiting and (job.playhead is not None or job.options.samples is not None):
            pool.hurried.add(job_id)
        if waiting:
            candidate = Candidate(
                job_id=job_id,
                generation=job.generation,
                pool=job.pool,
                waiting=waiting,
                in_flight=in_flight,
                priority=job.priority,
                playhead=job.playhead,
                urgent=job.options.samples is not None,
                created_at=job.created_at,
            )
            pool.waiting.put(candidate)
