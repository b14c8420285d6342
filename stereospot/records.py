"""Jobs in the bucket `jobs` and completion sets in `state`: read, and change jobs by compare-and-set.

Every change is a function of the present record, applied again to whatever is there when another writer was faster.
When the broker leaves open whether a write landed, the record is read again: what holds the change is a success, also
where somebody else has written on top of it meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from pydantic import ValidationError

from stereospot import completion, errors, log, subjects
from stereospot.bus import Bus, Conflict, Entry
from stereospot.completion import Completion
from stereospot.jobs import Job

_log = log.get("records")


_TRIES = 64
"""A compare-and-set that loses so often competes with a machine gone wild, not with people and services."""


# ---- jobs --------------------------------------------------------------------------------------------------
async def create_job(bus: Bus, job: Job) -> int:
    """Write a new job; returns its revision. Raises Conflict when the id is taken by another record.

    Raises CONFLICT for the id of a job that was deleted: what services remember of it, and late results of it, would be
    taken for the new one's.
    """
    try:
        return await bus.bucket(subjects.JOBS).update(job.job_id, job, 0)
    except Conflict:
        # A retry after an answer that got lost finds its own record.
        found = await get_job(bus, job.job_id)
        if found is not None and found[0] == job:
            return found[1]
        if found is None:
            raise deleted(job.job_id) from None
        raise


def deleted(job_id: str) -> errors.StereoSpotError:
    """CONFLICT, for whoever wants a new job under the id of one that was deleted."""
    return errors.error("CONFLICT", f"The job {job_id} was deleted; its id is not used again.")


async def is_taken(bus: Bus, job_id: str) -> bool:
    """Whether a job has this id, or had it: the marker of a deleted one stays."""
    if not subjects.is_token(job_id):
        return False
    return await bus.last(subjects.kv_stream(subjects.JOBS), subjects.kv_subject(subjects.JOBS, job_id)) is not None


async def get_job(bus: Bus, job_id: str) -> tuple[Job, int] | None:
    """The job and its revision (the ETag), or None. Raises RECORD_UNREADABLE for a record that is none here."""
    if not subjects.is_token(job_id):
        return None
    entry = await bus.bucket(subjects.JOBS).get(job_id)
    if entry is None:
        return None
    try:
        return Job.model_validate_json(entry.value), entry.revision
    except ValidationError as problem:
        raise errors.error("RECORD_UNREADABLE", f"{job_id}: {errors.first_of(problem, 'record')}") from problem


async def list_jobs(bus: Bus) -> list[tuple[Job, int]]:
    """Every job with its revision, in order of the last change; a record that cannot be read is left out and logged."""
    found: list[tuple[Job, int]] = []
    for entry in await bus.bucket(subjects.JOBS).entries():
        job = _parse(entry)
        if job is not None:
            found.append((job, entry.revision))
    return found


async def change_job(
    bus: Bus, job_id: str, change: Callable[[Job], Job | None], *, expected_revision: int | None = None
) -> Job:
    """Apply `change` to the present record until it is written; returns the record that is then there.

    `change` returning None (or an equal job) leaves it as it is. What `change` raises comes through. With
    `expected_revision` (an If-Match) another revision raises PRECONDITION_FAILED. Raises NOT_FOUND, and
    BROKER_UNAVAILABLE when it stays unknown whether the change was written.
    """
    bucket = bus.bucket(subjects.JOBS)
    sent: tuple[Job, Job] | None = None  # (from, to) of a write that had no answer
    for turn in range(_TRIES):
        found = await get_job(bus, job_id)
        if found is None:
            raise errors.error("NOT_FOUND", f"There is no job {job_id}.")
        job, revision = found
        if sent is not None and _holds(job, *sent):
            return job
        if expected_revision is not None and revision != expected_revision:
            raise errors.error("PRECONDITION_FAILED", f"The job is at revision {revision}.", revision=revision)
        changed = change(job)
        if changed is None or changed == job:
            return job
        try:
            await bucket.update(job_id, changed, revision)
        except Conflict as problem:
            sent = (job, changed) if problem.unsure else None
            await _jitter(turn)
            continue
        except errors.Transient:
            # No answer for so long that nobody waits any more; it may have been written all the same.
            now = await get_job(bus, job_id)
            if now is None or not _holds(now[0], job, changed):
                raise
            return now[0]
        return changed
    raise errors.error("BROKER_UNAVAILABLE", f"The job {job_id} changed faster than it could be written.")


async def delete_job(bus: Bus, job_id: str) -> None:
    """Remove the record; a marker stays, so that the id is not used again."""
    await bus.bucket(subjects.JOBS).delete(job_id)


# ---- completion sets ---------------------------------------------------------------------------------------
async def get_state(bus: Bus, job_id: str, generation: int) -> tuple[Completion, int] | None:
    """A generation's completion set and its revision, or None."""
    entry = await bus.bucket(subjects.STATE).get(subjects.state_key(job_id, generation))
    return None if entry is None else (completion.decode(entry.value), entry.revision)


def _holds(job: Job, before: Job, after: Job) -> bool:
    """Whether the change from `before` to `after` is in `job`, whoever may have written on top of it since. Pure.

    A line of history is as good as a signature: it has the microsecond in which it was made. A change without one is
    there when every field that it changed says the same; if somebody else made the very same change, that is as good.
    """
    if after.history != before.history:
        return after.history[-1] in job.history
    fields = [name for name in Job.model_fields if getattr(before, name) != getattr(after, name)]
    return all(getattr(job, name) == getattr(after, name) for name in fields if name != "updated_at")


def _parse(entry: Entry) -> Job | None:
    try:
        return Job.model_validate_json(entry.value)
    except ValidationError as problem:
        _log.error("unreadable record", action="refuse", job_id=entry.key, reason=str(problem))
        return None


async def _jitter(turn: int) -> None:
    """Part those who collided: up to 3 ms at first, up to 50 ms when it goes on."""
    await asyncio.sleep(random.uniform(0, min(0.003 * (turn + 1), 0.05)))
