"""A plan's segments in seconds, as far as the plan is known: for the segment strip, seeking and playlists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.gateway.state import Gateway
from stereospot.jobs import Job


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment on the film's own clock; the film begins at 0."""

    index: int
    start_seconds: float
    duration_seconds: float
    frames: int


async def segments_of(gateway: Gateway, job: Job) -> AsyncIterator[Piece]:
    """Every segment that is planned, in order, without a gap."""
    head = await gateway.plans.head(job.job_id, job.generation)
    state = await gateway.index.completion(job.job_id, job.generation)
    if head is None or state is None:
        return
    tick = float(head.source.video.time_base)
    expected = 0
    zero: int | None = None
    for first in state.parts:
        part = await gateway.plans.part(job.job_id, job.generation, first)
        if part is None or part.first != expected:
            return
        for item in part.segments:
            zero = item.start if zero is None else zero
            yield Piece(item.index, round((item.start - zero) * tick, 6), round(item.duration * tick, 6), item.frames)
        expected += len(part.segments)
