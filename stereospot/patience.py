"""How long a message has waited for what is away, in one process: when that is said, when others get its slot, its end.

    fails ─ waits in its slot ─ a minute ─> said, rests 30 s ─> fails again: 60 s … 300 s ─ a day ─> counts as a try

Kept from one delivery to the next while the message rests. Times are those of a monotonic clock, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from stereospot.bus import Delivery

RESTS = 10
"""The longest rest, in first ones; each is twice the one before. A consumer gives a message out a thousand times."""


@dataclass(slots=True)
class Wait:
    """Of one message: its first failure, the first in a row, what the last one said, and its rests in that row."""

    began: float
    since: float
    reason: str
    rests: int = 0

    def fails(self, reason: str, *, ran_seconds: float, now: float, long_seconds: float) -> None:
        """It failed again. What got far meanwhile, and fails of something else, begins to wait anew."""
        if ran_seconds > long_seconds and reason != self.reason:
            self.since, self.rests = now, 0
        self.reason = reason

    def is_long(self, now: float, long_seconds: float) -> bool:
        """Whether it has waited for long, or rested already."""
        return self.rests > 0 or now >= self.since + long_seconds

    def rest(self, first_seconds: float) -> float:
        """How long it rests now."""
        self.rests += 1
        return first_seconds * min(2 ** min(self.rests - 1, 10), RESTS)


class Resting:
    """The messages that were given back because their storage is away; one that another process ends is forgotten when
    it is twice as old as a message may wait."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._waits: dict[tuple[str, int], Wait] = {}

    def __contains__(self, delivery: Delivery) -> bool:
        return _place(delivery) in self._waits

    def add(self, delivery: Delivery, wait: Wait, now: float) -> None:
        for place, other in list(self._waits.items()):
            if now > other.began + 2 * self._patience:
                del self._waits[place]
        self._waits[_place(delivery)] = wait

    def take(self, delivery: Delivery) -> Wait | None:
        """How it has waited so far; it rests no more."""
        return self._waits.pop(_place(delivery), None)


def _place(delivery: Delivery) -> tuple[str, int]:
    return delivery.stream, delivery.stream_sequence
