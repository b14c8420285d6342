"""Dead letters as the actor writes them: what will not be tried again by itself, with its reason."""

from __future__ import annotations

import json

from pydantic import ValidationError

from stereospot.bus import Bus, Delivery
from stereospot.messages import DeadLetter, Failure
from stereospot.subjects import DEAD, dead, is_token

ROOM_BYTES = 800_000
"""What a letter has for the body: NATS takes 1 MiB, and the reason and the headers need some of that."""

HEADER_BYTES = 64_000
"""Longer headers, which no message of ours has, are left out."""

FAILURE_BYTES = 96_000
"""A longer reason is cut. With ROOM_BYTES and HEADER_BYTES it leaves a letter below what NATS takes."""


def dead_letter(delivery: Delivery, failure: Failure, *, worker_id: str, at: float) -> DeadLetter:
    """The letter for a delivery; its id is stable, so that burying twice leaves one. A body or a reason that it has no
    room for is cut."""
    original, cut = _text(delivery.data)
    headers = dict(delivery.headers)
    return DeadLetter(
        dead_id=_dead_id(delivery),
        kind=kind_of(delivery.subject),
        subject=delivery.subject,
        original=original,
        cut=cut,
        headers=headers if len(json.dumps(headers)) <= HEADER_BYTES else {},
        failure=_cut(failure),
        attempts=failure.attempts or delivery.attempt,
        worker_id=worker_id,
        job_id=_job_id(delivery.data),
        at=at,
    )


async def find(bus: Bus, delivery: Delivery) -> DeadLetter | None:
    """The letter that this delivery's message has already, if it can be read; raises Transient while the broker is
    away."""
    found = await bus.last(DEAD, dead(kind_of(delivery.subject), _dead_id(delivery)))
    try:
        letter = None if found is None else DeadLetter.model_validate_json(found.data)
    except ValidationError:  # of another version
        return None
    # A stream that was made anew counts from one again: such a letter may be another message's.
    text, _ = _text(delivery.data)
    return letter if letter and (letter.subject, letter.original) == (delivery.subject, text) else None


def _text(data: bytes) -> tuple[str, bool]:
    """The body as text that fits into a letter, where a control character takes six bytes, and whether it was cut."""
    text = data.decode(errors="replace")
    if len(json.dumps(text, ensure_ascii=False).encode()) <= ROOM_BYTES:
        return text, False
    return text[: ROOM_BYTES // 6], True


def _cut(failure: Failure) -> Failure:
    """The reason, without what it quotes of an odd message at any length; apart from the body, by which a letter is
    known again."""
    if len(failure.body()) <= FAILURE_BYTES:
        return failure
    return failure.model_copy(update={"detail": failure.detail[: FAILURE_BYTES // 12], "details": {}})


def _dead_id(delivery: Delivery) -> str:
    return f"{delivery.stream}-{delivery.stream_sequence}"


def kind_of(subject: str) -> str:
    """`work-plan`, `convert`, `done`, `live-open`, `trigger`, `advisory`: the token after `dead.`."""
    parts = subject.split(".")
    if parts[0] == "$KV":
        return parts[2] if len(parts) > 2 else "kv"
    if parts[0].startswith("$"):
        return "advisory"
    return "-".join(parts[1:3]) if parts[1:2] in (["work"], ["live"]) else ".".join(parts[1:2])


def _job_id(data: bytes) -> str | None:
    """The job that a body names, if it may be one's id."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    found = value.get("job_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and is_token(found) else None
