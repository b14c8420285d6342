"""Whether anything still comes of a job that is at rest: its playlists and its list of tracks go by it.

    record ──> WORK, DONE ──> completion set        in this order: what is not on its way any more is in the set

A film may be done before its sound is cut; sound that broke off is cut no more. Who was at work on a job when it failed
or was cancelled may bring what they have in hand, for a moment.
"""

from __future__ import annotations

import time

from services.gateway.table import Row
from stereospot import errors, log, records, subjects
from stereospot.bus import Bus
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase

_log = log.get("gateway")

WINDING_DOWN_SECONDS = 10.0
"""So long a worker may take to hear that its work is not wanted any more (promise 9)."""


async def sound(bus: Bus, job: Job) -> bool:
    """Whether sound is still cut, or cut and not yet counted, though the film is done."""
    work = subjects.work("audio", job.job_id, job.generation)
    done = subjects.done_plan(job.job_id, job.generation, "audio")
    return await bus.last(subjects.WORK, work) is not None or await bus.last(subjects.DONE, done) is not None


async def nothing(bus: Bus, row: Row, state: Completion) -> bool:
    """Whether `state` is all that its job, which is not active, will ever have; no while that cannot be told."""
    try:
        return await _nothing(bus, row, state)
    except errors.Transient as error:
        _log.debug("the end is not known", action="retry", job_id=row.job.job_id, code=error.code)
        return False


async def _nothing(bus: Bus, row: Row, state: Completion) -> bool:
    job = row.job
    kept = await records.get_job(bus, job.job_id)
    if kept is None or kept[1] != row.revision:
        return False  # the index is behind: it may have been retried
    if job.phase is Phase.COMPLETED:
        is_awaited = await sound(bus, job)
    else:
        done = f"{subjects.PREFIX}.done.{job.job_id}.{job.generation}.>"
        is_fresh = time.time() - job.history[-1].at < WINDING_DOWN_SECONDS
        is_awaited = is_fresh or await bus.last(subjects.DONE, done) is not None
    if is_awaited:
        return False
    counted = await records.get_state(bus, job.job_id, job.generation)
    return counted is not None and counted[0] == state
