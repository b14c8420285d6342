"""The comfort report of a film: its segments' measurements put together, against a budget of parallax. Pure.

Parallax is total, in percent of the picture's width, positive in front of the screen. The budget is a common
recommendation for screens from a television to a headset's cinema: at most 1 % in front and 2 % behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from inference.report import BIN_PERCENT, BINS, LOWEST_PERCENT, EngineUsed, SegmentReport, percentile
from stereospot.messages import Notice

BUDGET = (-2.0, 1.0)
VIOLATIONS = 0.10
WORST = 3
STRETCHED = 0.05
MOST_NAMES = 64
"""Stages and devices that are named: a remote may call them anything, and the report goes into the job's record."""

SEAM = 0.10
"""A step of the mean parallax between two segments of one shot from which on it is reported, % of the width."""


class Comfort(BaseModel):
    """What a viewer, or whoever chooses the divergence, should know of a film."""

    model_config = ConfigDict(frozen=True, extra="allow")

    frames: int = 0
    segments: int = 0
    engine: EngineUsed | None = None
    disparity_p1: float = 0.0
    disparity_p50: float = 0.0
    disparity_p99: float = 0.0
    budget: tuple[float, float] = BUDGET
    within_budget: bool = True
    suggested_divergence: float | None = Field(
        default=None, description="the divergence whose p1 and p99 just fill the budget; None for a flat film"
    )
    violation_ratio: float = 0.0
    violation_places: tuple[float, ...] = Field(
        default=(), description="where the worst segments of them begin, as parts of the film from 0 to 1, in order"
    )
    stretch_ratio: float = 0.0
    folds: int = 0
    not_finite: int = 0
    cuts: int = 0
    seam_step: float = Field(default=0.0, description="largest step of the mean parallax at a segment's edge, no cut")
    frame_step_p95: float = Field(default=0.0, description="the same inside segments, for comparison")
    stage_seconds: dict[str, float] = {}
    limiting_stage: str | None = Field(default=None, description="the stage that took longest over the whole film")
    worker_fps: float = Field(default=0.0, description="frames a second of one worker's slot, over all segments")
    device: str | None = Field(default=None, description="where the depth was made; several are listed")
    dtype: str | None = None
    device_memory_bytes: int | None = Field(default=None, description="the highest peak of all workers")
    warnings: tuple[Notice, ...] = ()


def merge(reports: Iterable[SegmentReport], *, divergence: float, budget: tuple[float, float] = BUDGET) -> Comfort:
    """One report for the film; the segments may come in any order, and some may be missing."""
    ordered = sorted(reports, key=lambda item: item.index)
    if not ordered:
        return Comfort(budget=budget)
    frames = sum(item.frames for item in ordered)
    histogram = np.zeros(BINS)
    for item in ordered:
        histogram += item.wide(divergence)
    low, middle, high = (
        percentile(histogram, part, lowest=LOWEST_PERCENT, width=BIN_PERCENT) for part in (0.01, 0.5, 0.99)
    )
    stages: dict[str, float] = {}
    for item in ordered:
        for name, seconds in item.stages.items():
            if len(stages) >= MOST_NAMES and name not in stages:
                continue
            stages[name] = round(stages.get(name, 0.0) + seconds, 4)
    seams = [
        abs(after.first_mean - before.last_mean)
        for before, after in itertools.pairwise(ordered)
        if after.index == before.index + 1 and not after.cut_at_start
    ]
    found = Comfort(
        frames=frames,
        segments=len(ordered),
        engine=ordered[0].engine,
        disparity_p1=low,
        disparity_p50=middle,
        disparity_p99=high,
        budget=budget,
        within_budget=budget[0] <= low and high <= budget[1],
        suggested_divergence=_suggest(divergence, low, high, budget),
        violation_places=_places(ordered, frames),
        violation_ratio=_mean(ordered, "violation_ratio", frames),
        stretch_ratio=_mean(ordered, "stretch_ratio", frames),
        folds=sum(item.folds for item in ordered),
        not_finite=sum(item.not_finite for item in ordered),
        cuts=sum(item.cuts for item in ordered),
        seam_step=round(max(seams, default=0.0), 4),
        frame_step_p95=max(item.step_p95 for item in ordered),
        stage_seconds=stages,
        limiting_stage=max(stages, key=lambda name: stages[name]) if stages else None,
        worker_fps=round(frames / max(sum(item.seconds for item in ordered), 1e-6), 2),
        device=_names(item.device for item in ordered),
        dtype=_names(item.dtype for item in ordered),
        device_memory_bytes=max((item.device_memory_bytes or 0 for item in ordered), default=0) or None,
    )
    return found.model_copy(update={"warnings": tuple(_warnings(found, divergence))})


def _names(given: Iterable[str]) -> str:
    return ", ".join(sorted(set(given))[:MOST_NAMES])


def _mean(reports: list[SegmentReport], name: str, frames: int) -> float:
    return round(sum(getattr(item, name) * item.frames for item in reports) / max(1, frames), 5)


def _places(reports: list[SegmentReport], frames: int) -> tuple[float, ...]:
    """Where the worst window violations are, as parts of the film."""
    starts = itertools.accumulate((item.frames for item in reports), initial=0)
    found = [(item.violation_ratio, start) for item, start in zip(reports, starts, strict=False)]
    worst = sorted((item for item in found if item[0] > VIOLATIONS), reverse=True)[:WORST]
    return tuple(sorted(round(start / frames, 6) for _, start in worst))


def _suggest(divergence: float, low: float, high: float, budget: tuple[float, float]) -> float | None:
    """Parallax grows in proportion to the divergence, so the budget allows this much of it."""
    room = [limit / reached for limit, reached in zip(budget, (low, high), strict=True) if limit * reached > 0]
    if divergence <= 0 or not room or max(abs(low), abs(high)) < BIN_PERCENT:
        return None
    return round(min(max(divergence * min(room), 0.1), 10.0), 1)


def _warnings(found: Comfort, divergence: float) -> Iterable[Notice]:
    if not found.within_budget:
        yield Notice(
            code="DISPARITY_OVER_BUDGET",
            text=f"Parallax reaches {found.disparity_p1:+.2f} % and {found.disparity_p99:+.2f} % of the width; "
            f"comfortable is {found.budget[0]:+g} % to {found.budget[1]:+g} %. A divergence of "
            f"{found.suggested_divergence:g} in place of {divergence:g} would fit.",
        )
    if found.violation_ratio > VIOLATIONS:
        yield Notice(
            code="WINDOW_VIOLATIONS",
            text="Things in front of the screen are cut off by the left or right edge of the picture, which is hard "
            "to look at; a higher screen plane (convergence) moves them back.",
        )
    if found.stretch_ratio > STRETCHED:
        yield Notice(
            code="STRETCHED", text=f"{found.stretch_ratio:.0%} of the picture is stretched to fill gaps behind edges."
        )
    if found.seam_step > max(SEAM, 3 * found.frame_step_p95):
        yield Notice(
            code="SEAM_STEP",
            text=f"Depth steps by {found.seam_step:.2f} % of the width between two segments of one shot.",
        )
    if found.not_finite:
        yield Notice(
            code="DEPTH_NOT_FINITE",
            text=f"The engine {found.engine.name if found.engine else ''} gave {found.not_finite} depth values that "
            "are no numbers; they lie at the screen.",
        )
