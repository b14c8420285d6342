"""The look-ahead window: raw depth of consecutive frames in, smoothed depth on the grid out, a few frames later.

    depth of frame t+10 ─> cut before t+8? ─> frames of t's shot within t-8 … t+8 ─> smooth ─> upsample ─> frame t

Everything about frame t depends on frames t-10 … t+10 alone, as far as the film has them. So a segment with that much
padding gives what a serial run gives, to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference import shots, temporal
from inference.prepare import Small
from inference.upsample import Upsampler

PADDING = temporal.RADIUS + shots.REACH - 1
"""Frames on each side of a frame that have a say in its depth."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Ready(Generic[T]):
    """A frame whose depth is settled: what was pushed with it, its depth on the grid, whether a shot begins with it."""

    payload: T
    depth: NDArray[np.float32]
    cut: bool


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    payload: T | None
    small: Small
    depth: NDArray[np.float32] | None
    soft: NDArray[np.float32]
    cut: bool = False


class DepthWindow(Generic[T]):
    """Takes frames in order; frames of the padding have no payload and are not given back. Not thread-safe."""

    def __init__(self, upsampler: Upsampler, estimate: Callable[[Small], NDArray[np.float32]]) -> None:
        """estimate: depth of a frame whose shot is so short that none of its frames was estimated."""
        self._upsampler = upsampler
        self._estimate = estimate
        self._entries: deque[_Entry[T]] = deque()
        self._decided = 0  # entries whose `cut` is settled
        self._current = 0  # the entry that is given back next

    def push(self, small: Small, depth: NDArray[np.float32] | None, payload: T | None) -> list[Ready[T]]:
        """Add the next frame; returns those that are settled now. depth: [h, w] float32, or None: not estimated."""
        self._entries.append(_Entry(payload, small, depth, temporal.soften(small.luma)))
        while self._decided + shots.REACH <= len(self._entries):
            self._decide()
        ready: list[Ready[T]] = []
        while self._current + temporal.RADIUS < self._decided:
            ready += self._settle()
        return ready

    def finish(self) -> list[Ready[T]]:
        """The frames that are left; nothing more follows."""
        while self._decided < len(self._entries):
            self._decide()
        ready: list[Ready[T]] = []
        while self._current < len(self._entries):
            ready += self._settle()
        self._entries.clear()
        self._decided = self._current = 0
        return ready

    def _decide(self) -> None:
        index = self._decided
        thumbnails = [self._entries[i].small.thumbnail for i in range(max(0, index - shots.REACH), len(self._entries))]
        before = min(index, shots.REACH)
        self._entries[index].cut = shots.is_cut(thumbnails[:before], thumbnails[before:])
        self._decided += 1

    def _settle(self) -> list[Ready[T]]:
        index = self._current
        entry = self._entries[index]
        self._current += 1
        found: list[Ready[T]] = []
        if entry.payload is not None:
            first = index
            while first > max(0, index - temporal.RADIUS) and not self._entries[first].cut:
                first -= 1
            end = index + 1
            while end < min(len(self._entries), index + temporal.RADIUS + 1) and not self._entries[end].cut:
                end += 1
            shot = [self._entries[i] for i in range(first, end)]
            depths = [item.depth for item in shot]
            if all(depth is None for depth in depths):
                depths[index - first] = self._estimate(entry.small)
            depth = temporal.smooth(depths, [item.soft for item in shot], index - first)
            grid = self._upsampler.upsample(depth, entry.small.luma, entry.small.grid)
            found.append(Ready(entry.payload, grid, entry.cut))
            entry.payload = None
        while self._current > PADDING:
            self._entries.popleft()
            self._current -= 1
            self._decided -= 1
        return found
