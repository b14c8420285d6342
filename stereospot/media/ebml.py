"""EBML, the form of Matroska: walk elements (RFC 8794 4 and 5), make them, change a film's display size in place.

libavformat writes two things that PyAV has no way to tell it: how much of a sound is priming (`padding`), and that a
picture's samples are not square.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

HEADER = 0x1A45DFA3
SEGMENT, INFO, TRACKS, ENTRY, CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0x1F43B675
CODEC_DELAY, VIDEO, DISPLAY_WIDTH, DISPLAY_HEIGHT, CRC = 0x56AA, 0xE0, 0x54B0, 0x54BA, 0xBF
HEAD_BYTES = 1 << 20
"""Of a film, in which its tracks are described."""


@dataclass(frozen=True, slots=True)
class Element:
    """Where an element lies: `start` of its header, `body` of its content, `end` after it."""

    kind: int
    start: int
    body: int
    end: int


def walk(data: bytes | bytearray, start: int = 0, end: int | None = None) -> Iterator[Element]:
    """The elements from `start` to `end`, one level; one that is unknown in size or cut short ends there."""
    end = len(data) if end is None else end
    at = start
    while at < end and data[at]:
        length = 9 - data[at].bit_length()
        kind = int.from_bytes(data[at : at + length], "big")
        body = at + length
        if body >= end:
            return
        length = 9 - data[body].bit_length()
        size = int.from_bytes(data[body : body + length], "big") & ((1 << 7 * length) - 1)
        body += length
        after = end if size == (1 << 7 * length) - 1 else min(end, body + size)
        yield Element(kind, at, body, after)
        at = after


def find(data: bytes | bytearray, *kinds: int) -> Element | None:
    """The first element on a path of kinds."""
    found: Element | None = None
    for kind in kinds:
        level = walk(data) if found is None else walk(data, found.body, found.end)
        found = next((item for item in level if item.kind == kind), None)
        if found is None:
            return None
    return found


def element(kind: int, content: bytes) -> bytes:
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + (len(content) | 1 << 56).to_bytes(8, "big") + content


def set_sample_aspect(file: BinaryIO, aspect: Fraction) -> None:
    """Give the first picture track of a written Matroska this shape of a sample; it was written for square ones.

    The display size becomes the largest of that shape within the one that is there: numbers that are no greater keep
    their length in the file.
    """
    file.seek(0)
    data = bytearray(file.read(HEAD_BYTES))
    tracks = find(data, SEGMENT, TRACKS)
    entries = [] if tracks is None else [item for item in walk(data, tracks.body, tracks.end) if item.kind == ENTRY]
    pictures = [item for entry in entries for item in walk(data, entry.body, entry.end) if item.kind == VIDEO]
    if tracks is None or not pictures:
        raise ValueError("a Matroska without a picture track")
    if tracks.end == len(data):  # fonts within a subtitle's header, say: better the wrong shape than a wrong checksum
        return
    places = {item.kind: item for item in walk(data, pictures[0].body, pictures[0].end)}
    if DISPLAY_WIDTH not in places:
        return  # of pictures that are no packing: the codec's own word counts
    across, down = places[DISPLAY_WIDTH], places[DISPLAY_HEIGHT]
    width, height = (int.from_bytes(data[place.body : place.end], "big") for place in (across, down))
    exact = Fraction(width, height) * aspect
    shape = exact.limit_denominator(max(1, min(height, int(width / exact))))
    times = max(1, min(width // max(1, shape.numerator), height // shape.denominator))
    for place, size in ((across, shape.numerator * times), (down, shape.denominator * times)):
        data[place.body : place.end] = size.to_bytes(place.end - place.body, "big")
    check = next(walk(data, tracks.body, tracks.end))
    if check.kind == CRC:  # of all that follows it in its parent
        data[check.body : check.end] = zlib.crc32(data[check.end : tracks.end]).to_bytes(4, "little")
    file.seek(tracks.start)
    file.write(data[tracks.start : tracks.end])
