"""Where a source's clock was set anew, as its pictures show it: found by the scan, followed by sound and subtitles.

    scan: packets and frames of the pictures ─ Finder ─> ClockReset… ─ plan's total ─> followed(packets of all else)

Each track would go on from its own end, and what one lacks there the film would be out of step from then on. So the
pictures' clock counts. Of two recordings that were joined the same times belong to both: which of them a packet is of
tells its place in the file. Runs in the jail, on both sides.
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

_RECENT = 128
"""Packets that a decoder holds at most, and some before them."""


class Reset(NamedTuple):
    """model.ClockReset as it travels through the jail: in ticks of one clock."""

    position: int
    shift: int
    start: int


class Finder:
    """The scan's side: takes each packet that is decoded, and each frame with what the film's clock made of it."""

    def __init__(self) -> None:
        self._count = 0
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
        newest = list(self._recent)[::-1]
        own = next((at for at, (time, _) in enumerate(newest) if time == pts), 0)
        # Packets come in the order of decoding: some of those before the frame's own may be of the new clock, too.
        older = (at for time, at in newest[own:] if abs(time + before - place) < abs(time + shift - place))
        self._position = max(next(older, newest[-1][1]), self._position)
        self._count += 1
        return Reset(self._position, shift, place)


def followed(packets: Iterator[Any], resets: Sequence[Sequence[int]], time_base: Fraction) -> Iterator[Any]:
    """Packets of sound and subtitles with the times that they have in the film.

    resets: `Reset`s in the order of the file, in ticks of `time_base`; none leave all as it is. What the pictures of
    its recording do not last for is left out: a sound's tail, and what comes before the first picture.
    """
    if not resets:
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
            track = tracks[packet.stream_index] = _Track(resets, time_base / packet.time_base, packet)
        move = track.move(packet.pos, time, packet.duration or 0)
        if move is None:
            continue
        packet.pts = None if packet.pts is None else packet.pts + move
        packet.dts = None if packet.dts is None else packet.dts + move
        yield packet


class _Track:
    """Which recording of the source a track is in; number 0 is before the first reset."""

    def __init__(self, resets: Sequence[Sequence[int]], scale: Fraction, packet: Any) -> None:
        """scale: the track's ticks in one of the pictures' clock."""
        self._positions = [position for position, _, _ in resets]
        self._shifts = [0, *(round(shift * scale) for _, shift, _ in resets)]
        self._starts = [round(start * scale) for _, _, start in resets]
        self._second = 1 / packet.time_base
        self._is_sound = packet.stream.type == "audio"
        self._position = 0
        self._number = 0
        self._from = -math.inf
        self._end: int | None = None

    def move(self, position: int | None, time: int, duration: int) -> int | None:
        """What a packet's time is to be moved by; None for what is to be left out."""
        # Of several frames in one packet of the file only the first may know where it lies.
        self._position = max(self._position, position or 0)
        here = bisect.bisect_left(self._positions, self._position)
        tail = False
        if here > self._number:
            if self._shifts[here] == self._shifts[self._number]:  # some frames' times were wrong, and nothing else
                self._number = here
            elif self._is_sound and self._is_late(here, time):
                tail = True
            else:
                self._number = here
                self._from = self._starts[here - 1]
        self._end = time + duration
        shift = self._shifts[self._number]
        over = tail and time + shift >= self._starts[self._number]
        return None if over or time + shift < self._from else shift

    def _is_late(self, here: int, time: int) -> bool:
        """Whether a sound behind the last picture of the track's recording is of that one still."""
        behind = time + self._shifts[self._number] - self._starts[self._number]
        if self._end is not None and abs(time - self._end) <= GOING_ON_SECONDS * self._second:
            return behind <= TAIL_SECONDS * self._second
        following = time + self._shifts[here] - self._starts[here - 1]
        return abs(behind) <= LATE_SECONDS * self._second and abs(behind) < abs(following)
