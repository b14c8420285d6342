"""Dead letters over HTTP: what will not be tried again by itself, and what a person does about it.

Below `/api/v1`, and as `/dlq` at the root with the words of the older pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, QueryParameter

from services import dead_letters
from services.gateway import resources, second_try
from services.gateway.idempotency import Once, once
from services.gateway.requests import Limit
from services.gateway.state import Gateway, Given
from services.gateway.table import decode_cursor, encode_cursor
from stereospot import errors, subjects
from stereospot.jobs import Job, Phase
from stereospot.messages import DeadLetter


@get("/dead-letters")
async def list_dead_letters(
    gateway: Given,
    cursor: Annotated[str | None, QueryParameter(max_length=200)] = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """Messages that will not be tried again by themselves, newest first."""
    found, more = await listed(gateway, cursor, limit)
    return {"dead_letters": await resources_of(gateway, found), "next": more}


async def listed(gateway: Gateway, cursor: str | None, limit: int) -> tuple[list[DeadLetter], str | None]:
    """A page of letters, newest first, and the cursor of the page behind it; raises INVALID_REQUEST for no cursor.

    A cursor is a place in the stream, not a count: letters that are retried or dropped between two pages hide no other.
    """
    after = decode_cursor(cursor) if cursor else None
    if cursor and after is None:
        raise errors.error("INVALID_REQUEST", "This cursor did not come from an earlier answer.")
    found = await dead_letters.newest(gateway.context.bus, limit + 1, None if after is None else int(after[0]))
    shown = found[:limit]
    more = encode_cursor(shown[-1][0], shown[-1][1].dead_id) if len(found) > limit else None
    return [letter for _, letter in shown], more


async def resources_of(gateway: Gateway, found: Sequence[DeadLetter]) -> list[dict[str, Any]]:
    return [letter_resource(item, await _job(gateway, item)) for item in found]


async def _job(gateway: Gateway, item: DeadLetter) -> Job | None:
    """The letter's job, as far as the index knows of it."""
    row = await gateway.index.known(item.job_id) if item.job_id is not None else None
    return None if row is None else row.job


def letter_resource(item: DeadLetter, job: Job | None) -> dict[str, Any]:
    """A letter and what can be done with it; `job` is its own, None where there is none. Pure."""
    why_not = second_try.why_not(item, job)
    return {
        "dead_id": item.dead_id,
        "kind": item.kind,
        "job_id": item.job_id,
        "page": None if job is None or job.phase is Phase.DELETED else f"/jobs/{job.job_id}",
        "at": resources.timestamp(item.at),
        "attempts": item.attempts,
        "worker_id": item.worker_id,
        "error": resources.failure(item.failure),
        "subject": item.subject,
        "original": item.original[:4096],
        "can_retry": why_not is None,
        "why_not": why_not,
    }


@get("/dead-letters/{dead_id:str}")
async def get_dead_letter(gateway: Given, dead_id: FromPath[str]) -> dict[str, Any]:
    """One dead letter, with the message that it is of."""
    found = await dead_letters.find(gateway.context.bus, dead_id)
    if found is None:
        raise errors.error("NOT_FOUND", f"There is no dead letter {dead_id[:64]}.")
    return letter_resource(found, await _job(gateway, found))


@post("/dead-letters/{dead_id:str}/retry", status_code=200)
async def retry_dead_letter(
    request: Request[Any, Any, Any], gateway: Given, dead_id: FromPath[str]
) -> Response[dict[str, Any]]:
    """Try the work once more. The letter is not kept: a repeated request hears no more of it than its id."""
    async with once(gateway, request, "dead letter", dead_id, makes=False) as told:
        letter = await letter_again(gateway, dead_id, told)
    body = {"dead_id": dead_id} if letter is None else letter_resource(letter, await _job(gateway, letter))
    return Response(body, headers=told.headers)


async def letter_again(gateway: Gateway, dead_id: str, told: Once) -> DeadLetter | None:
    """Try a letter's work once more; None where the same request did that before. Raises NOT_FOUND, CONFLICT.

    The letter goes last: without it, an earlier request that was not refused did all there is to do.
    """
    bus = gateway.context.bus
    if told.answered or (told.came and await dead_letters.find(bus, dead_id) is None):
        return None
    return await dead_letters.retry(bus, dead_id)


@delete("/dead-letters/{dead_id:str}", status_code=204)
async def drop_dead_letter(gateway: Given, dead_id: FromPath[str]) -> None:
    """Remove the letter; what it speaks of is not tried again."""
    await drop(gateway, dead_id)


async def drop(gateway: Gateway, dead_id: str) -> None:
    if not await dead_letters.drop(gateway.context.bus, dead_id):
        raise errors.error("NOT_FOUND", f"There is no dead letter {dead_id[:64]}.")


# ---- for clients of the older pipeline -------------------------------------------------------------------
@get("/dlq")
async def dlq(gateway: Given, limit: Annotated[int, QueryParameter(ge=0)] = 100) -> dict[str, Any]:
    """Dead letters as clients of the older pipeline read them, newest first."""
    bus = gateway.context.bus
    found = await dead_letters.newest(bus, limit)
    count = (await bus.stream_info(subjects.DEAD))["state"]["messages"]
    return {"messages": [old_resource(item) for _, item in found], "count": count}


def old_resource(item: DeadLetter) -> dict[str, Any]:
    return {
        "message_id": item.dead_id,
        "job_id": item.job_id,
        "original_message_id": item.dead_id,
        "error": f"{item.failure.code}: {item.failure.sentence} {item.failure.detail}".strip(),
        "timestamp": resources.timestamp(item.at),
    }


@post("/dlq/{dead_id:str}/retry", status_code=200)
async def dlq_retry(request: Request[Any, Any, Any], gateway: Given, dead_id: FromPath[str]) -> Response[Any]:
    """Try the work once more. The letter is not kept: a repeated request does not hear its job again."""
    async with once(gateway, request, "dead letter", dead_id, makes=False) as told:
        letter = await letter_again(gateway, dead_id, told)
    job_id = None if letter is None else letter.job_id
    body = {"message": "Job requeued", "job_id": job_id, "at": resources.timestamp(time.time())}
    return Response(body, headers=told.headers)


@delete("/dlq/{dead_id:str}", status_code=204)
async def dlq_drop(gateway: Given, dead_id: FromPath[str]) -> None:
    """Remove the letter; what it speaks of is not tried again."""
    await drop(gateway, dead_id)


HANDLERS = (list_dead_letters, get_dead_letter, retry_dead_letter, drop_dead_letter)
ROOTS = (dlq, dlq_retry, dlq_drop)
"""At the root."""
