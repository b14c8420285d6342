"""The analyser: near and far of a learned engine's depth, window by window, ahead of the converters.

    work.analyse.<job>.<gen>.<window> ─> a few frames inferred (threads) ─> curves/<window>.json stored
                                      ─> done.<job>.<gen>.window ─> ack

The dispatcher asks for the windows that the next segments look at and sends a segment when all of its windows are
stored, so every converter works by the same curve. A window's samples are a pure function of film and engine, the first
stored one stays, and a repeated message of a stored window costs one look.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from inference import curves
from inference.curves import Window
from services import operations, plans, sources
from services.context import Context
from services.watch import Threads, is_wanted, watching
from stereospot import crash, errors, keys, metrics, records, subjects
from stereospot.actor import PATIENT
from stereospot.bus import Delivery
from stereospot.jobs import COMPUTING, Job
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import Plan
from stereospot.media.source import Source
from stereospot.messages import AnalyseWork, Failure, WindowDone
from stereospot.outcome import Ack, Outcome, Reject, Retry, Return

if TYPE_CHECKING:
    from inference.gpu.backend import Learned

crash.declare("analyse.begun", "analyse.measured", "analyse.window_stored", "analyse.done_published")

MISSING_SECONDS = 10.0
"""How long a window rests after an analyser without the model or engine: such a one is idle, and others need time."""


class Analyse:
    """Handles `work.analyse`; one window a slot."""

    def __init__(self, context: Context, *, slots: int = 1) -> None:
        self.slots = slots
        self._bus = context.bus
        self._store = context.store
        self._alone = context.alone
        self._plans = plans.Plans(context.store)
        self._threads = Threads(slots, "analyse")
        self._limits = Limits.of(context.settings)
        self._engines: dict[tuple[str, str | None], Learned] = {}
        self.lost: errors.StereoSpotError | None = None
        self.on_lost: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Let engines and threads go."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Take and store one window's samples, or find that they are stored or not wanted."""
        work = delivery.parse(AnalyseWork)
        found = await records.get_job(self._bus, work.job_id)
        head = await self._plans.head(work.job_id, work.generation)
        if found is None or head is None or not is_wanted(found[0], work.generation, COMPUTING, work.attempt):
            return Ack("stale")
        if not curves.is_analysed(head):
            return Ack("no curve")
        key = keys.curve_window(work.job_id, work.generation, work.window)
        if await self._store.head(key) is not None:
            await self._publish(work)
            return Ack("stored already")
        crash.point("analyse.begun")
        try:
            async with watching(self._bus, work.job_id, work.generation, COMPUTING, attempt=work.attempt) as stop:
                source = await sources.open_source(self._store, found[0].source)
                try:
                    window = await self._threads.run(self._measure, head, source, work.window, stop)
                finally:
                    await asyncio.to_thread(source.close)
        except errors.StereoSpotError as error:
            return await self.failed(delivery, work, error)
        crash.point("analyse.measured")
        await self._store.put(key, window.model_dump_json().encode(), if_absent=True)
        crash.point("analyse.window_stored")
        metrics.WORKER.window(head.stereo.engine)
        await self._publish(work)
        return Ack()

    async def failed(self, delivery: Delivery, work: AnalyseWork, error: errors.StereoSpotError) -> Outcome:
        """What to do about a window that could not be taken; raises what the actor waits out."""
        if error.code in PATIENT or error.code == "RECORD_UNREADABLE":
            raise error
        if error.code == "CANCELLED":
            return Ack("cancelled")
        if error.details.get("device_lost"):
            self.lost = error
            self.on_lost()
        metrics.WORKER.failure(error.code)
        failure = Failure.of(error, attempts=delivery.attempt)
        if isinstance(error, errors.Misconfigured):
            # What is missing on this machine may be there on another, if there is one.
            if self._alone:
                return Reject(failure)
            await self._explain(work, failure)
            return Return(MISSING_SECONDS, reason=error.code, failure=failure)
        if isinstance(error, errors.Permanent) and (error.code not in errors.SECOND_LOOK or delivery.attempt > 1):
            return Reject(failure)
        if isinstance(error, errors.Exhausted) and not self._alone:
            await self._explain(work, failure)
        return Retry(reason=str(error), failure=failure)

    async def _explain(self, work: AnalyseWork, failure: Failure) -> None:
        """Say on the job why its windows, and so its segments, wait."""

        def wanted(job: Job) -> bool:
            return is_wanted(job, work.generation, COMPUTING, work.attempt)

        await operations.explain_wait(self._bus, work.job_id, failure, wanted, worker_id="analyse")

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """A window that cannot be taken fails its job: no segment that looks at it can be converted."""
        try:
            work = delivery.parse(AnalyseWork)
        except errors.Permanent:
            return
        await operations.fail(self._bus, work.job_id, work.generation, failure, attempt=work.attempt)

    async def _publish(self, work: AnalyseWork) -> None:
        """Say that the window is stored: once an attempt, however often the message comes."""
        done = WindowDone(job_id=work.job_id, generation=work.generation, window=work.window)
        await self._bus.publish(
            subjects.done_plan(work.job_id, work.generation, "window"),
            done,
            msg_id=f"window.{work.job_id}.{work.generation}.{work.window}.{work.attempt}",
        )
        crash.point("analyse.done_published")

    def _measure(self, head: Plan, source: Source, index: int, stop: threading.Event) -> Window:
        """The blocking part; what it needs is imported here, off the event loop."""
        from inference.gpu import backend

        kind = (head.stereo.engine, head.stereo.model)
        if kind not in self._engines:
            self._engines[kind] = backend.configured(engine=kind[0], model=kind[1])
        try:
            with Decoder(source, head.decode, head.source, limits=self._limits, stop=stop) as decoder:
                return self._engines[kind].measure(decoder=decoder, plan=head, index=index, stop=stop)
        except MemoryError as error:
            raise errors.error("OUT_OF_MEMORY", str(error)) from error
