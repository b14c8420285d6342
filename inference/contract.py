"""What goes into a conversion and what comes out: frames of a decoder, a fragment and a report. Imports no kernel."""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True)
class Converted:
    """A segment's fragment and what was measured on the way."""

    fragment: Fragment
    report: SegmentReport
    depth: bytes = field(default=b"", repr=False)
    """The part of the exported depth (`inference.depth.export`), where it is wanted."""


def check_count(segment: Segment, found: int) -> None:
    """Raise SEGMENT_MISMATCH unless so many frames are what the plan has."""
    if found != segment.frames:
        raise errors.error(
            "SEGMENT_MISMATCH",
            f"Segment {segment.index}: the plan has {segment.frames} frames, {found} were decoded.",
            expected=segment.frames,
            found=found,
        )
