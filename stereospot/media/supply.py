"""What the film's two writers are fed with: fragments from the parent, packets, chapters and tags from the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av.stream

from stereospot.jail import Cell
from stereospot.media import boxes, demuxing, resets, skeleton

ALIVE_SECONDS = 1.0


class Supply:
    """The fragments, one in hand: asked of the parent, which has checked them.

    For mp4 only the first is whole; of the others `media` ends where the payload begins. `zero` is the source's tick
    that is 0 in them.
    """

    def __init__(self, cell: Cell, zero: int) -> None:
        self._cell = cell
        self.zero = zero
        self.media = b""
        self.samples: list[boxes.Sample] = []
        self._clock = time.monotonic()
        self.advance()

    def alive(self) -> None:
        """A sign of life, for hours of silence are packed without a read of the source."""
        now = time.monotonic()
        if now - self._clock > ALIVE_SECONDS:
            self._clock = now
            self._cell.send({"alive": True})

    def advance(self) -> None:
        self._cell.send({"want": True})
        message = self._cell.receive()
        self.media = message.blob
        self.samples = [] if message.body["end"] else boxes.read_fragment(self.media)

    def place(self, offset: int) -> None:
        """Have the parent write this fragment's payload at `offset` of the film."""
        self._cell.send({"at": offset})

    @property
    def ended(self) -> bool:
        return not self.samples

    def start(self, timescale: int) -> float:
        first = self.samples[0]
        return (self.zero + first.time + first.offset) / timescale


def packets_of(source: Any, streams: list[Any], request: dict[str, Any], warnings: list[str]) -> Iterator[Any]:
    """The packets of `streams`, by the film's clock; nothing else is read."""
    for stream in source.streams:
        if stream not in streams:
            stream.discard = av.stream.Discard.all
    packets = demuxing.packets(source, streams, warnings)
    return resets.followed(packets, resets.Known(request["resets"]), Fraction(request["time_base"]))


def ticks_of(streams: list[Any]) -> dict[int, float]:
    """Seconds a tick, by stream index: asking each packet makes a Fraction each time."""
    return {stream.index: float(stream.time_base) for stream in streams}


def seconds_of(packet: Any, ticks: dict[int, float]) -> float | None:
    """When a packet comes in the source's order: its decoding time, or its presentation time where that is all."""
    time = packet.dts
    if time is None and (time := packet.pts) is None:
        return None
    return time * ticks[packet.stream_index]


def chosen(source: Any, request: dict[str, Any], kind: str) -> list[Any]:
    """The streams of `kind` ("audio", "subtitles") that the plan names and that have a codec."""
    wanted = set(request[kind])
    return [stream for stream in source.streams if stream.index in wanted and stream.codec_context is not None]


def chapters_of(source: Any, origin: Fraction) -> list[dict[str, Any]]:
    """Chapters on the film's clock, as PyAV takes them; what lies before its zero begins there."""
    found: list[dict[str, Any]] = []
    for number, chapter in enumerate(source.chapters(), 1):
        base = chapter["time_base"]
        shift = round(origin / base)
        start, end = max(0, chapter["start"] - shift), max(0, chapter["end"] - shift)
        if end >= start:
            found.append(
                {"id": number, "start": start, "end": end, "time_base": base, "metadata": dict(chapter["metadata"])}
            )
    return found


def video_tags(source: Any, request: dict[str, Any]) -> dict[str, str]:
    """The tags of the source's pictures that the film keeps."""
    return skeleton.track_tags(source.streams[request["video"]].metadata)
