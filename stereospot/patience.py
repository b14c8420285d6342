"""How long a message has waited for what is away: when that is said, when others get its slot, its end.

    fails ─ waits in its slot ─ a minute ─> said, rests 30 s ─> fails again: 60 s … 300 s ─ a day ─> counts as a try

Kept from one delivery to the next while the message rests. Another process, or this one started anew, goes on from
what the broker keeps of it (`tries`). Times are those of a monotonic clock, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from stereospot.bus import Delivery

RESTS = 10
"""The longest rest, in first ones; each is twice the one before. A consumer gives a message out a thousand times."""


@dataclass(slots=True)
class Wait:
    """Of one message: its first failure, the first in a row, what the last one said ("" where another process heard
    it), its rests in that row, and the end of the last."""

    began: float
    since: float
    reason: str
    rests: int = 0
    until: float = 0.0

    def fails(self, reason: str, *, ran_seconds: float, now: float, long_seconds: float) -> None:
        """It failed again. What got far meanwhile, and fails of something else, begins to wait anew."""
        if ran_seconds > long_seconds and self.reason not in ("", reason):
            self.since, self.rests = now, 0
        self.reason = reason

    def is_long(self, now: float, long_seconds: float) -> bool:
        """Whether it has waited for long, or rested already."""
        return self.rests > 0 or now >= self.since + long_seconds

    def rest(self, first_seconds: float, now: float) -> float:
        """How long it rests now."""
        self.rests += 1
        seconds = first_seconds * min(2 ** min(self.rests - 1, 10), RESTS)
        self.until = now + seconds
        return seconds


class Resting:
    """The messages that were given back because their storage is away; one that another process ends is forgotten when
    it is twice as old as a message may wait."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._waits: dict[tuple[str, int, int], Wait] = {}

    def __contains__(self, delivery: Delivery) -> bool:
        return _place(delivery) in self._waits

    def add(self, delivery: Delivery, wait: Wait, now: float) -> None:
        for place, other in list(self._waits.items()):
            if now > other.began + 2 * self._patience:
                del self._waits[place]
        self._waits[_place(delivery)] = wait

    def take(self, delivery: Delivery, now: float) -> Wait | None:
        """How it has waited so far; it rests no more. What rested in another process has been told of there."""
        wait = self._waits.pop(_place(delivery), None)
        if wait is None and delivery.waited_seconds > 0:
            return Wait(now - delivery.waited_seconds, now, "", rests=1)
        return wait

    def waited_seconds(self, delivery: Delivery) -> float:
        """How long it will have waited at the end of its rest; 0 for what does not rest."""
        wait = self._waits.get(_place(delivery))
        return 0.0 if wait is None else wait.until - wait.began


def _place(delivery: Delivery) -> tuple[str, int, int]:
    """An attempt that has waited for too long counts, and the next one has as long again."""
    return delivery.stream, delivery.stream_sequence, delivery.attempt
