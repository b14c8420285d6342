"""The analyser: near and far of a learned engine's depth, window by window, ahead of the converters.

    work.analyse.<job>.<gen>.<window> ─> a few frames inferred ─> curves/<window>.json stored, if nobody has yet

A window's samples are a pure function of the film and the engine, so a repeated message stores the same again, and a
converter that finds no window takes the samples itself: no segment waits for this service, it only saves work.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import TimeoutError as FutureTimeout

from pydantic import ValidationError

from inference.curves import Grid, Window
from inference.gpu import backend
from services import plans, sources
from services.context import Context
from services.watch import Threads, is_wanted, watching
from stereospot import errors, keys, log, records, subjects
from stereospot.bus import Bus, Delivery
from stereospot.jobs import Phase
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.media.source import Source
from stereospot.messages import AnalyseWork, Failure
from stereospot.outcome import Ack, Outcome, Reject
from stereospot.storage.base import ObjectStore

_log = log.get("analyse")

PHASES = frozenset({Phase.PLANNING, Phase.CONVERTING})
READ_SECONDS = 10.0


class Analyse:
    """Handles `work.analyse`; one window a slot."""

    def __init__(self, context: Context, *, slots: int = 1) -> None:
        self.slots = slots
        self._bus = context.bus
        self._store = context.store
        self._plans = plans.Plans(context.store)
        self._threads = Threads(slots, "analyse")
        self._limits = Limits.of(context.settings)
        self._engines: dict[tuple[str, str | None], backend.Learned] = {}

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Take and store one window's samples."""
        try:
            work = delivery.parse(AnalyseWork)
        except ValidationError as error:
            return Reject(Failure.of(errors.error("INVALID_REQUEST", str(error))))
        found = await records.get_job(self._bus, work.job_id)
        head = await self._plans.head(work.job_id, work.generation)
        if found is None or head is None or not is_wanted(found[0], work.generation, PHASES):
            return Ack("stale")
        key = keys.curve_window(work.job_id, work.generation, work.window)
        if head.stereo.engine not in backend.ENGINES or await self._store.head(key) is not None:
            return Ack("nothing to do")
        async with watching(self._bus, work.job_id, work.generation, PHASES) as stop:
            source = await sources.open_source(self._store, found[0].source)
            try:
                window = await self._threads.run(self._measure, head, source, work.window, stop)
            except errors.StereoSpotError as error:
                if error.code == "CANCELLED" or stop.is_set():
                    return Ack("not wanted any more")
                raise
            finally:
                await asyncio.to_thread(source.close)
        await self._store.put(key, window.model_dump_json().encode(), if_absent=True)
        return Ack()

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """Nothing is lost: whoever converts there takes the samples, and fails with the same reason if it must."""
        _log.warning("window not analysed", action="reject", subject=delivery.subject, code=failure.code)

    def _measure(self, head: Plan, source: Source, index: int, stop: threading.Event) -> Window:
        """The blocking part."""
        kind = (head.stereo.engine, head.stereo.model)
        if kind not in self._engines:
            self._engines[kind] = backend.configured(engine=kind[0], model=kind[1])
        with Decoder(source, head.decode, head.source, limits=self._limits, stop=stop) as decoder:
            return self._engines[kind].measure(decoder=decoder, plan=head, index=index, stop=stop)


class StoredWindows:
    """Windows that were stored, for converters; give `lookup` to `inference.gpu.backend.provide`. Thread-safe."""

    def __init__(self, store: ObjectStore, loop: asyncio.AbstractEventLoop) -> None:
        self._store, self._loop = store, loop

    def lookup(self, plan: Plan) -> backend.Lookup:
        """A function from a window's index to the stored window, None where there is none or storage is away."""

        def read(index: int) -> Window | None:
            key = keys.curve_window(plan.job_id, plan.generation, index)
            future = asyncio.run_coroutine_threadsafe(self._store.get(key), self._loop)
            try:
                body = future.result(READ_SECONDS)
                return None if body is None else Window.model_validate_json(body)
            except (errors.StereoSpotError, FutureTimeout, ValidationError) as error:
                future.cancel()
                _log.warning("window not read", action="retry", key=key, reason=str(error))
                return None

        return read


async def publish(bus: Bus, head: Plan, segments: tuple[Segment, ...]) -> int:
    """Ask for the windows that these segments look at; returns how many. Nothing for engines without a curve."""
    if head.stereo.engine not in backend.ENGINES or not segments:
        return 0
    last = segments[-1]
    end = last.end if last.end is not None else last.start + last.duration
    windows = Grid.of(head.source.video.time_base).windows(segments[0].start, end)
    for index in windows:
        work = AnalyseWork(job_id=head.job_id, generation=head.generation, window=index)
        subject = subjects.work("analyse", head.job_id, head.generation, index)
        await bus.publish(subject, work, msg_id=f"analyse.{head.job_id}.{head.generation}.{index}")
    return len(windows)
