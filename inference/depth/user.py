"""Engine `user`: depth that came with the job, frame by frame; nothing is estimated and nothing is smoothed.

    frames of the film ─┐
    frames of the depth ┴─ Paired ─> frames that carry their depth ─> warp

Depth is a film of its own, read by a second decoder in a jail of its own. It belongs to frames by number, not by time,
so it may run at any rate. On a grid of the film's size the warp works with the depth of every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.contract import Frame, Frames, Planes
from inference.depth.flat import FlatEngine
from stereospot import errors
from stereospot.media.model import Segment

STEPS = tuple(1 << shift for shift in range(9))
"""Sizes that depth may have: the film's over one of these, rounded up."""


@dataclass(slots=True, eq=False)
class Deep:
    """A frame of the film with its depth: [rows, columns] uint16, in memory of its own."""

    pts: int
    planes: Planes
    pad: int
    depth: NDArray[np.uint16]
    frame: Frame

    def release(self) -> None:
        self.frame.release()


class Paired:
    """The frames of one segment with their depth; `Frames` for a conversion. Not thread-safe."""

    def __init__(self, film: Frames, depth: Frames, segment: Segment) -> None:
        self._film, self._depth, self._segment = film, depth, segment

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[Frame]:
        """The segment's frames; there is no padding, depth that is given needs none. Raises DEPTH_MISMATCH."""
        if self._segment.depth is None:
            raise errors.error("DEPTH_MISSING", f"The plan names none for segment {self._segment.index}.")
        given = self._depth.frames(*self._segment.depth)
        for number, frame in enumerate(self._film.frames(start, end)):
            found = next(given, None)
            if found is None:
                frame.release()
                raise errors.error("DEPTH_MISMATCH", f"Segment {self._segment.index} has depth for {number} frames.")
            depth = np.array(found.planes[0], np.uint16)
            found.release()
            yield Deep(frame.pts, frame.planes, frame.pad, depth, frame)
        left = 0
        for found in given:
            found.release()
            left += 1
        if left:
            raise errors.error("DEPTH_MISMATCH", f"Segment {self._segment.index} has depth for {left} more frames.")


def step_of(film: tuple[int, int], depth: tuple[int, int]) -> int:
    """Luma pixels of a cell of given depth; sizes as (width, height). Raises DEPTH_MISMATCH for any other size."""
    for step in STEPS:
        if depth == (-(-film[0] // step), -(-film[1] // step)):
            return step
    raise errors.error(
        "DEPTH_MISMATCH", f"The film has {film[0]}x{film[1]} pixels, the depth {depth[0]}x{depth[1]}.",
        film=list(film), depth=list(depth),
    )  # fmt: skip


def depth_of(frame: Any) -> NDArray[np.uint16]:
    """The depth that a frame carries; raises DEPTH_MISSING: the engine is never changed silently."""
    if not isinstance(frame, Deep):
        raise errors.error("DEPTH_MISSING", "The frames came without.")
    return frame.depth


def load() -> FlatEngine:
    """An engine that is never asked."""
    return FlatEngine("user")
