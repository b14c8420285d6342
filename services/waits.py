"""A job says what its work waits for where a storage is away: whoever looks at it sees that it is not forgotten."""

from __future__ import annotations

from services import operations
from services.context import Context
from services.watch import is_wanted
from stereospot import errors
from stereospot.bus import Delivery
from stereospot.jobs import ACTIVE, Job
from stereospot.messages import Failure, Message

SAID = "This job waits, and goes on by itself:"


class _Work(Message):
    """What every piece of a job's work says of itself."""

    job_id: str
    generation: int
    attempt: int


async def say(context: Context, delivery: Delivery, failure: Failure) -> None:
    """Leave the reason on the job that a message works for, if it is still wanted; raises Transient."""
    try:
        work = delivery.parse(_Work)
    except errors.Permanent:
        return

    def wanted(job: Job) -> bool:
        return is_wanted(job, work.generation, ACTIVE, work.attempt)

    await operations.explain_wait(context.bus, work.job_id, failure, wanted, said=SAID)
