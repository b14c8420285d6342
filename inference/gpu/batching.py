"""Inference in batches that give way once: out of memory halves the batch, a second time the segment is given back.

Two segments in flight share one engine here: one infers while the other decodes, warps and encodes.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.depth import DepthEngine, EngineInfo
from inference.device import drop_frames
from stereospot import errors, log

_log = log.get("inference")


class Shared:
    """One engine for several threads: a view of it for one input size; `at` gives another of the same engine.

    `group`: how many frames to hand over at a time. `seconds`: time that callers of this view spent inside the engine.
    """

    def __init__(self, engine: DepthEngine, *, group: int | None = None) -> None:
        self.info: EngineInfo = engine.info
        self.seconds = 0.0
        self._core = _Core(engine, group or max(engine.info.batch, getattr(engine, "side_by_side", 1)))

    @property
    def group(self) -> int:
        return self._core.group

    def at(self, width: int, height: int) -> Shared:
        """A view whose input has this size; its time is counted apart."""
        view = copy.copy(self)
        view.info = dataclasses.replace(self.info, width=width, height=height)
        view.seconds = 0.0
        return view

    def fitted(self, width: int, height: int) -> Shared:
        """A view for pictures of this shape, where the engine adapts its input to them."""
        choose: Any = getattr(self._core.engine, "input_size", None)
        return self.at(*choose(width, height)) if choose is not None else self.at(self.info.width, self.info.height)

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the engine's; [n, h, w, 3] of any n, in groups. Raises OUT_OF_MEMORY when half a group does not fit."""
        found: list[NDArray[np.float32]] = []
        start = 0
        while start < len(rgb):
            group = self._core.group
            spent: errors.Exhausted | None = None
            try:
                with self._core.lock:
                    began = time.perf_counter()
                    found.append(self._core.engine.infer(rgb[start : start + group]))
                    self.seconds += time.perf_counter() - began
                start += group
            except errors.Exhausted as failure:
                spent = failure
            if spent is not None:
                self._core.halve(group, spent)
        return np.concatenate(found) if found else np.empty(rgb.shape[:3], np.float32)

    @property
    def method(self) -> str | None:
        """The engine's own stereo method, where it was loaded with one."""
        return getattr(self._core.engine, "method", None)

    def eyes(self, rgb: NDArray[np.uint8], depth: NDArray[np.float32], **settings: Any) -> NDArray[np.uint8]:
        """Both eyes by the engine's own method; see `inference.depth.iw3`. Gives way as `infer` does."""
        make: Any = self._core.engine
        made: list[NDArray[np.uint8]] = []
        start, group = 0, len(rgb)
        while start < len(rgb):
            spent: errors.Exhausted | None = None
            part = slice(start, start + group)
            try:
                with self._core.lock:
                    made.append(make.eyes(rgb[part], depth[part], **settings))
                start += group
            except errors.Exhausted as failure:
                spent = failure
            if spent is not None:
                if group < max(2, len(rgb)):
                    raise spent
                group = -(-group // 2)
        return np.concatenate(made, axis=1)

    def memory_bytes(self) -> int | None:
        """Peak memory of the device, where it is known."""
        peak: Any = getattr(self._core.engine, "memory_bytes", None)
        return None if peak is None else peak()

    def close(self) -> None:
        self._core.engine.close()


class _Core:
    """What all views of one engine share."""

    def __init__(self, engine: DepthEngine, group: int) -> None:
        self.engine, self.group = engine, group
        self.lock = threading.Lock()
        self._halved = False

    def halve(self, tried: int, failure: errors.Exhausted) -> None:
        """Halve the group once in an engine's life; raises `failure` after that, or when there is nothing to halve."""
        with self.lock:
            if self.group < tried:
                return  # another segment has halved it meanwhile: try again with that
            if self._halved or tried < 2:
                raise failure
            self._halved = True
            self.group = tried // 2
            drop_frames(failure)
            resize: Any = getattr(self.engine, "resize", None)
            if resize is not None:
                resize(self.group)
        _log.warning("out of memory, batch halved", action="retry", batch=self.group, detail=failure.detail)
