"""One pass of a scan: batches of frames in, stored and published parts of the plan out, and the total at the end.

A part is published once it is stored, so a segment that is dispatched can be looked up; the total is stored before the
planner tells anyone of it, so a plan that was told whole never has to be scanned again.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from inference import curves
from services import given, plans
from services.context import Context
from stereospot import completion, crash, errors, spans, subjects
from stereospot.jobs import Job
from stereospot.media import plan as planning
from stereospot.media.model import ClockReset, Plan, PlanTotal, Segment
from stereospot.messages import AudioWork, PartDone

crash.declare(
    "planner.part_stored", "planner.part_published", "planner.audio_published", "planner.total_stored",
)  # fmt: skip

PART_SIZES = (1, 3, 12, 48)
"""Segments in the first parts; all later ones hold the last number. By count, never by time: a repeated scan must
store the same parts."""


@dataclass(slots=True)
class Cut:
    """One pass of a scan: batches in, stored and published parts out; with `whole` only after the last batch."""

    context: Context
    job: Job
    head: Plan
    whole: bool = False
    depth: given.Times | None = None
    parts: list[int] = field(default_factory=list[int])

    async def run(self, batches: AsyncIterator[planning.FrameBatch]) -> PlanTotal:
        """Store and publish everything but the announcement of the total."""
        support = curves.support(self.head.stereo.engine, self.head.source)
        cutter = planning.Cutter(self.head.source, self.job.options.segment_seconds, support)
        samples = self.job.options.samples
        pts: list[int] = []
        waiting: list[Segment] = []
        async for batch in batches:
            if samples is not None or self.depth is not None:
                pts += batch.pts
            waiting += self._deep(cutter.feed(batch), pts)
            if samples is not None:
                waiting.clear()
            while not self.whole and len(waiting) >= (size := self._size()):
                await self._publish(waiting[:size], *cutter.clock(waiting[size - 1].end))
                del waiting[:size]
        rest, total = cutter.finish()
        waiting += self._deep(rest, pts)
        if self.depth is not None:
            self.depth.check(total.frames)
        if samples is not None:
            waiting, total = sampled(self.head, pts, samples, total)
            waiting = self._deep(waiting, pts)
        while waiting:
            size = self._size()
            await self._publish(waiting[:size], *cutter.clock(None))
            del waiting[:size]
        total = total.model_copy(update={"parts": tuple(self.parts)})
        await plans.write_total(self.context.store, self.job.job_id, self.job.generation, total)
        crash.point("planner.total_stored")
        return total

    def _deep(self, segments: list[Segment], pts: Sequence[int]) -> list[Segment]:
        """The segments with their ranges of the given depth, if there is one."""
        return [self.depth.of(item, pts) for item in segments] if self.depth is not None else segments

    def _size(self) -> int:
        return PART_SIZES[min(len(self.parts), len(PART_SIZES) - 1)]

    async def _publish(self, segments: Sequence[Segment], resets: Sequence[ClockReset], read: int | None) -> None:
        job, store = self.job, self.context.store
        if segments[-1].index >= completion.MAX_SEGMENTS:
            raise too_many(job)
        part = await plans.write_part(store, job.job_id, job.generation, segments, resets=resets, read=read)
        crash.point("planner.part_stored")
        done = PartDone(
            job_id=job.job_id,
            generation=job.generation,
            attempt=job.attempt,
            pool=job.pool,
            first=part.first,
            count=len(segments),
            spans=packed(self.head, segments),
            silent=not self.head.source.audio,
        )
        await self.context.bus.publish(
            subjects.done_plan(job.job_id, job.generation, "part"), done, msg_id=f"part.{plan_id(job)}.{part.first}"
        )
        self.parts.append(part.first)
        crash.point("planner.part_published")
        if len(self.parts) == 1:
            await publish_audio(self.context, job, self.head)


def too_many(job: Job) -> errors.StereoSpotError:
    """What to say of a film with more segments than a completion set holds."""
    limit, seconds = completion.MAX_SEGMENTS, job.options.segment_seconds
    if seconds is not None and seconds < planning.DEFAULT_SECONDS:
        return errors.error(
            "INVALID_OPTIONS", f"Segments of {seconds:g} s cut this film into more than {limit:,}; ask for longer ones."
        )
    return errors.error("TOO_LONG", f"It has more than {limit:,} segments.")


async def publish_audio(context: Context, job: Job, head: Plan) -> None:
    """Have the sound cut; it follows the parts as they are stored. May be repeated."""
    if head.source.audio or head.source.subtitles:
        work = AudioWork(job_id=job.job_id, generation=job.generation, attempt=job.attempt)
        subject = subjects.work("audio", job.job_id, job.generation)
        await context.bus.publish(subject, work, msg_id=f"audio.{plan_id(job)}")
    crash.point("planner.audio_published")


def packed(head: Plan, segments: Sequence[Segment]) -> str:
    """The windows that a part's segments need, as messages say it; nothing for engines without a curve."""
    return spans.pack(curves.span(head, item) for item in segments) if curves.is_analysed(head) else ""


def sampled(head: Plan, pts: list[int], starts: tuple[float, ...], total: PlanTotal) -> tuple[list[Segment], PlanTotal]:
    """Only the seconds that somebody wants to look at, as a film of their own with the source's times."""
    support = curves.support(head.stereo.engine, head.source)
    segments = planning.sample_segments(head.source, pts, starts, support=support)
    chosen = array("q", (value for item in segments for value in pts if item.start <= value <= item.last))
    if sys.byteorder == "big":
        chosen.byteswap()
    last = segments[-1]
    return segments, total.model_copy(
        update={
            "segments": len(segments),
            "frames": len(chosen),
            "first_pts": segments[0].start,
            "end_pts": last.start + last.duration,
            "pts_sha256": hashlib.sha256(chosen.tobytes()).hexdigest(),
        }
    )


def plan_id(job: Job) -> str:
    """What is planned, for the ids of messages: job, generation and attempt."""
    return f"{job.job_id}.{job.generation}.{job.attempt}"
