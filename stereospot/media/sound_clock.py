"""The clock of a sound against the samples that were given of it: what is missing, and what is too much.

Samples that follow each other say more truly than any clock how long they last; but after a pause, a lost packet, or an
overlap only the clock knows where the sound goes on.
"""

from __future__ import annotations

import math
from fractions import Fraction

from stereospot.media.source_clock import SourceClock


class Gaps:
    """For sound that is given on as bare samples: what is missing or too much before the next ones."""

    def __init__(self, time_base: Fraction, rate: int) -> None:
        """time_base: of the source's clock; rate: of the samples that are given, a second."""
        scale = time_base * rate
        self._numerator, self._denominator = scale.numerator, scale.denominator
        self._tick = math.ceil(scale) + 1
        self._rate = rate
        self._clock = SourceClock(rate)
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
