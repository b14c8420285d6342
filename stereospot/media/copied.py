"""A sound whose packets go into the film as they are. Runs in the jail.

Times become sample counts: from a clock that counts samples as they stand, from a coarse one (milliseconds, 90 kHz) by
the frame sizes that the packets themselves tell, as long as the clock does not contradict by more than a tick. What a
decoder is to drop at the start becomes the edit list's media time.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import av
import av.error

from stereospot.media import adts
from stereospot.media.carried import Sink, known_layout, name_of, nothing_heard
from stereospot.media.film import Edit, Track
from stereospot.media.sound_clock import Gaps
from stereospot.media.source_clock import SourceClock

HEAD_PACKETS = 8
"""How many packets libavformat sees to write a track's header: E-AC-3 needs a few, all others one."""


def skipped(packet: Any) -> tuple[int, int]:
    """Samples that a decoder drops at the start and at the end of this packet."""
    if not packet.has_sidedata("skip_samples"):
        return 0, 0
    start, end = struct.unpack_from("<II", bytes(packet.get_sidedata("skip_samples")))
    return start, end


def frame_samples(name: str, stream: Any, data: bytes) -> int | None:
    """How many samples a packet holds, where that is plain to see; None leaves it to the packets' times."""
    if name == "ac3":
        return 1536
    if name == "opus" and data:
        return _opus_samples(data)
    if name in ("aac", "mp3", "mp2"):
        return stream.codec_context.frame_size or None
    return None


def _opus_samples(data: bytes) -> int | None:
    """RFC 6716 3.1: the TOC byte's configuration gives the frame size at 48 kHz, its low bits the frame count."""
    configuration, code = data[0] >> 3, data[0] & 3
    if configuration < 12:
        size = (480, 960, 1920, 2880)[configuration & 3]
    elif configuration < 16:
        size = (480, 960)[configuration & 1]
    else:
        size = (120, 240, 480, 960)[configuration & 3]
    if code < 3:
        return size * (1 if code == 0 else 2)
    return size * (data[1] & 63) if len(data) > 1 else None


_SILENT_BYTES = {"pcm_alaw": b"\xd5", "pcm_mulaw": b"\xff"}
"""What silence is in PCM whose silence is not zero."""


class Copied:
    """Packets as they are; only ADTS headers are taken off, since mp4 keeps their content in the header."""

    def __init__(self, stream: Any, origin: Fraction, *, block: int = 0) -> None:
        """block: bytes of one PCM frame over all channels; 0 for packets of a codec."""
        self.stream = stream
        self.heads: list[Any] = []
        self.warnings: list[str] = []
        rate = stream.codec_context.sample_rate or stream.time_base.denominator
        self.track = Track(rate, sample_size=block)
        self._name = name_of(stream)
        self._block = block
        scale: Fraction = stream.time_base * rate
        self._numerator, self._denominator = scale.numerator, scale.denominator
        self._origin = round(origin * rate)
        # Sources with a coarse clock (milliseconds, 90 kHz) say where a packet lies only to a tick.
        self._slack = 0 if scale == 1 else math.ceil(scale) + 1
        self._filter: Any = None
        self._form = b""
        self._bad = 0
        # Where the media begins and where it begins to be heard: what lies between is priming.
        self._zero: int | None = None
        self._start = 0
        self._leading = False
        self._time = 0
        self._clock = SourceClock(rate)
        self._gaps = Gaps(stream.time_base, rate)
        self._held: tuple[bytes, int, int] | None = None
        self._latest: Any = None

    def template(self, container: Any) -> Any:
        stream = container.add_stream_from_template(self.stream, opaque=True)
        stream.codec_context.layout = known_layout(stream.codec_context.layout)
        return stream

    def take(self, packet: Any, sink: Sink) -> None:
        data = bytes(packet)
        if self._name == "aac" and (form := adts.form(data)) is not None:
            data = self._without_adts(packet, form)
            if not data:
                self._bad += 1
                return
        if len(self.heads) < HEAD_PACKETS:
            self.heads.append(packet)
        if self._block:
            self._take_pcm(packet, data, sink)
            return
        length = self._samples(packet.duration or 0)
        size = length
        if self._slack or length <= 0:  # an exact clock knows, even of a last packet that is cut short
            size = frame_samples(self._name, self.stream, data) or self._priming(packet, length) or max(1, length)
            length = size
        time = self._place(packet)
        if time is None:
            return
        if self._held is not None:
            self._emit(time - self._time, sink)
        self._time = time
        self._held = (data, length, size)
        self._latest = packet

    def _priming(self, packet: Any, length: int) -> int:
        """The samples of the first packet where what is to be dropped is just that packet, to a tick; else 0.

        That is told in samples. Were the packet counted by a coarse clock, the next one could begin before the edit
        list does, and readers leave out a packet of Vorbis whole that does.
        """
        skip = skipped(packet)[0] if self._zero is None else 0
        return skip if abs(skip - length) <= self._slack else 0

    def _samples(self, ticks: int) -> int:
        """Ticks of the source's clock as samples, to the nearest."""
        return (2 * ticks * self._numerator + self._denominator) // (2 * self._denominator)

    def _place(self, packet: Any) -> int | None:
        """Where a packet lies, in samples; None for what an edit list took out of the middle."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        time = None if ticks is None else self._samples(ticks) - self._origin
        if self._zero is None:
            skip = skipped(packet)[0]
            self._start = (time or 0) + skip
            if skip and abs(self._start) <= self._slack:
                self._start = 0
            self._zero = self._start - skip
            self._leading = packet.is_discard
            return self._zero
        if packet.is_discard and not self._leading:
            return None
        place = self._time + (self._held[2] if self._held is not None else 0)
        if time is not None:
            time = self._clock.at(time, place)
            if abs(time - place) > self._slack:
                place = max(time, self._time + 1)
        if self._leading and not packet.is_discard:
            self._leading = False  # the packets before were there for the decoder alone
            self._start = max(self._start, place + skipped(packet)[0])  # the first may have told of a part of this one
        return place

    def _emit(self, duration: int, sink: Sink) -> None:
        assert self._held is not None
        data = self._held[0]
        self.track.add(len(data), duration)
        sink(self.track, data, 1)
        self._held = None

    def _take_pcm(self, packet: Any, data: bytes, sink: Sink) -> None:
        if self._zero is None:
            self._zero = zero = self._samples(packet.pts or 0) - self._origin
            self._start = zero + skipped(packet)[0]
            self._leading = packet.is_discard
        elif not packet.is_discard:
            if self._leading and packet.pts is not None:  # the packets before were there to be left out
                self._start = max(self._start, self._samples(packet.pts) - self._origin + skipped(packet)[0])
            self._leading = False
        elif not self._leading:
            return  # taken out of the middle by an edit list
        count = len(data) // self._block
        gap = self._gaps.before(packet.pts, count, self.track.samples)
        while gap > 0:  # in pieces, so that hours of nothing take no memory
            step = min(gap, self.track.timescale)
            self._put_pcm(_SILENT_BYTES.get(self._name, b"\0") * (step * self._block), step, sink)
            gap -= step
        if count + gap > 0:
            self._put_pcm(data[-gap * self._block : count * self._block], count + gap, sink)

    def _put_pcm(self, data: bytes, count: int, sink: Sink) -> None:
        self.track.add(self._block, 1, count=count)
        sink(self.track, data, count)

    def _without_adts(self, packet: Any, form: bytes) -> bytes:
        """The packet without its header; nothing if that is damaged, or of another form than the track's."""
        if self._filter is None:
            self._form = form
            self._filter = av.BitStreamFilterContext("aac_adtstoasc", self.stream)
        if form != self._form:
            return b""
        copy = av.Packet(bytes(packet))
        copy.pts = packet.pts
        copy.dts = packet.dts
        try:
            return b"".join(bytes(part) for part in self._filter.filter(copy))
        except av.error.FFmpegError:
            return b""

    def finish(self, sink: Sink) -> Edit | None:
        if self._held is not None:
            self._emit(self._held[1], sink)
        if self._zero is None or not self.track.samples:
            return None
        start, skip = self._start, self._start - self._zero
        if start < 0:  # nothing before the film's first instant is shown
            start, skip = 0, skip - start
        if self._bad:
            self.warnings.append(f"{self._bad} packets of the {self._name} sound do not decode and were left out.")
        trim = skipped(self._latest)[1] if self._latest is not None else 0
        if self.track.duration <= skip + trim:
            self.warnings = [nothing_heard(self.stream)]
            return None
        return Edit(start, skip, self.track.duration - skip - trim)
