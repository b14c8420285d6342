"""An mp4 or mov file written front to back in one pass, with its index in front.

    reserve -> append, append, … -> finish(header)

libavformat knows how the header of every codec looks, and `skeleton` lets it write one; what it does not do is keep
the sample tables of a three-hour film in a few bytes a frame, copy a whole fragment as one chunk, or put the index into
room that was left for it. So the tables are ours: sizes, durations, keyframes and chunk positions are gathered while
the media is appended, and grafted into the skeleton's tracks at the end. An index that does not fit the room goes to
the end of the file, which every player reads too.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from stereospot.media.boxes import Box, box, children, find, full_box, walk

CHUNK_BYTES = 1 << 20
"""A chunk is closed at this size even if nothing of another track comes between."""

_TABLES = {b"stts", b"ctts", b"stss", b"stsz", b"stz2", b"stsc", b"stco", b"co64", b"sbgp", b"sdtp", b"cslg"}


@dataclass(frozen=True, slots=True)
class Edit:
    """How a track lies on the film's timeline: `delay` ticks of nothing, then its media from `media_time` on.

    All in the track's own timescale; `length` is how much of the media is shown.
    """

    delay: int
    media_time: int
    length: int


class Track:
    """The sample tables of one track, four bytes a number; times in `timescale`."""

    def __init__(self, timescale: int, *, sample_size: int = 0, sync: bool = True) -> None:
        """sample_size: bytes of each sample where they are all alike (PCM); sync: every sample decodes alone."""
        self.timescale = timescale
        self.samples = 0
        self.duration = 0
        self.sync = sync
        self._sample_size = sample_size
        self._sizes = array("I")
        self._keys = array("I")
        self._run_lengths = array("I")
        self._run_durations = array("I")
        self._chunk_offsets = array("Q")
        self._chunk_samples = array("I")

    def add(self, size: int, duration: int, *, key: bool = True, count: int = 1) -> None:
        """Count `count` samples of `size` bytes and `duration` ticks each; their place is told by `placed`."""
        self.samples += count
        self.duration += count * duration
        if not self._sample_size:
            self._sizes.append(size)
        if not self.sync and key:
            self._keys.append(self.samples)
        if self._run_durations and self._run_durations[-1] == duration:
            self._run_lengths[-1] += count
        else:
            self._run_durations.append(duration)
            self._run_lengths.append(count)

    def stretch(self, ticks: int) -> None:
        """The last sample lasts longer: nothing follows it yet."""
        self.duration += ticks
        duration = self._run_durations[-1] + ticks
        if self._run_lengths[-1] == 1:
            self._run_durations[-1] = duration
        else:
            self._run_lengths[-1] -= 1
            self._run_lengths.append(1)
            self._run_durations.append(duration)

    @property
    def latest(self) -> int:
        """The duration of the last sample."""
        return self._run_durations[-1]

    def placed(self, offset: int, count: int, *, joined: bool) -> None:
        """The last `count` samples lie at `offset`; `joined` if that is right behind this track's last chunk."""
        if joined:
            self._chunk_samples[-1] += count
        else:
            self._chunk_offsets.append(offset)
            self._chunk_samples.append(count)

    @staticmethod
    def room(samples: int, chunks: int, *, runs: int) -> int:
        """Bytes that the tables of so many samples need at most."""
        return 256 + 8 * samples + 20 * chunks + 8 * runs

    def tables(self) -> bytes:
        """`stts`, `stss`, `stsc`, `stsz`, `stco` or `co64`."""
        parts = [_table(b"stts", _interleaved(self._run_lengths, self._run_durations), len(self._run_lengths))]
        if not self.sync:
            parts.append(_table(b"stss", self._keys, len(self._keys)))
        firsts = array("I")
        for number, count in enumerate(self._chunk_samples, 1):
            if not firsts or firsts[-2] != count:
                firsts.extend((number, count, 1))
        parts.append(_table(b"stsc", firsts, len(firsts) // 3))
        sizes = b"" if self._sample_size else _big_endian(self._sizes)
        parts.append(full_box(b"stsz", 0, 0, struct.pack(">II", self._sample_size, self.samples), sizes))
        if self._chunk_offsets and self._chunk_offsets[-1] >= 1 << 32:
            parts.append(_table(b"co64", self._chunk_offsets, len(self._chunk_offsets)))
        else:
            parts.append(_table(b"stco", array("I", self._chunk_offsets), len(self._chunk_offsets)))
        return b"".join(parts)


def _interleaved(first: array[int], second: array[int]) -> array[int]:
    both = array("I", bytes(8 * len(first)))
    both[::2] = first
    both[1::2] = second
    return both


def _big_endian(numbers: array[int]) -> bytes:
    swapped = array(numbers.typecode, numbers)
    swapped.byteswap()
    return swapped.tobytes()


def _table(kind: bytes, numbers: array[int], count: int) -> bytes:
    return full_box(kind, 0, 0, struct.pack(">I", count), _big_endian(numbers))


class Film:
    """The file itself: `ftyp`, room for the index, then one `mdat` that grows.

    file: writable and seekable, empty. Raises OSError as the file does.
    """

    def __init__(self, file: BinaryIO, brand: bytes, reserve: int) -> None:
        self._file = file
        self._reserved = len(brand)
        self._reserve = max(8, reserve)
        file.write(brand)
        self._write_free(self._reserve)
        self._mdat = self._reserved + self._reserve
        file.write(struct.pack(">I4sQ", 1, b"mdat", 0))
        self.position = self._mdat + 16
        self._last: Track | None = None
        self._chunk = 0

    def _write_free(self, size: int) -> None:
        self._file.write(struct.pack(">I4s", size, b"free"))
        rest = size - 8
        while rest > 0:
            step = min(rest, CHUNK_BYTES)
            self._file.write(bytes(step))
            rest -= step

    def append(self, track: Track, data: bytes | memoryview, count: int) -> None:
        """Write the bytes of the next `count` samples, which `track.add` has counted or will count."""
        self._place(track, len(data), count)
        self._file.write(data)

    def leave(self, track: Track, size: int, count: int) -> int:
        """Leave room for the next `count` samples, which somebody else writes at the offset that is returned."""
        offset = self.position
        self._place(track, size, count)
        self._file.seek(self.position)
        return offset

    def _place(self, track: Track, size: int, count: int) -> None:
        joined = self._last is track and self._chunk < CHUNK_BYTES
        track.placed(self.position, count, joined=joined)
        self._chunk = self._chunk + size if joined else size
        self._last = track
        self.position += size

    def finish(self, header: bytes) -> bool:
        """Write the index; returns whether it found its place in front."""
        self._file.seek(self._mdat + 8)
        self._file.write(struct.pack(">Q", self.position - self._mdat))
        room = self._reserve - len(header)
        fits = room == 0 or room >= 8
        if fits:
            self._file.seek(self._reserved)
            self._file.write(header)
            if room:
                self._file.write(struct.pack(">I4s", room, b"free"))
            self._file.seek(self.position)
        else:
            self._file.seek(self.position)
            self._file.write(header)
            self.position += len(header)
        self._file.flush()
        return fits


# ---- the header ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Filled:
    """A track with what it is to have in the header: `entry` replaces the skeleton's sample description if given."""

    track: Track
    edit: Edit
    entry: bytes | None = None


def header(skeleton: bytes, filled: Sequence[Filled], movie_timescale: int) -> bytes:
    """The skeleton's `moov` with the tables of `filled`, in the order of its tracks, which must be as many."""
    moov = find(skeleton, "moov")
    if moov is None:
        raise ValueError("the skeleton has no moov")
    spans = [_in_movie(item, movie_timescale) for item in filled]
    parts: list[bytes] = []
    tracks = iter(zip(filled, spans, strict=True))
    for item in children(skeleton, moov):
        if item.kind == b"mvhd":
            parts.append(_with_duration(skeleton, item, max(spans, default=0), movie_timescale))
        elif item.kind == b"trak":
            one, span = next(tracks)
            parts.append(_trak(skeleton, item, one, span, movie_timescale))
        elif item.kind != b"mvex":
            parts.append(skeleton[item.start : item.end])
    if next(tracks, None) is not None:
        raise ValueError("the skeleton lacks a track")
    return box(b"moov", *parts)


def _in_movie(item: Filled, movie_timescale: int) -> int:
    """The end of a track on the film's timeline, in the movie's ticks."""
    return _scaled(item.edit.delay, item.track.timescale, movie_timescale) + _scaled(
        item.edit.length, item.track.timescale, movie_timescale
    )


def _scaled(ticks: int, timescale: int, movie_timescale: int) -> int:
    """Rounded up: a length that is a fraction short would make readers drop the last sample."""
    return -(-ticks * movie_timescale // timescale)


def _trak(data: bytes, trak: Box, filled: Filled, span: int, movie_timescale: int) -> bytes:
    parts: list[bytes] = []
    for item in children(data, trak):
        if item.kind == b"tkhd":
            parts += (_with_duration(data, item, span, None), _edts(filled, movie_timescale))
        elif item.kind == b"mdia":
            parts.append(box(b"mdia", *_mdia(data, item, filled)))
        elif item.kind != b"edts":
            parts.append(data[item.start : item.end])
    return box(b"trak", *parts)


def _mdia(data: bytes, mdia: Box, filled: Filled) -> Iterator[bytes]:
    for item in children(data, mdia):
        if item.kind == b"mdhd":
            yield _with_duration(data, item, filled.track.duration, filled.track.timescale)
        elif item.kind == b"minf":
            inner = [
                _stbl(data, child, filled) if child.kind == b"stbl" else data[child.start : child.end]
                for child in children(data, item)
            ]
            yield box(b"minf", *inner)
        else:
            yield data[item.start : item.end]


def _stbl(data: bytes, stbl: Box, filled: Filled) -> bytes:
    parts: list[bytes] = []
    for item in children(data, stbl):
        if item.kind == b"stsd" and filled.entry is not None:
            parts.append(full_box(b"stsd", 0, 0, struct.pack(">I", 1), filled.entry))
        elif item.kind == b"sgpd":
            # Roll and pre-roll of audio (Opus, AAC): one group, to which every sample belongs.
            parts.append(data[item.start : item.end])
            grouping = data[item.body + 4 : item.body + 8]
            parts.append(full_box(b"sbgp", 0, 0, grouping, struct.pack(">III", 1, filled.track.samples, 1)))
        elif item.kind not in _TABLES:
            parts.append(data[item.start : item.end])
    return box(b"stbl", *parts, filled.track.tables())


def _edts(filled: Filled, movie_timescale: int) -> bytes:
    """An edit list that keeps delays and priming; in 64 bits only where it must be."""
    edit, timescale = filled.edit, filled.track.timescale
    rows: list[tuple[int, int]] = []
    if edit.delay:
        rows.append((_scaled(edit.delay, timescale, movie_timescale), -1))
    rows.append((_scaled(edit.length, timescale, movie_timescale), edit.media_time))
    wide = any(duration >= 1 << 32 or time >= 1 << 31 for duration, time in rows)
    body = b"".join(struct.pack(">QqI" if wide else ">IiI", duration, time, 0x10000) for duration, time in rows)
    return box(b"edts", full_box(b"elst", int(wide), 0, struct.pack(">I", len(rows)), body))


def _with_duration(data: bytes, item: Box, duration: int, timescale: int | None) -> bytes:
    """`mvhd`, `mdhd` or `tkhd` with another duration (and timescale), widened to version 1 where that is needed."""
    version = data[item.body]
    flags = data[item.body + 1 : item.body + 4]
    at = item.body + 4
    created, changed = struct.unpack_from(">QQ" if version else ">II", data, at)
    at += 16 if version else 8
    between = data[at : at + (8 if timescale is None else 4)]  # tkhd: track id and a reserved word
    at += len(between) + (8 if version else 4)
    if timescale is not None:
        between = struct.pack(">I", timescale)
    wide = duration >= 1 << 32
    head = struct.pack(">QQ" if wide else ">II", created, changed)
    tail = struct.pack(">Q" if wide else ">I", duration)
    return box(item.kind, bytes([wide]), flags, head, between, tail, data[at : item.end])


def media_of(data: bytes, number: int) -> Iterator[tuple[bytes, int]]:
    """(bytes, duration) of each sample of the `number`-th track of a small plain mp4 in memory, in order."""
    moov = find(data, "moov")
    assert moov is not None
    trak = [item for item in children(data, moov) if item.kind == b"trak"][number]
    stbl = find(data, "mdia/minf/stbl", trak)
    assert stbl is not None
    tables = {item.kind: item for item in walk(data, stbl.body, stbl.end)}

    def numbers(kind: bytes, letter: str, skip: int = 8) -> array[int]:
        found = array(letter, data[tables[kind].body + skip : tables[kind].end])
        found.byteswap()
        return found

    runs = numbers(b"stts", "I")
    durations = [runs[at + 1] for at in range(0, len(runs), 2) for _ in range(runs[at])]
    fixed, count = struct.unpack_from(">II", data, tables[b"stsz"].body + 4)
    sizes = [fixed] * count if fixed else list(numbers(b"stsz", "I", 12))
    offsets = numbers(b"co64", "Q") if b"co64" in tables else numbers(b"stco", "I")
    per_chunk = numbers(b"stsc", "I")
    sample = 0
    for chunk, offset in enumerate(offsets, 1):
        run = max(at for at in range(0, len(per_chunk), 3) if per_chunk[at] <= chunk)
        for _ in range(per_chunk[run + 1]):
            yield data[offset : offset + sizes[sample]], durations[sample]
            offset += sizes[sample]
            sample += 1
