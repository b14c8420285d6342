"""The film as Matroska: libavformat's own muxer, which needs no tables in memory and takes nearly every codec.

Times are milliseconds there, which is the format's usual clock: pictures of a 1001/24000 clock move by half a
millisecond at most, and the film's report says so. Runs in the jail.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO, cast

import av
import av.error

from stereospot.media import boxes, padding
from stereospot.media.carried import Sink, name_of, nothing_heard
from stereospot.media.film import Track
from stereospot.media.forms import Form, is_known
from stereospot.media.lossless import Lossless
from stereospot.media.skeleton import describe
from stereospot.media.source_clock import SourceClock
from stereospot.media.subtitles import plain_text


class Matroska:
    """One film that is being written: `video` for fragments, `take` for everything else, then `close`."""

    def __init__(
        self,
        file: BinaryIO,
        init: bytes,
        fragment: bytes,
        streams: Sequence[Any],
        heads: dict[int, list[Any]],
        *,
        origin: Fraction,
        zero: int,
        needed: dict[int, Form],
        alive: Callable[[], None],
        stereo_mode: str | None,
        tags: dict[str, str],
        video_tags: dict[str, str],
        chapters: Sequence[dict[str, Any]],
        attachments: Sequence[tuple[str, str, bytes]],
        index_bytes: int,
    ) -> None:
        """origin: the source's second that becomes 0; sound that is over by then is left out of a film that is moved.
        zero: the source's tick that is 0 in the fragments. needed: what `forms` found.
        alive: called for all sound that is packed without loss."""
        self._alive = alive
        self.warnings: list[str] = []
        self._needed = needed
        self._time_base = Fraction(1, boxes.timescale(init))
        self._origin = origin
        self._shift = zero - round(origin / self._time_base)
        options = {
            "avoid_negative_ts": "disabled",
            "fflags": "+bitexact",
            "reserve_index_space": str(index_bytes),
            "strict": "experimental",
        }
        self._output = av.open(file, "w", format="matroska", options=options)
        with av.open(io.BytesIO(init + fragment), "r") as sample:
            self._video: Any = self._output.add_stream_from_template(sample.streams.video[0], opaque=True)
        self._video.time_base = self._time_base
        self._video.metadata.update(video_tags)
        if stereo_mode is not None:
            self._video.metadata["stereo_mode"] = stereo_mode
        self._output.metadata.update(tags)
        self._targets: dict[int, Any] = {}
        self._converted: set[int] = set()
        self._lossless: dict[int, Lossless] = {}
        self._latest: dict[int, int] = {}
        self._clocks: dict[int, SourceClock] = {}
        self._ends: dict[int, int] = {}
        """Where each sound that was followed so far ends."""
        self._begun: set[int] = set()
        self._heard: set[int] = set()
        self._refused = 0
        self._sounds = [stream for stream in streams if stream.type == "audio"]
        for stream in streams:
            self._add(stream, heads.get(stream.index, []))
        for name, kind, data in attachments:
            self._output.add_attachment(name, kind, data)
        if chapters:
            self._output.set_chapters(cast(Any, list(chapters)))

    def _add(self, stream: Any, heads: list[Any]) -> None:
        """heads: the first packets of a sound whose priming Matroska has still to be told, up to the first heard."""
        name = name_of(stream)
        samples = padding.priming(heads) if heads else 0
        if stream.index in self._needed and self._add_lossless(stream):
            return
        if not is_known(stream):
            self.warnings.append(nothing_heard(stream))
            return
        try:
            if stream.type == "subtitle" and name == "mov_text":
                target = self._output.add_mux_stream("subrip")
                self._converted.add(stream.index)
            elif samples:
                with padding.template(stream, heads[0], samples) as padded:
                    target = self._output.add_stream_from_template(padded, opaque=True)
            else:
                target = self._output.add_stream_from_template(stream, opaque=True)
        except (ValueError, av.error.FFmpegError) as failure:
            if stream.type == "audio" and not isinstance(failure, av.error.FFmpegError) and self._add_lossless(stream):
                return
            self.warnings.append(f"Track {stream.index} ({name or 'unknown'}) was left out: {failure}.")
            return
        target.time_base = stream.time_base
        describe(stream, target)
        self._targets[stream.index] = target

    def _add_lossless(self, stream: Any) -> bool:
        """Matroska lacks a few codecs of telephones and games: FLAC of what their decoders give, if there are any."""
        context = stream.codec_context
        form = self._needed.get(stream.index)
        one = Lossless(stream, self._origin, pcm=False)
        try:
            if form is None:
                context.open(strict=False)
                form = Form(context.format.name, context.layout.name, context.sample_rate)
            one.settle(form)
        except (ValueError, av.error.FFmpegError):
            return False
        target = one.template(self._output)
        target.time_base = Fraction(1, one.track.timescale)
        describe(stream, target)
        self._targets[stream.index] = target
        self._lossless[stream.index] = one
        self.warnings += one.warnings
        return True

    def _flac(self, one: Lossless, data: bytes, duration: int) -> None:
        self._alive()
        start = one.start + one.track.duration - duration
        if self._origin:
            if start + duration <= 0:
                return
            start = max(0, start)
        target = self._targets[one.stream.index]
        made = av.Packet(data)
        made.time_base = Fraction(1, one.track.timescale)
        made.pts = made.dts = start
        made.duration = duration
        made.is_keyframe = True
        made.stream = target
        self._heard.add(one.stream.index)
        self._output.mux(made)

    def video(self, media: bytes) -> None:
        """Append the frames of one fragment."""
        for sample in boxes.read_fragment(media):
            packet = av.Packet(media[sample.position : sample.position + sample.size])
            packet.time_base = self._time_base
            packet.pts = packet.dts = sample.time + sample.offset + self._shift
            packet.duration = sample.duration
            packet.is_keyframe = sample.key
            packet.stream = self._video
            self._output.mux(packet)

    def follow(self, packet: Any) -> None:
        """Before `take`: give a packet of sound the time that it has if its source's clock was set anew on the way."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.is_discard or packet.stream.type != "audio":
            return
        index = packet.stream_index
        if index not in self._clocks:
            self._clocks[index] = SourceClock(round(1 / packet.time_base))
            self._ends[index] = time
        found = self._clocks[index].at(time, self._ends[index])
        self._ends[index] = found + (packet.duration or 0)
        if found != time:
            packet.pts = packet.dts = found

    def take(self, packet: Any) -> None:
        """Append a packet of the source as it is; mov_text becomes SubRip."""
        index = packet.stream.index
        target = self._targets.get(index)
        if target is None or (packet.is_discard and index in self._begun):
            return  # taken out of the middle by an edit list; before what is heard it is the decoder's priming
        if not packet.is_discard:
            self._begun.add(index)
        if index not in self._lossless and not self._moved(packet):
            return
        if index in self._converted:
            for text in self._plain(packet):
                text.stream = target
                self._output.mux(text)
            return
        one = self._lossless.get(index)
        if one is not None:
            one.take(packet, self._sink(one))
            return
        self._ordered(packet)
        packet.stream = target
        try:
            self._output.mux(packet)
            self._heard.add(index)
        except (av.error.ArgumentError, av.error.InvalidDataError):
            self._refused += 1

    def _moved(self, packet: Any) -> bool:
        """Give a packet its time in the film; False if a film that is moved begins after it."""
        if packet.pts is None:
            packet.pts = packet.dts
        if not self._origin or packet.pts is None:
            return True
        packet.pts -= round(self._origin / packet.time_base)
        if packet.pts >= 0:
            return True
        end = packet.pts + (packet.duration or 0)
        text = packet.stream.type == "subtitle"
        if end <= 0 and (packet.duration or not text):
            return False
        # What is heard or read already is there from the first picture on; pictures of text last until the next.
        packet.pts = 0
        if text:
            packet.duration = max(0, end)
        return True

    def _ordered(self, packet: Any) -> None:
        """Sound and text are decoded in the order in which they are shown; damaged sources say otherwise."""
        index = packet.stream.index
        latest = self._latest.get(index)
        if packet.pts is None or (latest is not None and packet.pts < latest):
            packet.pts = latest
        packet.dts = packet.pts
        if packet.pts is not None:
            self._latest[index] = packet.pts

    def _plain(self, packet: Any) -> Iterator[Any]:
        try:
            text = plain_text(packet).encode()
        except (av.error.FFmpegError, ValueError):
            self._refused += 1
            return
        if text:
            made = av.Packet(text)
            made.time_base = packet.time_base
            made.pts = made.dts = packet.pts
            made.duration = packet.duration
            made.is_keyframe = True
            yield made

    def _sink(self, one: Lossless) -> Sink:
        def put(track: Track, data: bytes, count: int) -> None:
            self._flac(one, data, track.latest)

        return put

    def close(self) -> None:
        for one in self._lossless.values():
            one.finish(self._sink(one))
        for stream in self._sounds:
            if stream.index in self._targets and stream.index not in self._heard:
                self.warnings.append(nothing_heard(stream))
        if self._refused:
            self.warnings.append(f"{self._refused} packets of sound or subtitles are damaged and were left out.")
        try:
            self._output.close()
        except av.error.ArgumentError:  # the room for the index is too small; everything else is written by then
            self.warnings.append("The film has no index, since it would be too large: players seek slowly in it.")
