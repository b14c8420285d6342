"""The jailed side of `audio`: one pass over the source, one `Cutting` a track; ranges may come while it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av.error
import av.stream

from stereospot.jail import Cell
from stereospot.media import aac, boxes
from stereospot.media.opener import opened


def cut(cell: Cell, request: dict[str, Any]) -> None:
    """Task: sends {track, index} with bytes for every chunk; index -1 is the init. See `Ranges` for what it asks."""
    ranges = Ranges(cell, request)
    with opened(cell.source, request) as container:
        by_index = {stream.index: stream for stream in container.streams}
        streams: list[Any] = [by_index.get(index) for index in request["audio"]]
        start = ranges.first
        cuttings = [Cutting(cell, number, aac.track(stream, start), ranges) for number, stream in enumerate(streams)]
        wanted = {
            stream.index: cutting for stream, cutting in zip(streams, cuttings, strict=True) if stream is not None
        }
        for stream in container.streams:
            if stream.index not in wanted:
                stream.discard = av.stream.Discard.all
        for packet in _packets(container, [stream for stream in streams if stream is not None]):
            cutting = wanted[packet.stream.index]
            if not cutting.ended:
                cutting.put(cutting.track.take(packet))
            if all(item.ended for item in cuttings):
                break
        for cutting in cuttings:
            cutting.finish()


def _packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    if not streams:
        return
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except av.error.FFmpegError:
        return  # what follows the damage is silence


class Ranges:
    """The segments' ranges in seconds, in order. When they run out the parent is asked by {"more": count known}; its
    answer has more `starts` and `ends`, or none when there are no more."""

    def __init__(self, cell: Cell, request: dict[str, Any]) -> None:
        self._cell = cell
        self._time_base = Fraction(request["time_base"])
        self._known: list[tuple[Fraction, Fraction]] = []
        self._whole = False
        self._add(request)

    @property
    def first(self) -> Fraction:
        """Where the film begins."""
        return self._known[0][0]

    def at(self, index: int) -> tuple[Fraction, Fraction] | None:
        """Beginning and end of a segment; None behind the last."""
        while index >= len(self._known) and not self._whole:
            self._cell.send({"more": len(self._known)})
            self._add(self._cell.receive().body)
        return self._known[index] if index < len(self._known) else None

    def count(self) -> int:
        """How many there are in all."""
        while self.at(len(self._known)) is not None:
            pass
        return len(self._known)

    def _add(self, body: dict[str, Any]) -> None:
        self._whole = not body["starts"]
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

    def _places(self, index: int, start: Fraction, end: Fraction) -> tuple[int, int]:
        """The frames of a segment: those that start in it, of the film's first also the one that sounds then.

        Every segment has at least one, however short it is.
        """
        track = self.track
        place = (start * track.rate - track.anchor) / track.size
        first = math.floor(place) if index == 0 else math.ceil(place)
        last = math.ceil((end * track.rate - track.anchor) / track.size)
        return first, max(last, first + 1, 1)

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            if not self._begun:
                self._begun = True
                self._send(-1, self.track.init(frame))
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
            self._from, self._to = self._places(self._index, *found)

    def _chunk(self) -> bytes:
        track = self.track
        samples = [
            boxes.Sample(max(0, track.anchor + place * track.size), 0, track.size, len(frame), key=True)
            for place, frame in self._held
        ]
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
            _, end = self._places(count - 1, *last)
            self.put(self.track.finish(end + count))
