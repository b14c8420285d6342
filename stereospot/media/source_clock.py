"""A source's clock that may be set anew on the way: how pictures follow it, and all else where they tell nothing. Pure.

Recordings that are joined, inserts, and a clock of 33 bits that starts again: then a film goes on where it is. What
comes back from an insert is in step with what was before it, so an offset that held once is tried before a new one is
made: pictures and sound, each of which ended somewhere else when the clock was set, are together again then. A plan
tells what its pictures made of the clock (`resets`); sound by such times has only gaps left to follow.
"""

from __future__ import annotations

from collections import deque

LONGEST_PAUSE_SECONDS = 6 * 3600
"""Times that jump further ahead are a broken clock and not a pause."""

LONGEST_LATER_PAUSE_SECONDS = 60
"""The same once the clock was set anew: that it is set again is more likely than that nothing comes for so long. Not
less, since pictures and sound that are lost together are not lost for equally long."""

BROKEN_CLOCK_SECONDS = 1
"""A step back by more is a clock that was set anew; by less it is a slip, and passes."""

RETURNED_SECONDS = 2
"""What lies further ahead may be a clock that is back: it is, where an earlier offset brings it to within this."""

_KEPT_OFFSETS = 16


class SourceClock:
    """second: of the clock that is followed; all numbers are its ticks, or samples."""

    def __init__(self, second: int) -> None:
        self._second = second
        self.offset = 0
        """What is added to the clock's times now."""
        self._earlier: deque[int] = deque(maxlen=_KEPT_OFFSETS)

    def at(self, time: int, place: int) -> int:
        """Where what has the clock's `time` belongs in the film, if all before it ends at `place`."""
        found = time + self.offset
        if self._continues(found, place, RETURNED_SECONDS if self._earlier else LONGEST_PAUSE_SECONDS):
            return found
        for earlier in reversed(self._earlier):
            if self._continues(time + earlier, place, RETURNED_SECONDS):
                return self._set(earlier, time)
        if self._earlier and self._continues(found, place, LONGEST_LATER_PAUSE_SECONDS):
            return found
        return self._set(place - time, time)

    def _continues(self, found: int, place: int, longest: int) -> bool:
        return -BROKEN_CLOCK_SECONDS * self._second <= found - place <= longest * self._second

    def _set(self, offset: int, time: int) -> int:
        self._earlier.append(self.offset)
        self.offset = offset
        return time + offset
