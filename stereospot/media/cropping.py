"""Whether a file asks players to leave out the edges of its pictures: Matroska's PixelCrop, QuickTime's clean aperture.

libavformat tells it beside the stream, where PyAV does not look, so it is read by hand. Sources: RFC 9559 5.1.4.1.28;
ISO/IEC 14496-12 12.1.4.
"""

from __future__ import annotations

import struct

from stereospot.media import boxes, ebml, sniff
from stereospot.media.sniff import Read

_WIDTH, _HEIGHT = 0xB0, 0xBA
_PIXEL_CROPS = (0x54AA, 0x54BB, 0x54CC, 0x54DD)
"""PixelCropBottom, Top, Left and Right."""
_VIDEO_BYTES = 4096
"""Of a Matroska's description of pictures, in which these lie."""
_SIZE_AT = 24
"""Where a visual sample entry has its width and height."""
_BLOCK = 16
"""By how much a file's width and height may exceed those of the pictures decoded of it."""


def is_asked_for(read: Read, size: int, kind: sniff.Family, picture: tuple[int, int]) -> bool:
    """Whether a track of this size does; picture: width and height as decoded, which may lack the edges already."""
    return _mp4(read, size, picture) if kind == "mov" else kind == "matroska" and _matroska(read, size, picture)


def _fits(width: int, height: int, picture: tuple[int, int]) -> bool:
    return 0 <= width - picture[0] < _BLOCK and 0 <= height - picture[1] < _BLOCK


def _mp4(read: Read, size: int, picture: tuple[int, int]) -> bool:
    for entry in sniff.sample_entries(read, size):
        shape = read(entry.body + _SIZE_AT, 4)
        if len(shape) < 4 or not _fits(*struct.unpack(">HH", shape), picture):
            continue
        for box in sniff.boxes(read, entry.body + boxes.VISUAL_HEADER, min(entry.end, size), limit=100):
            asked = read(box.body, 16) if box.kind == b"clap" else b""
            if len(asked) == 16:
                across, parts_across, down, parts_down = struct.unpack(">4I", asked)
                if across < picture[0] * parts_across or down < picture[1] * parts_down:
                    return True
    return False


def _matroska(read: Read, size: int, picture: tuple[int, int]) -> bool:
    for body, end in sniff.matroska_fields(read, size, (ebml.ENTRY, ebml.VIDEO)):
        data = read(body, min(end - body, _VIDEO_BYTES))
        held = {item.kind: int.from_bytes(data[item.body : item.end], "big") for item in ebml.walk(data)}
        if _fits(held.get(_WIDTH, 0), held.get(_HEIGHT, 0), picture) and any(map(held.get, _PIXEL_CROPS)):
            return True
    return False
