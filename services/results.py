"""The results of segments: stored whole, held while nothing can be stored, reported, and found again.

    init ─> depth, where it is exported ─> fragment ─> report ─> done.<job>.<gen>.<idx>

The report comes last, so where there is one the fragment was whole; what was never reported is reported again. What
got lost since is seen by its size, and made again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from inference.contract import Converted
from services import reports
from stereospot import crash, errors, keys, log, records, subjects
from stereospot.bus import Bus
from stereospot.messages import SegmentDone, SegmentTask
from stereospot.storage.base import ObjectStore

_log = log.get("converter")

crash.declare(
    "converter.init_stored", "converter.fragment_stored", "converter.report_stored", "converter.done_published"
)

Held = Callable[[errors.Transient], Awaitable[None]]
"""Told why a result could not be stored for so long; what it raises ends the wait."""

INITS = 256
"""Generations whose header is remembered; it never changes once there is one."""


class Results:
    """What the segments of one converter came to."""

    def __init__(self, bus: Bus, store: ObjectStore) -> None:
        self._bus = bus
        self._store = store
        self._inits: OrderedDict[tuple[str, int], str] = OrderedDict()

    async def expected_init(self, task: SegmentTask) -> str | None:
        """The init that the generation's first stored fragment has, as far as it is known here."""
        return self._inits.get((task.job_id, task.generation)) or await self._read_init(task)

    async def _read_init(self, task: SegmentTask) -> str | None:
        """The same as the completion set has it now."""
        found = await records.get_state(self._bus, task.job_id, task.generation)
        if found is None or found[0].init is None:
            return None
        self._inits[task.job_id, task.generation] = found[0].init
        while len(self._inits) > INITS:
            self._inits.popitem(last=False)
        return found[0].init

    async def stored(self, task: SegmentTask) -> SegmentDone | None:
        """The completion of a fragment that is stored, if there is one."""
        return await reports.stored(self._store, task.job_id, task.generation, task.index)

    async def report_again(self, task: SegmentTask, done: SegmentDone | None) -> bool:
        """Report a fragment that is stored once more; False where there is none, or one with a header of another."""
        if done is None or await self._read_init(task) not in (None, done.init_sha256):
            return False
        await self.publish(task, done)
        return True

    async def look_again(self, task: SegmentTask) -> bool:
        """Whether another worker has stored the segment in the meantime; reports it once more if so."""
        return await self.report_again(task, await self.stored(task))

    async def publish(self, task: SegmentTask, done: SegmentDone) -> None:
        """Report a fragment that is stored; the collector counts each one once, however often it hears of it."""
        # The init is in the id: after a refused header the same segment is reported once more, with another.
        await self._bus.publish(
            subjects.done_segment(task.job_id, task.generation, task.index),
            done,
            msg_id=f"{task.job_id}.{task.generation}.{task.index}.{task.attempt}.{done.init_sha256[:16]}",
        )
        crash.point("converter.done_published")

    async def keep(
        self, task: SegmentTask, converted: Converted, done: SegmentDone, patience_seconds: float, held: Held
    ) -> None:
        """Store init, fragment and report, in this order; while the store is full or away the result waits here.

        held: called whenever it has waited for another `patience_seconds`; it may raise.
        """
        job_id, generation = task.job_id, task.generation
        fragment = converted.fragment
        measures = converted.report.model_dump(mode="json")
        report = reports.Report(done=done, depth_bytes=len(converted.depth or b""), measures=measures)
        init = keys.init(job_id, generation, done.init_sha256)
        steps = (
            (init, fragment.init, "converter.init_stored"),
            (keys.segment_depth(job_id, generation, task.index), converted.depth, "converter.init_stored"),
            (keys.segment(job_id, generation, task.index), fragment.media, "converter.fragment_stored"),
            (keys.segment_report(job_id, generation, task.index), report.body(), "converter.report_stored"),
        )
        for key, data, name in steps:
            if not data:
                continue  # depth that is not exported
            pause = 0.5
            until: float | None = None
            while True:
                try:
                    # All segments share their init, and its key names its bytes.
                    await self._store.put(key, data, if_absent=key == init)
                except errors.Transient as error:
                    if error.code not in ("STORAGE_FULL", "STORAGE_UNAVAILABLE"):
                        raise
                    # Computed once is enough: hold the result until it can be stored.
                    _log.warning("waiting to store", action="retry", key=key, code=error.code, detail=error.detail)
                    until = until or time.monotonic() + patience_seconds
                    if time.monotonic() >= until:
                        await held(error)
                        until = time.monotonic() + patience_seconds
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 5.0)
                    continue
                break
            crash.point(name)
