"""The edges that a file asks players to leave out: Matroska's PixelCrop, QuickTime's clean aperture.

libavformat tells them beside the stream, where PyAV does not look, so they are read by hand. Sources: RFC 9559
5.1.4.1.28; ISO/IEC 14496-12 12.1.4. Both count in pixels as they are stored: before the picture is mirrored or turned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from stereospot.media import boxes, ebml, sniff
from stereospot.media.sniff import Read

Edges = tuple[int, int, int, int]
"""Pixels at the left, top, right and bottom."""

NONE: Edges = (0, 0, 0, 0)

_WIDTH, _HEIGHT = 0xB0, 0xBA
_LEFT, _TOP, _RIGHT, _BOTTOM = 0x54CC, 0x54BB, 0x54DD, 0x54AA
_VIDEO_BYTES = 4096
"""Of a Matroska's description of pictures, in which these lie."""
_SIZE_AT = 24
"""Where a visual sample entry has its width and height."""
_CLAP_BYTES = 32
_BLOCK = 16
"""By how much a file's width and height may exceed those of the pictures decoded of it."""
_LEAST = 16
"""Width and height of the smallest picture that is left of one."""


def apply(video: dict[str, Any], read: Read, size: int, kind: sniff.Family) -> bool:
    """Leave the edges out of a description of pictures (`model.VideoTrack`); False where they make no sense."""
    picture = (video["coded_width"], video["coded_height"])
    edges = asked(read, size, kind, picture)
    if edges is None:
        return False
    turned = video["rotation"] in (90, 270)
    left, top, right, bottom = edges
    if video["rotation"] or video["mirrored"]:
        # Any side may become the left or the top one, where chroma begins.
        right = max(0, right - (picture[0] - right) % 2)
        bottom = max(0, bottom - (picture[1] - bottom) % 2)
    across, down = (top + bottom, left + right) if turned else (left + right, top + bottom)
    video.update(crop=[left, top, right, bottom], width=video["width"] - across, height=video["height"] - down)
    aspect = Fraction(video["sample_aspect"])
    if kind == "mov" and _is_of_the_aperture(read, size, picture, 1 / aspect if turned else aspect):
        video["sample_aspect"] = "1"
    return True


def asked(read: Read, size: int, kind: sniff.Family, picture: tuple[int, int]) -> Edges | None:
    """The edges of the track with pictures of this size, as decoded; None where they make no sense.

    Left and top are even: chroma lies on every second pixel, and a crop by an odd number would move it. So one column
    or row more may be left, and never one less.
    """
    found = (
        _mp4(read, size, picture) if kind == "mov" else _matroska(read, size, picture) if kind == "matroska" else NONE
    )
    if found is None or min(found) < 0:
        return None
    left, top, right, bottom = found
    left, top = left - left % 2, top - top % 2
    if picture[0] - left - right < min(_LEAST, picture[0]) or picture[1] - top - bottom < min(_LEAST, picture[1]):
        return None
    return left, top, right, bottom


def _beyond(width: int, height: int, picture: tuple[int, int]) -> tuple[int, int] | None:
    """What a file's size has at the right and the bottom that is not decoded; None if it is of other pictures."""
    more = width - picture[0], height - picture[1]
    return more if 0 <= more[0] < _BLOCK and 0 <= more[1] < _BLOCK else None


def _entries(
    read: Read, size: int, picture: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], tuple[int, int], dict[bytes, sniff.Box]]]:
    """The sample entries of such pictures: the size they tell, what of it is not decoded, and the boxes inside."""
    for entry in sniff.sample_entries(read, size):
        shape = read(entry.body + _SIZE_AT, 4)
        stored: tuple[int, int] = struct.unpack(">HH", shape) if len(shape) == 4 else (0, 0)
        if (more := _beyond(*stored, picture)) is None:
            continue
        inner = sniff.boxes(read, entry.body + boxes.VISUAL_HEADER, min(entry.end, size), limit=100)
        yield stored, more, {box.kind: box for box in inner if box.end <= entry.end}


def _mp4(read: Read, size: int, picture: tuple[int, int]) -> Edges | None:
    for stored, more, inner in _entries(read, size, picture):
        box = inner.get(b"clap")
        if box is not None and box.end - box.body >= _CLAP_BYTES:
            return _aperture(read(box.body, _CLAP_BYTES), stored, more)
    return NONE


def _is_of_the_aperture(read: Read, size: int, picture: tuple[int, int], aspect: Fraction) -> bool:
    """Whether a sample's shape is nothing but the size of the clean aperture, taken for that of all that is stored.

    Where no `pasp` tells it, libavformat (mov.c) has it of a track's header. Writers put the aperture's size there.
    """
    for stored, _, inner in _entries(read, size, picture):
        clap = read(inner[b"clap"].body, 16) if b"clap" in inner and b"pasp" not in inner else b""
        if len(clap) < 16:
            continue
        across, parts_across, down, parts_down = struct.unpack(">4I", clap)
        if not (across and parts_across and down and parts_down):
            return False
        shown = round(Fraction(across, parts_across)), round(Fraction(down, parts_down))
        guessed = stored[1] * shown[0] == aspect * stored[0] * shown[1]
        return guessed and shown in sniff.track_sizes(read, size)
    return False


def _aperture(clap: bytes, stored: tuple[int, int], more: tuple[int, int]) -> Edges | None:
    """The edges outside of a clean aperture: its size, and how far its centre lies from the picture's, as fractions.

    A pixel of which a part lies inside is kept.
    """
    if len(clap) < _CLAP_BYTES:
        return NONE
    across, parts_across, down, parts_down, right, parts_right, lower, parts_lower = struct.unpack(">4IiIiI", clap)
    if not (across and down and parts_across and parts_down and parts_right and parts_lower):
        return None
    sides: list[tuple[int, int]] = []
    inner = (
        (Fraction(across, parts_across), Fraction(right, parts_right)),
        (Fraction(down, parts_down), Fraction(lower, parts_lower)),
    )
    for whole, (length, moved), hidden in zip(stored, inner, more, strict=True):
        before = (whole - length) / 2 + moved
        behind = math.floor(whole - length - before)
        sides.append((math.floor(before), max(0, behind - hidden) if behind >= 0 else behind))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _matroska(read: Read, size: int, picture: tuple[int, int]) -> Edges | None:
    for body, end in sniff.matroska_fields(read, size, (ebml.ENTRY, ebml.VIDEO)):
        data = read(body, min(end - body, _VIDEO_BYTES))
        held = {item.kind: int.from_bytes(data[item.body : item.end], "big") for item in ebml.walk(data)}
        if (more := _beyond(held.get(_WIDTH, 0), held.get(_HEIGHT, 0), picture)) is not None:
            left, top, right, bottom = (held.get(kind, 0) for kind in (_LEFT, _TOP, _RIGHT, _BOTTOM))
            return left, top, max(0, right - more[0]), max(0, bottom - more[1])
    return NONE
