"""Depth that came with a job: checked against the film by the planner, before anything is converted.

    job.depth ─> probe ─> size ─> Plan.depth, grid;   scan ─> PTS of every picture ─> each segment's range

Everything untrusted stays in the jail: the depth is a film like any other. It has to have the film's size, or that size
over a power of two, and exactly as many pictures as the film has frames; which is which goes by number.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from inference.depth import user
from services import sources
from services.watch import Threads
from stereospot import errors
from stereospot.jobs import Job
from stereospot.media import plan as planning
from stereospot.media import probe
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, GivenDepth, Plan, Segment, SourceInfo
from stereospot.storage.base import ObjectStore

ENGINE = "user"


def check(job: Job, engine: str) -> None:
    """Raise DEPTH_MISSING or INVALID_OPTIONS where depth and engine do not go together."""
    if engine == ENGINE and job.depth is None:
        raise errors.error("DEPTH_MISSING")
    if engine != ENGINE and job.depth is not None:
        raise errors.error("INVALID_OPTIONS", f"Depth was given, but the engine is {engine}; leave it out or say user.")
    if engine == ENGINE and job.options.backend not in ("local", "stub"):
        raise errors.error("INVALID_OPTIONS", f"The backend {job.options.backend} takes no depth of yours.")
    if job.options.export_depth and (job.options.backend != "local" or engine == "identity"):
        by = engine if job.options.backend == "local" else job.options.backend
        raise errors.error("INVALID_OPTIONS", f"{by} gives no depth to export.")


async def look(
    store: ObjectStore,
    threads: Threads,
    job: Job,
    info: SourceInfo,
    limits: Limits,
    stop: threading.Event,
    *,
    again: bool,
) -> tuple[GivenDepth, int]:
    """What the depth is, and the luma pixels of one of its cells.

    again: whether it was tried before; if not, what may be this machine's doing is raised (errors.SECOND_LOOK). Raises
    DEPTH_MISMATCH, DEPTH_UNREADABLE.
    """
    assert job.depth is not None
    source = await sources.open_source(store, job.depth)
    try:
        found = await threads.run(probe.probe, source, limits=limits, stop=stop)
    except errors.Permanent as error:
        if error.code == "CANCELLED" or (error.code in errors.SECOND_LOOK and not again):
            raise
        raise errors.error("DEPTH_UNREADABLE", f"{error.entry.sentence} {error.detail}".strip()) from error
    finally:
        source.close()
    video = found.video
    step = user.step_of((info.video.width, info.video.height), (video.width, video.height))
    decode = DecodeSpec(
        stream_index=video.stream_index, thread_count=1, pixel_format="gray16le", rotation=video.rotation,
        mirrored=video.mirrored, crop=video.crop,
    )  # fmt: skip
    return GivenDepth(source=found, decode=decode), step


@dataclass(frozen=True, slots=True)
class Times:
    """PTS of the depth's pictures, in order."""

    pts: Sequence[int]

    def of(self, segment: Segment, film: Sequence[int]) -> Segment:
        """The segment with its range of the depth; `film`: PTS of the film as far as they are known."""
        first = bisect_left(film, segment.start)
        last = first + segment.frames
        if last > len(self.pts):
            raise errors.error(
                "DEPTH_MISMATCH", f"It has {len(self.pts)} pictures, the film has {last} frames or more."
            )
        end = self.pts[last] if last < len(self.pts) else None
        return segment.model_copy(update={"depth": (self.pts[first], end)})

    def check(self, frames: int) -> None:
        """Raise DEPTH_MISMATCH unless the film has as many frames as there are pictures."""
        if frames != len(self.pts):
            raise errors.error(
                "DEPTH_MISMATCH", f"It has {len(self.pts)} pictures, the film has {frames} frames.",
                pictures=len(self.pts), frames=frames,
            )  # fmt: skip


async def times(
    store: ObjectStore, threads: Threads, job: Job, head: Plan, limits: Limits, stop: threading.Event
) -> Times | None:
    """The times of the depth's pictures; None for jobs that have none."""
    if job.depth is None or head.depth is None:
        return None
    source = await sources.open_source(store, job.depth)
    info = head.depth.source

    def scan() -> list[int]:
        return [pts for batch in planning.scan(source, info, limits=limits, stop=stop) for pts in batch.pts]

    try:
        return Times(await threads.run(scan))
    except planning.Untrusted as error:
        raise errors.error("DEPTH_UNREADABLE", f"Its times cannot be trusted: {error}") from error
    finally:
        source.close()
