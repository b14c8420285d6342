"""How a stereo picture says what it is: per layout, in every place where some player looks.

* H.264: the frame-packing SEI, which x264 writes into the packets.
* mp4 and mov: `st3d` (Google's spatial-media v2) and `vexu` with `pack` (Apple's ISOBMFF extensions) in the sample
  entry; libavformat's own `vexu` lacks the packing, which would tell Apple players "stereo" of a flat picture.
* Matroska: StereoMode, by name.
* mp4 and mov: HDR10's `mdcv` and `clli`, which have no way into the sample entry through PyAV.

A cross-eyed picture is looked at as it is, on a flat screen, so nothing may unpack it: it carries no signal, and no
more do anaglyph, the left eye alone, or picture beside depth.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from stereospot.media.boxes import box, full_box
from stereospot.media.model import Colour
from stereospot.options import Layout


@dataclass(frozen=True, slots=True)
class Packing:
    """The codes of one way to pack two eyes into a frame."""

    sei: int | None
    """frame_packing_arrangement_type of ITU-T H.264 D.2.26: 3 side by side, 4 top and bottom; left eye first, since
    x264 can say no other."""
    st3d: int | None
    """2 side by side, 1 top and bottom; left eye first, there is no other."""
    stri: int
    """Apple's view information: both eyes are there, 8 where they are reversed."""
    pkin: bytes
    stereo_mode: str
    """Matroska's name, as libavformat takes it."""


_SIDE_BY_SIDE = Packing(sei=3, st3d=2, stri=3, pkin=b"side", stereo_mode="left_right")
_TOP_BOTTOM = Packing(sei=4, st3d=1, stri=3, pkin=b"over", stereo_mode="top_bottom")
_SWAPPED = {
    _SIDE_BY_SIDE: Packing(sei=None, st3d=None, stri=3 | 8, pkin=b"side", stereo_mode="right_left"),
    _TOP_BOTTOM: Packing(sei=None, st3d=None, stri=3 | 8, pkin=b"over", stereo_mode="bottom_top"),
}

_PACKINGS = {
    Layout.HALF_SBS: _SIDE_BY_SIDE,
    Layout.FULL_SBS: _SIDE_BY_SIDE,
    Layout.HALF_TB: _TOP_BOTTOM,
    Layout.FULL_TB: _TOP_BOTTOM,
}


def packing(layout: Layout, *, swapped: bool = False) -> Packing | None:
    """How `layout` is signalled, or None where it is a flat picture to every player. swapped: the right eye first."""
    found = _PACKINGS.get(layout)
    return _SWAPPED[found] if swapped and found is not None else found


def stereo_boxes(layout: Layout, *, swapped: bool = False) -> bytes:
    """`st3d` and `vexu` for a visual sample entry; nothing for a flat layout."""
    found = packing(layout, swapped=swapped)
    if found is None:
        return b""
    spatial = b"" if found.st3d is None else full_box(b"st3d", 0, 0, bytes([found.st3d]))
    return spatial + box(
        b"vexu",
        box(b"eyes", full_box(b"stri", 0, 0, bytes([found.stri]))),
        box(b"pack", full_box(b"pkin", 0, 0, found.pkin)),
        box(b"proj", full_box(b"prji", 0, 0, b"rect")),
    )


_MASTERING = re.compile(r"G\((\d+),(\d+)\)B\((\d+),(\d+)\)R\((\d+),(\d+)\)WP\((\d+),(\d+)\)L\((\d+),(\d+)\)")


def mastering(colour: Colour) -> tuple[int, ...] | None:
    """Gx Gy Bx By Rx Ry Wx Wy in 1/50000, then max and min luminance in 1/10000 cd/m2; None if there are none."""
    found = _MASTERING.fullmatch(colour.mastering.replace(" ", "")) if colour.mastering else None
    return None if found is None else tuple(map(int, found.groups()))


def hdr_boxes(colour: Colour) -> bytes:
    """`mdcv` and `clli` (ISO/IEC 23001-8 and 14496-12 semantics of SMPTE ST 2086 and CTA-861.3)."""
    content = b""
    display = mastering(colour)
    if display is not None and all(value < 1 << 16 for value in display[:8]):
        content += box(b"mdcv", struct.pack(">8HII", *display))
    if colour.content_light is not None:
        content += box(b"clli", struct.pack(">HH", *(min(value, 0xFFFF) for value in colour.content_light)))
    return content
