"""`work.delete.<job>`: a deleted job's objects and keys go, its record last.

Workers that have not yet noticed may still store something: the objects are removed twice, `SETTLE_SECONDS` apart, and
the record stays until the second time, so whatever dies when, somebody comes back to finish. An input that another job
reads stays (`inputs`).
"""

from __future__ import annotations

import time

from services import inputs, operations
from services.context import Context
from stereospot import crash, errors, keys, log, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Phase
from stereospot.messages import DeleteWork, Failure
from stereospot.outcome import Ack, Outcome, Reject, Return

_log = log.get("delete")

crash.declare("delete.swept", "delete.record_gone")

SETTLED_SECONDS = 10.0
"""So long after its record said so a worker may not have noticed yet that its job is gone."""

SETTLE_SECONDS = 15.0
"""Longer than that; the pause may come out at 0.7 times this."""


async def handle(context: Context, delivery: Delivery) -> Outcome:
    """Sweep once, and again later; then forget the job."""
    job_id = delivery.parse(DeleteWork).job_id
    if not subjects.is_token(job_id):
        return Reject(Failure.of(errors.error("INVALID_REQUEST", "That is not a job id.")))
    found = await records.get_job(context.bus, job_id)
    if found is not None and found[0].phase is not Phase.DELETED:
        return Ack("not deleted")
    for mark in inputs.foreign(found[0]) if found is not None else ():
        await context.store.delete(mark)
    removed = await _sweep(context, job_id)
    crash.point("delete.swept")
    if found is not None and (delivery.is_first or 0 <= time.time() - found[0].updated_at < SETTLED_SECONDS):
        # Given back and not failed: where one try is all there is, there is a second sweep, too. A delivery that was
        # handed over at once (a stop, say) is not the first and yet too early to be the last.
        return Return(SETTLE_SECONDS, reason="sweep once more when all workers have noticed")
    if found is not None:
        await records.delete_job(context.bus, job_id)
    crash.point("delete.record_gone")
    _log.info("deleted", action="done", job_id=job_id, objects=removed)
    return Ack()


async def _sweep(context: Context, job_id: str) -> int:
    """Remove queued segments, objects and completion sets; returns how many objects."""
    await operations.withdraw(context.bus, job_id)
    removed = await context.store.delete_prefix(keys.job_prefix(job_id))
    if not await inputs.is_used(context.bus, context.store, job_id):  # else the janitor removes it when it is not
        removed += await context.store.delete_prefix(keys.input_prefix(job_id))
    state = context.bus.bucket(subjects.STATE)
    for key in await state.keys(f"state.{job_id}") + await state.keys(f"trigger.{job_id}"):
        await state.purge(key)
    return removed
