"""What a handler makes of a message: the one value that the actor turns into ack, nak or dead letter."""

from __future__ import annotations

from dataclasses import dataclass

from stereospot.messages import Failure


@dataclass(frozen=True, slots=True)
class Ack:
    """Done, or nothing to do: the message goes away."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Offer the message again, to anyone, after `delay_seconds` (None: exponential backoff by attempt).

    Counts as a try: at the last one the actor rejects with ATTEMPTS_EXHAUSTED and `failure` as the cause.
    """

    delay_seconds: float | None = None
    reason: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """Not tried: this worker cannot do it, another may. Offered again after the delay, and never counted as a try."""

    delay_seconds: float
    reason: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Another try cannot help: dead letter, `on_reject`, and the message goes away."""

    failure: Failure


Outcome = Ack | Retry | Return | Reject
