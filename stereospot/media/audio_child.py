"""The jailed side of `audio`: one pass over the source, one `Cutting` a track; ranges may come while it goes on.

A pass may begin in the middle of the film: then it seeks, and comes out with the frames that a pass from the beginning
would have had there. Where that cannot be (`_leap`), nothing is sent but {"unable": true}.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import av.stream

from stereospot.jail import Cell
from stereospot.media import aac, boxes
from stereospot.media.demuxing import packets
from stereospot.media.opener import opened
from stereospot.media.resets import Known, Reset, followed

LOOKED_AT = 4000
"""Packets that are read in search of what a seek needs to know."""

EARLIER_SECONDS = (Fraction(1, 2), 2, 8, 32)
"""How long before what is needed a seek aims: pictures lie at keyframes, and sound may lie behind its pictures."""

DECODER_SECONDS = Fraction(1, 4)
"""What a decoder of sound may need before it gives what it would have given from the beginning on."""


def cut(cell: Cell, request: dict[str, Any]) -> None:
    """Task: sends {track, index} with bytes for every chunk; index -1 is the init. See `Ranges` for what it asks."""
    ranges = Ranges(cell, request)
    twins: list[aac.Frames] | None = None
    if ranges.leaps:
        twins = _twins(cell, request, ranges.origin)
        if twins is None:
            cell.send({"unable": True})
            return
    with opened(cell.source, request) as container:
        by_index = {stream.index: stream for stream in container.streams}
        streams: list[Any] = [by_index.get(index) for index in request["audio"]]
        start = ranges.origin
        cuttings = [Cutting(cell, number, aac.track(stream, start), ranges) for number, stream in enumerate(streams)]
        wanted = {
            stream.index: cutting for stream, cutting in zip(streams, cuttings, strict=True) if stream is not None
        }
        if twins is not None and not _leap(container, request["video"], wanted, cuttings, twins):
            cell.send({"unable": True})
            return
        for stream in container.streams:
            if stream.index not in wanted:
                stream.discard = av.stream.Discard.all
        read = packets(container, [stream for stream in streams if stream is not None])
        for packet in followed(read, ranges, Fraction(request["time_base"])):
            cutting = wanted[packet.stream.index]
            if not cutting.ended:
                cutting.put(cutting.track.take(packet))
            if all(item.ended for item in cuttings):
                break
        for cutting in cuttings:
            cutting.finish()


def _twins(cell: Cell, request: dict[str, Any], origin: Fraction) -> list[aac.Frames] | None:
    """The tracks after their first packets, which tell where their frames lie; None where they do not."""
    with opened(cell.source, request) as container:
        by_index = {stream.index: stream for stream in container.streams}
        streams: list[Any] = [by_index.get(index) for index in request["audio"]]
        twins = [aac.track(stream, origin) for stream in streams]
        wanted = {stream.index: twin for stream, twin in zip(streams, twins, strict=True) if stream is not None}
        for number, packet in enumerate(packets(container, [stream for stream in streams if stream is not None])):
            twin = wanted[packet.stream.index]
            if not twin.known:
                twin.take(packet)
            if number == LOOKED_AT or all(item.known for item in twins):
                break
        return twins if all(item.known for item in twins) else None


def _leap(
    container: Any, video: int, wanted: dict[int, Cutting], cuttings: list[Cutting], twins: list[aac.Frames]
) -> bool:
    """Bring every track to where its first chunk begins; False where the place is not found."""
    live = [stream for stream in container.streams if stream.index in wanted]
    needed = [item.leap(twin) for item, twin in zip(cuttings, twins, strict=True)]
    by_stream = {index: needed[cuttings.index(cutting)] for index, cutting in wanted.items()}
    pictures = container.streams[video]
    for earlier in EARLIER_SECONDS:
        place = int((min(needed) - earlier) / pictures.time_base)
        container.seek(place, stream=pictures)
        if _in_time(container, live, by_stream):
            container.seek(place, stream=pictures)
            return True
    return False


def _in_time(container: Any, live: list[Any], needed: dict[int, Fraction]) -> bool:
    """Whether each track's next packet comes early enough for its decoder to be in step."""
    missing = set(needed)
    for number, packet in enumerate(packets(container, live)):
        ticks = packet.pts if packet.pts is not None else packet.dts
        index = packet.stream.index
        if number == LOOKED_AT or (index in missing and ticks is None):
            return False
        if index in missing and ticks * packet.time_base > needed[index] - DECODER_SECONDS:
            return False
        missing.discard(index)
        if not missing:
            return True
    return not missing


class Ranges(Known):
    """The segments' ranges in seconds, in order, and the resets of the clock in them. When they run out the parent is
    asked by {"more": count known}; its answer has more `starts` and `ends`, or none when there are no more."""

    def __init__(self, cell: Cell, request: dict[str, Any]) -> None:
        super().__init__()
        self._cell = cell
        self._time_base = Fraction(request["time_base"])
        self._known: list[tuple[Fraction, Fraction]] = []
        self._whole = False
        self._add(request)
        self.origin = request["origin"] * self._time_base
        """Where the film begins."""
        self.zero = request["zero"] * self._time_base
        """The source's second that is 0 in the chunks."""

    @property
    def leaps(self) -> bool:
        """Whether the first range is not the film's."""
        return self._known[0][0] != self.origin

    def at(self, index: int) -> tuple[Fraction, Fraction] | None:
        """Beginning and end of a segment; None behind the last."""
        while index >= len(self._known) and not self._whole:
            self._ask()
        return self._known[index] if index < len(self._known) else None

    def reach(self, position: int) -> None:
        while self.read is not None and position > self.read:
            self._ask()

    def count(self) -> int:
        """How many there are in all."""
        while self.at(len(self._known)) is not None:
            pass
        return len(self._known)

    def _ask(self) -> None:
        self._cell.send({"more": len(self._known)})
        self._add(self._cell.receive().body)

    def _add(self, body: dict[str, Any]) -> None:
        self._whole = not body["starts"]
        self.resets += [Reset(*item) for item in body["resets"]]
        self.read = body["read"]
        self._known += [
            (a * self._time_base, b * self._time_base) for a, b in zip(body["starts"], body["ends"], strict=True)
        ]


class Cutting:
    """Collects one track's frames into chunks and sends each as soon as it is whole."""

    def __init__(self, cell: Cell, number: int, track: aac.Frames, ranges: Ranges) -> None:
        self.track = track
        self._cell = cell
        self._number = number
        self._ranges = ranges
        self._index = 0
        self._place = 0
        self._held: list[tuple[int, bytes]] = []
        self._begun = False
        # Places of the segment at work, settled when its turn comes: the track's anchor is known by its first frame.
        self._from = self._to = 0
        self.ended = False

    def _places(self, start: Fraction, end: Fraction) -> tuple[int, int]:
        """The frames of a segment: those that start in it, of the film's first also the one that sounds then.

        Every segment has at least one, however short it is.
        """
        track = self.track
        place = (start * track.rate - track.anchor) / track.size
        first = math.floor(place) if start == self._ranges.origin else math.ceil(place)
        last = math.ceil((end * track.rate - track.anchor) / track.size)
        return first, max(last, first + 1, 1)

    def leap(self, twin: aac.Frames) -> Fraction:
        """Begin with the first range, which is not the film's; the second from which the track needs packets.

        The init is not sent: a pass from the beginning has one, and two that differ would be two films.
        """
        self._begun = True
        self.track.anchor = twin.anchor
        self._settle()
        self._place, needed = self.track.jump(self._from, twin)
        return needed

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            if not self._begun:
                self._begun = True
                init = self.track.init(frame)
                self._send(-1, boxes.begin_later(init, -self._first) if self._first < 0 else init)
                self._settle()
            if self.ended:
                return
            place, self._place = self._place, self._place + 1
            if place >= self._from:
                self._held.append((place, frame))
            if self._held and place + 1 >= self._to:
                self._send(self._index, self._chunk())
                self._index += 1
                self._settle()

    def _settle(self) -> None:
        found = self._ranges.at(self._index)
        if found is None:
            self.ended = True
        else:
            self._from, self._to = self._places(*found)

    @property
    def _first(self) -> int:
        """When the track's first frame begins. Below 0 it is where a film that begins at 0 cuts into a frame.

        Decode times cannot say that (ISO/IEC 14496-12 8.8.12): they are all later by as much then, and the init takes
        it back. Players that do not ask the init play sound a part of a frame late, but without a gap; a chunk alone
        that is moved, or that has other offsets, would overlap the next one.
        """
        return self.track.anchor - round(self._ranges.zero * self.track.rate)

    def _chunk(self) -> bytes:
        size, first = self.track.size, max(0, self._first)
        samples = [boxes.Sample(first + place * size, 0, size, len(frame), key=True) for place, frame in self._held]
        payload = [frame for _, frame in self._held]
        self._held = []
        return boxes.write_fragment(samples, payload)

    def _send(self, index: int, data: bytes) -> None:
        self._cell.send({"track": self._number, "index": index}, data)

    def finish(self) -> None:
        """Flush the track, and be silent to the end of the film."""
        if not self.ended:
            count = self._ranges.count()
            last = self._ranges.at(count - 1)
            assert last is not None, "a film has a segment"
            _, end = self._places(*last)
            self.put(self.track.finish(end + count))
