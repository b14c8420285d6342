"""What goes into a conversion and what comes out: frames of a decoder, a fragment and a report. Imports no kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from inference.report import SegmentReport
from stereospot import errors
from stereospot.media.cmaf import Fragment
from stereospot.media.model import Segment

Planes = tuple[NDArray[Any], ...]
"""Y, U and V as [height, width] uint8, or uint16 for 10 bits."""


class Frame(Protocol):
    """A decoded frame, as `stereospot.media.frames` hands it over: views that are valid until `release`.

    pad: -1 and +1 for frames that only surround the segment, 0 for its own.
    """

    pts: int
    planes: Planes
    pad: int

    def release(self) -> None: ...


class Frames(Protocol):
    """The part of `stereospot.media.frames.Decoder` that a conversion uses."""

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[Frame]: ...


Flush = Callable[[], Fragment]
"""Makes an encoder give what it holds, and the fragment of it; blocking, to be called once."""


@dataclass(slots=True, eq=False)
class Converted:
    """A segment's fragment and what was measured on the way.

    All its pictures are counted and encoded but for those that the encoder holds to look ahead: `finish` flushes them.
    Decoder and engine are free before that, so the next segment may begin meanwhile.
    """

    flush: Flush
    report: SegmentReport
    depth: bytes = field(default=b"", repr=False)
    """The part of the exported depth (`inference.depth.export`), where it is wanted."""
    _fragment: Fragment | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def finish(self) -> Fragment:
        """The fragment; blocking at the first call, from any thread. Raises INTERNAL when the encoder lost pictures."""
        with self._lock:
            if self._fragment is None:
                self._fragment = self.flush()
            return self._fragment

    @property
    def fragment(self) -> Fragment:
        """See `finish`."""
        return self.finish()


def check_count(segment: Segment, found: int) -> None:
    """Raise SEGMENT_MISMATCH unless so many frames are what the plan has."""
    if found != segment.frames:
        raise errors.error(
            "SEGMENT_MISMATCH",
            f"The plan has {segment.frames} frames, {found} were decoded.",
            expected=segment.frames,
            found=found,
        )


def check_padding(segment: Segment, wanted: tuple[int, int], found: tuple[int, int]) -> None:
    """Raise SEGMENT_MISMATCH where fewer frames came before or behind a segment than the plan knows of and were wanted.

    With fewer of them, depth would be another without a word.
    """
    if segment.around is None:
        return
    for side, most, told, here in zip(
        ("before", "behind"), wanted, (segment.around.before, segment.around.after), found, strict=True
    ):
        if here < (expected := min(most, told)):
            raise errors.error(
                "SEGMENT_MISMATCH",
                f"The plan has {expected} frames {side} the segment, {here} were decoded.",
                expected=expected,
                found=here,
            )
