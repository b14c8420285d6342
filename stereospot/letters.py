"""Dead letters as the actor writes them: what will not be tried again by itself, with its reason."""

from __future__ import annotations

import json

from pydantic import ValidationError

from stereospot.bus import Bus, Delivery
from stereospot.messages import DeadLetter, Failure
from stereospot.subjects import DEAD, dead


def dead_letter(delivery: Delivery, failure: Failure, *, worker_id: str, at: float) -> DeadLetter:
    """The letter for a delivery; its id is stable, so that burying twice leaves one."""
    return DeadLetter(
        dead_id=_dead_id(delivery),
        kind=kind_of(delivery.subject),
        subject=delivery.subject,
        original=delivery.data.decode(errors="replace"),
        headers=dict(delivery.headers),
        failure=failure,
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
    text = delivery.data.decode(errors="replace")
    return letter if letter and (letter.subject, letter.original) == (delivery.subject, text) else None


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
    try:
        value = json.loads(data)
    except ValueError:
        return None
    found = value.get("job_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
