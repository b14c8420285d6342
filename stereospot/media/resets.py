"""Where a source's clock was set anew, as its pictures show it: found by the scan, followed by sound and subtitles.

    scan: packets and frames of the pictures ─ Finder ─> ClockReset… ─ plan ─> followed(packets of all else)

Each track would go on from its own end, and what one lacks there the film would be out of step from then on. So the
pictures' clock counts. Of two recordings that were joined the same times belong to both: which of them a packet is of
tells its place in the file. A sound that goes on by its own clock long after new pictures came has a clock that was not
set anew with theirs, and stays where it is. Runs in the jail, on both sides.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

MOST = 4096
"""Resets that a plan tells; behind the last of them each track goes on from its own end."""

LATE_SECONDS = 3
"""By how much sound lies behind its pictures in a file at most."""

TAIL_SECONDS = 30
"""For how long a sound goes on after the last of its pictures at most."""

GOING_ON_SECONDS = Fraction(1, 10)
"""A sound whose next packet lies so near has the clock that it had."""

MARK_FRAMES = 24
"""So often the scan tells how far it has read the source."""

_RECENT = 128
"""Packets that a decoder holds at most, and some before them."""


class Reset(NamedTuple):
    """model.ClockReset as it travels through the jail: in ticks of one clock."""

    position: int
    shift: int
    start: int
    following: int | None = None


class Finder:
    """The scan's side: takes each packet that is decoded, and each frame with what the film's clock made of it."""

    def __init__(self) -> None:
        self._count = self._unmarked = 0
        self._position = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT)
        self._shift = 0

    def packet(self, packet: Any) -> None:
        if packet.size and packet.pts is not None and packet.pos is not None and packet.pos >= 0:
            self._recent.append((packet.pts, packet.pos))

    def frame(self, pts: int | None, place: int, shift: int) -> Reset | None:
        """A frame whose own time is `pts` lies at `place`; `shift` is what its clock is off by now."""
        before, self._shift = self._shift, shift
        if shift == before or not self._recent or self._count == MOST:
            return None
        # Packets come in the order of decoding: some of those before the frame's own may be of the new clock, too.
        newest = list(self._recent)[::-1]
        newest = newest[self._own(newest, pts) or 0 :]
        following: int | None = None
        last = self._recent[0][1]
        for time, at in newest:
            if abs(time + before - place) < abs(time + shift - place):
                last = at
                break
            following = at
        self._position = max(last, self._position)
        self._count += 1
        return Reset(self._position, shift, place, following)

    def mark(self, pts: int | None) -> int | None:
        """After `frame`: the byte of the source up to which every reset is known; for one frame in `MARK_FRAMES`."""
        if self._unmarked:
            self._unmarked -= 1
            return None
        newest = list(self._recent)[::-1]
        own = self._own(newest, pts)
        if own is None:
            return None
        self._unmarked = MARK_FRAMES - 1
        self._position = max(newest[own][1], self._position)
        return self._position

    @staticmethod
    def _own(newest: list[tuple[int, int]], pts: int | None) -> int | None:
        """Which of the packets is a frame's own."""
        return next((at for at, (time, _) in enumerate(newest) if time == pts), None)


class Known:
    """The resets that are known so far: of a plan that is whole all, else as many as its parts tell."""

    def __init__(self, resets: Sequence[Sequence[Any]] = ()) -> None:
        """resets: `Reset`s in the order of the file."""
        self.resets = [Reset(*item) for item in resets]
        self.read: int | None = None
        """The byte of the source up to which these are all; None for its end."""

    def reach(self, position: int) -> None:
        """Have all up to a byte of the source be known; a plan that is not whole yet is waited for."""

    @property
    def are_none(self) -> bool:
        return not self.resets and self.read is None


def followed(packets: Iterator[Any], known: Known, time_base: Fraction) -> Iterator[Any]:
    """Packets of sound and subtitles with the times that they have in the film.

    known: in ticks of `time_base`; where there are none all is left as it is. What the pictures of its recording do not
    last for is left out: a sound's tail, and what comes before the first picture.
    """
    if known.are_none:
        yield from packets
        return
    tracks: dict[int, _Track] = {}
    for packet in packets:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            yield packet
            continue
        track = tracks.get(packet.stream_index)
        if track is None:
            track = tracks[packet.stream_index] = _Track(known, time_base / packet.time_base, packet)
        move = track.move(packet.pos, time, packet.duration or 0)
        if move is None:
            continue
        packet.pts = None if packet.pts is None else packet.pts + move
        packet.dts = None if packet.dts is None else packet.dts + move
        yield packet


class _Track:
    """Which recording of the source a track is in; number 0 is before the first reset."""

    def __init__(self, known: Known, scale: Fraction, packet: Any) -> None:
        """scale: the track's ticks in one of the pictures' clock."""
        self._known = known
        self._scale = scale
        self._second = 1 / packet.time_base
        self._is_sound = packet.stream.type == "audio"
        self._position = 0
        self._number = 0
        self._own = 0
        """What a sound is off from the pictures' clock that was set anew without its own."""
        self._from = -math.inf
        self._end: int | None = None

    def move(self, position: int | None, time: int, duration: int) -> int | None:
        """What a packet's time is to be moved by; None for what is to be left out."""
        # Of several frames in one packet of the file only the first may know where it lies.
        self._position = max(self._position, position or 0)
        self._known.reach(self._position)
        here = bisect.bisect_left(self._known.resets, self._position, key=lambda reset: reset.position)
        now = self._shift(self._number) + self._own
        tail = False
        if here > self._number:
            if self._shift(here) == now:  # some frames' times were wrong, and nothing else
                self._number, self._own = here, 0
            elif self._own and self._goes_on(time):
                self._number, self._own = here, now - self._shift(here)
            elif self._is_sound and self._is_late(here, time):
                tail = True
            elif self._is_sound and self._goes_on(time):
                self._number, self._own = here, now - self._shift(here)
            else:
                self._begin(here)
        elif self._own and not self._goes_on(time, LATE_SECONDS):
            self._begin(here)
        self._end = time + duration
        found = time + self._shift(self._number) + self._own
        over = tail and found >= self._start(self._number + 1)
        return None if over or found < self._from else found - time

    def _begin(self, number: int) -> None:
        self._number, self._own = number, 0
        self._from = self._start(number)

    def _goes_on(self, time: int, seconds: Fraction | int = GOING_ON_SECONDS) -> bool:
        return self._end is not None and abs(time - self._end) <= seconds * self._second

    def _is_late(self, here: int, time: int) -> bool:
        """Whether a sound behind the last picture of the track's recording is of that one still."""
        behind = time + self._shift(self._number) + self._own - self._start(self._number + 1)
        if self._goes_on(time):
            following = self._known.resets[self._number].following
            is_among = following is not None and self._position > following
            return behind <= (LATE_SECONDS if is_among else TAIL_SECONDS) * self._second
        ahead = time + self._shift(here) - self._start(here)
        return abs(behind) <= LATE_SECONDS * self._second and abs(behind) < abs(ahead)

    def _shift(self, number: int) -> int:
        return round(self._known.resets[number - 1].shift * self._scale) if number else 0

    def _start(self, number: int) -> int:
        """Where a recording begins in the film; `number` is not 0."""
        return round(self._known.resets[number - 1].start * self._scale)
