"""What people do to jobs: cancel, retry, delete, change, seek; and what services do when one fails or is replanned.

Each is one compare-and-set on the record, then messages that say so. A crash between the two is harmless: the record is
the truth, workers re-read it, and the janitor publishes what was not published. Each is legal in every phase, or raises
CONFLICT with the phase. What people ask for may name the revision that they saw (an If-Match): the write itself is for
that one and raises PRECONDITION_FAILED for another, so that of several who saw the same only one is heard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from stereospot import errors, jobs, log, records, subjects
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.messages import DeleteWork, Failure, JobEvent, PlanWork, SourceRef
from stereospot.options import Options

_log = log.get("operations")


# ---- messages --------------------------------------------------------------------------------------------
async def publish_plan(bus: Bus, job: Job, *, again: bool = False) -> None:
    """Have this generation planned, or, on a retry, its missing segments offered again.

    again: also if the same was published a moment ago; for work that is known to have got lost.
    """
    work = PlanWork(job_id=job.job_id, generation=job.generation, attempt=job.attempt, redecode=job.redecoded)
    msg_id = None if again else f"plan.{job.job_id}.{job.generation}.{job.attempt}"
    await bus.publish(subjects.work("plan", job.job_id), work, msg_id=msg_id)


async def resume(bus: Bus, job: Job) -> None:
    """Ask for the plan of a job that waits for one, unless it is asked for: where no janitor will.

    Whoever wrote the record may have died before it published; an older message may lie in the queue all the same.
    """
    if job.phase not in (Phase.CREATED, Phase.PLANNING):
        return
    queued = await bus.last(subjects.WORK, subjects.work("plan", job.job_id))
    if queued is not None:
        work = PlanWork.model_validate_json(queued.data)
        if (work.generation, work.attempt) == (job.generation, job.attempt):
            return
    await publish_plan(bus, job, again=True)


async def announce(bus: Bus, job: Job, name: str, **data: Any) -> None:
    """Tell those who watch; the record is already written. Telling the same step twice is telling it once."""
    event = JobEvent(
        job_id=job.job_id,
        generation=job.generation,
        name=name,
        at=time.time(),
        phase=job.phase,
        title=job.title,
        failure=job.failure,
        data=data | ({"passthrough": job.passthrough} if job.passthrough else {}),
    )
    step = f"{job.job_id}.{job.generation}.{job.attempt}.{name}.{len(job.history)}"
    await bus.publish(subjects.event_job(job.job_id, name), event, msg_id=f"event.{step}")


async def withdraw(bus: Bus, job_id: str, generation: int | None = None) -> None:
    """Take back the segments that no worker has begun, of one generation or of all."""
    pattern = subjects.convert_filter(job_id=job_id)
    await bus.purge(subjects.CONVERT, pattern if generation is None else pattern.replace(".>", f".{generation}.>"))


GIVEN_BACK = "A worker gave this job back, it waits for another one:"
HELD = "A result waits until it can be stored:"


async def explain_wait(
    bus: Bus,
    job_id: str,
    failure: Failure,
    wanted: Callable[[Job], bool],
    *,
    worker_id: str = "",
    said: str = GIVEN_BACK,
) -> None:
    """Say on the job what its work waits for: once a job, however many workers find it."""
    text = f"{said} {failure.sentence} {failure.advice}"
    try:
        job = await records.change_job(
            bus, job_id, lambda job: job.with_warning(failure.code, text) if wanted(job) else None
        )
    except errors.Permanent:
        return  # deleted in the meantime
    await announce(bus, job, "waiting", code=failure.code, detail=failure.detail, worker_id=worker_id)


def _once(change: Callable[[Job], Job | None]) -> Callable[[Job], Job | None]:
    """A change that knows its own result: after an answer that got lost it finds that, and there is nothing to do."""
    made: Job | None = None

    def apply(job: Job) -> Job | None:
        nonlocal made
        if made is not None and job == made:
            return None
        made = change(job)
        return made

    return apply


# ---- what people ask for ---------------------------------------------------------------------------------
async def cancel(bus: Bus, job_id: str, expected_revision: int | None = None) -> Job:
    """Stop an active job; a cancelled one stays cancelled. Raises CONFLICT for one that ended otherwise."""

    def change(job: Job) -> Job | None:
        if job.phase is Phase.CANCELLED:
            return None
        cancelled = jobs.cancel(job, at=time.time())
        if cancelled is None:
            raise errors.error("CONFLICT", f"The job is {job.phase} already.", phase=job.phase)
        return cancelled

    job = await records.change_job(bus, job_id, change, expected_revision=expected_revision)
    await withdraw(bus, job_id)
    await announce(bus, job, "cancelled")
    return job


async def retry(bus: Bus, job_id: str, expected_revision: int | None = None) -> Job:
    """Go on with a failed or cancelled job: the same generation, only what is missing."""
    change = _once(lambda job: jobs.retry(job, at=time.time()))
    job = await records.change_job(bus, job_id, change, expected_revision=expected_revision)
    if job.phase is Phase.INGESTING:
        raise errors.error("NOT_AVAILABLE", "URLs are fetched by the ingest service, which this version has not.")
    # What an earlier attempt left in the queue would only be dropped by the workers, one by one.
    await withdraw(bus, job_id)
    await publish_plan(bus, job)
    await announce(bus, job, "retried", attempt=job.attempt)
    return job


def is_cancelled(job: Job) -> bool:
    """Whether a cancel has been written."""
    return job.phase is Phase.CANCELLED


def is_retried(job: Job) -> bool:
    """Whether a retry has been written and holds: the job goes on in, or was completed by, a later attempt."""
    return job.attempt > 1 and (job.is_active or job.phase is Phase.COMPLETED)


async def tell_again(bus: Bus, job: Job) -> None:
    """Send once more what goes with a cancel or a retry whose record is written; the same twice is the same once."""
    if job.phase is Phase.CANCELLED:
        await withdraw(bus, job.job_id)
        await announce(bus, job, "cancelled")
    elif job.phase is Phase.PLANNING:
        # Nothing is withdrawn: a planner may be at work and have sent segments.
        await publish_plan(bus, job)
        await announce(bus, job, "retried", attempt=job.attempt)


async def change(
    bus: Bus, job_id: str, *, options: Options | None = None, source: SourceRef | None = None, pool: str | None = None
) -> Job:
    """Convert with other options or from another source: a new generation, unless nothing was begun yet."""

    def renew(job: Job) -> Job | None:
        wanted = {
            "options": options or job.options,
            "source": source or job.source,
            "pool": pool or job.pool,
        }
        if all(getattr(job, name) == value for name, value in wanted.items()):
            return None
        if job.phase in (Phase.CREATED, Phase.INGESTING):
            return job.model_copy(update={**wanted, "updated_at": time.time()})
        return jobs.renew(job, at=time.time(), note="changed", redecoded=False, warnings=(), **wanted)

    job = await records.change_job(bus, job_id, renew)
    if job.phase is Phase.PLANNING:
        await withdraw(bus, job_id)
        await publish_plan(bus, job)
        await announce(bus, job, "changed")
    return job


async def seek(bus: Bus, job_id: str, segment_index: int | None) -> Job:
    """Somebody watches from this segment on (or no longer): what follows it is converted first."""

    def move(job: Job) -> Job | None:
        return None if job.playhead == segment_index else job.model_copy(update={"playhead": segment_index})

    return await records.change_job(bus, job_id, move)


async def edit(
    bus: Bus,
    job_id: str,
    expected_revision: int | None = None,
    *,
    title: str | None = None,
    priority: int | None = None,
) -> Job:
    """Change what does not change the result."""

    def apply(job: Job) -> Job | None:
        wanted = {
            "title": job.title if title is None else title,
            "priority": job.priority if priority is None else priority,
        }
        if all(getattr(job, name) == value for name, value in wanted.items()):
            return None
        return job.model_copy(update={**wanted, "updated_at": time.time()})

    return await records.change_job(bus, job_id, apply, expected_revision=expected_revision)


async def delete(bus: Bus, job_id: str, expected_revision: int | None = None) -> Job:
    """Delete a job in any phase; its objects go a moment later, its record last."""

    job = await records.change_job(
        bus, job_id, lambda job: jobs.delete(job, at=time.time()), expected_revision=expected_revision
    )
    await withdraw(bus, job_id)
    await bus.publish(subjects.work("delete", job_id), DeleteWork(job_id=job_id), msg_id=f"delete.{job_id}")
    await announce(bus, job, "deleted")
    return job


# ---- what services decide --------------------------------------------------------------------------------
def _is_same(known: Failure | None, failure: Failure) -> bool:
    """Whether a failure is the known one, told by another delivery of the same message."""
    return known is not None and known.model_copy(update={"attempts": failure.attempts}) == failure


async def fail(bus: Bus, job_id: str, generation: int, failure: Failure, *, attempt: int | None = None) -> bool:
    """The job failed, if this is still the generation (and attempt) that it works on; whether that was so.

    Repeated, since whoever wrote the record may have died before it said so, it says so again.
    """
    failed = False

    def change(job: Job) -> Job | None:
        nonlocal failed
        stale = job.generation != generation or (attempt is not None and job.attempt != attempt)
        after = None if stale else jobs.fail(job, failure, at=time.time())
        failed = after is not None or (not stale and _is_same(job.failure, failure))
        return after

    if await records.get_job(bus, job_id) is None:
        return False
    job = await records.change_job(bus, job_id, change)
    if failed:
        await withdraw(bus, job_id)
        await announce(bus, job, "failed", code=failure.code)
        _log.warning("failed", action="reject", job_id=job_id, code=failure.code, detail=failure.detail)
    return failed


async def replan(bus: Bus, job_id: str, generation: int, reason: str) -> bool:
    """Plan again from a decode pass, in a new generation: once a job. False when it was done before.

    True also when somebody else has begun that already: then the caller's generation is history.
    """

    def renewed(job: Job) -> Job | None:
        if job.redecoded:
            return None
        # What the plan that is given up said of the source's length was wrong, or will be said again.
        job = jobs.without_warnings(job, {"SOURCE_CUT"})
        return jobs.renew(job, at=time.time(), note="replan", redecoded=True).with_warning("PTS_SYNTHESISED", reason)

    return await _begin_anew(bus, job_id, generation, renewed)


HEADER_NOTE = "other encoder"

HEADERS = 4
"""New generations for the sake of the encoder's header: more upgrades than one film sees. An encoder that writes
another header every time fails the job then."""


async def reencode(bus: Bus, job_id: str, generation: int) -> bool:
    """Begin anew, in a new generation, since nobody is left whose encoder writes this one's header. False when that
    was done too often; else as `replan`."""

    def renewed(job: Job) -> Job | None:
        if sum(step.note == HEADER_NOTE for step in job.history) >= HEADERS:
            return None
        _log.warning("begun anew", action="retry", job_id=job_id, generation=generation, reason=HEADER_NOTE)
        return jobs.renew(job, at=time.time(), note=HEADER_NOTE)

    return await _begin_anew(bus, job_id, generation, renewed)


async def _begin_anew(bus: Bus, job_id: str, generation: int, renewed: Callable[[Job], Job | None]) -> bool:
    """The job in the generation after this one, which is then asked for; False where `renewed` will not have it."""
    answer = True

    def change(job: Job) -> Job | None:
        nonlocal answer
        after = renewed(job) if job.accepts(generation) else None
        answer = after is not None or not job.accepts(generation)
        return after

    job = await records.change_job(bus, job_id, change)
    if answer and job.phase is Phase.PLANNING and job.generation > generation:
        # Also on a repeated call: the one that wrote the record may have died before it published. What was sent of
        # the new generation since is left alone.
        await withdraw(bus, job_id, generation)
        await publish_plan(bus, job)
        await announce(bus, job, "replanned")
    return answer
