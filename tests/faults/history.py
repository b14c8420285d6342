"""What a run left behind, as plain data: what the history checker (`promises`) reads.

    streams, buckets, storage, recorded lines ─> read() ─> History ─> promises.check() ─> Verdict

What it reads is the server's own record: `keep_everything` lets buckets and events keep every revision before a run.
Lines of STEREOSPOT_HISTORY (see `stereospot.history`) add what leaves no trace there: puts, settled messages.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.context import Context
from services.reports import Report
from stereospot import completion, keys, subjects
from stereospot.bus import Bus, Stored
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import DeadLetter, JobEvent, SegmentDone, SegmentEvent, Trigger

KEPT = ("KV_jobs", "KV_state", "EVENT")
"""Streams whose every message a run keeps."""


@dataclass(frozen=True, slots=True)
class JobRevision:
    sequence: int
    at: float
    job_id: str
    job: Job | None


@dataclass(frozen=True, slots=True)
class StateRevision:
    sequence: int
    at: float
    state: Completion


@dataclass(frozen=True, slots=True)
class TriggerRevision:
    sequence: int
    at: float
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class SegmentRevision:
    """One `event.segment`; `at` is the server's time."""

    sequence: int
    at: float
    event: SegmentEvent

    @property
    def place(self) -> tuple[str, int, int]:
        return self.event.job_id, self.event.generation, self.event.index

    @property
    def pid(self) -> int:
        """The worker's process: ids are `<host>-<pid>-<hex>`."""
        parts = self.event.worker_id.rsplit("-", 2)
        return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


@dataclass(frozen=True, slots=True)
class Object:
    """What a stored object is."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Death:
    """A worker process that was killed by the test, and when."""

    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Playlist:
    """One answer that a player got: the names in it, those of them that were not there, whether it had an end."""

    session: str
    names: tuple[str, ...]
    missing: tuple[str, ...] = ()
    ended: bool = False
    total: int | None = None


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """One answered call of a webhook: the event's stream sequence."""

    endpoint: str
    job_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class History:
    """Everything that the promises are checked on, in order of sequence."""

    accepted: frozenset[str] = frozenset()
    expected: Mapping[str, Phase] = field(default_factory=dict[str, Phase])
    jobs: tuple[JobRevision, ...] = ()
    states: tuple[StateRevision, ...] = ()
    triggers: tuple[TriggerRevision, ...] = ()
    segments: tuple[SegmentRevision, ...] = ()
    events: tuple[tuple[int, JobEvent], ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    objects: Mapping[str, Object] = field(default_factory=dict[str, Object])
    reports: Mapping[tuple[str, int, int], SegmentDone] = field(default_factory=dict[tuple[str, int, int], SegmentDone])
    last_sequences: Mapping[str, int] = field(default_factory=dict[str, int])
    lines: tuple[Mapping[str, Any], ...] = ()
    deaths: tuple[Death, ...] = ()
    playlists: tuple[Playlist, ...] = ()
    endpoints: frozenset[str] = frozenset()
    calls: tuple[WebhookCall, ...] = ()

    @property
    def last(self) -> dict[str, Job | None]:
        """The last revision of every job."""
        return {revision.job_id: revision.job for revision in self.jobs}

    @property
    def last_states(self) -> dict[tuple[str, int], Completion]:
        return {(item.state.job_id, item.state.generation): item.state for item in self.states}

    def puts(self) -> dict[str, list[float]]:
        """Times at which each key was put."""
        found: dict[str, list[float]] = defaultdict(list)
        for line in self.lines:
            if line["kind"] == "put":
                found[line["key"]].append(line["at"])
        return found

    def finished(self) -> dict[tuple[str, int, int], float]:
        """When each segment was first recorded as done."""
        found: dict[tuple[str, int, int], float] = {}
        known: dict[tuple[str, int], int] = {}
        for revision in self.states:
            state = revision.state
            name = state.job_id, state.generation
            for index in completion.bits(state.done & ~known.get(name, 0)):
                found.setdefault((*name, index), revision.at)
            known[name] = known.get(name, 0) | state.done
        return found


async def keep_everything(bus: Bus) -> None:
    """Let the streams that tell a run's history keep every message of it; before the run."""
    for stream in KEPT:
        config = (await bus.stream_info(stream))["config"]
        await bus.api(f"STREAM.UPDATE.{stream}", {**config, "max_msgs_per_subject": -1})


async def read(
    context: Context,
    *,
    accepted: Sequence[str] = (),
    expected: Mapping[str, Phase] | None = None,
    lines: Path | None = None,
    deaths: Sequence[Death] = (),
    playlists: Sequence[Playlist] = (),
) -> History:
    """The history of a run that has come to rest."""
    bus = context.bus
    jobs: list[JobRevision] = []
    for item in await _all(bus, "KV_jobs"):
        name = item.subject.removeprefix(subjects.kv_subject(subjects.JOBS, ""))
        job = None if item.is_marker else Job.model_validate_json(item.data)
        jobs.append(JobRevision(item.sequence, item.timestamp, name, job))
    states: list[StateRevision] = []
    triggers: list[TriggerRevision] = []
    for item in await _all(bus, "KV_state"):
        if item.is_marker:
            continue
        if item.subject.startswith("$KV.state.trigger."):
            found = Trigger.model_validate_json(item.data)
            triggers.append(TriggerRevision(item.sequence, item.timestamp, found))
        else:
            states.append(StateRevision(item.sequence, item.timestamp, completion.decode(item.data)))
    segments: list[SegmentRevision] = []
    events: list[tuple[int, JobEvent]] = []
    for item in await _all(bus, subjects.EVENT):
        if item.subject.startswith(f"{subjects.PREFIX}.event.segment."):
            event = SegmentEvent.model_validate_json(item.data)
            segments.append(SegmentRevision(item.sequence, item.timestamp, event))
        elif item.subject.startswith(f"{subjects.PREFIX}.event.job."):
            events.append((item.sequence, JobEvent.model_validate_json(item.data)))
    objects, reports = await _stored(context)
    streams = (*KEPT, subjects.WORK, subjects.CONVERT, subjects.DONE, subjects.DEAD)
    return History(
        accepted=frozenset(accepted),
        expected=dict(expected or {}),
        jobs=tuple(jobs),
        states=tuple(states),
        triggers=tuple(triggers),
        segments=tuple(segments),
        events=tuple(events),
        letters=tuple(DeadLetter.model_validate_json(item.data) for item in await _all(bus, subjects.DEAD)),
        objects=objects,
        reports=reports,
        last_sequences={name: int((await bus.stream_info(name))["state"]["last_seq"]) for name in streams},
        lines=recorded(lines),
        deaths=tuple(deaths),
        playlists=tuple(playlists),
    )


def recorded(path: Path | None) -> tuple[Mapping[str, Any], ...]:
    """The lines of a STEREOSPOT_HISTORY file, in order of time; none where nothing was recorded."""
    if path is None or not path.exists():
        return ()
    return tuple(sorted(map(json.loads, path.read_text().splitlines()), key=lambda line: line["at"]))


async def _all(bus: Bus, stream: str) -> list[Stored]:
    """Every message of a stream that is at rest."""
    if (await bus.stream_info(stream))["state"]["messages"] == 0:
        return []
    found: list[Stored] = []
    async with bus.tail(stream, ">", start="all") as tail:
        async for message in tail:
            found.append(message)
            if message.pending == 0:
                break
    return found


async def _stored(context: Context) -> tuple[dict[str, Object], dict[tuple[str, int, int], SegmentDone]]:
    objects: dict[str, Object] = {}
    reports: dict[tuple[str, int, int], SegmentDone] = {}
    async for item in context.store.list("jobs/"):
        body = await context.store.get(item.key)
        if body is None:
            continue
        objects[item.key] = Object(len(body), hashlib.sha256(body).hexdigest())
        place = keys.parse_segment(item.key.removesuffix(".json") + ".m4s") if item.key.endswith(".json") else None
        if place is not None:
            reports[place.job_id, place.generation, place.index] = Report.model_validate_json(body).done
    return objects, reports
