"""Depth of the last few frames of one generation, kept from one segment to the next.

The end of a segment and its padding are the padding and the beginning of the next. Where a worker converts both, their
small pictures and raw depth need not be computed again; they depend on the frame alone, so the result is the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from inference import window
from inference.prepare import Small

CAPACITY = 2 * window.PADDING + 4


class Recent:
    """By presentation time; one for each generation. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[Small, NDArray[np.float32] | None]] = OrderedDict()

    def get(self, pts: int) -> tuple[Small, NDArray[np.float32] | None] | None:
        """Small picture of a frame and its raw depth, None if that was not estimated; None if nothing is known."""
        with self._lock:
            return self._known.get(pts)

    def put(self, pts: int, small: Small, depth: NDArray[np.float32] | None) -> None:
        """Remember a frame; the oldest goes."""
        with self._lock:
            self._known[pts] = (small, depth)
            while len(self._known) > CAPACITY:
                self._known.popitem(last=False)
