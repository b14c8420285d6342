"""Packets that are decoded and not shown: VP8 and VP9 send pictures that others refer to by themselves."""

from __future__ import annotations

from typing import Any


def is_hidden(codec: str, indexed: bool, packet: Any) -> bool:
    """Whether a VP8 or VP9 packet shows nothing: an alternate reference of its own.

    VP8 (RFC 6386 §9.1): bit 4 of the first byte is show_frame. VP9: two bits frame marker, profile, then
    show_existing_frame, frame_type, show_frame; a superframe (its last byte is a marker) shows one of its frames.
    """
    if indexed or codec not in ("vp8", "libvpx", "vp9", "libvpx-vp9"):
        return False
    data = memoryview(packet)
    first = data[0]
    if codec in ("vp8", "libvpx"):
        return not first & 0x10
    if data[-1] & 0xE0 == 0xC0 or first >> 6 != 2:
        return False
    profile = (first >> 5 & 1) | (first >> 4 & 1) << 1
    shift = 2 if profile == 3 else 3
    if first >> shift & 1:  # show_existing_frame
        return False
    return not first >> (shift - 2) & 1
