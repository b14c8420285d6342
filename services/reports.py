"""What is said of a finished film: the comfort report over all its segments, and the name that players parse."""

from __future__ import annotations

import asyncio

from pydantic import ValidationError

from inference import comfort
from inference.comfort import Comfort
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


async def collect(store: ObjectStore, head: Plan, total: PlanTotal) -> Comfort:
    """The comfort report of a generation, from what its converters measured; all zero where they measured nothing."""
    reading = asyncio.Semaphore(READING)

    async def read(index: int) -> Report | None:
        async with reading:
            body = await store.get(keys.segment_report(head.job_id, head.generation, index))
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
    return comfort.merge(measured, divergence=head.stereo.divergence)
