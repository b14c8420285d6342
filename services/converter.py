"""The converter: one segment of one job at a time in each slot, from a range of the source to a stored fragment.

    convert.<pool>.<lane>.<job>.<gen>.<idx> ─> decode, depth, warp, encode (threads) ─> init, fragment, report stored
                                            ─> done.<job>.<gen>.<idx> ─> ack

At least once by construction: the message goes away last. A report and a fragment of its size mean that this is whole,
so a repeated message of finished work costs two looks. A stop event follows the job's record: a cancelled or renewed
job stops spending compute within seconds, its decoding child included.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import OrderedDict
from typing import Any

from inference import backends
from inference.contract import Converted
from services import encoding, engines, operations, overtaken, plans, setbacks, sources
from services.ahead import Ahead
from services.company import Company
from services.context import Context
from services.decoders import Decoders, Lease
from services.results import Results
from services.setbacks import FINISHING, PHASES, STORED, Setbacks
from services.watch import Threads, is_wanted, obeying, watching
from services.windows import StoredWindows
from stereospot import crash, errors, log, metrics, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job
from stereospot.media.model import Plan, Segment
from stereospot.messages import Failure, SegmentDone, SegmentEvent, SegmentTask
from stereospot.outcome import Ack, Outcome, Retry, Return

_log = log.get("converter")

crash.declare("converter.begun", "converter.converted")

SUSPECT_SECONDS = 1.0
"""How long a segment rests that met one in this process that had better be alone (`services.company`)."""

LOOK_AGAIN_SECONDS = 2.0
"""What was known of a job before a segment waited for a slot so long is asked for once more."""

RATES = 4
"""Films whose speed on this worker is remembered, so that the end of their segments is foreseen."""

ENGINELESS = frozenset({"stub", "remote"})
"""Pools whose depth is made elsewhere, or not at all."""


class Converter:
    """Handles segments of one pool; `slots` at a time."""

    def __init__(self, context: Context, *, worker_id: str, slots: int) -> None:
        self.worker_id = worker_id
        self._context = context
        self._bus = context.bus
        self._store = context.store
        self._plans = plans.Plans(context.store)
        self._threads = Threads(slots + 1, "convert")
        self._decoders = Decoders(context, capacity=slots)
        windows = StoredWindows(context.store, asyncio.get_running_loop())
        self._backends = backends.Backends(context.settings, windows=windows.lookup)
        self._computing = asyncio.Semaphore(slots)
        self._company = Company()
        self.engines = engines.available()
        self.device = engines.device()
        self._results = Results(context.bus, context.store)
        self.setbacks = Setbacks(context, worker_id, self._event, self._results)
        self.ahead = Ahead()
        self.busy: set[str] = set()  # what is computed: never more than there are slots
        self.fps: float | None = None
        self._rates: OrderedDict[tuple[str, int], float] = OrderedDict()

    @property
    def decoders_opened(self) -> int:
        """How many decoders were opened so far: consecutive segments share one."""
        return self._decoders.opened

    async def close(self) -> None:
        """Close decoders and engines."""
        await self._decoders.close()
        self._backends.close()
        self._threads.close()

    async def tidy(self) -> None:
        """Close decoders that nobody has used for a while."""
        await self._decoders.expire()

    async def warm(self) -> None:
        """Load the default engine and compile its kernels before the first segment asks for them.

        Where no segment of an engine comes to, that would only hold up the first ones.
        """
        if self._context.settings.pool in ENGINELESS and not self._context.alone:
            return
        engine = engines.default(self._context.settings)
        try:
            await self._threads.run(self._backends.warm, engine)
        except errors.StereoSpotError as error:
            # A segment that needs it will say so to its job; others may do without.
            _log.warning("not warm", action="ready", engine=engine, code=error.code, detail=error.detail)

    # ---- the handler ------------------------------------------------------------------------------------
    async def handle(self, delivery: Delivery) -> Outcome:
        """Convert the segment that a task names, or find that it is done or not wanted."""
        task = delivery.parse(SegmentTask)
        name = f"{task.job_id}.{task.generation}.{task.index}"
        try:
            outcome = await self._handle(delivery, task, name)
        except errors.StereoSpotError as error:
            outcome = await self.setbacks.cut_off(delivery, task, name, error)
        self.setbacks.is_over(name)
        return outcome

    async def _handle(self, delivery: Delivery, task: SegmentTask, name: str) -> Outcome:
        asked_at = time.monotonic()
        # A slot may wait meanwhile: what does not depend on each other is asked for at once.
        found, _, done, head, segment = await asyncio.gather(
            records.get_job(self._bus, task.job_id),
            self._results.expected_init(task),
            self._results.stored(task),
            self._plans.head(task.job_id, task.generation),
            self._plans.segment(task.job_id, task.generation, task.index, task.part),
        )
        if found is None or not is_wanted(found[0], task.generation, PHASES, task.attempt):
            return Ack("stale")
        job = found[0]
        if await self._results.report_again(task, done):
            return Ack(STORED)
        if (refused := self.setbacks.refused(task)) is not None:
            return refused
        if head is None or segment is None:
            return Retry(reason="the plan is not readable yet")
        if (back := overtaken.step_back(delivery, task, job)) is not None:
            return back
        try:
            async with self._company.visit(alone=delivery.attempt > 1) as welcome:
                if not welcome:
                    return Return(SUSPECT_SECONDS, reason="a segment that may have ended its worker is alone here")
                return await self._convert(delivery, task, name, job, head, segment, asked_at)
        except errors.StereoSpotError as error:
            return await self.setbacks.failed(delivery, task, error)

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """A segment that cannot be converted fails its job, with the segment's number and the reason."""
        try:
            task = delivery.parse(SegmentTask)
        except errors.Permanent:
            return
        if await self._results.look_again(task):
            return  # another worker could, and its job goes well
        failure = failure.model_copy(update={"segment_index": task.index, "attempts": delivery.attempt})
        await self._event(task, "failed", attempt=delivery.attempt, failure=failure)
        await operations.fail(self._bus, task.job_id, task.generation, failure, attempt=task.attempt)

    # ---- one segment ------------------------------------------------------------------------------------
    async def _convert(
        self, delivery: Delivery, task: SegmentTask, name: str, job: Job, head: Plan, segment: Segment, asked_at: float
    ) -> Outcome:
        suspect = delivery.attempt > 1  # alone here: what would be taken beside it could only be given back
        with self.ahead.turn() as turn:
            async with self._computing:
                if (settled := await self._meanwhile(task, asked_at)) is not None:
                    return settled
                crash.point("converter.begun")
                if not suspect:
                    turn.begins(self._expected_seconds(task, segment))
                converted, seconds = await self._in_slot(delivery, task, name, job, head, segment)
            if not suspect:
                turn.ends()
            # What the encoder still holds, beside the next segment's start.
            await encoding.run(self._threads, converted.finish)
            crash.point("converter.converted")
            await self._keep(task, name, head, segment, converted, seconds)
        await self._tell(delivery, task, head, segment, converted, seconds)
        return Ack()

    async def _meanwhile(self, task: SegmentTask, asked_at: float) -> Outcome | None:
        """What has become of a segment while it waited for its slot; None: it is to be converted."""
        if time.monotonic() > asked_at + LOOK_AGAIN_SECONDS:
            # Long enough for a cancel, maybe.
            found = await records.get_job(self._bus, task.job_id)
            if not is_wanted(found and found[0], task.generation, PHASES, task.attempt):
                return Ack("stale")
            # A process that slept meanwhile may have lost the segment to another one.
            if await self._results.look_again(task):
                return Ack(STORED)
        # The segment before this one may have shown what this process cannot do any more.
        if self.setbacks.lost is not None:
            return Return(SUSPECT_SECONDS, reason="this worker is about to end")
        return self.setbacks.refused(task)

    async def _in_slot(
        self, delivery: Delivery, task: SegmentTask, name: str, job: Job, head: Plan, segment: Segment
    ) -> tuple[Converted, float]:
        """What a slot is for: the converted segment, of which the encoder may still hold some, and the seconds."""
        started = time.monotonic()
        self.busy.add(name)
        try:
            converted, _ = await asyncio.gather(
                self._compute(task, job, head, segment), self._event(task, "running", attempt=delivery.attempt)
            )
        finally:
            self.busy.discard(name)
        if _is_awaited(delivery, task):
            # Beside another segment it would take twice as long.
            await encoding.run(self._threads, converted.finish)
        seconds = round(time.monotonic() - started, 3)
        self._foresee(task, _fps(segment, seconds))  # before the slot is free: the next segment begins by it
        return converted, seconds

    async def _keep(
        self, task: SegmentTask, name: str, head: Plan, segment: Segment, converted: Converted, seconds: float
    ) -> None:
        """Store a result that fits the rest, then report it; it may wait for its storage meanwhile."""
        done = await self._check(task, head, segment, converted, seconds)
        held = functools.partial(self.setbacks.held, task, name)
        async with watching(self._bus, task.job_id, task.generation, FINISHING) as stop:
            await obeying(stop, self._results.keep(task, converted, done, setbacks.CUT_OFF_SECONDS, held))
        await self._results.publish(task, done)

    async def _tell(
        self, delivery: Delivery, task: SegmentTask, head: Plan, segment: Segment, converted: Converted, seconds: float
    ) -> None:
        """Count a segment that is done, and say so to those who watch."""
        report, frames = converted.report, converted.fragment.frames
        metrics.WORKER.segment(
            engine=head.stereo.engine, device=report.device, frames=frames, seconds=seconds,
            stages=report.stages, memory_bytes=report.device_memory_bytes, batch=report.batch,
            windows_taken=report.windows_taken,
        )  # fmt: skip
        fps = _fps(segment, seconds)
        self.fps = _mean(self.fps, fps)
        await self._event(task, "done", attempt=delivery.attempt, seconds=seconds, fps=round(fps, 2))

    def _expected_seconds(self, task: SegmentTask, segment: Segment) -> float | None:
        """How long a segment computes, by those of its film before it; None where none was."""
        rate = self._rates.get((task.job_id, task.generation))
        return segment.frames / rate if rate else None

    def _foresee(self, task: SegmentTask, fps: float) -> None:
        """Remember a film's speed; another film's, of another size or engine, says nothing about it."""
        film = (task.job_id, task.generation)
        self._rates[film] = _mean(self._rates.pop(film, None), fps)
        while len(self._rates) > RATES:
            self._rates.popitem(last=False)

    async def _check(
        self, task: SegmentTask, head: Plan, segment: Segment, converted: Converted, seconds: float
    ) -> SegmentDone:
        """What is said of a result; raises SEGMENT_MISMATCH or ENCODER_MISMATCH for one that does not fit the rest."""
        fragment = converted.fragment
        if fragment.frames != segment.frames:
            raise errors.error(
                "SEGMENT_MISMATCH", f"The plan has {segment.frames} frames, {fragment.frames} were decoded."
            )
        expected = await self._results.expected_init(task)
        if expected is not None and expected != fragment.init_sha256:
            raise errors.error("ENCODER_MISMATCH", f"{fragment.init_sha256[:16]} is not {expected[:16]}.")
        return SegmentDone(
            job_id=task.job_id, generation=task.generation, index=task.index, frames=fragment.frames,
            init_sha256=fragment.init_sha256, size_bytes=len(fragment.media), worker_id=self.worker_id,
            seconds=seconds, engine={"name": head.stereo.engine, "model": head.stereo.model},
        )  # fmt: skip

    async def _compute(self, task: SegmentTask, job: Job, head: Plan, segment: Segment) -> Converted:
        """Decode, convert and encode with a decoder of this job; what fails takes its decoder along."""
        depth = job.depth
        lease = await self._decoders.lease(
            job, head, segment, lambda: sources.open_source(self._store, job.source),
            None if depth is None else lambda: sources.open_source(self._store, depth),
        )  # fmt: skip
        try:
            async with watching(self._bus, task.job_id, task.generation, FINISHING, stop=lease.stop):
                converted = await encoding.run(self._threads, self._work, lease, head, segment)
        except BaseException:
            await self._decoders.discard(lease)
            raise
        await self._decoders.give_back(lease)
        return converted

    def _work(self, lease: Lease, head: Plan, segment: Segment) -> Converted:
        """The blocking part, in one thread of this service."""
        try:
            with self._backends.borrow(head) as backend:
                return backend.convert(decoder=lease.frames(segment), plan=head, segment=segment, stop=lease.stop)
        except MemoryError as error:
            raise errors.error("OUT_OF_MEMORY", str(error)) from error

    async def _event(self, task: SegmentTask, state: Any, **values: Any) -> None:
        """Tell those who watch, for two seconds at most; work does not fail for it."""
        event = SegmentEvent(
            job_id=task.job_id, generation=task.generation, index=task.index, state=state, worker_id=self.worker_id,
            at=time.time(), **values,
        )  # fmt: skip
        try:
            await self._bus.publish(
                subjects.event_segment(task.job_id, task.generation, task.index), event, patience_seconds=2.0
            )
        except errors.StereoSpotError as error:
            _log.debug("event not published", action="retry", code=error.code)


def _is_awaited(delivery: Delivery, task: SegmentTask) -> bool:
    """Whether somebody is likely to sit before a player that waits for this segment: the first of a film, or a seek."""
    return task.index == 0 or subjects.is_urgent(delivery.subject)


def _fps(segment: Segment, seconds: float) -> float:
    """Frames a second; a clock that stood still counts as a millisecond."""
    return segment.frames / max(seconds, 1e-3)


def _mean(before: float | None, value: float) -> float:
    """A running mean that follows what changes."""
    return value if before is None else 0.8 * before + 0.2 * value
