"""How long a recording lasts, by how fast its clock runs over its bytes.

A transport or program stream tells no duration: libavformat takes the time between its first and its last picture. That
may be a day where the clock was set anew on the way. Runs in the jail.
"""

from __future__ import annotations

from typing import Any

from stereospot.jail.cell import SourceUnavailable
from stereospot.media.packets import BROKEN_END

PLACES = 16
"""Where the pace is measured, from the beginning on at equal distances: its rate of bytes varies."""

MEASURED_SECONDS = 1
MEASURED_PACKETS = 500

LONGEST_SECONDS = 60
"""Two pictures that lie further apart show a clock that was set anew, and no pace."""


def seconds(container: Any, stream: Any, size: int) -> float | None:
    """The duration of the `size` bytes in seconds; None if no place tells a pace. The container stands anywhere then.

    All streams but `stream`, the pictures', are to be discarded. Raises SourceUnavailable and MemoryError.
    """
    found = [_measured(container, stream, size * number // PLACES) for number in range(PLACES)]
    paces = [pace for pace in found if pace is not None]
    return size * sum(paces) / len(paces) if paces else None


def _measured(container: Any, stream: Any, place: int) -> float | None:
    """Seconds a byte from a place on; None where they are not told."""
    first: tuple[int, int] | None = None
    pace: float | None = None
    try:
        container.seek(place, unsupported_byte_offset=True)
        for number, packet in enumerate(container.demux(stream)):
            if not packet.size or number == MEASURED_PACKETS:
                break
            if packet.dts is None or packet.pos is None or packet.pos < 0:
                continue
            if first is None:
                first = packet.dts, packet.pos
                continue
            passed, length = float((packet.dts - first[0]) * packet.time_base), packet.pos - first[1]
            if not 0 <= passed <= LONGEST_SECONDS:
                return None
            pace = passed / length if length > 0 else None
            if passed >= MEASURED_SECONDS:
                break
    except BROKEN_END as failure:
        if isinstance(failure, (SourceUnavailable, MemoryError)):
            raise
    return pace
