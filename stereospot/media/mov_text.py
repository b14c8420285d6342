"""Subtitles as mov_text (3GPP TS 26.245), the text that mp4 and mov hold. Runs in the jail."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error

from stereospot.media.carried import Sink, name_of
from stereospot.media.film import Edit, Track
from stereospot.media.subtitles import Cue, in_turn, plain_text


class Text:
    """Subtitles as mov_text: kept until the end (they are small), then written as one run without holes."""

    TIMESCALE = 1000

    def __init__(self, stream: Any, origin: Fraction) -> None:
        self.stream = stream
        self.heads: list[Any] = []
        self.warnings: list[str] = []
        self.track = Track(self.TIMESCALE)
        self._origin = origin
        self._raw = name_of(stream) == "mov_text"
        self._cues: list[Cue] = []

    def template(self, container: Any) -> Any:
        if self._raw:
            return container.add_stream_from_template(self.stream, opaque=True)
        stream = container.add_stream("mov_text")
        stream.codec_context.subtitle_header = _ASS_HEADER
        return stream

    def take(self, packet: Any, sink: Sink) -> None:
        if packet.pts is None:
            return
        start = packet.pts * packet.time_base - self._origin
        end = start + (packet.duration or 0) * packet.time_base
        if self._raw:
            data = bytes(packet)
            if len(data) > 2:
                self._cues.append(Cue(_ms(start), _ms(end), data))
            return
        try:
            text = plain_text(packet).encode()
        except (av.error.FFmpegError, ValueError):
            return
        if text:
            self._cues.append(Cue(_ms(start), _ms(end), text))

    def finish(self, sink: Sink) -> Edit | None:
        for duration, data in _without_holes(self._samples()):
            if not self.heads and len(data) > 2:
                head = av.Packet(data)
                head.pts = head.dts = 0
                head.duration = 1000
                head.time_base = Fraction(1, self.TIMESCALE)
                head.is_keyframe = True
                self.heads.append(head)
            self.track.add(len(data), duration)
            sink(self.track, data, 1)
        if not self.heads:  # libavformat would leave it out, and every track behind it would get another's samples
            if self._cues:
                self.warnings.append(f"Subtitle track {self.stream.index} was left out: none of its texts lasts.")
            return None
        return Edit(0, 0, self.track.duration)

    def _samples(self) -> list[Cue]:
        """The cues in order, as samples: those of an mp4 as they are."""
        if self._raw:
            return sorted(self._cues, key=lambda cue: (cue.start, cue.end))
        return [Cue(cue.start, cue.end, _sample(cue.data)) for cue in in_turn(self._cues)]


_ASS_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, PrimaryColour,"
    b" SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle,"
    b" BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,"
    b"&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\r\n\r\n[Events]\r\nFormat: Layer, Start, End,"
    b" Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)
"""The least that libavcodec's mov_text encoder takes as a style sheet."""


def _ms(seconds: Fraction) -> int:
    return max(0, round(seconds * Text.TIMESCALE))


def _sample(text: bytes) -> bytes:
    return struct.pack(">H", len(text[:65535])) + text[:65535]


def _without_holes(cues: list[Cue]) -> Iterator[tuple[int, bytes]]:
    """(duration, sample): 3GPP TS 26.245 has exactly one text at any time, and an empty one where there is none."""
    now = 0
    for index, cue in enumerate(cues):
        following = cues[index + 1].start if index + 1 < len(cues) else None
        end = cue.end if following is None else min(cue.end, following)
        start = max(cue.start, now)
        if end <= start:
            continue
        if start > now:
            yield start - now, b"\0\0"
        yield end - start, cue.data
        now = end
