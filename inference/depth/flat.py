"""Engine `flat`: everything lies at the middle of the range, so at the screen unless the convergence says otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.depth import EngineInfo

DEPTH = 0.5


class FlatEngine:
    """Constant depth."""

    def __init__(self, name: str = "flat") -> None:
        self.info = EngineInfo(name, "1", None, 64, 36, 0.0)

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[n, h, w] float32, all `DEPTH`."""
        return np.full(rgb.shape[:3], DEPTH, np.float32)

    def close(self) -> None:
        """Nothing to let go."""


def load() -> FlatEngine:
    """The engine; it needs nothing."""
    return FlatEngine()
