"""What is said of results: a report beside each fragment; of a finished film, the comfort of all its segments and the
name that players parse."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field, ValidationError

from inference import comfort
from inference.comfort import Comfort
from inference.report import SegmentReport
from stereospot import keys
from stereospot.jobs import Job
from stereospot.media import naming
from stereospot.media.model import Plan, PlanTotal
from stereospot.messages import Message, SegmentDone
from stereospot.storage.base import ObjectStore

READING = 16
"""Reports read at a time."""


class Report(Message):
    """`segments/<index>.json`: what a converter says of a stored fragment; written last, so it vouches for the rest."""

    done: SegmentDone
    depth_bytes: int = Field(default=0, description="size of the segment's exported depth; 0 where none is exported")
    measures: dict[str, Any] = Field(default={})


async def read(store: ObjectStore, job_id: str, generation: int, index: int) -> Report | None:
    """The report of a segment; None where there is none, or none that can be read."""
    body = await store.get(keys.segment_report(job_id, generation, index))
    try:
        return None if body is None else Report.model_validate_json(body)
    except ValidationError:
        return None


async def stored(store: ObjectStore, job_id: str, generation: int, index: int) -> SegmentDone | None:
    """The completion of a segment that is stored: its report is, all that this vouches for, and the header."""
    found = await read(store, job_id, generation, index)
    if found is None:
        return None
    names = [keys.init(job_id, generation, found.done.init_sha256), *sizes(found, job_id, generation)]
    header, *others = await asyncio.gather(*(store.head(name) for name in names))
    there = {item.key: item.size for item in others if item is not None}
    return found.done if header is not None and there == sizes(found, job_id, generation) else None


def sizes(report: Report, job_id: str, generation: int) -> dict[str, int]:
    """The objects of a segment that its report vouches for, with their sizes in bytes."""
    index = report.done.index
    found = {keys.segment(job_id, generation, index): report.done.size_bytes}
    if report.depth_bytes:
        found[keys.segment_depth(job_id, generation, index)] = report.depth_bytes
    return found


def file_name(job: Job, head: Plan) -> str:
    """`Title.3D.HSBS.LR.mp4`: the name to save the film under."""
    title = job.title or job.source.name or job.job_id
    stem, dot, suffix = title.rpartition(".")
    if dot and 2 <= len(suffix) <= 4 and suffix.isalnum():
        title = stem
    return naming.film_name(title, head.encode.layout, head.container, swapped=head.encode.swapped)


async def collect(store: ObjectStore, head: Plan, total: PlanTotal) -> Comfort:
    """The comfort report of a generation, from what its converters measured; all zero where they measured nothing."""
    reading = asyncio.Semaphore(READING)

    async def one(index: int) -> Report | None:
        async with reading:
            return await read(store, head.job_id, head.generation, index)

    found = await asyncio.gather(*(one(index) for index in range(total.segments)))
    measured: list[SegmentReport] = []
    for item in found:
        try:
            if item is not None and item.measures:
                measured.append(SegmentReport.model_validate(item.measures))
        except ValidationError:
            continue
    return comfort.merge(measured, divergence=head.stereo.divergence)
