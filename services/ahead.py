"""When a worker may take one more message than it has slots: what a slot does next is at hand when it becomes free.

    compute ──────────────┬ expected end ┐          the segment computes for about as long as those before it
                          └ one more ────┴── stored, reported ┘  its message counts until then; its slot goes on

Between two segments of a slot lie a fetch and some reads, a dozen round trips; they are made while the first is still
computed. A message that was taken cannot be overtaken by a more urgent one, so it is taken late: a quarter of a segment
at most, and never more than `LEAD_SECONDS`, before its slot is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

LEAD_SECONDS = 0.25
"""Time for a fetch and the reads before a segment, on a busy machine or a slow link."""


class Turn:
    """One segment on its way through a slot."""

    def __init__(self, change: Callable[[int], None]) -> None:
        self._change = change
        self._timer: asyncio.TimerHandle | None = None
        self._freed = False

    def begins(self, expected_seconds: float | None) -> None:
        """The slot computes this segment now, for so long if that is known."""
        if expected_seconds is not None:
            lead = min(LEAD_SECONDS, expected_seconds / 4)
            self._timer = asyncio.get_running_loop().call_later(expected_seconds - lead, self.ends)

    def ends(self) -> None:
        """The slot is free, or nearly so; again is no error."""
        if not self._freed:
            self._freed = True
            self._change(1)

    def close(self) -> None:
        """The segment's message is about to be settled."""
        if self._timer is not None:
            self._timer.cancel()
        if self._freed:
            self._change(-1)


class Ahead:
    """Counts slots that are, or soon will be, free although their messages are not settled. For one event loop."""

    def __init__(self) -> None:
        self._free = 0
        self.on_change: Callable[[int], None] = lambda _: None

    @contextmanager
    def turn(self) -> Generator[Turn]:
        """Around a segment, from before it waits for a slot until its result is stored and told."""
        turn = Turn(self._changed)
        try:
            yield turn
        finally:
            turn.close()

    def _changed(self, by: int) -> None:
        self._free += by
        self.on_change(self._free)
