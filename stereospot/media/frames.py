"""Decoded frames out of the jail: the child decodes into a shared-memory ring, the parent hands out views of it.

    with Decoder(source, plan.decode, plan.source) as decoder:
        for frame in decoder.frames(segment.start, segment.end, before=8, after=8):
            …frame.planes…
            frame.release()

A frame is `[h, w]` arrays of Y, U and V in the plan's normal form, upright; they are views that stay valid until
`release`. The child decodes ahead while slots are free. Consecutive ranges go on without a seek.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from stereospot.errors import error
from stereospot.jail import Cell, Jail
from stereospot.jail.wire import Message
from stereospot.media import pixels
from stereospot.media.decoding import RangeDecoder
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, SourceInfo
from stereospot.media.pixels import Normaliser
from stereospot.media.source import Source

SLOTS = 24
MIN_SLOTS = 2
ALIVE_SECONDS = 2.0


class Frame:
    """One decoded frame; `planes` are Y, U, V (or depth alone) as [h, w] uint8 or uint16, valid until `release`.

    pts: in the stream's time base; pad: -1 before the range, 0 in it, 1 after it.
    """

    __slots__ = ("_decoder", "_slot", "pad", "planes", "pts")

    def __init__(self, pts: int, pad: int, planes: tuple[NDArray[Any], ...], decoder: Decoder, slot: int) -> None:
        self.pts = pts
        self.pad = pad
        self.planes = planes
        self._decoder: Decoder | None = decoder
        self._slot = slot

    def release(self) -> None:
        """Give the memory back to the decoder; harmless twice, and from any thread."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder._release(self._slot)  # pyright: ignore[reportPrivateUsage]


class Decoder:
    """A jailed decoder of one stream, open across ranges; a context manager, used by one thread at a time.

    slots: frames that may be held at once, decoded-ahead ones included; hold fewer than that, or the decoder waits
    for ever and DECODE_STALLED ends it. stop: when set, CANCELLED is raised and the child killed.

    Raises DECODER_CRASHED, DECODE_STALLED, CORRUPT_INPUT, OUT_OF_MEMORY, CANCELLED, and what the source raises.
    """

    def __init__(
        self,
        source: Source,
        spec: DecodeSpec,
        info: SourceInfo,
        *,
        limits: Limits | None = None,
        slots: int = SLOTS,
        stop: threading.Event | None = None,
    ) -> None:
        limits = limits or Limits()
        self.spec = spec
        video = info.video
        self.shapes = pixels.plane_shapes(spec.pixel_format, video.width, video.height)
        self._dtype: Any = np.uint16 if pixels.bytes_per_sample(spec.pixel_format) == 2 else np.uint8
        self._frame_bytes = -(-pixels.frame_bytes(spec.pixel_format, video.width, video.height) // 64) * 64
        self._slots = max(MIN_SLOTS, slots)
        self._free = threading.Lock()
        self._closed = False
        request = {
            **limits.request(),
            **spec.model_dump(mode="json"),
            "width": video.width,
            "height": video.height,
            "slots": self._slots,
            "frame_bytes": self._frame_bytes,
        }
        self._jail = Jail(
            "stereospot.media.frames:child",
            request,
            sources=[source],
            ring_bytes=self._slots * self._frame_bytes,
            limits=limits.jail(),
            stop=stop,
        )
        self._number = 0
        self._busy = False

    def __enter__(self) -> Self:
        self._jail.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        with self._free:
            self._closed = True
        self._jail.close()

    @property
    def bytes_read(self) -> int:
        return self._jail.bytes_read

    @property
    def jail(self) -> Jail:
        return self._jail

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[Frame]:
        """Every frame with `start` <= pts < `end`, with up to `before` frames ahead of it and `after` behind it.

        `start` None: from the first frame; `end` None: to the last. A range left half-way is abandoned at the next.
        """
        self._finish()
        self._number += 1
        self._busy = True
        self._jail.send({"range": [start, end, before, after], "number": self._number})
        while self._busy:
            if (frame := self._receive()) is not None:
                yield frame

    def _finish(self) -> None:
        """Let a range that was left half-way run out, without its frames."""
        if not self._busy:
            return
        self._jail.send({"abandon": self._number})
        while self._busy:
            if (frame := self._receive()) is not None:
                frame.release()

    def _receive(self) -> Frame | None:
        """The next frame, or None for a sign of life and for the end of the range."""
        message = self._jail.receive()
        if message is None:
            raise error("DECODER_CRASHED", "It ended before the range did.")
        if "alive" in message.body:
            return None
        if message.body.get("done") == self._number:
            self._busy = False
            return None
        return self._frame(message)

    def _frame(self, message: Message) -> Frame:
        body = message.body
        slot, pts, pad = body.get("slot"), body.get("pts"), body.get("pad")
        sensible = isinstance(slot, int) and isinstance(pts, int) and pad in (-1, 0, 1) and 0 <= slot < self._slots
        if not sensible or self._jail.ring is None:
            raise error("DECODER_CRASHED", "The child's frame makes no sense.")
        offset = cast(int, slot) * self._frame_bytes
        planes: list[NDArray[Any]] = []
        for shape in self.shapes:
            count = shape[0] * shape[1]
            view = np.frombuffer(self._jail.ring, self._dtype, count, offset).reshape(shape)
            view.flags.writeable = False
            planes.append(view)
            offset += view.nbytes
        return Frame(cast(int, pts), cast(int, pad), tuple(planes), self, cast(int, slot))

    def _release(self, slot: int) -> None:
        with self._free:
            if not self._closed:
                self._jail.send({"free": slot})


# ---- inside the jail ----------------------------------------------------------------------------------------------


class _Ring:
    """The child's end of the ring: free slots, and the parent's messages while one is waited for."""

    def __init__(self, cell: Cell, request: dict[str, Any]) -> None:
        assert cell.ring is not None
        self._cell = cell
        self._memory = memoryview(cell.ring)
        self._size: int = request["frame_bytes"]
        # Last in, first out: a reader that keeps up touches only a few slots' worth of memory.
        self._free = list(range(request["slots"]))[::-1]
        self.abandoned = 0
        self.wanted: dict[str, Any] | None = None

    def slot(self, number: int) -> int | None:
        """A free slot, waiting for one; None when the parent abandoned range `number`."""
        while self._cell.readable():
            self._take()
        while not self._free and self.abandoned < number:
            self._take()
        return None if self.abandoned >= number else self._free.pop()

    def next_range(self) -> dict[str, Any]:
        while self.wanted is None:
            self._take()
        wanted, self.wanted = self.wanted, None
        return wanted

    def memory(self, slot: int) -> memoryview:
        return self._memory[slot * self._size : (slot + 1) * self._size]

    def _take(self) -> None:
        body = self._cell.receive().body
        if "free" in body:
            self._free.append(body["free"])
        elif "abandon" in body:
            self.abandoned = body["abandon"]
        else:
            self.wanted = body


class Pulse:
    """Tells the parent now and then that decoding goes on: a long way to a range's start is no stall."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._last = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last > ALIVE_SECONDS:
            self._last = now
            self._cell.send({"alive": True})


def child(cell: Cell, request: dict[str, Any]) -> None:
    """The decoder's task: ranges in, frames in slots out, until the parent closes."""
    ring = _Ring(cell, request)
    normaliser = Normaliser(
        request["pixel_format"],
        request["width"],
        request["height"],
        rotation=request["rotation"],
        mirrored=request["mirrored"],
        crop=request["crop"],
    )
    decoder = RangeDecoder(cell.source, request, Pulse(cell))
    while True:
        wanted = ring.next_range()
        number: int = wanted["number"]
        for item in decoder.range(*wanted["range"]):
            slot = ring.slot(number)
            if slot is None:
                break
            normaliser.write(item.frame, ring.memory(slot))
            cell.send({"slot": slot, "pts": item.pts, "pad": item.pad})
        cell.send({"done": number})
