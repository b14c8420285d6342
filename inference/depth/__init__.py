"""Depth engines: pictures in, inverse depth out, on a scale that never stretches by itself.

An engine is a pure function of each single frame. What needs neighbours (temporal smoothing, shots) and what needs the
full picture (edge-aware upsampling) are stages of their own that every engine shares.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from stereospot import errors


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself; it goes into every job's result."""

    name: str
    version: str
    model_sha256: str | None
    width: int
    height: int
    default_divergence: float
    needs_curve: bool = False
    batch: int = 1
    model: str | None = None
    device: str = "cpu"
    dtype: str = "float32"


class DepthEngine(Protocol):
    """Estimates depth; not thread-safe unless it says so, cheap to keep, closed once."""

    info: EngineInfo

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Relative inverse depth of some frames.

        rgb: [n, height, width, 3] uint8, display-referred, at the engine's size, letterbox bars cropped.
        Returns [n, height, width] float32 in 0 (far) to 1 (near), fixed scale. Each frame's answer is bit-identical
        whatever n, the neighbours or the number of threads.
        """
        ...

    def close(self) -> None: ...


_MODULES = {
    "relief": "inference.depth.relief",
    "cues": "inference.depth.cues",
    "flat": "inference.depth.flat",
    "identity": "inference.depth.identity",
    "depth-anything": "inference.depth.depth_anything",
    "iw3": "inference.depth.iw3",
    "user": "inference.depth.user",
}

DEFAULT_DIVERGENCE = {
    "relief": 1.6,
    "cues": 1.0,
    "flat": 0.0,
    "identity": 0.0,
    "depth-anything": 2.0,
    "iw3": 2.0,
    "user": 2.0,
}
"""Percent of the picture's width, by engine; the planner uses it without loading the engine."""

CADENCE_SECONDS = {"relief": 1 / 12}
"""How far apart estimated frames may be, for engines whose time counts; the others estimate every frame."""


def load(name: str, **arguments: Any) -> DepthEngine:
    """Load an engine by name; raises Misconfigured("ENGINE_UNAVAILABLE") with what is missing, never another engine."""
    module = _MODULES.get(name)
    if module is None:
        raise errors.error("ENGINE_UNAVAILABLE", f"There is no engine {name!r}; there are {', '.join(_MODULES)}.")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise errors.error("ENGINE_UNAVAILABLE", f"{name}: {error}") from error
    return cast(DepthEngine, found.load(**arguments))
