"""Samples to AAC by one encoder a block, so that a frame's bytes depend on its own block and LEAD frames before it.

An encoder's decisions depend on all that it has heard. With one encoder for a whole film nobody could begin in its
middle and come out with the same frames; with a fresh one at every multiple of BLOCK, anybody can. Each is given LEAD
frames of the real sound before its block, whose packets are dropped with its priming: what overlaps at the seam is the
same sound on both sides, so the seam cancels as any other two frames do. Runs in the jail.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

RATE = 48000
SIZE = 1024
BIT_RATE = 128_000
BLOCK = 192
"""Frames, about four seconds: whoever begins in the middle encodes so many in vain at most."""

LEAD = 16
"""Frames; after so many an encoder that begins late makes the choices of one that has heard everything before."""


class Blocks:
    """Frames of 1024 samples at 48 kHz, stereo, in; AAC frames out, from place `first` on (a multiple of BLOCK)."""

    def __init__(self, first: int = 0) -> None:
        assert first % BLOCK == 0
        self.place = max(0, first - LEAD)
        """The frame that is given next."""
        self._first = first
        self._encoders: list[tuple[int, BlockEncoder]] = []

    def encode(self, block: Any) -> list[bytes]:
        """The AAC frames that these samples complete, in order; block: [2, 1024] float32."""
        begins = 0 if self.place == 0 else self.place + LEAD
        if begins % BLOCK == 0 and begins >= self._first:
            self._encoders.append((begins, BlockEncoder(self.place)))
        found: list[bytes] = []
        for first, one in list(self._encoders):
            found += self._kept(first, one, one.encode(block))
        self.place += 1
        return found

    def finish(self) -> list[bytes]:
        """What is still in the encoders."""
        found: list[bytes] = []
        for first, one in list(self._encoders):
            found += self._kept(first, one, one.finish())
        return found

    def _kept(self, first: int, one: BlockEncoder, frames: list[Placed]) -> list[bytes]:
        """The frames of an encoder's own block; one that has given its last is done with."""
        found: list[bytes] = []
        for place, data in frames:
            if first <= place < first + BLOCK:
                found.append(data)
            if place == first + BLOCK - 1:
                self._encoders.remove((first, one))
        return found


Placed = tuple[int, bytes]
"""A frame of AAC and the place of the samples that it holds."""


class BlockEncoder:
    """The encoder of one block, which only runs from the first sample on that is not 0.

    What a fresh encoder makes of silence is always the same, so that hours of it cost nothing.
    """

    def __init__(self, place: int) -> None:
        self._place = place
        self._silent = 0
        self._running: Running | None = None

    def encode(self, block: Any) -> list[Placed]:
        if self._running is None and not block.any():
            self._silent += 1
            return [(self._place + place, data) for place, data in of_silence(self._silent - 1)]
        return [(self._place + place, data) for place, data in self._awake().encode(block)]

    def finish(self) -> list[Placed]:
        return [(self._place + place, data) for place, data in self._awake().encode(None)]

    def _awake(self) -> Running:
        if self._running is None:
            self._running = Running()
            for _ in range(self._silent):
                self._running.encode(silent(SIZE))  # what it gives for them was given
        return self._running


class Running:
    """An encoder that runs; places count from its own first frame."""

    def __init__(self) -> None:
        self._context = encoder(RATE, "stereo")
        self._count = 0

    def encode(self, block: Any) -> list[Placed]:
        """The frames that these samples complete, [2, 1024] float32; None: what it still holds."""
        frame = None
        if block is not None:
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._count * SIZE, Fraction(1, RATE)
            self._count += 1
        packets = self._context.encode(frame)
        return [(packet.pts // SIZE, bytes(packet)) for packet in packets if packet.size and packet.pts is not None]


@functools.cache
def _silence() -> tuple[Running, list[list[Placed]]]:
    return Running(), []


def of_silence(number: int) -> list[Placed]:
    """What a fresh encoder gives for its silent frame `number`, if all before were silent."""
    running, known = _silence()
    while len(known) <= number:
        known.append(running.encode(silent(SIZE)))
    return known[number]


def encoder(rate: int, layout: str) -> Any:
    """FFmpeg's own AAC encoder, opened."""
    context: Any = av.CodecContext.create("aac", "w")
    context.sample_rate = rate
    context.layout = layout
    context.format = "fltp"
    context.bit_rate = BIT_RATE
    context.time_base = Fraction(1, rate)
    context.open()
    return context


@functools.cache
def mixes(layout: str) -> bool:
    """Whether swresample makes stereo of a layout: not of ambisonics, nor of many channels that have no names."""
    count = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(np.zeros((1, count * 64), np.float32), format="flt", layout=layout)
    frame.sample_rate = RATE
    try:
        av.AudioResampler(format="fltp", layout="stereo", rate=RATE).resample(frame)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def front(frame: Any) -> Any:
    """The first two channels of a frame; of ambisonics the first alone, which has what comes from all around."""
    count, packed = frame.layout.nb_channels, frame.format.packed.name
    if frame.format.is_planar:  # of which PyAV reads eight channels at most
        frame = av.AudioResampler(format=packed, layout=frame.layout.name, rate=frame.sample_rate).resample(frame)[0]
    samples = frame.to_ndarray().reshape(-1, count).T
    layout = "mono" if frame.layout.name.startswith("ambisonic") or count == 1 else "stereo"
    kept = np.ascontiguousarray(samples[: 1 if layout == "mono" else 2])
    made = av.AudioFrame.from_ndarray(kept, format=frame.format.planar.name, layout=layout)
    made.sample_rate = frame.sample_rate
    return made


def silent(samples: int) -> Any:
    """[2, samples] of nothing."""
    return np.zeros((2, samples), np.float32)
