"""A sound that the container cannot hold: decoded, and packed so that the same samples come out. Runs in the jail."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from stereospot.media.carried import Sink, known_layout, name_of, nothing_heard
from stereospot.media.film import Edit, Track
from stereospot.media.forms import Form
from stereospot.media.opener import CODEC_WHITELIST
from stereospot.media.sound_clock import Gaps


class Lossless:
    """Decoded, and packed as FLAC in mp4, as PCM in mov: the same samples.

    FLAC: 16 bits from 16 and fewer, 24 from more (32 from 32-bit integers). PCM: 16 or 32 bits, float from float.
    A source that changes its rate or its channels on the way is brought to those that it began with; where it is silent
    or lost, there is silence, so that what follows stays where it was.
    """

    def __init__(self, stream: Any, origin: Fraction, *, pcm: bool, form: Form | None = None) -> None:
        """form: what all is brought to; None leaves that to the first frame."""
        self.stream = stream
        self.heads: list[Any] = []
        self.warnings: list[str] = []
        self.track = Track(stream.codec_context.sample_rate)
        self._name = name_of(stream)
        self._pcm = pcm
        self._wanted = form
        self._origin = origin
        self._codec, self._format = "flac", "s16"
        self._block = 0
        # Said aloud in both places that make a FLAC header: its default depends on how strict the muxer is told to be.
        bits = "32" if self._name.startswith("pcm_s32") else "24"
        self._options = {"bits_per_raw_sample": bits, "strict": "-2"}
        self._context: Any = None
        self._resampler: Any = None
        self._form: tuple[str, str, int] | None = None
        """What the resampler takes."""
        self._gaps: Gaps | None = None
        """None until there is sound."""
        self._given = 0
        """Samples that the encoder was given."""
        self._refused = False
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
        if self._refused:
            return
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            self._bad += 1
            return
        for frame in frames:
            self._add(frame, sink)

    def _add(self, frame: Any, sink: Sink) -> None:
        if self._gaps is None:
            self._open(frame)
        if self._gaps is None:
            return
        gap = self._gaps.before(frame.pts, frame.samples, self._given)
        try:
            if gap > 0:
                gap -= self._rest(sink)
            parts = self._converted(frame, sink)
        except (av.error.FFmpegError, ValueError):
            self._bad += 1
            return
        while gap > 0:  # in pieces, so that hours of nothing take no memory
            step = min(gap, self.track.timescale)
            self._encode(self._made(np.zeros((1, step * self._context.layout.nb_channels))), sink)
            gap -= step
        for part in parts:
            skipped = min(-gap, part.samples)
            gap += skipped
            if skipped:
                part = self._made(part.to_ndarray()[:, skipped * self._context.layout.nb_channels :])
            if part.samples:
                self._encode(part, sink)

    def _converted(self, frame: Any, sink: Sink) -> list[Any]:
        """The frame in the settled form."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self._rest(sink)
            self._form = form
        if self._resampler is None:
            self._resampler = av.AudioResampler(
                format=self._format, layout=self._context.layout.name, rate=self.track.timescale
            )
        frame.pts = None
        return self._resampler.resample(frame)

    def _rest(self, sink: Sink) -> int:
        """Give what is still in the resampler; returns how many samples that were."""
        before = self._given
        if self._resampler is not None:
            for part in self._resampler.resample(None):
                if part is not None:
                    self._encode(part, sink)
            self._resampler = None
        return self._given - before

    def _made(self, samples: Any) -> Any:
        """[1, n * channels] of any type as a frame of the settled form."""
        kind = {"s16": np.int16, "s32": np.int32, "flt": np.float32}[self._format]
        packed: Any = np.ascontiguousarray(samples, dtype=kind)
        return av.AudioFrame.from_ndarray(packed, format=self._format, layout=self._context.layout.name)

    def _encode(self, frame: Any, sink: Sink) -> None:
        frame.sample_rate, frame.pts = self.track.timescale, self._given
        frame.time_base = Fraction(1, self.track.timescale)
        self._given += frame.samples
        self._put(self._context.encode(frame), sink)

    def _open(self, frame: Any) -> None:
        """Settle the form by what the decoder really gives: some decoders change their mind after the header."""
        try:
            if self._context is None:
                self.settle(self._wanted or Form(frame.format.name, frame.layout.name, frame.sample_rate))
        except (ValueError, av.error.FFmpegError) as failure:
            self._refused = True
            self.warnings.append(
                f"The {self._name} sound with {frame.layout.nb_channels} channels was left out: the container has no "
                f"form for it ({failure})."
            )
            return
        self.start = round(((frame.pts or 0) * self.stream.time_base - self._origin) * self.track.timescale)
        self._gaps = Gaps(self.stream.time_base, self.track.timescale)

    def settle(self, form: Form) -> None:
        """Open the encoder for what the decoder gives."""
        sample_format, layout, rate = form.sample_format, av.AudioLayout(form.layout), form.rate
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
        context: Any = av.CodecContext.create(self._codec, "w")
        context.sample_rate = rate
        context.layout = known_layout(layout)
        context.format = self._format
        context.time_base = Fraction(1, rate)
        context.options = dict(self._options)
        context.open()
        self._context = context
        self.warnings.append(f"The {self._name} sound was packed as {self._codec} without loss, to fit the container.")

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
            frames = [] if self._refused else list(self.stream.codec_context.decode(None))
        except (av.error.FFmpegError, ValueError):
            self._bad += 1
            frames = []
        for frame in frames:
            self._add(frame, sink)
        if self._gaps is None:
            return None
        self._rest(sink)
        self._put(self._context.encode(None), sink)
        if self._bad:
            self.warnings.append(f"{self._bad} packets of the {self._name} sound do not decode and were left out.")
        skip = max(0, -self.start)
        if self.track.duration <= skip:
            self.warnings = [nothing_heard(self.stream)]
            return None
        return Edit(max(0, self.start), skip, self.track.duration - skip)
