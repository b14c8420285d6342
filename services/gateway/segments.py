"""`/api/v1/jobs/<job>/segments`: the strip as data, and everything that is known of one of its cells.

plan ──times──┐
state ──done──┼──> one entry a segment        EVENT, last of each subject ──> who, which attempt, how long
index ──live──┘                               EVENT, all of one subject   ──> its log
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from litestar import get
from litestar.params import FromPath
from pydantic import ValidationError

from services.gateway import resources
from services.gateway.index import until_collected
from services.gateway.state import Gateway, Given
from services.gateway.strip import Piece, segments_of
from stereospot import errors, keys, subjects
from stereospot.bus import Bus
from stereospot.completion import Completion
from stereospot.jobs import Job
from stereospot.messages import SegmentEvent

JobId = FromPath[str]


@get("/jobs/{job_id:str}/segments")
async def list_segments(gateway: Given, job_id: JobId) -> dict[str, Any]:
    """The segment strip: every segment that is planned, with its times, its state, and what converting it took."""
    job = (await gateway.index.fresh(job_id)).job
    state, told = await asyncio.gather(
        gateway.index.completion(job.job_id, job.generation),
        newest(gateway.context.bus, job.job_id, job.generation),
    )
    gateway.index.learn(job, (event for event in told.values() if is_so(event, job)))
    found = [entry(item, job, state, told.get(item.index)) async for item in segments_of(gateway, job)]
    return {"job_id": job.job_id, "generation": job.generation, "segments": found}


@get("/jobs/{job_id:str}/segments/{index:int}")
async def get_segment(gateway: Given, job_id: JobId, index: FromPath[int]) -> dict[str, Any]:
    """One segment: its cell of the strip, its log, and what its converter measured."""
    job = (await gateway.index.fresh(job_id)).job
    piece = await _piece(gateway, job, index)
    state, log, report = await asyncio.gather(
        gateway.index.completion(job.job_id, job.generation),
        history(gateway.context.bus, job.job_id, job.generation, index),
        gateway.context.store.get(keys.segment_report(job.job_id, job.generation, index)),
    )
    shown = entry(piece, job, state, log[-1] if log else None)
    return {
        **shown,
        "job_id": job.job_id,
        "generation": job.generation,
        "log": [told(item) for item in log],
        "report": json.loads(report) if report is not None and shown["state"] == "done" else None,
    }


async def _piece(gateway: Gateway, job: Job, index: int) -> Piece:
    async for item in segments_of(gateway, job):
        if item.index == index:
            return item
    raise errors.error("NOT_FOUND", f"The film has no segment {index} as far as it is planned.")


def entry(piece: Piece, job: Job, state: Completion | None, event: SegmentEvent | None) -> dict[str, Any]:
    """A segment as lists have it. What is done is what the completion set says; events only tell of the work. Pure."""
    done = state is not None and state.is_done(piece.index)
    found: dict[str, Any] = {
        "index": piece.index,
        "start_seconds": piece.start_seconds,
        "duration_seconds": piece.duration_seconds,
        "frames": piece.frames,
        "state": "done" if done else "waiting",
    }
    if event is None:
        return found
    if done:
        return found | (resources.cell(event) if event.state == "done" else {})
    return found | (resources.cell(until_collected(event)) if is_so(event, job) else {})


def is_so(event: SegmentEvent, job: Job) -> bool:
    """Whether a segment that is not done is still as was last said of it. Pure."""
    if not job.is_active:
        return event.state == "failed"  # it is worked on by nobody
    # A job that goes on has its failures behind it, and all that was begun before.
    began = next((step.at for step in job.history if step.attempt == job.attempt > 1), 0.0)
    return event.state != "failed" and event.at >= began


def told(event: SegmentEvent) -> dict[str, Any]:
    """A line of a segment's log."""
    return {"at": resources.timestamp(event.at), **resources.cell(event)}


async def recall(gateway: Gateway, job: Job) -> None:
    """Have the index know of cells that were at work before this gateway; the broker is asked once a job."""
    live = gateway.index.live(job.job_id, job.generation)
    if live is None or live.is_heard or not job.is_active:
        return
    events = await newest(gateway.context.bus, job.job_id, job.generation)
    gateway.index.learn(job, (event for event in events.values() if is_so(event, job)))


async def newest(bus: Bus, job_id: str, generation: int) -> dict[int, SegmentEvent]:
    """What was last said of each segment, as far as the stream goes back."""
    messages = await bus.last_per_subject(subjects.EVENT, subjects.event_segments(job_id, generation))
    return {event.index: event for item in messages if (event := _parsed(item.data)) is not None}


async def history(bus: Bus, job_id: str, generation: int, index: int) -> list[SegmentEvent]:
    """All that is still known of one segment, oldest first."""
    messages = await bus.read(subjects.EVENT, subjects.event_segment(job_id, generation, index))
    return [event for item in messages if (event := _parsed(item.data)) is not None]


def _parsed(data: bytes) -> SegmentEvent | None:
    try:
        return SegmentEvent.model_validate_json(data)
    except ValidationError:
        return None


HANDLERS = (list_segments, get_segment)
