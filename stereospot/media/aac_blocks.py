"""Samples to AAC by one encoder a block, so that a frame's bytes depend on its own block and LEAD frames before it.

An encoder's decisions depend on all that it has heard. With one encoder for a whole film nobody could begin in its
middle and come out with the same frames; with a fresh one at every multiple of BLOCK, anybody can. Each is given LEAD
frames of the real sound before its block, whose packets are dropped with its priming: what overlaps at the seam is the
same sound on both sides, so the seam cancels as any other two frames do. Runs in the jail.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
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
        self._encoders: list[tuple[int, Any]] = []

    def encode(self, block: Any) -> list[bytes]:
        """The AAC frames that these samples complete, in order; block: [2, 1024] float32."""
        begins = 0 if self.place == 0 else self.place + LEAD
        if begins % BLOCK == 0 and begins >= self._first:
            self._encoders.append((begins, encoder(RATE, "stereo")))
        found: list[bytes] = []
        for first, context in list(self._encoders):
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self.place * SIZE, Fraction(1, RATE)
            found += self._kept(first, context, context.encode(frame))
        self.place += 1
        return found

    def finish(self) -> list[bytes]:
        """What is still in the encoders."""
        found: list[bytes] = []
        for first, context in list(self._encoders):
            found += self._kept(first, context, context.encode(None))
        return found

    def _kept(self, first: int, context: Any, packets: list[Any]) -> list[bytes]:
        """The packets of an encoder's own block; one that has given its last is done with."""
        found: list[bytes] = []
        for packet in packets:
            if not packet.size or packet.pts is None:
                continue
            place = packet.pts // SIZE
            if first <= place < first + BLOCK:
                found.append(bytes(packet))
            if place == first + BLOCK - 1:
                self._encoders.remove((first, context))
        return found


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


def silent(samples: int) -> Any:
    """[2, samples] of nothing."""
    return np.zeros((2, samples), np.float32)
