"""What is said of a finished film: the comfort report over all its segments, and the name that players parse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from inference import report
from inference.report import SegmentReport
from services.converter import Report
from stereospot import keys
from stereospot.jobs import Job
from stereospot.media import naming
from stereospot.media.model import Plan, PlanTotal
from stereospot.storage.base import ObjectStore

READING = 16
"""Reports read at a time."""


def file_name(job: Job, head: Plan) -> str:
    """`Title.3D.HSBS.LR.mp4`: the name to save the film under."""
    title = job.title or job.source.name or job.job_id
    stem, dot, suffix = title.rpartition(".")
    if dot and 2 <= len(suffix) <= 4 and suffix.isalnum():
        title = stem
    return naming.film_name(title, head.encode.layout, head.container)


async def collect(store: ObjectStore, job: Job, total: PlanTotal) -> dict[str, Any]:
    """The comfort report of a generation, from what its converters measured; empty where they measured nothing."""
    reading = asyncio.Semaphore(READING)

    async def read(index: int) -> Report | None:
        async with reading:
            body = await store.get(keys.segment_report(job.job_id, job.generation, index))
        try:
            return None if body is None else Report.model_validate_json(body)
        except ValidationError:
            return None

    found = await asyncio.gather(*(read(index) for index in range(total.segments)))
    measured: list[SegmentReport] = []
    for item in found:
        try:
            if item is not None and item.measures:
                measured.append(SegmentReport.model_validate(item.measures))
        except ValidationError:
            continue
    return merge(measured)


def merge(segments: Sequence[SegmentReport]) -> dict[str, Any]:
    """One report from those of all segments, as JSON values. Parallax in percent of the width, positive in front."""
    if not segments:
        return {}
    frames = sum(item.frames for item in segments)
    width = max((len(item.histogram) for item in segments), default=0)
    histogram = np.zeros(max(width, 1), np.int64)
    for item in segments:
        histogram[: len(item.histogram)] += np.asarray(item.histogram, np.int64)
    percentiles = {
        f"disparity_p{name}": report.percentile(histogram, part, lowest=report.LOWEST_PERCENT, width=report.BIN_PERCENT)
        for name, part in (("1", 0.01), ("50", 0.5), ("99", 0.99))
    }
    seams = [
        abs(after.first_mean - before.last_mean)
        for before, after in pairwise(segments)
        if after.index == before.index + 1 and not after.cut_at_start
    ]
    stages: dict[str, float] = {}
    for item in segments:
        for name, seconds in item.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    return {
        **percentiles,
        "violation_ratio": _mean(segments, "violation_ratio", frames),
        "stretch_ratio": _mean(segments, "stretch_ratio", frames),
        "folds": sum(item.folds for item in segments),
        "not_finite": sum(item.not_finite for item in segments),
        "shots": 1 + sum(item.cuts for item in segments),
        "seam_step_max": round(max(seams, default=0.0), 4),
        "frame_step_p95": round(max(item.step_p95 for item in segments), 4),
        "seconds": round(sum(item.seconds for item in segments), 3),
        "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
        "engine": segments[0].engine.model_dump(mode="json"),
    }


def _mean(segments: Sequence[SegmentReport], name: str, frames: int) -> float:
    """The mean of a segment's figure, weighted by frames."""
    return round(sum(getattr(item, name) * item.frames for item in segments) / max(frames, 1), 6)
