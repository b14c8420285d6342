"""Converters as they say they are: their cards of every few seconds, and what they said of segments since. Pure."""

from __future__ import annotations

import time
from typing import NamedTuple

from stereospot.messages import SegmentEvent, Worker

HEARD_SECONDS = 15.0
"""Who was silent for longer is not counted."""


class Task(NamedTuple):
    """A segment that somebody is at."""

    job_id: str
    generation: int
    segment_index: int


class Crew:
    """Fed by the index from what it follows anyway."""

    def __init__(self) -> None:
        self._cards: dict[str, tuple[Worker, float]] = {}  # and until when, by our own monotonic clock
        self._said: dict[str, dict[Task, SegmentEvent]] = {}  # since the card was written

    def introduce(self, card: Worker) -> None:
        self._cards[card.worker_id] = (card, time.monotonic() + HEARD_SECONDS)
        # Both times are by the worker's own clock.
        since = {task: event for task, event in self._said.get(card.worker_id, {}).items() if event.at > card.seen_at}
        self._said[card.worker_id] = since

    def forget(self, worker_id: str) -> None:
        self._cards.pop(worker_id, None)
        self._said.pop(worker_id, None)

    def hear(self, event: SegmentEvent) -> None:
        """What a worker says of a segment; of one without a card nothing is kept, its first one will tell."""
        said = self._said.get(event.worker_id)
        if said is not None:
            said[Task(event.job_id, event.generation, event.index)] = event

    def present(self) -> list[Worker]:
        """Converters that were heard of lately, by name."""
        now = time.monotonic()
        heard = (card for card, until in self._cards.values() if until > now)
        return sorted(heard, key=lambda card: card.worker_id)

    def at_work(self, card: Worker) -> list[Task]:
        """What a converter is at, what it began last first."""
        said = self._said.get(card.worker_id, {})
        begun = [task for task, event in reversed(said.items()) if event.state == "running"]
        before = (task for name in card.busy if (task := _task(name)) is not None)
        return [*begun, *(task for task in before if task not in said)][: card.slots]


def _task(name: str) -> Task | None:
    """`job.generation.index`, as a card names it."""
    job_id, *numbers = name.rsplit(".", 2)
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return None
    return Task(job_id, int(numbers[0]), int(numbers[1]))
