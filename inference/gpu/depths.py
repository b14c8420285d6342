"""Depth of consecutive frames by a learned engine: which are inferred, in which batches, and how the others get theirs.

    frames ─> shot starts, keys ─> batches ──Channel──> carried between keys ─> near/far ─> window ─> settled frames

Two threads: one waits for the engine, the other does what needs no engine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference import curves, shots, window
from inference.channel import Channel, Halt
from inference.curves import Curve
from inference.depth import motion
from inference.depth.motion import KeyGrid
from inference.gpu.batching import Shared
from inference.gpu.samples import Known
from inference.prepare import Small
from inference.upsample import Upsampler

T = TypeVar("T")

Depth = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """A frame on its way: `payload` is what comes out with its depth, None for padding."""

    pts: int
    small: Small
    payload: T | None
    starts: bool = False
    is_key: bool = False
    depth: Depth | None = None


class Depths(Generic[T]):
    """The depth stages of one segment; `infer` and `follow` each run once, in threads of their own.

    curve: near and far of an engine that needs them; convergence: where depth that is no number lies.
    """

    def __init__(
        self,
        halt: Halt,
        upsampler: Upsampler,
        engine: Shared,
        known: Known,
        keys: KeyGrid,
        curve: Curve | None,
        convergence: float,
    ) -> None:
        self._engine, self._known, self._keys, self._curve = engine, known, keys, curve
        self._convergence = np.float32(convergence)
        self._inferred: Channel[Entry[T]] = Channel(2 * engine.group * keys.every + 2, halt)
        self._window: window.DepthWindow[T] = window.DepthWindow(upsampler, self._never)
        self.seconds = {"carry": 0.0, "smooth": 0.0}
        self.not_finite = 0

    # ---- first thread -------------------------------------------------------------------------------------
    def infer(self, taken: Iterable[Entry[T]]) -> None:
        """Find keys and infer them, a group at a time; frames go on in order."""
        batch: list[Entry[T]] = []
        missing = 0
        previous: int | None = None
        for entry in decided(taken):
            entry.is_key = self._keys.is_key(entry.pts, previous, starts_shot=entry.starts)
            previous = entry.pts
            if entry.is_key:
                entry.depth = self._known.get(entry.pts)
                missing += entry.depth is None
            batch.append(entry)
            # Another segment may halve the group meanwhile: what is waiting is more than a group then.
            if missing == 0 or missing >= self._engine.group:
                self._flush(batch)
                batch, missing = [], 0
        self._flush(batch)
        self._inferred.close()

    def _flush(self, batch: list[Entry[T]]) -> None:
        wanted = [entry for entry in batch if entry.is_key and entry.depth is None]
        if wanted:
            depths = self._engine.infer(np.stack([entry.small.rgb for entry in wanted]))
            for entry, depth in zip(wanted, depths, strict=True):
                entry.depth = depth
                self._known.put(entry.pts, depth)
        for entry in batch:
            self._inferred.put(entry)

    # ---- second thread ------------------------------------------------------------------------------------
    def follow(self, settled: Channel[window.Ready[T]]) -> None:
        """Carry depth to the frames between keys, bring it to 0 … 1, and pass it through the window."""
        before: Entry[T] | None = None
        between: list[Entry[T]] = []
        for entry in self._inferred:
            if not entry.is_key:
                between.append(entry)
                continue
            self._carry(between, before, None if entry.starts else entry, settled)
            between = []
            self._settle(entry, settled)
            before = entry
        self._carry(between, before, None, settled)
        mark = time.thread_time()
        for ready in self._window.finish():
            settled.put(ready)
        self.seconds["smooth"] += time.thread_time() - mark
        settled.close()

    def _carry(
        self,
        between: list[Entry[T]],
        before: Entry[T] | None,
        after: Entry[T] | None,
        settled: Channel[window.Ready[T]],
    ) -> None:
        """Depth of the frames between two keys of a shot, or behind its last one; first frames always are keys."""
        if not between:
            return
        mark = time.thread_time()
        whole = len(between) + 1
        ends = [(key, motion.pyramid(key.small.luma)) for key in (before, after) if key is not None]
        for place, entry in enumerate(between, 1):
            sides: list[tuple[tuple[NDArray[np.uint8], ...], Depth, float]] = []
            for key, pyramid in ends:
                share = 1.0 if len(ends) == 1 else place / whole if key is after else 1.0 - place / whole
                assert key.depth is not None
                sides.append((pyramid, key.depth, share))
            entry.depth = motion.carry(motion.pyramid(entry.small.luma), sides)
        self.seconds["carry"] += time.thread_time() - mark
        for entry in between:
            self._settle(entry, settled)

    def _settle(self, entry: Entry[T], settled: Channel[window.Ready[T]]) -> None:
        mark = time.thread_time()
        depth = entry.depth
        assert depth is not None
        if self._curve is not None:
            depth = curves.normalised(depth, *self._curve.at(entry.pts))
        good = np.isfinite(depth)
        if not good.all():
            self.not_finite += int(depth.size - np.count_nonzero(good))
            depth = np.where(good, depth, self._convergence)
        depth = np.ascontiguousarray(np.clip(depth, 0, 1), dtype=np.float32)
        found = self._window.push(entry.small, depth, entry.payload)
        self.seconds["smooth"] += time.thread_time() - mark
        for ready in found:
            settled.put(ready)

    def _never(self, small: Small) -> Depth:
        raise AssertionError("every frame of a learned engine's window has a depth")


def decided(entries: Iterable[Entry[T]]) -> Iterator[Entry[T]]:
    """Frames with the decision whether a shot begins with them, from the frames that `inference.window` asks too."""
    waiting: deque[Entry[T]] = deque()
    before: deque[NDArray[np.uint8]] = deque(maxlen=shots.REACH)

    def decide() -> Entry[T]:
        after = [item.small.thumbnail for item in waiting]
        entry = waiting.popleft()
        entry.starts = shots.is_cut(list(before), after)
        before.append(entry.small.thumbnail)
        return entry

    for item in entries:
        waiting.append(item)
        if len(waiting) == shots.REACH:
            yield decide()
    while waiting:
        yield decide()
