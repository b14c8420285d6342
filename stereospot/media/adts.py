"""The header that AAC of a transport stream has in every packet (ADTS, ISO/IEC 14496-3 1.A.2.2): it tells its form."""

from __future__ import annotations

_LAYOUTS = ("stereo", "mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
"""By channel configuration; 0 says it in the packet, and is two voices of a broadcast."""


def form(data: bytes) -> bytes | None:
    """Profile, rate and channels as the header has them; None if there is no header."""
    if len(data) < 8 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return None
    return bytes((data[2] & 0xFD, data[3] & 0xC0))


def layout(found: bytes) -> str:
    """The name of a form's channels."""
    return _LAYOUTS[(found[0] & 1) << 2 | found[1] >> 6]
