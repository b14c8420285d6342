"""Which frames are estimated by the network, and which take their depth from those beside them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from inference.depth import CADENCE_SECONDS

LARGEST = 3
"""Frames from one estimated frame to the next, at most: any further, and depth would need to be carried by motion."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """The first frame of each cell of `every` frames' duration on the film's own time axis is estimated.

    A pure function of two neighbouring presentation times, so every worker agrees whatever its range.
    """

    every: int
    rate: Fraction
    time_base: Fraction

    @classmethod
    def of(cls, engine: str, rate: Fraction, time_base: Fraction) -> Cadence:
        """The cadence of an engine for a film of this frame rate."""
        wanted = CADENCE_SECONDS.get(engine, 0.0) * float(rate)
        return cls(min(max(1, round(wanted)), LARGEST), rate, time_base)

    def is_key(self, pts: int, previous: int | None) -> bool:
        """Whether the frame at `pts` is estimated; previous: of the frame before, None where that is not known."""
        if self.every == 1:
            return True
        place = self._place(pts)
        before = place - 1 if previous is None else self._place(previous)
        return place // self.every != before // self.every

    def _place(self, pts: int) -> Fraction:
        """Frames since time zero; half a frame early, so that rounded times do not stray over the border of a cell."""
        return pts * self.time_base * self.rate + Fraction(1, 2)
