"""A job as somebody sees it who waits for it: its record and how many of its frames are stored, again and again.

Reads the two values by key, a few times a second: no subscription to lose, nothing to miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.context import Context
from services.plans import Plans
from stereospot import completion, errors, records, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment: `done` of `total` frames are stored; total is None until the plan is complete."""

    job: Job
    done: int
    total: int | None
    state: Completion | None


async def snapshot(context: Context, plans: Plans, job_id: str) -> Snapshot | None:
    """The job now, or None when its record is gone."""
    found = await records.get_job(context.bus, job_id)
    if found is None:
        return None
    job = found[0]
    entry = await context.bus.bucket(subjects.STATE).get(subjects.state_key(job_id, job.generation))
    if entry is None:
        return Snapshot(job, 0, job.frames, None)
    state = completion.decode(entry.value)
    return Snapshot(job, await _frames(plans, state), job.frames, state)


async def _frames(plans: Plans, state: Completion) -> int:
    """Frames of the segments that are stored."""
    total = 0
    for first in state.parts:
        part = await plans.part(state.job_id, state.generation, first)
        if part is not None:
            total += sum(segment.frames for segment in part.segments if state.is_done(segment.index))
    return total


async def follow(context: Context, job_id: str, *, every_seconds: float = 0.25) -> AsyncIterator[Snapshot]:
    """Snapshots until the job ends (that one included) or its record goes; a broker that is away is waited for."""
    plans = Plans(context.store)
    while True:
        try:
            now = await snapshot(context, plans, job_id)
        except errors.Transient:
            await asyncio.sleep(1.0)
            continue
        if now is None:
            return
        yield now
        if not now.job.is_active:
            return
        await asyncio.sleep(every_seconds)
