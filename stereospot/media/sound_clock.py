"""The clock of a sound against the samples that were given of it: what is a pause, and what a clock that was set anew.

Samples that follow each other say more truly than any clock how long they last; but after a pause, a lost packet, or an
overlap only the clock knows where the sound goes on.
"""

from __future__ import annotations

import math
from fractions import Fraction

LONGEST_PAUSE_SECONDS = 6 * 3600
"""Times that jump further ahead, or back by more than a second, are a broken clock and not a pause."""


class SoundClock:
    """A source's clock, which may be set anew on the way: then the sound goes on where it is.

    rate: samples a second; all numbers are samples.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._jump = LONGEST_PAUSE_SECONDS * rate
        self._shift = 0

    def at(self, time: int, place: int) -> int:
        """Where a sound of the clock's `time` belongs, if what was given so far ends at `place`."""
        time += self._shift
        if place - self._rate <= time <= place + self._jump:
            return time
        self._shift += place - time
        return place


class Gaps:
    """For sound that is given on as bare samples: what is missing or too much before the next ones."""

    def __init__(self, time_base: Fraction, rate: int) -> None:
        """time_base: of the source's clock; rate: of the samples that are given, a second."""
        scale = time_base * rate
        self._numerator, self._denominator = scale.numerator, scale.denominator
        self._tick = math.ceil(scale) + 1
        self._rate = rate
        self._clock = SoundClock(rate)
        self._first: int | None = None

    def before(self, ticks: int | None, samples: int, given: int) -> int:
        """Samples of silence that are due before the next `samples`, which begin at `ticks`, `given` being given.

        Less than 0: so many of them were given before. The clock's own jitter is neither: what is less than a tick,
        than 20 ms, or than half of these samples up to 40 ms.
        """
        if ticks is None:
            return 0
        time = (2 * ticks * self._numerator + self._denominator) // (2 * self._denominator)
        if self._first is None:
            self._first = time - given
        place = self._first + given
        ahead = self._clock.at(time, place) - place
        jitter = max(self._tick, min(max(samples // 2, self._rate // 50), self._rate // 25))
        return ahead if abs(ahead) > jitter else 0
