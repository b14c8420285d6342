"""Every subject, stream, consumer and bucket name, in one place.

Subjects read from left to right like a path, so that `nats sub 'stereospot.event.>'` or
`nats sub 'stereospot.*.*.<job>.>'` are useful to a person. Builders refuse tokens that would break a subject;
parsers return None for what is not theirs and never raise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PREFIX = "stereospot"

WORK = "WORK"
CONVERT = "CONVERT"
LIVE = "LIVE"
DONE = "DONE"
EVENT = "EVENT"
DEAD = "DEAD"
ADVISORY = "ADVISORY"

QUEUES = (WORK, CONVERT, DONE, LIVE)
"""Streams in which a message stays until somebody acknowledges or removes it."""

JOBS = "jobs"
STATE = "state"
WORKERS = "workers"
KEYS = "keys"
IDEMPOTENCY = "idempotency"
TRIES = "tries"

Lane = Literal["now", "normal"]
LANES: tuple[Lane, Lane] = ("now", "normal")
"""In the order in which they are probed: what a viewer waits for comes first."""

WorkKind = Literal["submit", "ingest", "plan", "analyse", "audio", "delete"]

_TOKEN = re.compile(r"^[A-Za-z0-9_-]{1,64}\Z")


def is_token(text: str) -> bool:
    """Whether `text` may stand as one token of a subject or of a storage key: 1 to 64 of A-Z a-z 0-9 _ -."""
    return _TOKEN.match(text) is not None


def _token(text: str) -> str:
    if not is_token(text):
        raise ValueError(f"not a subject token: {text!r}")
    return text


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def matches(subject: str, pattern: str) -> bool:
    """Whether a filter takes a subject, or all of a stream's pattern: `*` is one token, `>` all that follow."""
    tokens, wanted = subject.split("."), pattern.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or tokens[place] == ">" or token not in ("*", tokens[place]):
            return False
    return len(tokens) == len(wanted)


def filters_of(consumer: Mapping[str, Any]) -> list[str]:
    """The filters in a consumer's configuration; without one it takes everything."""
    return list(consumer.get("filter_subjects") or [consumer.get("filter_subject") or ">"])


# ---- work ------------------------------------------------------------------------------------------------
def work(kind: WorkKind, job_id: str, *rest: int) -> str:
    """`stereospot.work.<kind>.<job>[.<generation>[.<window>]]`."""
    return ".".join([PREFIX, "work", kind, _token(job_id), *map(str, rest)])


def convert(pool: str, lane: Lane, job_id: str, generation: int, index: int) -> str:
    """`stereospot.convert.<pool>.<lane>.<job>.<generation>.<index>`: one segment to convert."""
    return f"{PREFIX}.convert.{_token(pool)}.{lane}.{_token(job_id)}.{generation}.{index}"


def convert_filter(pool: str = "*", lane: str = "*", job_id: str | None = None) -> str:
    """The filter of a converter's consumer, or, with a job, what a cancel purges."""
    if job_id is None:
        return f"{PREFIX}.convert.{pool}.{lane}.>"
    return f"{PREFIX}.convert.{pool}.{lane}.{_token(job_id)}.>"


def convert_consumer(pool: str, lane: Lane) -> str:
    """The durable consumer of one pool and lane."""
    return f"convert-{_token(pool)}-{lane}"


def is_urgent(subject: str) -> bool:
    """Whether a segment's message came by the lane of what a viewer waits for."""
    parts = subject.split(".")
    return len(parts) == 7 and parts[1] == "convert" and parts[3] == "now"


# ---- done ------------------------------------------------------------------------------------------------
DoneKind = Literal["part", "total", "audio", "init", "window"]


def done_segment(job_id: str, generation: int, index: int) -> str:
    """`stereospot.done.<job>.<generation>.<index>`: this segment is stored."""
    return f"{PREFIX}.done.{_token(job_id)}.{generation}.{index}"


def done_plan(job_id: str, generation: int, kind: DoneKind) -> str:
    """`stereospot.done.<job>.<generation>.part|total|audio|window`: what planner, audio and analyser report."""
    return f"{PREFIX}.done.{_token(job_id)}.{generation}.{kind}"


@dataclass(frozen=True, slots=True)
class DoneSubject:
    job_id: str
    generation: int
    what: int | DoneKind


def parse_done(subject: str) -> DoneSubject | None:
    parts = subject.split(".")
    if len(parts) != 5 or parts[:2] != [PREFIX, "done"] or not is_token(parts[2]):
        return None
    generation = _number(parts[3])
    if generation is None:
        return None
    if parts[4] in ("part", "total", "audio", "init", "window"):
        return DoneSubject(parts[2], generation, parts[4])
    index = _number(parts[4])
    return None if index is None else DoneSubject(parts[2], generation, index)


# ---- events ----------------------------------------------------------------------------------------------
def event_job(job_id: str, name: str) -> str:
    """`stereospot.event.job.<job>.<name>`: created, planned, completed, failed, …"""
    return f"{PREFIX}.event.job.{_token(job_id)}.{_token(name)}"


def event_segment(job_id: str, generation: int, index: int) -> str:
    """`stereospot.event.segment.<job>.<generation>.<index>`: the last one a subject is a cell of the segment strip."""
    return f"{PREFIX}.event.segment.{_token(job_id)}.{generation}.{index}"


def event_segments(job_id: str, generation: int) -> str:
    """A pattern of all cells of a job's strip."""
    return f"{PREFIX}.event.segment.{_token(job_id)}.{generation}.*"


# ---- the rest --------------------------------------------------------------------------------------------
def dead(kind: str, identity: str) -> str:
    """`stereospot.dead.<kind>.<id>`: a dead letter; kind is work-plan, convert, done, …"""
    return f"{PREFIX}.dead.{_token(kind)}.{_token(identity)}"


def state_key(job_id: str, generation: int) -> str:
    """Key of a generation's completion set in the bucket `state`."""
    return f"state.{_token(job_id)}.{generation}"


def trigger_key(job_id: str, generation: int) -> str:
    """Key of a generation's one reassembly trigger in the bucket `state`."""
    return f"trigger.{_token(job_id)}.{generation}"


def tries_key(stream: str, sequence: int) -> str:
    """Key of a message's excused deliveries in the bucket `tries`."""
    return f"{_token(stream)}.{sequence}"


def kv_subject(bucket: str, key: str) -> str:
    """The subject under which JetStream stores a key of a bucket."""
    return f"$KV.{bucket}.{key}"


def kv_stream(bucket: str) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def parse_state_key(key: str) -> tuple[str, str, int] | None:
    """(`state` or `trigger`, job id, generation) of a key of the bucket `state`."""
    parts = key.split(".")
    if len(parts) != 3 or parts[0] not in ("state", "trigger") or not is_token(parts[1]):
        return None
    generation = _number(parts[2])
    return None if generation is None else (parts[0], parts[1], generation)
