"""The times of a film whose own are no list to plan by: strictly increasing, one for every frame. Pure.

The pass that lists the frames and every decoder of a range go by this rule alike, each from the film's first frame on:
that is why a range has the same times wherever it is decoded.
"""

from __future__ import annotations

import heapq
from fractions import Fraction
from typing import Any, TypeGuard

from stereospot.media.source_clock import LONGEST_PAUSE_SECONDS, SourceClock

LONGEST_WAIT = 20
"""Packets that are read behind a frame's own before it comes out: encoders put 16 frames at most before one that these
refer to, and decoders keep one or two back."""


def longest_pause(time_base: Fraction | None) -> int:
    """In ticks."""
    return int(LONGEST_PAUSE_SECONDS / Fraction(time_base or Fraction(1, 90_000)))


def follows(pts: int | None, last: int | None, pause: int) -> TypeGuard[int]:
    """Whether a frame's time is later than the last one's, and not by more than a clock that was set anew."""
    return pts is not None and (last is None or last < pts <= last + pause)


class Order:
    """Gives the n-th frame shown the n-th smallest of its film's times, where these stand in the order of decoding.

    An AVI counts its packets as they lie in it: frames that are reordered come out with each other's times, and only
    those times tell which places the file left empty. A decoder has read n packets before it gives out n frames, so the
    n-th smallest time is known by then: no frame, large as it is once decoded, is held back until later ones have shown
    theirs. A packet that gives no frame has its time passed over once none can come of it any more.
    """

    def __init__(self) -> None:
        self._times: list[int] = []
        """A heap of the times that no frame was given."""
        self._awaited: dict[int, int] = {}
        """Times whose own frame did not come out yet, with the number of their packet."""
        self._count = 0

    def packet(self, packet: Any) -> None:
        """A packet that is decoded next; those of the flush have no time."""
        pts: int | None = packet.pts
        if not packet.size or pts is None or pts in self._awaited:
            return
        self._count += 1
        self._awaited[pts] = self._count
        heapq.heappush(self._times, pts)
        oldest = next(iter(self._awaited))
        if self._count - self._awaited[oldest] > LONGEST_WAIT:
            del self._awaited[oldest]
            self._take()

    def next(self, pts: int | None) -> int | None:
        """The time of the next frame, whose own is `pts`; None if that is of no packet."""
        if pts is None or self._awaited.pop(pts, None) is None:
            return None
        return self._take()

    def _take(self) -> int | None:
        return heapq.heappop(self._times) if self._times else None


class Times:
    """Hands out times in ticks, frame after frame.

    repaired: a frame's own time counts. One that is not later than the last frame lies a tick behind it, so that the
    film is in step with its sound again as soon as its times go on; where the clock was set anew, the film goes on by
    the rule of `SourceClock`. One without a time lies as many frames behind the last that had one.
    reordered, and repaired: the same, of times that are put in order first (`Order`); `packet` has to see every packet
    before it is decoded.
    Not repaired: no time of the film's counts; frame i lies at first + floor(i x step).

    first: the time of the first frame, unless it has its own; step: ticks of a frame, not whole.
    """

    def __init__(
        self, first: int, step: Fraction, time_base: Fraction, *, repaired: bool, reordered: bool = False
    ) -> None:
        self._step = step
        self._repaired = repaired
        self._order = Order() if reordered else None
        self._clock = SourceClock(round(1 / time_base))
        self._last: int | None = None
        # Frames are counted from this time on.
        self._base = first
        self._number = -1

    @property
    def shift(self) -> int:
        """What lies between the source's clock and the film's times: 0 until that clock is set anew."""
        return self._clock.offset

    def packet(self, packet: Any) -> None:
        """A packet that is decoded next."""
        if self._order is not None:
            self._order.packet(packet)

    def next(self, pts: int | None) -> int:
        """The time of the next frame, whose own is `pts`."""
        if self._order is not None:
            pts = self._order.next(pts)
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
