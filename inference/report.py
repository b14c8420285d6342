"""What a converter measured while it made one segment: time by stage, and the numbers of the comfort report."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

BINS = 401
BIN_PERCENT = 0.05
"""Width of a bin of `SegmentReport.histogram`, percent of the picture's width."""

LOWEST_PERCENT = -10.025
"""Where the histogram begins, which is wide enough for a divergence of 10 %; the middle of its bin 200 is 0."""

NARROW_BINS, NARROW_SHIFT = 240, 80
"""What older versions wrote: so many bins, the first of them our bin of that number; what lay beyond +-6 % was counted
at the ends."""

MOST_STAGES = 64
"""That a report names."""

_MERGED = 5
"""Bins of the warp's own histogram (0.01 %) in one bin here."""

# A report may come from a machine that is not ours: nothing in it overflows what is made of all reports.
Count = Annotated[int, Field(ge=0, lt=2**53)]
Figure = Annotated[float, Field(ge=-1e9, le=1e9)]
Name = Annotated[str, Field(max_length=200)]


class EngineUsed(BaseModel):
    """The engine and model that made the depth."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    name: Name
    version: Name
    model_sha256: Name | None = None


class SegmentReport(BaseModel):
    """One segment; immutable, unknown fields kept. Parallax is total, in percent of the width, positive in front."""

    model_config = ConfigDict(frozen=True, extra="allow")

    index: Count
    frames: Count
    seconds: Figure = Field(description="wall time of the whole segment")
    stages: dict[Name, Figure] = Field(
        default={}, max_length=MOST_STAGES, description="CPU seconds of the thread of each stage; encode: wall"
    )
    limiting: Name | None = Field(default=None, description="the stage that took longest")
    fps: Figure | None = Field(default=None, description="frames a second of this segment alone")
    engine: EngineUsed
    device: Name = "cpu"
    dtype: Name = "float32"
    model: Name | None = Field(
        default=None, description="a learned engine's model, as it is called where it comes from"
    )
    batch: Count | None = Field(
        default=None, description="frames that a learned engine was given at a time, at the end"
    )
    every: Count | None = Field(default=None, description="each so manieth frame was inferred, the others carried")
    device_memory_bytes: Count | None = Field(default=None, description="peak of the process, where it is known")
    windows_taken: Count = Field(default=0, description="windows of the curve that the converter had to take itself")
    disparity_p1: Figure = 0.0
    disparity_p50: Figure = 0.0
    disparity_p99: Figure = 0.0
    histogram: tuple[Count, ...] = Field(
        default=(),
        max_length=BINS,
        description="grid cells by parallax, BINS from LOWEST_PERCENT on; none: not measured",
    )
    violation_ratio: Figure = Field(default=0.0, description="grid rows with something in front cut by a side border")
    folds: Count = Field(default=0, description="places shown out of order; the warp is monotone, so none")
    stretch_ratio: Figure = Field(default=0.0, description="part of the output that shows its source twice as wide")
    not_finite: Count = Field(default=0, description="depth samples that were no number; they lie at the screen")
    cuts: Count = Field(default=0, description="shots that begin in this segment")
    cut_at_start: bool = Field(default=False, description="a shot begins with the segment's first frame")
    first_mean: Figure = Field(default=0.0, description="mean parallax of the first frame")
    last_mean: Figure = Field(default=0.0, description="mean parallax of the last frame")
    step_p95: Figure = Field(default=0.0, description="95th percentile of the change of the mean from frame to frame")

    @field_validator("histogram")
    @classmethod
    def _is_of_known_bins(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (0, NARROW_BINS, BINS):
            raise ValueError(f"a histogram has {BINS} bins, not {len(value)}")
        return value

    def wide(self, divergence: float) -> NDArray[np.float64]:
        """[BINS] cells by parallax, whatever version counted them.

        What an older one found beyond its ends lay nobody knows where: it counts as all that `divergence` can give, so
        that no film is called more comfortable than it is.
        """
        found = np.zeros(BINS)
        if len(self.histogram) != NARROW_BINS:
            found[: len(self.histogram)] = self.histogram
            return found
        found[NARROW_SHIFT : NARROW_SHIFT + NARROW_BINS] = self.histogram
        most = max(round(divergence / BIN_PERCENT), NARROW_BINS // 2)
        for end, place in ((NARROW_SHIFT, -most), (NARROW_SHIFT + NARROW_BINS - 1, most)):
            beyond, found[end] = found[end], 0.0
            found[min(max(BINS // 2 + place, 0), BINS - 1)] += beyond
        return found


def percentile(histogram: NDArray[Any], part: float, *, lowest: float, width: float) -> float:
    """Parallax below which `part` (0 … 1) of the cells lie; the middle of its bin, 0 for an empty histogram."""
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    index = int(np.searchsorted(np.cumsum(histogram), part * total, side="left"))
    return round(lowest + (min(index, len(histogram) - 1) + 0.5) * width, 4)


def merged(fine: NDArray[np.int64]) -> NDArray[np.int64]:
    """The warp's histogram in the report's bins."""
    return fine.reshape(BINS, _MERGED).sum(1)
