"""Inside the jail: the packets of sound and subtitles, for as long as the source gives any.

What is damaged ends the reading and not the film. In program streams (VOB, MPG) tracks may appear on the way, which
PyAV does not know: it stumbles over them when it has read everything (`BROKEN_END`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stereospot.jail.cell import SourceUnavailable
from stereospot.media.packets import BROKEN_END

_KINDS = {"video": "pictures", "audio": "sound", "subtitle": "subtitles"}


def packets(container: Any, streams: list[Any], warnings: list[str] | None = None) -> Iterator[Any]:
    """The packets of `streams` that hold something, in the source's order; an early end is said in `warnings`.

    Raises SourceUnavailable and MemoryError: they say nothing of the source.
    """
    if not streams:
        return
    warnings = [] if warnings is None else warnings
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except BROKEN_END as failure:
        if isinstance(failure, (SourceUnavailable, MemoryError)):
            raise
        if not isinstance(failure, IndexError):
            warnings.append(
                f"The source could not be read to its end: sound and subtitles may be cut short ({failure})."
            )
    for kind, name in _KINDS.items():
        if _late(container, kind):
            warnings.append(f"A track of {name} that begins in the middle of the source was left out.")


def _late(container: Any, kind: str) -> bool:
    """Whether the source's best track of a kind appeared on the way; PyAV knows the tracks of the beginning alone."""
    try:
        container.streams.best(kind)
    except IndexError:
        return True
    return False
