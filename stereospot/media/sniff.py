"""What the first bytes say, without FFmpeg: which family a file belongs to, where an mp4's boxes lie, encryption marks.

Used to name the failure when FFmpeg refuses a file, to plan an mp4 from its index without reading the payload, and to
see that a track is encrypted (FFmpeg opens such files and only fails to decode them). Runs in the jail.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from stereospot.errors import StereoSpotError, error
from stereospot.media import ebml

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: fewer bytes only at the end."""

Family = Literal["mov", "matroska", "avi", "flv", "ts", "ps", "asf", "ogg", "nut", "sound", "unknown"]

TOP_BOXES = frozenset(
    (
        b"ftyp",
        b"moov",
        b"mdat",
        b"free",
        b"skip",
        b"wide",
        b"pnot",
        b"uuid",
        b"moof",
        b"styp",
        b"sidx",
        b"junk",
        b"meta",
    )
)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def family(read: Read) -> Family:
    """The container family by its first bytes; `unknown` is no verdict, FFmpeg may still know it."""
    head = read(0, 1024)
    if len(head) >= 8 and head[4:8] in TOP_BOXES:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    if head.startswith(b"FLV\x01"):
        return "flv"
    if head.startswith(_ASF):
        return "asf"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(b"nut/multimedia container"):
        return "nut"
    if head.startswith((b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")):
        return "ps"
    for offset, step in ((0, 188), (4, 192), (0, 204)):
        marks = head[offset::step]
        if len(marks) >= 3 and set(marks) == {0x47}:
            return "ts"
    if head.startswith((b"ID3", b"fLaC", b"FORM")) or (head.startswith(b"RIFF") and head[8:12] == b"WAVE"):
        return "sound"
    return "unknown"


# ---- mp4 and mov ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Box:
    """A box: four letters, where it starts, where its body starts, where it ends (declared; may be past the file)."""

    kind: bytes
    start: int
    body: int
    end: int


def boxes(read: Read, start: int, end: int, *, limit: int = 200_000) -> Iterator[Box]:
    """The boxes between two offsets; stops at the first that is no box."""
    position = start
    for _ in range(limit):
        if position + 8 > end:
            return
        head = read(position, 16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        body = position + 8
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack(">Q", head[8:16])
            body = position + 16
        elif size == 0:
            size = end - position
        if position + size < body:
            return
        yield Box(kind, position, body, position + size)
        position += size


def payload(read: Read, size: int) -> list[tuple[int, int]]:
    """The byte ranges of an mp4's media data, clipped to the file: what a plan from the index need not read."""
    return [(box.body, min(box.end, size)) for box in boxes(read, 0, size) if box.kind == b"mdat" and box.body < size]


def has_complete_index(read: Read, size: int) -> bool:
    """Whether an mp4 has a whole `moov` box."""
    return any(box.kind == b"moov" and box.end <= size for box in boxes(read, 0, size))


def payload_is_cut(read: Read, size: int) -> bool:
    """Whether an mp4 says it is longer than it is."""
    return any(box.end > size for box in boxes(read, 0, size))


_INSIDE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_TKHD_BYTES = 84
"""Of version 0, the shorter one."""
_PROTECTED = frozenset((b"encv", b"enca", b"drmi", b"drms"))


def sample_entries(read: Read, size: int) -> Iterator[Box]:
    """The sample descriptions of all tracks."""
    for box in _inside(read, 0, size, (*_INSIDE, b"stsd")):
        yield from boxes(read, box.body + 8, min(box.end, size), limit=100)


def track_sizes(read: Read, size: int) -> Iterator[tuple[int, int]]:
    """(width, height) that the tracks' headers tell, whole pixels of each: how large a picture is shown.

    ISO/IEC 14496-12 8.3.2: the last eight bytes, as 16.16 numbers.
    """
    for box in _inside(read, 0, size, (b"moov", b"trak", b"tkhd")):
        told = read(box.end - 8, 8) if box.end - box.body >= _TKHD_BYTES and box.end <= size else b""
        if len(told) == 8:
            width, height = struct.unpack(">II", told)
            yield width >> 16, height >> 16


def _inside(read: Read, start: int, end: int, path: tuple[bytes, ...]) -> Iterator[Box]:
    """Every box that is reached by these kinds, from the outermost in."""
    for box in boxes(read, start, end, limit=10_000):
        if box.kind == path[0]:
            if path[1:]:
                yield from _inside(read, box.body, min(box.end, end), path[1:])
            else:
                yield Box(box.kind, box.start, box.body, min(box.end, end))


def mp4_is_encrypted(read: Read, size: int) -> bool:
    """Whether a sample entry of any track is a protected one."""
    return any(entry.kind in _PROTECTED for entry in sample_entries(read, size))


# ---- Matroska -----------------------------------------------------------------------------------------------------

_SEGMENT, _TRACKS, _ENTRY, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0x1F43B675
_SEEK_HEAD, _SEEK, _SEEK_ID, _SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
_SEEK_HEADS, _SEEK_BYTES, _SEEK_PLACES = 4, 4096, 8
"""How many indexes of elements are read, how much of each (they name about five elements in 100 bytes), and at how many
of the places that they name is looked: a block of a distant source is read for each."""
_ENCODINGS, _ENCODING, _ENCODING_TYPE = 0x6D80, 0x6240, 0x5033


def _element(read: Read, position: int) -> tuple[int, int, int] | None:
    """(id, body, end) of the EBML element at `position`; an unknown size reads as endless."""
    head = read(position, 12)
    if not head or not head[0]:
        return None
    id_length = 9 - head[0].bit_length()
    if id_length > 4 or len(head) <= id_length or not head[id_length]:
        return None
    size_length = 9 - head[id_length].bit_length()
    if len(head) < id_length + size_length:
        return None
    size = int.from_bytes(head[id_length : id_length + size_length], "big") & ((1 << 7 * size_length) - 1)
    body = position + id_length + size_length
    return int.from_bytes(head[:id_length], "big"), body, body + size


def _elements(read: Read, start: int, end: int, limit: int = 2_000) -> Iterator[tuple[int, int, int]]:
    position = start
    for _ in range(limit):
        found = _element(read, position) if position < end else None
        if found is None:
            return
        yield found
        position = found[2]


def _tracks(read: Read, size: int) -> tuple[int, int] | None:
    """Where the first Tracks element lies, if it is whole: before the pictures, or where the file's index says."""
    for kind, body, end in _elements(read, 0, size):
        if kind != _SEGMENT:
            continue
        heads: list[tuple[int, int]] = []
        for inner, inner_body, inner_end in _elements(read, body, min(end, size)):
            if inner == _TRACKS:
                return (inner_body, inner_end) if inner_end <= size else None
            if inner == _SEEK_HEAD:
                heads.append((inner_body, inner_end))
            if inner == _CLUSTER:
                return _sought(read, size, body, heads[:_SEEK_HEADS])
    return None


def _sought(read: Read, size: int, segment: int, heads: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The same by the SeekHeads of a Segment whose content begins at `segment`; one may name another behind all else.

    RFC 9559 5.1.1 and 6.3: positions count from `segment`, and Tracks may lie anywhere in it.
    """
    looked = 0
    for body, end in heads:
        data = read(body, min(end - body, _SEEK_BYTES))
        for entry in ebml.walk(data):
            held = {
                item.kind: int.from_bytes(data[item.body : item.end], "big")
                for item in ebml.walk(data, entry.body, entry.end)
            }
            wanted, place = held.get(_SEEK_ID), segment + held.get(_SEEK_POSITION, size)
            if entry.kind != _SEEK or wanted not in (_TRACKS, _SEEK_HEAD) or place >= size:
                continue
            if looked == _SEEK_PLACES:
                return None
            looked += 1
            found = _element(read, place)
            if found is None or found[0] != wanted:
                continue
            if wanted == _TRACKS:
                return found[1:] if found[2] <= size else None
            if len(heads) < _SEEK_HEADS and found[1:] not in heads:
                heads.append(found[1:])  # is read in its turn
    return None


def matroska_has_tracks(read: Read, size: int) -> bool:
    return _tracks(read, size) is not None


def fields(read: Read, start: int, end: int, path: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(body, end) of every element that is reached by these ids, from the outermost in."""
    for kind, body, stop in _elements(read, start, end):
        if kind == path[0]:
            stop = min(stop, end)
            if path[1:]:
                yield from fields(read, body, stop, path[1:])
            else:
                yield body, stop


def matroska_fields(read: Read, size: int, path: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The same inside the list of tracks; none where that is not whole."""
    tracks = _tracks(read, size)
    return fields(read, *tracks, path) if tracks is not None else iter(())


def matroska_is_encrypted(read: Read, size: int) -> bool:
    """Whether a track's content encoding is an encryption (type 1), not a compression (type 0)."""
    types = matroska_fields(read, size, (_ENTRY, _ENCODINGS, _ENCODING, _ENCODING_TYPE))
    return any(int.from_bytes(read(body, min(8, end - body)), "big") == 1 for body, end in types)


def _matroska_is_cut(read: Read, size: int) -> bool:
    """Whether the Segment says it is longer than the file; a live one, of unknown size (all ones), does not."""
    start = 0
    for kind, body, end in _elements(read, 0, size, limit=100):
        if kind == _SEGMENT:
            width = body - start - 4
            return end > size and end - body != (1 << 7 * width) - 1
        start = end
    return False


# ---- AVI ----------------------------------------------------------------------------------------------------------

_RIFF_SLACK = 8
"""Some writers count the eight bytes of the chunk's own header."""
_RIFF_UNKNOWN = 0xFFFFFF00
"""Sizes from here on are what recorders leave that were never able to come back to it."""


def _avi_is_cut(read: Read, size: int) -> bool:
    """Whether one of the RIFF chunks (OpenDML has several) says it is longer than the file."""
    position = 0
    while (head := read(position, 12)).startswith(b"RIFF") and len(head) == 12 and head[8:] in (b"AVI ", b"AVIX"):
        length = int.from_bytes(head[4:8], "little")
        if not 4 <= length < _RIFF_UNKNOWN:
            return False
        position += 8 + length + length % 2
        if position > size + _RIFF_SLACK:
            return True
    return False


# ---- verdicts -----------------------------------------------------------------------------------------------------


def is_cut(read: Read, size: int) -> bool:
    """Whether an mp4, Matroska or AVI file says it is longer than it is; the other families do not say."""
    kind = family(read)
    if kind == "mov":
        return payload_is_cut(read, size)
    if kind == "matroska":
        return _matroska_is_cut(read, size)
    return kind == "avi" and _avi_is_cut(read, size)


def is_encrypted(read: Read, size: int, kind: Family) -> bool:
    if kind == "mov":
        return mp4_is_encrypted(read, size)
    return kind == "matroska" and matroska_is_encrypted(read, size)


def refusal(read: Read, size: int, kind: Family) -> StereoSpotError:
    """The error for a file that FFmpeg did not open, by what its bytes say."""
    if kind == "unknown":
        return error("UNSUPPORTED_CONTAINER", "Its first bytes belong to no container on the list.")
    if kind == "mov":
        if not has_complete_index(read, size):
            return error("TRUNCATED_INPUT", "It has no complete index (moov).")
        return error("CORRUPT_INPUT", "Its index (moov) cannot be read.")
    if kind == "matroska":
        if not matroska_has_tracks(read, size):
            return error("TRUNCATED_INPUT", "It has no complete list of tracks.")
        return error("CORRUPT_INPUT", "Its list of tracks cannot be read.")
    if size < 64 * 1024:
        return error("TRUNCATED_INPUT", "It ends within its header.")
    return error("CORRUPT_INPUT", "Its header cannot be read.")
