"""A sound that the container cannot hold: decoded, and packed so that the same samples come out. Runs in the jail."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.error

from stereospot.media.carried import Sink, known_layout, name_of
from stereospot.media.film import Edit, Track
from stereospot.media.opener import CODEC_WHITELIST


class Lossless:
    """Decoded, and packed as FLAC in mp4, as PCM in mov: the same samples.

    FLAC: 16 bits from 16 and fewer, 24 from more (32 from 32-bit integers). PCM: 16 or 32 bits, float from float.
    """

    def __init__(self, stream: Any, origin: Fraction, *, pcm: bool) -> None:
        self.stream = stream
        self.heads: list[Any] = []
        self.warnings: list[str] = []
        self.track = Track(stream.codec_context.sample_rate)
        self._name = name_of(stream)
        self._pcm = pcm
        self._origin = origin
        self._codec, self._format = "flac", "s16"
        self._block = 0
        # Said aloud in both places that make a FLAC header: its default depends on how strict the muxer is told to be.
        bits = "32" if self._name.startswith("pcm_s32") else "24"
        self._options = {"bits_per_raw_sample": bits, "strict": "-2"}
        self._context: Any = None
        self._resampler: Any = None
        self._first = True
        self.start = 0
        """Where the first sample lies, in samples from the origin."""
        self._bad = 0
        stream.codec_context.options = {"codec_whitelist": CODEC_WHITELIST}

    def template(self, container: Any) -> Any:
        stream = container.add_stream(self._codec, rate=self._context.sample_rate, options=dict(self._options))
        stream.codec_context.layout = self._context.layout
        stream.codec_context.format = self._context.format
        return stream

    def take(self, packet: Any, sink: Sink) -> None:
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            self._bad += 1
            return
        for frame in frames:
            self._encode(frame, sink)

    def _encode(self, frame: Any, sink: Sink) -> None:
        if self._first:
            self._first = False
            self._open(frame)
        for part in self._resampler.resample(frame):
            self._put(self._context.encode(part), sink)

    def _open(self, frame: Any) -> None:
        """Settle the form by what the decoder really gives: some decoders change their mind after the header."""
        self.start = round(((frame.pts or 0) * frame.time_base - self._origin) * frame.sample_rate)
        if self._context is None:
            self.settle(frame.format.name, frame.layout, frame.sample_rate)

    def settle(self, sample_format: str, layout: Any, rate: int) -> None:
        """Open the encoder for what the decoder gives."""
        kind = sample_format.rstrip("p")
        deep = kind not in ("s16", "u8")
        self._format = "s32" if deep else "s16"
        if self._pcm:
            if kind in ("flt", "dbl"):
                self._format = "flt"
            self._codec = {"s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le"}[self._format]
            self._block = (4 if deep else 2) * layout.nb_channels
        else:
            self._options = self._options if deep else {}
        self.track = Track(rate, sample_size=self._block)
        self.warnings.append(f"The {self._name} sound was packed as {self._codec} without loss, to fit the container.")
        self._context = av.CodecContext.create(self._codec, "w")
        self._context.sample_rate = rate
        self._context.layout = known_layout(layout)
        self._context.format = self._format
        self._context.time_base = Fraction(1, rate)
        self._context.options = dict(self._options)
        self._context.open()
        self._resampler = av.AudioResampler(
            format=self._format, layout=known_layout(layout), rate=rate, frame_size=self._context.frame_size or 4096
        )

    def _put(self, packets: list[Any], sink: Sink) -> None:
        for packet in packets:
            if not packet.size:
                continue
            if not self.heads:
                self.heads.append(packet)
            count = packet.size // self._block if self._block else 1
            self.track.add(self._block or packet.size, 1 if self._block else packet.duration, count=count)
            sink(self.track, bytes(packet), count)

    def finish(self, sink: Sink) -> Edit | None:
        try:
            for frame in self.stream.codec_context.decode(None):
                self._encode(frame, sink)
        except (av.error.FFmpegError, ValueError):
            self._bad += 1
        if self._first:
            return None
        for part in self._resampler.resample(None):
            self._put(self._context.encode(part), sink)
        self._put(self._context.encode(None), sink)
        if self._bad:
            self.warnings.append(f"{self._bad} packets of the {self._name} sound do not decode and were left out.")
        skip = max(0, -self.start)
        return Edit(max(0, self.start), skip, self.track.duration - skip)
