"""The times of a film whose own are no list to plan by: strictly increasing, one for every frame. Pure.

The pass that lists the frames and every decoder of a range go by this rule alike, each from the film's first frame on:
that is why a range has the same times wherever it is decoded.
"""

from __future__ import annotations

from fractions import Fraction

from stereospot.media.source_clock import SourceClock


class Times:
    """Hands out times in ticks, frame after frame.

    repaired: a frame's own time counts. One that is not later than the last frame lies a tick behind it, so that the
    film is in step with its sound again as soon as its times go on; where the clock was set anew, the film goes on by
    the rule of `SourceClock`. One without a time lies as many frames behind the last that had one.
    Not repaired: no time of the film's counts; frame i lies at first + floor(i x step).

    first: the time of the first frame, unless it has its own; step: ticks of a frame, not whole.
    """

    def __init__(self, first: int, step: Fraction, time_base: Fraction, *, repaired: bool) -> None:
        self._step = step
        self._repaired = repaired
        self._clock = SourceClock(round(1 / time_base))
        self._last: int | None = None
        # Frames are counted from this time on.
        self._base = first
        self._number = -1

    @property
    def shift(self) -> int:
        """What lies between the source's clock and the film's times: 0 until that clock is set anew."""
        return self._clock.offset

    def next(self, pts: int | None) -> int:
        """The time of the next frame, whose own is `pts`."""
        if pts is None or not self._repaired:
            self._number += 1
            found = self._base + int(self._number * self._step)
        else:
            found = pts if self._last is None else self._clock.at(pts, self._last + int(self._step))
            self._base, self._number = found, 0
        if self._last is not None:
            found = max(found, self._last + 1)
        self._last = found
        return found
