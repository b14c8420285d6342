"""`Idempotency-Key`: a request that is repeated because its answer was lost does its work once.

The bucket remembers, for a day, what the request was, the id of what it makes, and whether it was answered. The id is
fixed before anything is made: whoever repeats the request after a crash makes the same thing. What makes nothing (a
retry, a cancel) is done again until it was answered, and not after that; its refusal is forgotten, so that a repeat
which is known comes from somebody whose request may have been done, wholly or in part.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from litestar import Request

from services import submit
from services.gateway.state import Gateway
from stereospot import errors, subjects
from stereospot.bus import Conflict
from stereospot.messages import Submission

HEADER = "Idempotency-Key"
MAX_LETTERS = 255


@dataclass(frozen=True, slots=True)
class Once:
    """What is known of a request: the id of what it makes (None without a key), whether it came and was answered."""

    made_id: str | None = None
    came: bool = False
    answered: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return {"Idempotency-Replayed": "true"} if self.answered else {}

    @property
    def made_status(self) -> int:
        """201 for what is made now, 200 for what an earlier request made."""
        return 200 if self.answered else 201


def used_otherwise() -> errors.StereoSpotError:
    """CONFLICT, for a key that belongs to another request; what only its body shows is compared by whoever reads it."""
    return errors.error("CONFLICT", f"This {HEADER} was used for another request.")


@asynccontextmanager
async def once(
    gateway: Gateway, request: Request[Any, Any, Any], *what: str | None, makes: bool = True
) -> AsyncGenerator[Once]:
    """Do what the request asks inside; `what` is all that makes it this request and no other.

    makes: whether it makes something under `made_id`; what makes nothing is not remembered when it is refused.
    Raises INVALID_REQUEST for a key that is none, CONFLICT for one that belongs to another request.
    """
    given = request.headers.get(HEADER.lower())
    if given is None:
        yield Once()
        return
    if not 1 <= len(given) <= MAX_LETTERS:
        raise errors.error("INVALID_REQUEST", f"An {HEADER} has 1 to {MAX_LETTERS} characters.")
    bucket = gateway.context.bus.bucket(subjects.IDEMPOTENCY)
    key = hashlib.sha256(given.encode()).hexdigest()[:48]
    fingerprint = hashlib.sha256("\0".join(text or "" for text in what).encode()).hexdigest()
    mine = Submission(job_id=submit.new_id(), request_sha256=fingerprint)
    came = False
    try:
        revision = await bucket.create(key, mine)
    except Conflict:
        entry = await bucket.get(key)
        if entry is None:
            raise errors.error("BROKER_UNAVAILABLE", "The earlier request just expired; repeat.") from None
        mine, revision, came = Submission.model_validate_json(entry.value), entry.revision, True
        if mine.request_sha256 != fingerprint:
            raise used_otherwise() from None
    try:
        yield Once(mine.job_id, came, mine.answered)
    except errors.Permanent:
        if not makes and not mine.answered:
            with suppress(Conflict, errors.StereoSpotError):
                await bucket.delete(key, revision=revision)
        raise
    if not mine.answered:
        with suppress(Conflict):  # the same request, sent twice at once: the other one has said it
            await bucket.update(key, mine.model_copy(update={"answered": True}), revision)
