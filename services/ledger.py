"""What the janitor knows of every job, kept from one sweep to the next: a sweep reads only what changed.

    KV_jobs, KV_state ─(from the last sequence seen)─> Ledger ─> suspects, aliases to look at, streams whose time is up

With 100,000 jobs, nearly all of them finished, a sweep costs what happened since the one before. What is kept is a few
numbers a job; whoever acts on a suspicion reads the record again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from stereospot import completion, errors, log, subjects
from stereospot.bus import Bus, Stored
from stereospot.completion import Completion
from stereospot.jobs import ACTIVE, Job, Phase
from stereospot.messages import Trigger

_log = log.get("janitor")

BREATH = 256
"""Records that are read before the event loop gets a turn."""

AT_A_TIME = 1000
"""Streams whose time is over that one sweep sees to: the first one after years may find many, and has more to do."""


@dataclass(frozen=True, slots=True)
class Open:
    """A job that is not at rest: active, or deleted and not yet gone."""

    phase: Phase
    generation: int
    attempt: int
    updated_at: float


@dataclass(frozen=True, slots=True)
class Queued:
    """What the work queues hold at one moment: job ids, and segments by (job, generation)."""

    planned: frozenset[str]
    deleted: frozenset[str]
    reported: frozenset[str]
    sent: dict[tuple[str, int], int]
    done: dict[tuple[str, int], int]
    assembled: int
    """Sequence up to which every trigger was followed."""


class Ledger:
    """Jobs and completion sets in short; one reader."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen = {subjects.JOBS: 0, subjects.STATE: 0}
        self._made: dict[str, str] = {}
        """When each stream was made."""
        self.known: set[str] = set()
        """Every job that has a record."""
        self.open: dict[str, Open] = {}
        self.finished: dict[str, float] = {}
        """Completed jobs whose alias was not looked at yet, with the time of their end."""
        self.aging = Calendar()
        """Samples and films with a stream, by the time when they came to rest."""
        self.withdrawn = Calendar()
        """Films whose stream is withdrawn and not cleared away, by the time of that."""
        self._states: dict[tuple[str, int], Completion] = {}
        self._triggers: dict[tuple[str, int], tuple[int, int]] = {}

    async def read(self) -> int:
        """Take over what changed since the last time; returns how many values that were."""
        return await self._read(subjects.JOBS, self._on_job) + await self._read(subjects.STATE, self._on_state)

    async def _read(self, bucket: str, take: Callable[[str, Stored], None]) -> int:
        stream, prefix = subjects.kv_stream(bucket), subjects.kv_subject(bucket, "")
        info = await self._bus.stream_info(stream)
        if info["created"] != self._made.get(bucket) or info["state"]["last_seq"] < self._seen[bucket]:
            # Made anew, or put back from an older copy: what was seen is of another stream.
            self._begin_anew(bucket)
            self._made[bucket] = info["created"]
        seen = self._seen[bucket]
        count = 0
        async with self._bus.tail(stream, f"{prefix}>", start=seen + 1 if seen else "last") as tail:
            while tail.pending:
                message = await anext(tail)
                try:
                    take(message.subject.removeprefix(prefix), message)
                except (ValidationError, errors.Misconfigured) as problem:
                    _log.error("unreadable record", action="refuse", subject=message.subject, reason=str(problem))
                self._seen[bucket] = message.sequence
                count += 1
                if count % BREATH == 0:
                    await asyncio.sleep(0)
        return count

    def _begin_anew(self, bucket: str) -> None:
        self._seen[bucket] = 0
        of_jobs = (self.known, self.open, self.finished, self.aging, self.withdrawn)
        for known in of_jobs if bucket == subjects.JOBS else (self._states, self._triggers):
            known.clear()

    def _on_job(self, job_id: str, message: Stored) -> None:
        self.open.pop(job_id, None)
        self.finished.pop(job_id, None)
        if message.is_marker:
            self.known.discard(job_id)
            return
        self.known.add(job_id)
        job = Job.model_validate_json(message.data)
        if job.phase in ACTIVE or job.phase is Phase.DELETED:
            self.open[job_id] = Open(job.phase, job.generation, job.attempt, job.updated_at)
            return
        sample = job.options.samples is not None
        if job.phase is Phase.COMPLETED:
            self.finished[job_id] = job.updated_at
        film = job.film if job.phase is Phase.COMPLETED else None
        if sample or (film is not None and film.stream_withdrawn_at is None):
            self.aging.add(job.updated_at, job_id)
        elif film is not None and film.stream_withdrawn_at is not None and not film.stream_cleared:
            self.withdrawn.add(film.stream_withdrawn_at, job_id)

    def _on_state(self, key: str, message: Stored) -> None:
        parsed = subjects.parse_state_key(key)
        if parsed is None:
            return
        kind, job_id, generation = parsed
        place = (job_id, generation)
        if message.is_marker:
            (self._states if kind == "state" else self._triggers).pop(place, None)
        elif kind == "trigger":
            self._triggers[place] = (Trigger.model_validate_json(message.data).attempt, message.sequence)
        else:
            self._states[place] = completion.decode(message.data)

    # ---- what a sweep asks ------------------------------------------------------------------------------
    def forget_finished(self) -> None:
        """Drop the sets of jobs that are at rest."""
        for known in (self._states, self._triggers):
            for place in [place for place in known if place[0] not in self.open]:
                del known[place]

    def suspects(self, queued: Queued, before: float) -> Iterator[str]:
        """Jobs that were left alone since `before` and whose record, set and queues contradict each other."""
        for job_id, job in self.open.items():
            if job.updated_at <= before and self._is_suspect(job_id, job, queued):
                yield job_id

    def _is_suspect(self, job_id: str, job: Open, queued: Queued) -> bool:
        if job.phase is Phase.DELETED:
            return job_id not in queued.deleted
        if job.phase in (Phase.CREATED, Phase.PLANNING):
            return job_id not in queued.planned
        if job.phase not in (Phase.CONVERTING, Phase.ASSEMBLING):
            return False
        place = (job_id, job.generation)
        state = self._states.get(place)
        if state is None or state.total is None or state.attempt != job.attempt:
            return job_id not in queued.planned and job_id not in queued.reported
        if state.is_complete:
            attempt, sequence = self._triggers.get(place, (0, 0))
            return attempt != state.attempt or sequence <= queued.assembled
        return bool(state.sent & ~state.done & ~queued.sent.get(place, 0) & ~queued.done.get(place, 0))


class Calendar:
    """Jobs by the time from which on something may be done about them; whoever takes one out adds it if it is not."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def add(self, at: float, job_id: str) -> None:
        heapq.heappush(self._heap, (at, job_id))

    def due(self, before: float) -> Iterator[tuple[float, str]]:
        """Take out what is due, oldest first, AT_A_TIME at most."""
        for _ in range(AT_A_TIME):
            if not self._heap or self._heap[0][0] > before:
                return
            yield heapq.heappop(self._heap)

    def clear(self) -> None:
        self._heap.clear()


# ---- what the queues hold --------------------------------------------------------------------------------
async def queued(bus: Bus) -> Queued:
    """What the work queues hold, in four requests: a queue keeps what is not acknowledged."""
    work = [subject.split(".") for subject in await subjects_in(bus, subjects.WORK, f"{subjects.PREFIX}.work.>")]
    jobs_reported, done = await reported(bus, f"{subjects.PREFIX}.done.>")
    info = await bus.consumer_info(subjects.kv_stream(subjects.STATE), "assembler")
    return Queued(
        planned=frozenset(parts[3] for parts in work if parts[2] == "plan" and len(parts) > 3),
        deleted=frozenset(parts[3] for parts in work if parts[2] == "delete" and len(parts) > 3),
        reported=jobs_reported,
        sent=await sent(bus, f"{subjects.PREFIX}.convert.>"),
        done=done,
        assembled=int(info["ack_floor"]["stream_seq"]),
    )


async def subjects_in(bus: Bus, stream: str, pattern: str) -> dict[str, int]:
    """The subjects of a stream that match a pattern, with the number of their messages. Anyone may publish, so a
    subject may have any shape that the stream takes."""
    return await bus.subjects(stream, pattern)


async def sent(bus: Bus, pattern: str) -> dict[tuple[str, int], int]:
    """Segments that wait for a worker or are in its hands: a bitmap by (job, generation)."""
    return _bitmaps(subject.split(".")[4:] for subject in await subjects_in(bus, subjects.CONVERT, pattern))


async def reported(bus: Bus, pattern: str) -> tuple[frozenset[str], dict[tuple[str, int], int]]:
    """Jobs of which something is told that is not counted yet, and their segments: a bitmap by (job, generation)."""
    places = [subject.split(".")[2:] for subject in await subjects_in(bus, subjects.DONE, pattern)]
    return frozenset(parts[0] for parts in places), _bitmaps(places)


def _bitmaps(places: Iterable[Sequence[str]]) -> dict[tuple[str, int], int]:
    """Segments by (job, generation) from [job, generation, index] tokens; what is no segment is left out."""
    found: dict[tuple[str, int], int] = {}
    for parts in places:
        if len(parts) != 3:
            continue
        told = subjects.parse_done(".".join((subjects.PREFIX, "done", *parts)))
        if told is not None and isinstance(told.what, int) and told.what < completion.MAX_SEGMENTS:
            place = (told.job_id, told.generation)
            found[place] = found.get(place, 0) | 1 << told.what
    return found
