"""Dead letters: what will not be tried again by itself, and what a person can do about it.

Handlers bury what they reject (see the actor). The advisories of the server are the net below: a message that killed
every worker that took it has nobody left to speak for it. It gets its letter here, its job fails with the reason, and
it leaves the work queue, where it would stay for ever.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from services import operations
from services.context import Context
from stereospot import crash, errors, log, records, subjects
from stereospot import letters as written
from stereospot.bus import Bus, Conflict, Delivery, Stored
from stereospot.jobs import Phase
from stereospot.messages import DeadLetter, Failure
from stereospot.outcome import Ack, Outcome
from stereospot.tries import Tries

_log = log.get("dead-letters")

crash.declare("dead_letters.buried", "dead_letters.failed", "dead_letters.removed")


JOBLESS = frozenset({"work-submit", "work-delete"})
"""Work that needs no job that is there: it makes one, or clears one away."""


# ---- the net ---------------------------------------------------------------------------------------------
async def handle(context: Context, delivery: Delivery) -> Outcome:
    """One advisory: bury the message it speaks of; what its handler, or one of us, had begun is finished."""
    try:
        advisory: dict[str, Any] = json.loads(delivery.data)
        stream, sequence = str(advisory["stream"]), int(advisory["stream_seq"])
    except (ValueError, KeyError, TypeError):
        return Ack("not an advisory")
    bus = context.bus
    found = await bus.get(stream, sequence)
    if found is None or found.is_marker:
        return Ack("gone")
    deliveries = int(advisory.get("deliveries", 0))
    source = Delivery(
        subject=found.subject, data=found.data, attempt=deliveries, stream=stream, stream_sequence=sequence,
        headers=found.headers,
    )  # fmt: skip
    # A letter that is there already is its handler's, or of one of us who died before the rest was done.
    letter = await written.find(bus, source)
    if letter is None:
        is_spent = str(advisory.get("type", "")).endswith("max_deliver")
        if is_spent and await _offer_again(context, found, stream, deliveries):
            return Ack("offered again")
        reason = advisory.get("reason") or "no worker that took it came back"
        problem = errors.error("ATTEMPTS_EXHAUSTED", f"{deliveries} deliveries: {reason}.")
        failure = Failure.of(problem, attempts=deliveries, segment_index=_segment_index(found.subject))
        letter = written.dead_letter(source, failure, worker_id=str(advisory.get("consumer", "")), at=time.time())
        await bus.publish(subjects.dead(letter.kind, letter.dead_id), letter, msg_id=f"dead.{letter.dead_id}")
    crash.point("dead_letters.buried")
    await _fail_job(bus, letter)
    crash.point("dead_letters.failed")
    if stream in subjects.QUEUES:
        await bus.remove(stream, sequence)
    crash.point("dead_letters.removed")
    _log.error("buried", action="reject", subject=found.subject, deliveries=deliveries)
    return Ack()


async def _offer_again(context: Context, found: Stored, stream: str, deliveries: int) -> bool:
    """A message that ran out of deliveries because workers gave it back untried starts anew; whether it did."""
    bus = context.bus
    excused = await Tries(bus).excused(stream, found.sequence)
    if not excused or deliveries - excused > context.settings.max_attempts:
        return False
    if stream in subjects.QUEUES:
        await bus.publish(found.subject, found.data, msg_id=f"offered.{stream}.{found.sequence}")
        await bus.remove(stream, found.sequence)
    elif stream == subjects.kv_stream(subjects.STATE):
        bucket = bus.bucket(subjects.STATE)
        with contextlib.suppress(Conflict):  # written anew in the meantime
            await bucket.update(bucket.key_of(found.subject), found.data, found.sequence)
    else:
        return False
    _log.warning("offered again", action="retry", subject=found.subject, deliveries=deliveries, excused=excused)
    return True


async def _fail_job(bus: Bus, letter: DeadLetter) -> None:
    """The job fails, where losing this message means that it cannot be finished."""
    if letter.kind not in ("convert", "work-plan", "work-analyse", "trigger") or letter.job_id is None:
        return
    if letter.cut:  # no message of ours is so long
        return
    body = json.loads(letter.original)
    generation, attempt = body.get("generation"), body.get("attempt")
    if isinstance(generation, int):
        await operations.fail(
            bus, letter.job_id, generation, letter.failure, attempt=attempt if isinstance(attempt, int) else None
        )


def _segment_index(subject: str) -> int | None:
    parts = subject.split(".")
    if parts[1:2] == ["convert"] and parts[-1].isdigit():
        return int(parts[-1])
    return None


# ---- what people do with them ----------------------------------------------------------------------------
async def letters(bus: Bus) -> list[DeadLetter]:
    """All dead letters, oldest first."""
    found = await bus.last_per_subject(subjects.DEAD, f"{subjects.PREFIX}.dead.>")
    return [DeadLetter.model_validate_json(item.data) for item in found]


async def newest(bus: Bus, limit: int, before: int | None = None) -> list[tuple[int, DeadLetter]]:
    """The newest letters, `limit` at most, of those before a sequence, each with its own: newest first.

    A stream is read forwards only: in blocks from its end, each longer than the one behind it, since letters that are
    gone leave gaps. So a page costs what is on it, however many letters there are.
    """
    state = (await bus.stream_info(subjects.DEAD))["state"]
    first, end = int(state["first_seq"]), int(state["last_seq"]) + 1
    end = end if before is None else min(before, end)
    found: list[tuple[int, DeadLetter]] = []
    length = limit
    while len(found) < limit and end > first:
        begin = max(first, end - length)
        block = await between(bus, begin, end)
        found += ((item.sequence, DeadLetter.model_validate_json(item.data)) for item in reversed(block))
        end, length = begin, 2 * length
    return found[:limit]


async def between(bus: Bus, begin: int, end: int) -> list[Stored]:
    """What lies from one sequence of the stream to another, which is not read."""
    return await bus.read(subjects.DEAD, start=begin, end=end)


async def find(bus: Bus, dead_id: str) -> DeadLetter | None:
    """The letter with this id."""
    found = await _stored(bus, dead_id)
    return None if found is None else DeadLetter.model_validate_json(found.data)


async def retry(bus: Bus, dead_id: str) -> DeadLetter:
    """Try the work once more: the job's missing parts where a job failed of it, else the message itself.

    Raises NOT_FOUND for no such letter, and CONFLICT where its job is gone or the message is not there as a whole.
    """
    found = await _stored(bus, dead_id)
    if found is None:
        raise errors.error("NOT_FOUND", f"There is no dead letter {dead_id}.")
    letter = DeadLetter.model_validate_json(found.data)
    job = await records.get_job(bus, letter.job_id) if letter.job_id else None
    if letter.job_id and letter.kind not in JOBLESS and (job is None or job[0].phase is Phase.DELETED):
        raise errors.error("CONFLICT", "The job of this letter was deleted.")
    if job is not None and job[0].phase in (Phase.FAILED, Phase.CANCELLED):
        await operations.retry(bus, job[0].job_id)
    elif letter.cut:
        raise errors.error("CONFLICT", "The message was too long to be kept as a whole: it can only be dropped.")
    elif not letter.subject.startswith("$"):
        await bus.publish(letter.subject, letter.original.encode(), msg_id=f"again.{dead_id}.{found.sequence}")
    await bus.remove(subjects.DEAD, found.sequence)
    return letter


async def drop(bus: Bus, dead_id: str) -> bool:
    """Remove a letter; False when there is none."""
    found = await _stored(bus, dead_id)
    return found is not None and await bus.remove(subjects.DEAD, found.sequence)


async def _stored(bus: Bus, dead_id: str) -> Stored | None:
    if not subjects.is_token(dead_id):
        return None
    found = await bus.last_per_subject(subjects.DEAD, f"{subjects.PREFIX}.dead.*.{dead_id}")
    return found[-1] if found else None
