"""The planner: what is in the source, where it is cut, and everything that makes the result reproducible.

    work.plan.<job> ─> probe ─> plan.json ─> scan ─> plan/<first>.json + done…part ─> plan/total.json
                    │                 └> work.audio.<job>.<generation>
                    └> job converting ─> done…total

Segments are dispatched as the scan passes them; the total comes last, after the record says `converting`, so a trigger
never meets a job that is still being planned. What is stored decides where a repeated message goes on: with a total
there is nothing left but to say so again. Packets that cannot be trusted mean a plan from a decode pass: in the same
generation while nothing of it was dispatched, else in a new one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing
from typing import TypeVar, cast

from inference import curves, geometry, letterbox
from services import engines, given, notices, operations, plans, sources, space
from services.context import Context
from services.cut import Cut, packed, plan_id, publish_audio, too_many
from services.watch import Threads, is_wanted, watching
from stereospot import completion, crash, errors, jobs, log, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.media import encoders, probe
from stereospot.media import plan as planning
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, PlanTotal, SourceInfo
from stereospot.media.source import Source
from stereospot.messages import Failure, PlanWork, TotalDone
from stereospot.outcome import Ack, Outcome, Reject, Retry

_log = log.get("planner")

T = TypeVar("T")
U = TypeVar("U")

crash.declare(
    "planner.begun", "planner.head_stored", "planner.job_converting", "planner.total_published",
)  # fmt: skip

Scan = Callable[..., Iterator[planning.FrameBatch]]

PHASES = frozenset({Phase.CREATED, Phase.PLANNING, Phase.CONVERTING})


class Planner:
    """Handles `work.plan`; one scan a slot."""

    def __init__(self, context: Context, *, slots: int = 2) -> None:
        self.slots = slots
        self._context = context
        self._bus = context.bus
        self._store = context.store
        self._plans = plans.Plans(context.store)
        self._threads = Threads(2 * slots, "plan")
        self._limits = Limits.of(context.settings)

    def close(self) -> None:
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Plan one generation, or say again what is planned already."""
        work = delivery.parse(PlanWork)
        job = await self._begin(work)
        if job is None:
            return Ack("stale")
        crash.point("planner.begun")
        head = await self._plans.head(job.job_id, job.generation)
        total = await self._plans.total(job.job_id, job.generation)
        if head is not None and total is not None:
            # Planned before: a retry may be one for the sake of the sound.
            await publish_audio(self._context, job, head)
        else:
            async with watching(self._bus, job.job_id, job.generation, PHASES, attempt=job.attempt) as stop:
                try:
                    redecode = work.redecode or job.redecoded
                    planned = await self._plan(job, head, redecode, stop, again=delivery.attempt > 1)
                except errors.StereoSpotError as error:
                    if error.code == "CANCELLED" or stop.is_set():
                        return Ack("cancelled")
                    if error.code == "STORAGE_FULL":
                        return await space.rest(self._bus, job, error, PHASES)
                    if isinstance(error, errors.Transient) or error.code == "RECORD_UNREADABLE":
                        raise
                    failure = Failure.of(error, attempts=delivery.attempt)
                    if error.code in errors.SECOND_LOOK and delivery.attempt < 2:
                        return Retry(reason=str(error), failure=failure)
                    # Also what is missing here: a person has to install it or to choose something else.
                    return Reject(failure)
            if planned is None:
                return Ack("replanned")
            head, total = planned
        if total.segments > completion.MAX_SEGMENTS:  # stored by an older version; no set would ever be complete
            return Reject(Failure.of(too_many(job)))
        await self._announce(job, head, total)
        return Ack()

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """The job fails with the reason that its plan could not be made."""
        try:
            work = delivery.parse(PlanWork)
        except errors.Permanent:
            return
        await operations.fail(self._bus, work.job_id, work.generation, failure, attempt=work.attempt)

    async def _begin(self, work: PlanWork) -> Job | None:
        """The job, in a phase in which it may be planned; None if nobody wants this plan (any more)."""

        def begin(job: Job) -> Job | None:
            wanted = is_wanted(job, work.generation, {Phase.CREATED}, work.attempt)
            return jobs.advance(job, Phase.PLANNING, at=time.time()) if wanted else None

        if await records.get_job(self._bus, work.job_id) is None:
            return None
        job = await records.change_job(self._bus, work.job_id, begin)
        if job.options.model_extra:  # a film without what was asked for would be a wrong one
            unknown = ", ".join(sorted(job.options.model_extra))
            raise errors.error("RECORD_UNREADABLE", f"This version does not know the options {unknown}.")
        return job if is_wanted(job, work.generation, PHASES, work.attempt) else None

    # ---- planning ---------------------------------------------------------------------------------------
    async def _plan(
        self, job: Job, head: Plan | None, redecode: bool, stop: threading.Event, *, again: bool
    ) -> tuple[Plan, PlanTotal] | None:
        """Probe and scan; None when the job was given a new generation instead. again: it was tried before."""
        source = await sources.open_source(self._store, job.source)
        try:
            if head is not None:
                info = head.source
            else:
                info = await self._threads.run(probe.probe, source, limits=self._limits, stop=stop)
            if head is None or not head.decode.synthesised:
                cut: Cut | None = None
                try:
                    async with aclosing(self._scan(planning.scan, source, info, stop, from_frames=redecode)) as scan:
                        opening: planning.FrameBatch | None = None
                        if head is None:
                            # The scan is on its way while the head is settled.
                            making = self._head(job, info, source, stop, again=again)
                            head, opening = await _both(making, anext(scan, None))
                        # A plan from frames is told when it is whole: should the frames have no times either, it is
                        # dropped.
                        cut = Cut(self._context, job, head, redecode, await self._depth_times(job, head, stop))
                        return head, await cut.run(_chain(opening, scan))
                except planning.Untrusted as error:
                    _log.info("times cannot be trusted", action="retry", job_id=job.job_id, reason=str(error))
                    if cut is not None and cut.parts:
                        await operations.replan(self._bus, job.job_id, job.generation, str(error))
                        return None
                    head = head or await self._head(job, info, source, stop, again=again)
                    head = planning.synthesised(head, error)
                    await plans.write_head(self._store, head)
            told = {"repaired": head.decode.repaired, "reordered": head.decode.reordered}
            async with aclosing(self._scan(planning.decode_scan, source, info, stop, **told)) as scan:
                depth = await self._depth_times(job, head, stop)
                return head, await Cut(self._context, job, head, depth=depth).run(scan)
        finally:
            await asyncio.to_thread(source.close)

    async def _head(self, job: Job, info: SourceInfo, source: Source, stop: threading.Event, *, again: bool) -> Plan:
        """Settle every option, look for bars, and store the head of the plan."""
        options = job.options
        engine = given.ENGINE if job.depth and not options.engine else engines.resolve(options, self._context.settings)
        engines.check(options, engine)
        given.check(job, engine)
        head = planning.head(
            info,
            options,
            job_id=job.job_id,
            generation=job.generation,
            source_key=job.source.key or "",
            engine=engine,
            model=options.model,
            divergence=engines.divergence(options, engine),
            output=geometry.output_size(info, options.layout, engine=engine),
            created_at=time.time(),
            sequential=job.redecoded,
        ).model_copy(update={"backend": options.backend})
        await self._threads.run(encoders.check, head.encode, here=self._context.alone)
        if job.depth is not None:
            depth, step = await given.look(self._store, self._threads, job, info, self._limits, stop, again=again)
            stereo = head.stereo.model_copy(update={"grid_step": step})
            head = head.model_copy(update={"depth": depth, "stereo": stereo})
        await space.make_room(self._store, job, space.plan_bytes(head))
        if engine not in letterbox.FLAT:
            bars = await self._threads.run(
                letterbox.find, source, info, head.decode, limits=self._limits, stop=stop, again=again
            )
            head = head.model_copy(update={"stereo": head.stereo.model_copy(update={"bars": bars})})
        await plans.write_head(self._store, head)
        crash.point("planner.head_stored")
        return head

    async def _depth_times(self, job: Job, head: Plan, stop: threading.Event) -> given.Times | None:
        return await given.times(self._store, self._threads, job, head, self._limits, stop)

    async def _scan(
        self, scan: Scan, source: Source, info: SourceInfo, stop: threading.Event, **arguments: bool
    ) -> AsyncGenerator[planning.FrameBatch, None]:
        """The batches of a blocking scan, each waited for in a thread."""
        batches = scan(source, info, limits=self._limits, stop=stop, **arguments)
        try:
            while (batch := await self._threads.run(_next, batches)) is not None:
                yield batch
        finally:
            await self._threads.run(_close, batches, stop)

    # ---- telling ----------------------------------------------------------------------------------------
    async def _announce(self, job: Job, head: Plan, total: PlanTotal) -> None:
        """Record the plan's figures, then publish sound and total; each may be repeated."""

        def converting(found: Job) -> Job | None:
            if not is_wanted(found, job.generation, {Phase.PLANNING}, job.attempt):
                return None
            found = jobs.without_warnings(found, jobs.PASSING)
            begun = jobs.advance(
                found, Phase.CONVERTING, at=time.time(), segments=total.segments, frames=total.frames,
                duration_seconds=float((total.end_pts - total.first_pts) * head.source.video.time_base),
                engine={"name": head.stereo.engine, "model": head.stereo.model},
            )  # fmt: skip
            for text in (*head.source.warnings, *total.warnings):
                begun = begun.warned(notices.notice(text))
            return begun

        found = await records.change_job(self._bus, job.job_id, converting)
        crash.point("planner.job_converting")
        if not is_wanted(found, job.generation, {Phase.CONVERTING}, job.attempt):
            return
        done = TotalDone(
            job_id=job.job_id,
            generation=job.generation,
            attempt=job.attempt,
            pool=job.pool,
            total=total.segments,
            parts=total.parts,
            audio=bool(head.source.audio),
            spans=await self._spans(head, total),
        )
        await self._bus.publish(
            subjects.done_plan(job.job_id, job.generation, "total"), done, msg_id=f"total.{plan_id(job)}"
        )
        crash.point("planner.total_published")
        await operations.announce(self._bus, found, "planned", segments=total.segments, frames=total.frames)

    async def _spans(self, head: Plan, total: PlanTotal) -> dict[int, str]:
        """The windows that every part's segments need: a set that was lost is begun anew by the total alone."""
        if not curves.is_analysed(head):
            return {}
        parts = [await self._plans.part(head.job_id, head.generation, first) for first in total.parts]
        return {part.first: packed(head, part.segments) for part in parts if part is not None}


async def _both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Both results; what fails is raised when the other has ended too, so that no step is broken off in its thread."""
    found = await asyncio.gather(first, second, return_exceptions=True)
    for item in found:
        if isinstance(item, BaseException):
            raise item
    return cast(tuple[T, U], found)


async def _chain(
    first: planning.FrameBatch | None, rest: AsyncIterator[planning.FrameBatch]
) -> AsyncGenerator[planning.FrameBatch, None]:
    if first is not None:
        yield first
    async for batch in rest:
        yield batch


def _next(items: Iterator[T]) -> T | None:
    return next(items, None)


def _close(batches: Iterator[planning.FrameBatch], stop: threading.Event) -> None:
    """End a scan, also one whose thread is still in the middle of a step: the stop event lets that end first."""
    while isinstance(batches, Generator):
        try:
            batches.close()
            break
        except ValueError:  # it is executing
            stop.set()
            time.sleep(0.02)
