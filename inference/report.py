"""What a converter measured while it made one segment: time by stage, and the numbers of the comfort report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

BIN_PERCENT = 0.05
"""Width of a bin of `SegmentReport.histogram`, percent of the picture's width."""

LOWEST_PERCENT = -6.0
"""Where the histogram begins; parallax beyond its ends is counted in the last bins."""

_MERGED = 5
"""Bins of the warp's own histogram (0.01 %) in one bin here."""


class EngineUsed(BaseModel):
    """The engine and model that made the depth."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    name: str
    version: str
    model_sha256: str | None = None


class SegmentReport(BaseModel):
    """One segment; immutable, unknown fields kept. Parallax is total, in percent of the width, positive in front."""

    model_config = ConfigDict(frozen=True, extra="allow")

    index: int
    frames: int
    seconds: float = Field(description="wall time of the whole segment")
    stages: dict[str, float] = Field(default={}, description="CPU seconds of the thread of each stage; encode: wall")
    limiting: str | None = Field(default=None, description="the stage that took longest")
    fps: float | None = Field(default=None, description="frames a second of this segment alone")
    engine: EngineUsed
    device: str = "cpu"
    dtype: str = "float32"
    model: str | None = Field(default=None, description="a learned engine's model, as it is called where it comes from")
    batch: int | None = Field(default=None, description="frames that a learned engine was given at a time, at the end")
    every: int | None = Field(default=None, description="each so manieth frame was inferred, the others carried")
    device_memory_bytes: int | None = Field(default=None, description="peak of the process, where it is known")
    windows_taken: int = Field(default=0, description="windows of the curve that the converter had to take itself")
    disparity_p1: float = 0.0
    disparity_p50: float = 0.0
    disparity_p99: float = 0.0
    histogram: tuple[int, ...] = Field(default=(), description="grid cells by parallax, from LOWEST_PERCENT on")
    violation_ratio: float = Field(default=0.0, description="grid rows with something in front cut by a side border")
    folds: int = Field(default=0, description="places shown out of order; the warp is monotone, so none")
    stretch_ratio: float = Field(default=0.0, description="part of the output that shows its source twice as wide")
    not_finite: int = Field(default=0, description="depth samples that were no number; they lie at the screen")
    cuts: int = Field(default=0, description="shots that begin in this segment")
    cut_at_start: bool = Field(default=False, description="a shot begins with the segment's first frame")
    first_mean: float = Field(default=0.0, description="mean parallax of the first frame")
    last_mean: float = Field(default=0.0, description="mean parallax of the last frame")
    step_p95: float = Field(default=0.0, description="95th percentile of the change of the mean from frame to frame")


def percentile(histogram: NDArray[np.int64], part: float, *, lowest: float, width: float) -> float:
    """Parallax below which `part` (0 … 1) of the cells lie; the middle of its bin, 0 for an empty histogram."""
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    index = int(np.searchsorted(np.cumsum(histogram), part * total, side="left"))
    return round(lowest + (min(index, len(histogram) - 1) + 0.5) * width, 4)


def merged(fine: NDArray[np.int64]) -> NDArray[np.int64]:
    """The warp's histogram in the report's bins."""
    body = fine[: len(fine) // _MERGED * _MERGED].reshape(-1, _MERGED).sum(1)
    body[-1] += int(fine[len(body) * _MERGED :].sum())
    return body
