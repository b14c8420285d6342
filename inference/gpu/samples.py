"""Taking the samples of curves: windows of film decoded, shots found, a few frames inferred. Blocking.

What `work.analyse.<job>.<gen>.<window>` does for a job, and what a remote endpoint does for the range it got. The
samples of a window depend on its own frames and a few around it, so whoever takes them gets the same ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference import curves, prepare, shots
from inference.contract import Frames
from inference.curves import Curve, Grid, Window
from inference.depth import DepthEngine
from stereospot import errors, log
from stereospot.media.model import Plan

_log = log.get("inference")

KNOWN_FRAMES = 192
KNOWN_WINDOWS = 64

Lookup = Callable[[int], Window | None]
"""A window that somebody else has taken, by index."""


class Known:
    """Raw depth of frames that were inferred already, by presentation time; thread-safe, bounded."""

    def __init__(self, capacity: int = KNOWN_FRAMES) -> None:
        self._lock = threading.Lock()
        self._capacity = capacity
        self._depth: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def get(self, pts: int) -> NDArray[np.float32] | None:
        with self._lock:
            return self._depth.get(pts)

    def put(self, pts: int, depth: NDArray[np.float32]) -> None:
        with self._lock:
            self._depth[pts] = depth
            while len(self._depth) > self._capacity:
                self._depth.popitem(last=False)


class Sampler:
    """The curve of one generation, window by window; remembers the last ones. One thread at a time.

    `taken`: windows that `lookup` did not have, or that it was not given for.
    """

    def __init__(self, plan: Plan, engine: DepthEngine, known: Known, lookup: Lookup | None = None) -> None:
        video = plan.source.video
        self.grid = Grid.of(video.time_base)
        self._engine, self._known, self._lookup = engine, known, lookup
        self._windows: OrderedDict[int, Window] = OrderedDict()
        self.taken = 0
        self._preparer = prepare.Preparer(
            video.width, video.height, plan.decode.pixel_format, video.colour, plan.stereo.bars,
            engine.info.width, engine.info.height,
        )  # fmt: skip

    def curve(self, decoder: Frames, first: int, last: int, *, stop: threading.Event | None = None) -> Curve:
        """The curve for frames with first <= pts <= last; missing windows are taken with `decoder`."""
        found: list[Window] = []
        for index in self.grid.windows(first, last + 1):
            if index not in self._windows:
                given = self._lookup(index) if self._lookup is not None else None
                if given is None:
                    if self._lookup is not None:
                        _log.warning("window missing, taken here", action="retry", window=index)
                    given = self.measure(decoder, index, stop)
                    self.taken += 1
                self._windows[index] = given
                while len(self._windows) > KNOWN_WINDOWS:
                    self._windows.popitem(last=False)
            found.append(self._windows[index])
        return Curve(found, self.grid)

    def measure(self, decoder: Frames, index: int, stop: threading.Event | None = None) -> Window:
        """Take the samples of one window; the answer is the same wherever and in whatever order it is done."""
        start, end = self.grid.range_of(index)
        pictures: list[prepare.Small] = []
        times: list[int] = []
        inside: list[bool] = []
        for frame in decoder.frames(start, end, before=shots.REACH, after=shots.REACH - 1):
            try:
                if stop is not None and stop.is_set():
                    raise errors.error("CANCELLED")
                pictures.append(self._preparer.prepare(frame.planes))
                times.append(frame.pts)
                inside.append(frame.pad == 0)
            finally:
                frame.release()
        starts = cuts([picture.thumbnail for picture in pictures])
        chosen: list[int] = []
        previous: int | None = None
        for i, own in enumerate(inside):
            if own and self.grid.is_sample(times[i], previous, starts=starts[i]):
                chosen.append(i)
            previous = times[i] if own else None
        missing = [i for i in chosen if self._known.get(times[i]) is None]
        if missing:
            depths = self._engine.infer(np.stack([pictures[i].rgb for i in missing]))
            for i, depth in zip(missing, depths, strict=True):
                self._known.put(times[i], depth)
        samples: list[curves.Sample] = []
        for i in chosen:
            depth = self._known.get(times[i])
            assert depth is not None
            samples.append(curves.measure(times[i], depth, starts=starts[i]))
        return Window(index=index, samples=tuple(samples))


def cuts(thumbnails: list[NDArray[np.uint8]]) -> list[bool]:
    """Whether a shot begins with each of consecutive frames, as `inference.window` decides it."""
    return [
        shots.is_cut(thumbnails[max(0, i - shots.REACH) : i], thumbnails[i : i + shots.REACH])
        for i in range(len(thumbnails))
    ]
