"""A track of sound as AAC frames on one grid: passed on as they are, or decoded and encoded anew. Runs in the jail.

AAC that browsers play is passed on, snapped to its own grid; the rest is decoded, brought to 48 kHz stereo and encoded
block by block (`aac_blocks`), the priming dropped. Holes become silence. A track may begin in the middle of the film
after a seek (`jump`): its frames are then those that it would have had from the beginning on.
"""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import Any, Protocol

import av
import av.error
import numpy as np

from stereospot.media import adts, boxes, padding
from stereospot.media.aac_blocks import BIT_RATE, BLOCK, LEAD, RATE, Blocks, encoder, front, mixes, silent
from stereospot.media.audio import PASSED_CHANNELS
from stereospot.media.carried import known_layout, name_of
from stereospot.media.opener import CODEC_WHITELIST
from stereospot.media.source_clock import SourceClock

_COPIED_PROFILES = frozenset(("LC", "HE-AAC", "HE-AACv2"))
_MUXER = {
    "movflags": "empty_moov+default_base_moof+delay_moov",
    "use_editlist": "0",
    "fflags": "+bitexact",
    "avoid_negative_ts": "disabled",
}
_SLACK = RATE // 25
"""Differences of the source's clock that are its own jitter, in samples."""

_LARGEST_HOLE_FRAMES = 24 * 3600 * 50
"""A sound that begins more than a day behind the film's first instant is damage."""


class Frames(Protocol):
    """A track as AAC: the frame at place n on the grid lasts from `anchor + n * size` on, in samples of `rate`."""

    rate: int
    size: int
    anchor: int

    def take(self, packet: Any) -> list[bytes]:
        """The frames that this packet completes, in order."""
        ...

    @property
    def known(self) -> bool:
        """Whether its first packets have told where its frames lie: only then can it `jump`."""
        ...

    def jump(self, place: int, twin: Any) -> tuple[int, Fraction]:
        """Begin with the frame at `place`, or somewhat before: after a seek, which the caller does.

        twin: the same track, `known`. It is another object with another decoder, since FFmpeg's AC-3 forgets with the
        seek what it was told when it was opened.
        Returns the place of the frame that `take` will give first, and the second from which it must get packets.
        """
        ...

    def finish(self, frames: int) -> list[bytes]:
        """What is left, with silence up to `frames` in total."""
        ...

    def init(self, first: bytes) -> bytes:
        """The init segment; `first` is the first frame."""
        ...


def track(stream: Any, start: Fraction) -> Frames:
    """The frames of a stream from the film's beginning at `start` seconds on; no stream is silence."""
    context = stream.codec_context if stream is not None else None
    if context is not None and name_of(stream) == "aac" and context.profile in _COPIED_PROFILES:
        size = context.frame_size or 1024
        if context.sample_rate and context.channels in PASSED_CHANNELS and size in (1024, 2048):
            return Passed(stream, start, size)
    return Encoded(stream, start)


class Passed:
    """AAC as it is. Its grid is anchored at its first frame; holes are filled with silent frames of the same form."""

    def __init__(self, stream: Any, start: Fraction, size: int) -> None:
        self.size = size
        self.rate: int = stream.codec_context.sample_rate
        self.anchor = math.floor(start * self.rate)
        self._stream = stream
        self._start = self.anchor
        self._count = 0
        self._clock = SourceClock(self.rate)
        self._anchored = self._landing = False
        self._silence: bytes | None = None
        self._filter: Any = None
        self._form: bytes | None = None
        self._first: Any = None

    def take(self, packet: Any) -> list[bytes]:
        if packet.is_discard:  # what an edit list took out, with times that run back from the cut
            return []
        ticks = packet.pts if packet.pts is not None else packet.dts
        time = None if ticks is None else round(ticks * packet.time_base * self.rate)
        data = self._bare(packet)
        if not data:
            return []
        if not self._anchored:
            if time is None or time + self.size <= self._start:
                return []  # before the first picture
            self._anchored = True
            self._first = packet
            if time > self._start:  # a late sound: whole frames of silence before it, from the film's start at least
                before = math.ceil((time - self._start) / self.size)
                if before > _LARGEST_HOLE_FRAMES:
                    return []
                self.anchor = time - before * self.size
                return self._emit([*self._silent(before), data])
            self.anchor = time
            return self._emit([data])
        hole = 0
        if time is not None:
            place = self.anchor + self._count * self.size
            if not self._landing or time >= place:
                time = self._clock.at(time, place)
            hole = round((time - self.anchor) / self.size) - self._count
        if hole < 0:
            return []
        self._landing = False
        return self._emit([*self._silent(hole), data])

    @property
    def known(self) -> bool:
        return self._anchored

    def jump(self, place: int, twin: Passed) -> tuple[int, Fraction]:
        self.anchor, self._anchored, self._landing = twin.anchor, True, True
        self._form = twin._form
        self._count = place
        return place, Fraction(self.anchor + place * self.size, self.rate)

    def _emit(self, frames: list[bytes]) -> list[bytes]:
        self._count += len(frames)
        return frames

    def _bare(self, packet: Any) -> bytes:
        data = bytes(packet)
        form = adts.form(data)
        if form is not None:
            if self._filter is None:
                self._filter = av.BitStreamFilterContext("aac_adtstoasc", self._stream)
            self._form = self._form or form
            if form != self._form:  # the init tells one form only
                return self._silent(1)[0]
            try:
                data = b"".join(bytes(part) for part in self._filter.filter(av.Packet(data)))
            except av.error.InvalidDataError:
                return b""
        return data

    def _silent(self, count: int) -> list[bytes]:
        if count and self._silence is None:
            context = self._stream.codec_context
            rate = self.rate * 1024 // self.size  # the core of HE-AAC runs at half the rate
            layout = adts.layout(self._form) if self._form is not None else known_layout(context.layout)
            frames = _silence(encoder(rate, layout), rate, layout, 4)
            self._silence = frames[-1]
        return [self._silence or b""] * count

    def finish(self, frames: int) -> list[bytes]:
        return self._emit(self._silent(max(0, frames - self._count)))

    def init(self, first: bytes) -> bytes:
        if self._filter is None:
            return self._init(self._stream, first)
        with padding.template(self._stream, self._first, 0) as described:  # ADTS: the header comes from a packet
            return self._init(described, first)

    def _init(self, template: Any, first: bytes) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4", options=dict(_MUXER)) as output:
            stream = output.add_stream_from_template(template, opaque=True)
            stream.codec_context.layout = known_layout(self._stream.codec_context.layout)
            copy = av.Packet(first)
            copy.pts = copy.dts = 0
            copy.duration = self.size
            copy.time_base = Fraction(1, self.rate)
            copy.stream = stream
            output.mux(copy)
        return boxes.split(file.getvalue())[0]


class Encoded:
    """Any sound as AAC, 48 kHz stereo, from the film's first instant on; also no sound at all."""

    def __init__(self, stream: Any, start: Fraction) -> None:
        self.rate, self.size = RATE, 1024
        self.anchor = math.floor(start * RATE)
        self._stream = stream
        self._blocks = Blocks()
        self._resampler: Any = None
        self._rest = silent(0)
        """Samples that fill no frame yet."""
        self._silence = 0
        """Samples of silence that are due before the next sound."""
        self._heads: list[tuple[Fraction, int, int]] = []
        """Of the first two frames that were decoded, time in seconds, length in samples, their rate. The first may be
        shorter than the others: priming is cut from it."""
        self._clock = SourceClock(RATE)
        self._landing = self._warming = self._sounded = False
        self._next = 0
        """While landing after a jump: where the next resampled sample belongs, from the anchor on."""
        if stream is not None and stream.codec_context is not None:
            # The noise of AC-3 follows from each frame, so that it is the same wherever decoding began.
            noise = {"cons_noisegen": "1"} if name_of(stream) in ("ac3", "eac3") else {}
            stream.codec_context.options = {"codec_whitelist": CODEC_WHITELIST, **noise}

    def take(self, packet: Any) -> list[bytes]:
        try:
            decoded = packet.decode()
        except (av.error.FFmpegError, ValueError):
            return []  # the hole is filled when the next time is known
        frames: list[bytes] = []
        for frame in decoded:
            try:
                frames += self._add(frame)
            except (av.error.FFmpegError, ValueError):
                self._resampler = None  # a form that cannot be resampled: a hole, too
        return frames

    # ---- from the middle on -----------------------------------------------------------------------------
    @property
    def known(self) -> bool:
        return self._stream is None or len(self._heads) == 2

    def jump(self, place: int, twin: Encoded) -> tuple[int, Fraction]:
        first = place // BLOCK * BLOCK
        self._blocks = Blocks(first)
        self._heads = twin._heads
        self._landing = self._warming = self._stream is not None
        return first, Fraction(self.anchor + max(0, first - LEAD) * 1024, RATE)

    def _land(self, frame: Any, time: Fraction | None) -> list[bytes]:
        """A frame after a seek, until what it holds is wanted: placed as if all before it had been decoded."""
        (begun, before, rate), (_, size, _) = self._heads
        if self._resampler is None:
            if time is None or (self._warming and frame.samples < size):
                self._warming = False
                return []  # a decoder cuts its priming off wherever it begins
            # Times may be rounded to milliseconds; frames of one length follow each other without a gap.
            frames = round(((time - begun) * rate - before) / size)
            exact = begun + Fraction(before + frames * size, rate)
            if abs(exact - time) <= frame.time_base + Fraction(1, rate):
                time = exact
            # A resampler repeats itself after so many samples: begun at a multiple, it is where the other one is.
            period = rate // math.gcd(rate, RATE)
            skipped = -round((time - begun) * rate) % period
            if skipped >= frame.samples:
                return []
            frame = _without(frame, skipped)
            time += Fraction(skipped, rate)
            self._next = round(begun * RATE) - self.anchor + round((time - begun) * RATE)
        samples = self._resampled(frame)
        at, self._next = self._next, self._next + samples.shape[1]
        early = self._done - at
        if early >= samples.shape[1]:
            return []
        self._landing, self._sounded = False, True
        if early < 0:
            self._silence = -early
        return self._feed(samples[:, max(0, early) :])

    # ---- samples ----------------------------------------------------------------------------------------
    @property
    def _done(self) -> int:
        """Samples that are settled, from the anchor on."""
        return self._blocks.place * 1024 + self._rest.shape[1]

    def _add(self, frame: Any) -> list[bytes]:
        exact = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None
        if len(self._heads) < 2 and exact is not None and frame.samples:
            self._heads.append((exact, frame.samples, frame.sample_rate))
        if self._landing:
            return self._land(frame, exact)
        time = None if exact is None else round(exact * RATE) - self.anchor
        samples = self._resampled(frame)
        if not samples.size:
            return []
        if time is not None:
            samples = self._placed(samples, time)
        return self._feed(samples)

    def _resampled(self, frame: Any) -> Any:
        """[2, n] float32; a new resampler where the source changes its form on the way."""
        if not mixes(frame.layout.name):
            frame = front(frame)
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or self._resampler[0] != form:
            self._resampler = (form, av.AudioResampler(format="fltp", layout="stereo", rate=RATE))
        frame.pts = None
        parts = [part.to_ndarray() for part in self._resampler[1].resample(frame)]
        return np.concatenate(parts, axis=1) if parts else silent(0)

    def _placed(self, samples: Any, time: int) -> Any:
        """Silence before, or less at the front, where the source's clock differs by more than a resampler's delay."""
        if self._sounded:
            time = self._clock.at(time, self._done)
        ahead = time - self._done
        if (self._sounded and abs(ahead) <= _SLACK) or ahead > _LARGEST_HOLE_FRAMES * 1024:
            return samples
        if ahead > 0:
            self._silence = ahead
            return samples
        return samples[:, -ahead:]

    def _feed(self, samples: Any) -> list[bytes]:
        frames: list[bytes] = []
        while self._silence:  # in pieces, so that hours of nothing take no memory
            step = min(self._silence, RATE)
            self._silence -= step
            frames += self._encode(silent(step))
        return frames + self._encode(samples)

    def _encode(self, samples: Any) -> list[bytes]:
        self._sounded = self._sounded or samples.shape[1] > 0
        joined = np.concatenate([self._rest, samples.astype(np.float32, copy=False)], axis=1)
        whole = joined.shape[1] // 1024
        frames: list[bytes] = []
        for number in range(whole):
            block = np.ascontiguousarray(joined[:, number * 1024 : (number + 1) * 1024])
            frames += self._blocks.encode(block)
        self._rest = joined[:, whole * 1024 :]
        return frames

    def finish(self, frames: int) -> list[bytes]:
        found: list[bytes] = []
        if self._stream is not None and self._stream.codec_context is not None:
            try:
                for frame in self._stream.codec_context.decode(None):
                    found += self._add(frame)
                if self._resampler is not None:
                    for part in self._resampler[1].resample(None):
                        found += self._feed(part.to_ndarray())
            except (av.error.FFmpegError, ValueError):
                pass
        self._silence = max(0, (frames + 2) * 1024 - self._done)
        found += self._feed(silent(0))
        return found + self._blocks.finish()

    def init(self, first: bytes) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4", options=dict(_MUXER)) as output:
            stream: Any = output.add_stream("aac", rate=RATE)
            stream.codec_context.layout = "stereo"
            stream.bit_rate = BIT_RATE
            copy = av.Packet(first)
            output.start_encoding()
            copy.pts = copy.dts = 0
            copy.duration = 1024
            copy.time_base = Fraction(1, RATE)
            copy.stream = stream
            output.mux(copy)
        return boxes.split(file.getvalue())[0]


def _without(frame: Any, count: int) -> Any:
    """A frame without its first `count` samples."""
    if not count:
        return frame
    step = count if frame.format.is_planar else count * frame.layout.nb_channels
    rest = np.ascontiguousarray(frame.to_ndarray()[:, step:])
    made = av.AudioFrame.from_ndarray(rest, format=frame.format.name, layout=frame.layout.name)
    made.sample_rate = frame.sample_rate
    return made


def _silence(context: Any, rate: int, layout: str, count: int) -> list[bytes]:
    """`count` and some more frames of nothing, the last ones alike."""
    channels = av.AudioLayout(layout).nb_channels
    frames: list[bytes] = []
    for number in range(count + 2):
        frame = av.AudioFrame.from_ndarray(np.zeros((channels, 1024), np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        frame.pts = number * 1024
        frame.time_base = Fraction(1, rate)
        frames += [bytes(packet) for packet in context.encode(frame)]
    return frames
