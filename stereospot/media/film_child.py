"""The jailed side of the assembler: `write` makes the film into an inherited descriptor, `read_back` looks at one.

Order in the file follows the source: whenever its sound reaches the start of the next fragment, that fragment goes in
first, so that nothing has to be held back but the packets since the last one.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.error
from av.stream import Disposition

from stereospot import errors
from stereospot.jail import Cell
from stereospot.media import boxes, ebml, forms, skeleton
from stereospot.media.carried import Carried, name_of, nothing_heard
from stereospot.media.film import Edit, Filled, Film, Track, header, media_of
from stereospot.media.forms import Form
from stereospot.media.matroska import Matroska
from stereospot.media.mov_text import Text
from stereospot.media.opener import opened
from stereospot.media.subtitles import TEXT_CODECS
from stereospot.media.supply import Supply, chapters_of, chosen, packets_of, seconds_of, ticks_of, video_tags
from stereospot.media.tracks import carry_audio

_FLUSH_BYTES = 512 * 1024
_SKELETON_BYTES = 64 * 1024
_PEEKED_PACKETS = 1000
_MOST_INDEX_BYTES = 1 << 25
_CUE_BYTES = 32
"""What one place in a Matroska's index takes: 29 at most, and less where several are at one time."""


def write(cell: Cell, request: dict[str, Any]) -> None:
    """Task: sources[0] is the source, outputs[0] the film. Asks the parent for the init, then for each fragment."""
    try:
        _write(cell, request)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise errors.error("STORAGE_FULL", "The film could not be written.") from failure
        raise


def _write(cell: Cell, request: dict[str, Any]) -> None:
    init = cell.receive().blob
    with opened(cell.source, request) as source:
        if not forms.may_be_needed(source, request):
            _make(cell, request, init, source, {})
            return
        needed = forms.needed(source, request)
    with opened(cell.source, request) as source:
        _make(cell, request, init, source, needed)


def _make(cell: Cell, request: dict[str, Any], init: bytes, source: Any, needed: dict[int, Form]) -> None:
    # Leaving the file closes it, which writes what is buffered: that, too, can meet a full disk.
    with os.fdopen(os.dup(cell.outputs[0]), "r+b", buffering=1 << 20) as file:
        supply = Supply(cell, request["zero"] * Fraction(request["time_base"]).numerator)
        if request["container"] == "matroska":
            answer = _matroska(source, supply, init, file, request, needed)
        else:
            answer = Mp4(source, supply, init, file, request, needed).write()
        file.flush()
        cell.send(answer)


# ---- mp4 and mov -----------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Held:
    """Samples of one track that wait to be written as one chunk."""

    parts: list[bytes] = field(default_factory=list[bytes])
    count: int = 0
    size: int = 0


class Mp4:
    """Writes one mp4 or mov; see `film`."""

    def __init__(
        self,
        source: Any,
        supply: Supply,
        init: bytes,
        file: BinaryIO,
        request: dict[str, Any],
        needed: dict[int, Form],
    ) -> None:
        """needed: what `forms` found."""
        self._source, self._supply, self._init, self._request = source, supply, init, request
        self._needed = needed
        self._timescale = boxes.timescale(init)
        self._origin = request["origin"] * Fraction(request["time_base"])
        self._container: str = request["container"]
        self._warnings: list[str] = []
        self._video = Track(self._timescale, sync=False)
        self._next_time: int | None = None
        self._first_media = supply.media
        self._carried: list[Carried] = self._carry()
        self._film = Film(file, _brand(self._container, init), self._room())
        self._held: dict[Track, _Held] = {}

    def _carry(self) -> list[Carried]:
        found: list[Carried] = []
        for stream in chosen(self._source, self._request, "audio"):
            form = self._needed.get(stream.index)
            found.append(carry_audio(stream, self._container, self._origin, form=form))
        for stream in chosen(self._source, self._request, "subtitles"):
            if name_of(stream) in TEXT_CODECS:
                found.append(Text(stream, self._origin))
            else:
                self._warnings.append(f"Subtitle track {stream.index} was left out: mp4 holds text only.")
        if _covers(self._source):
            self._warnings.append("The cover picture was left out: only mkv films keep it.")
        files = sum(stream.type == "attachment" for stream in self._source.streams)
        if files:
            self._warnings.append(f"Attached files ({files}) were left out: only mkv films keep them.")
        return found

    def _room(self) -> int:
        """Bytes for the index, from what is known before: too much costs nothing, too little moves it to the end."""
        frames, segments = self._request["frames"], self._request["segments"]
        size = _SKELETON_BYTES + Track.room(frames, segments, runs=frames)
        size += sum(len(k) + len(v) + 64 for k, v in self._source.metadata.items())
        for one in self._carried:
            stream = one.stream
            if stream.type != "audio":
                size += _SKELETON_BYTES
                continue
            smallest = 960 if name_of(stream) == "opus" else 1024
            guess = math.ceil(self._request["seconds"] * (stream.codec_context.sample_rate or 48000) / smallest)
            packets = min(stream.frames or guess, guess) + 1000
            size += Track.room(packets, 4 * segments + guess // 16, runs=packets // 2)
        return size

    def write(self) -> dict[str, Any]:
        by_index = {one.stream.index: one for one in self._carried}
        streams = [one.stream for one in self._carried]
        ticks = ticks_of(streams)
        due = self._due()
        for packet in packets_of(self._source, streams, self._request, self._warnings):
            now = seconds_of(packet, ticks)
            while now is not None and due <= now:
                self._fragment()
                due = self._due()
            by_index[packet.stream_index].take(packet, self._sink)
        while not self._supply.ended:
            self._fragment()
        edits = [(one, one.finish(self._sink)) for one in self._carried]
        self._flush()
        filled = [(one, edit) for one, edit in edits if edit is not None]
        for one, edit in edits:
            self._warnings += one.warnings
            if edit is None and one.stream.type == "audio" and not one.warnings:
                self._warnings.append(nothing_heard(one.stream))
        return self._finish(filled)

    def _due(self) -> float:
        """The source's time at which the next fragment goes in."""
        return math.inf if self._supply.ended else self._supply.start(self._timescale)

    def _fragment(self) -> None:
        self._flush()
        samples = self._supply.samples
        # A plan of samples leaves out what lies between them: the last picture stays until the next one.
        start = samples[0].time + samples[0].offset
        if self._next_time is not None and start > self._next_time:
            self._video.stretch(start - self._next_time)
        self._next_time = start + sum(sample.duration for sample in samples)
        for sample in samples:
            self._video.add(sample.size, sample.duration, key=sample.key)
        size = samples[-1].position + samples[-1].size - samples[0].position
        self._supply.place(self._film.leave(self._video, size, len(samples)))
        self._supply.advance()

    def _sink(self, track: Track, data: bytes, count: int) -> None:
        self._supply.alive()
        held = self._held.get(track)
        if held is None:
            held = self._held[track] = _Held()
        held.parts.append(data)
        held.count += count
        held.size += len(data)
        if held.size >= _FLUSH_BYTES:
            self._flush_track(track)

    def _flush_track(self, track: Track) -> None:
        held = self._held.pop(track)
        self._film.append(track, b"".join(held.parts), held.count)

    def _flush(self) -> None:
        for track in list(self._held):
            self._flush_track(track)

    def _finish(self, filled: list[tuple[Carried, Edit]]) -> dict[str, Any]:
        first = self._request["first_pts"] - self._request["origin"]
        delay = first * Fraction(self._request["time_base"]).numerator
        chapters = chapters_of(self._source, self._origin)
        longest = max((float((item["end"] - item["start"]) * item["time_base"]) for item in chapters), default=0.0)
        movie = _movie_timescale(self._timescale, filled, longest)
        skeleton_bytes, filled = self._skeleton(filled, movie)
        found = boxes.sample_entry(self._init)
        assert found is not None
        entry = self._init[found[1].start : found[1].end]
        tracks = [Filled(self._video, Edit(delay, 0, self._video.duration), entry)]
        tracks += [Filled(one.track, edit) for one, edit in filled]
        tracks += self._chapter_tracks(skeleton_bytes, len(tracks))
        in_front = self._film.finish(header(skeleton_bytes, tracks, movie))
        return {"warnings": self._warnings, "index_in_front": in_front}

    def _skeleton(self, filled: list[tuple[Carried, Edit]], movie: int) -> tuple[bytes, list[tuple[Carried, Edit]]]:
        """The headers; a track that libavformat refuses is left out with a warning rather than failing the film."""

        def attempt(tracks: list[tuple[Carried, Edit]]) -> bytes:
            return skeleton.write(
                self._container, self._init, self._first_media, [one for one, _ in tracks],
                tags=skeleton.kept_tags(self._source.metadata), video_tags=video_tags(self._source, self._request),
                chapters=chapters_of(self._source, self._origin), timescales=(movie, self._timescale),
            )  # fmt: skip

        try:
            return attempt(filled), filled
        except (ValueError, av.error.FFmpegError):
            kept: list[tuple[Carried, Edit]] = []
            for one, edit in filled:
                try:
                    attempt([(one, edit)])
                    kept.append((one, edit))
                except (ValueError, av.error.FFmpegError) as failure:
                    name = name_of(one.stream)
                    self._warnings.append(f"Track {one.stream.index} ({name}) was left out: {failure}.")
            return attempt(kept), kept

    def _chapter_tracks(self, skeleton_bytes: bytes, known: int) -> list[Filled]:
        """Chapter titles as libavformat lays them out for QuickTime: their samples move into our file."""
        moov = boxes.find(skeleton_bytes, "moov")
        assert moov is not None
        count = sum(item.kind == b"trak" for item in boxes.children(skeleton_bytes, moov))
        chapters = chapters_of(self._source, self._origin)
        found: list[Filled] = []
        for number in range(known, count):
            trak = [item for item in boxes.children(skeleton_bytes, moov) if item.kind == b"trak"][number]
            mdhd = boxes.find(skeleton_bytes, "mdia/mdhd", trak)
            assert mdhd is not None
            track = Track(boxes.timescale(skeleton_bytes, number))
            for data, duration in media_of(skeleton_bytes, number):
                track.add(len(data), duration)
                self._film.append(track, data, 1)
            start = chapters[0]["start"] * chapters[0]["time_base"] if chapters else 0
            found.append(Filled(track, Edit(round(start * track.timescale), 0, track.duration)))
        return found


def _brand(container: str, init: bytes) -> bytes:
    """`ftyp`, as libavformat writes it for such films."""
    if container == "mov":
        return boxes.box(b"ftyp", b"qt  ", (512).to_bytes(4, "big"), b"qt  ")
    found = boxes.sample_entry(init)
    own = {b"avc1": b"avc1", b"av01": b"av01"}.get(found[1].kind, b"") if found else b""
    return boxes.box(b"ftyp", b"isom", (512).to_bytes(4, "big"), b"isomiso2", own, b"mp41")


def _movie_timescale(video: int, filled: list[tuple[Carried, Edit]], longest: float) -> int:
    """The video's own clock, so that its start is exact; a common multiple where a sound's delay asks for it.

    longest: seconds of the longest chapter, which libavformat counts in it, too, in 32 bits.
    """
    scale = video
    most = min(1 << 31, (1 << 32) / max(1.0, longest))
    for one, edit in filled:
        if edit.delay * scale % one.track.timescale:
            finer = math.lcm(scale, one.track.timescale)
            scale = finer if finer < most else scale
    return scale


# ---- Matroska --------------------------------------------------------------------------------------------
def _matroska(
    source: Any, supply: Supply, init: bytes, file: BinaryIO, request: dict[str, Any], needed: dict[int, Form]
) -> dict[str, Any]:
    streams = chosen(source, request, "audio") + chosen(source, request, "subtitles")
    attachments = [
        (stream.name or f"attachment-{stream.index}", stream.mimetype or "application/octet-stream", stream.data)
        for stream in source.streams
        if stream.type == "attachment"
    ]
    timescale = boxes.timescale(init)
    origin = request["origin"] * Fraction(request["time_base"])
    warnings: list[str] = []
    covers = _covers(source)
    packets = packets_of(source, streams + covers, request, warnings)
    pictures, packets = _attached(packets, covers)
    attachments += pictures
    peeked, heads = _peek(packets, streams) if "mov" in source.format.name else ([], {})
    made = Matroska(
        file, init, supply.media, streams, heads, origin=origin, zero=supply.zero, needed=needed, alive=supply.alive,
        stereo_mode=request["stereo_mode"],
        tags=skeleton.kept_tags(source.metadata), video_tags=video_tags(source, request),
        chapters=chapters_of(source, origin), attachments=attachments,
        index_bytes=_index_bytes(request, supply.samples),
    )  # fmt: skip
    ticks = ticks_of(streams + covers)
    for packet in itertools.chain(peeked, packets):
        made.follow(packet)
        now = seconds_of(packet, ticks)
        while now is not None and not supply.ended and supply.start(timescale) <= now:
            made.video(supply.media)
            supply.advance()
        made.take(packet)
    while not supply.ended:
        made.video(supply.media)
        supply.advance()
    made.close()
    aspect = Fraction(request["sample_aspect"])
    if aspect != 1:
        ebml.set_sample_aspect(file, aspect)
    return {"warnings": warnings + made.warnings, "index_in_front": False}


def _index_bytes(request: dict[str, Any], first: list[boxes.Sample]) -> int:
    """Room for the index. libavformat lists every keyframe and every packet of subtitles, and none where one is too
    many: room for two a second of each track, and for all pictures of a film in which each is a keyframe."""
    places = 2 * math.ceil(request["seconds"]) * (1 + len(request["subtitles"]))
    if all(sample.key for sample in first):
        places += request["frames"]
    return min(_MOST_INDEX_BYTES, 4096 + _CUE_BYTES * places)


def _covers(source: Any) -> list[Any]:
    """The pictures that libavformat shows as tracks of one packet; a film's own are never among them."""
    return [
        stream
        for stream in source.streams.video
        if stream.disposition & Disposition.attached_pic and not stream.disposition & Disposition.timed_thumbnails
    ]


def _attached(packets: Iterator[Any], covers: list[Any]) -> tuple[list[tuple[str, str, bytes]], Iterator[Any]]:
    """Name, type and bytes of each cover, and the packets after them: libavformat gives those of covers first."""
    found: list[tuple[str, str, bytes]] = []
    while len(found) < len(covers) and (packet := next(packets, None)) is not None:
        if packet.stream not in covers:
            return found, itertools.chain([packet], packets)
        tags = packet.stream.metadata
        kind = {"mjpeg": "jpeg"}.get(name_of(packet.stream), name_of(packet.stream))
        name = tags.get("filename", f"cover.{'jpg' if kind == 'jpeg' else kind}")
        found.append((name, tags.get("mimetype", f"image/{kind}"), bytes(packet)))
    return found, packets


def _peek(packets: Iterator[Any], streams: list[Any]) -> tuple[list[Any], dict[int, list[Any]]]:
    """The first packets of all sounds, up to the first one each that is heard, and what else came meanwhile."""
    waiting = {stream.index for stream in streams if stream.type == "audio"}
    peeked: list[Any] = []
    heads: dict[int, list[Any]] = {}
    while waiting and len(peeked) < _PEEKED_PACKETS and (packet := next(packets, None)) is not None:
        peeked.append(packet)
        index = packet.stream.index
        if index in waiting:
            heads.setdefault(index, []).append(packet)
            if not packet.is_discard:
                waiting.remove(index)
    return peeked, heads


# ---- the finished film -----------------------------------------------------------------------------------
def read_back(cell: Cell, request: dict[str, Any]) -> None:
    """Task: sources[0] is a finished film; answers with the times of all its frames and the first picture's size."""
    with opened(cell.source, request) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        answer = {"width": frame.width, "height": frame.height}
        if request["container"] == "mkv":
            container.seek(0)
            times = array("q", (packet.pts or 0 for packet in container.demux(stream) if packet.size))
        else:
            # Without B-frames the index libavformat builds from our tables holds presentation times.
            times = array("q", (entry.timestamp for entry in stream.index_entries))
        cell.send(answer, times.tobytes())
