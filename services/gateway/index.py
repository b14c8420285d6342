"""The read model: what the gateway knows without asking the broker. An index, never the truth.

    KV_jobs  ──tail──> Table (all jobs), recent ones parsed        KV_state ──tail──> completion sets, pace
    KV_workers ──tail──> workers                                    EVENT   ──tail──> who works on which segment

Rebuilt at every start; `ready` is set once all that was there has been read. Watchers are woken by what changed and
read the present state themselves, so a slow one misses nothing but intermediate states.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import nats.errors
from pydantic import ValidationError

from services.gateway.crew import Crew
from services.gateway.table import VISIBLE, Kind, Page, Row, Table
from stereospot import completion, errors, log, records, subjects
from stereospot.bus import Bus, Refused
from stereospot.bus.tail import Start, Stored, Tail
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import SegmentEvent, Worker

T = TypeVar("T")

_log = log.get("gateway")

RECENT = 4096
"""Parsed jobs that are kept; all others are read from the table."""

BATCH = 500
PACE_SECONDS = 45.0
"""Over how long the speed of a job is measured."""


@dataclass(slots=True)
class Live:
    """What is known of a job beside its record: its completion set, its pace, who works on what."""

    generation: int
    value: bytes = b""
    revision: int = 0
    parsed: Completion | None = None
    done: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    cells: dict[int, SegmentEvent] = field(default_factory=dict[int, SegmentEvent])
    is_heard: bool = False
    """Whether nothing was said of its cells that is not known here; else `learn` brings the rest."""

    @property
    def completion(self) -> Completion | None:
        if self.parsed is None and self.value:
            self.parsed = completion.readable(self.value)
        return self.parsed

    def rate(self) -> float | None:
        """Segments a second over the last while; None before there are two measurements."""
        if len(self.done) < 2:
            return None
        (begun, first), (_, last) = self.done[0], self.done[-1]
        seconds = time.monotonic() - begun
        return (last - first) / seconds if last > first and seconds > 0.2 else None


def until_collected(event: SegmentEvent) -> SegmentEvent:
    """What is shown of a segment whose bit is not set: one that its worker calls done is still at work until then.

    Without its cell it would wait, to the eye, between its worker's word and the collector's.
    """
    return event.model_copy(update={"state": "running"}) if event.state == "done" else event


def _let_go(live: Live) -> None:
    """Forget the cells of what is done."""
    if not live.cells or (state := live.completion) is None:
        return
    for index in [index for index in live.cells if state.is_done(index)]:
        del live.cells[index]


class Watch:
    """One reader's flag: which jobs (None: any) changed since it looked last."""

    def __init__(self, index: Index, job_id: str | None) -> None:
        self.job_id = job_id
        self._index = index
        self._dirty: set[str] = set()
        self._event = asyncio.Event()

    def __enter__(self) -> Watch:
        self._index.watches.setdefault(self.job_id, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        group = self._index.watches.get(self.job_id, set())
        group.discard(self)
        if not group:
            self._index.watches.pop(self.job_id, None)

    def touch(self, job_id: str) -> None:
        self._dirty.add(job_id)
        self._event.set()

    def rouse(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> set[str]:
        """What changed, as soon as something did; empty after `seconds`, and when the gateway stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return set()
        return self.take()

    def take(self) -> set[str]:
        """What changed since it was asked last, without waiting."""
        self._event.clear()
        dirty, self._dirty = self._dirty, set()
        return dirty


class Index:
    """Run `run()` in a task group; ask anything else at any time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._table = Table()
        # One thread: SQLite's answers take milliseconds and stay off the loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._recent: OrderedDict[str, Row] = OrderedDict()
        self._live: dict[str, Live] = {}
        self.crew = Crew()
        self._tails: list[Tail] = []
        self.watches: dict[str | None, set[Watch]] = {}
        self.ready = asyncio.Event()

    # ---- feeding ----------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Follow the buckets for ever."""
        caught_up = [asyncio.Event() for _ in range(3)]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._follow(subjects.kv_stream(subjects.JOBS), ">", "last", self._jobs, caught_up[0])
                )
                state = subjects.kv_subject(subjects.STATE, "state.>")
                group.create_task(
                    self._follow(subjects.kv_stream(subjects.STATE), state, "last", self._states, caught_up[1])
                )
                workers = subjects.kv_stream(subjects.WORKERS)
                group.create_task(self._follow(workers, ">", "last", self._worker, caught_up[2]))
                cells = f"{subjects.PREFIX}.event.segment.>"
                group.create_task(self._follow(subjects.EVENT, cells, "new", self._cells, asyncio.Event()))
                for event in caught_up:
                    await event.wait()
                self.ready.set()
                _log.info("index ready", action="ready", jobs=sum((await self.counts("all")).values()))
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._table.close()

    async def _follow(
        self,
        stream: str,
        pattern: str,
        start: Start,
        apply: Callable[[Sequence[Stored]], Coroutine[Any, Any, None]],
        caught_up: asyncio.Event,
    ) -> None:
        """Feed `apply` with batches; a stream that is not there yet is waited for."""
        while True:
            try:
                async with self._bus.tail(stream, pattern, start=start) as messages:
                    await self._drain(messages, apply, caught_up)
                return
            except (errors.Transient, Refused, nats.errors.Error) as problem:
                _log.warning("index waits", action="retry", stream=stream, reason=str(problem))
                await asyncio.sleep(0.5)

    async def _drain(
        self, messages: Tail, apply: Callable[[Sequence[Stored]], Coroutine[Any, Any, None]], caught_up: asyncio.Event
    ) -> None:
        batch: list[Stored] = []
        reading: asyncio.Task[Stored] | None = None
        until_caught_up = asyncio.create_task(messages.caught_up.wait())
        try:
            while True:
                reading = reading or asyncio.create_task(anext(messages))
                if not caught_up.is_set():
                    await asyncio.wait({reading, until_caught_up}, return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        caught_up.set()
                        continue
                batch.append(await reading)
                reading = None
                if batch[-1].pending == 0 or len(batch) >= BATCH:
                    await apply(batch)
                    batch = []
        except StopAsyncIteration:
            return  # the connection was closed
        finally:
            until_caught_up.cancel()
            if reading is not None:
                reading.cancel()

    async def _jobs(self, batch: Sequence[Stored]) -> None:
        changes: list[tuple[str, int, bytes | None, Job | None]] = []
        for item in batch:
            job_id = item.subject.rsplit(".", 1)[-1]
            job = None
            if not item.is_marker:
                try:
                    job = Job.model_validate_json(item.data)
                except ValidationError as problem:
                    _log.error("unreadable record", action="refuse", job_id=job_id, reason=str(problem))
                    continue
            changes.append((job_id, item.sequence, item.data if job else None, job))
            self._remember(job_id, None if job is None else Row(job, item.sequence))
        await self._call(self._table.apply, changes)
        for job_id, *_ in changes:
            self._notify(job_id)

    def _remember(self, job_id: str, row: Row | None) -> None:
        if row is None:
            self._recent.pop(job_id, None)
            self._live.pop(job_id, None)
            return
        before = self._recent.get(job_id)
        self._recent[job_id] = row
        self._recent.move_to_end(job_id)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        live = self._live.get(job_id)
        if live is None:
            return
        anew = before is not None and before.job.attempt < row.job.attempt
        if live.generation < row.job.generation or anew:
            live.cells.clear()
            live.done.clear()
        elif not row.job.is_active:
            # Nobody works on it any more; what failed stays to be seen.
            live.cells = {index: cell for index, cell in live.cells.items() if cell.state == "failed"}
            live.done.clear()

    async def _states(self, batch: Sequence[Stored]) -> None:
        prefix = subjects.kv_subject(subjects.STATE, "")
        for item in batch:
            found = subjects.parse_state_key(item.subject.removeprefix(prefix))
            if found is None:
                continue
            _, job_id, generation = found
            live = self._live.get(job_id)
            if item.is_marker:
                if live is not None and live.generation == generation:
                    del self._live[job_id]
                continue
            if live is None or live.generation < generation:
                live = self._live[job_id] = Live(generation, is_heard=self.ready.is_set())
            if generation < live.generation:
                continue
            live.value, live.revision, live.parsed = item.data, item.sequence, None
            _let_go(live)
            if self.ready.is_set():
                self._measure(live)
            self._notify(job_id)

    def _measure(self, live: Live) -> None:
        state = live.completion
        if state is None:
            return
        now = time.monotonic()
        live.done.append((now, state.count))
        while len(live.done) > 2 and live.done[1][0] < now - PACE_SECONDS:
            live.done.popleft()

    async def _worker(self, batch: Sequence[Stored]) -> None:
        for item in batch:
            worker_id = item.subject.rsplit(".", 1)[-1]
            if item.is_marker:
                self.crew.forget(worker_id)
                continue
            try:
                card = Worker.model_validate_json(item.data)
            except ValidationError as problem:
                _log.warning("unreadable worker", action="refuse", worker_id=worker_id, reason=str(problem))
                continue
            self.crew.introduce(card)

    async def _cells(self, batch: Sequence[Stored]) -> None:
        for item in batch:
            try:
                event = SegmentEvent.model_validate_json(item.data)
            except ValidationError:
                continue
            self.crew.hear(event)
            row = self._recent.get(event.job_id)
            if row is not None and not row.job.is_active and event.state != "failed":
                continue  # said too late: nobody works on it any more
            live = self._live.setdefault(event.job_id, Live(event.generation, is_heard=self.ready.is_set()))
            if live.generation != event.generation:
                continue
            live.cells[event.index] = until_collected(event)
            _let_go(live)
            self._notify(event.job_id)

    def learn(self, job: Job, events: Iterable[SegmentEvent]) -> None:
        """What somebody has read of a job's cells: EVENT is not read from its beginning at every start for that."""
        live = self.live(job.job_id, job.generation)
        if live is None:
            return
        live.is_heard = True
        state = live.completion
        for event in events:
            if event.index not in live.cells and not (state and state.is_done(event.index)):
                live.cells[event.index] = until_collected(event)
                self._notify(job.job_id)

    def _notify(self, job_id: str) -> None:
        for key in (job_id, None):
            for watch in self.watches.get(key, ()):
                watch.touch(job_id)

    def wake(self) -> None:
        """Have every watch return at once: the gateway stops."""
        for group in self.watches.values():
            for watch in group:
                watch.rouse()

    # ---- asking -----------------------------------------------------------------------------------------
    def watch(self, job_id: str | None = None) -> Watch:
        """Be woken by changes of one job, or of any: `with index.watch(job_id) as watch: await watch.wait(15)`."""
        return Watch(self, job_id)

    def recent(self, job_id: str) -> Row | None:
        """A job of the recent ones as this gateway last heard of it, without asking anybody."""
        return self._recent.get(job_id)

    async def known(self, job_id: str) -> Row | None:
        """A job as this gateway last heard of it, without asking anybody."""
        row = self._recent.get(job_id)
        return row if row is not None else await self._call(self._table.get, job_id)

    async def row(self, job_id: str) -> Row | None:
        """The same; one that it has not heard of yet is asked of the broker."""
        row = await self.known(job_id)
        if row is None:
            found = await records.get_job(self._bus, job_id)
            row = Row(*found) if found is not None else None
        return row

    async def fresh(self, job_id: str) -> Row:
        """The record itself, from the bucket; raises NOT_FOUND, also for a deleted job."""
        found = await records.get_job(self._bus, job_id)
        if found is None or found[0].phase is Phase.DELETED:
            raise errors.error("NOT_FOUND", f"There is no job {job_id[:64]}.")
        return Row(*found)

    async def page(
        self,
        phases: Sequence[Phase] = VISIBLE,
        *,
        kind: Kind = "films",
        text: str = "",
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> Page:
        """Jobs, newest first."""
        return await self._call(lambda: self._table.page(phases, kind=kind, text=text, after=after, limit=limit))

    async def counts(self, kind: Kind = "films") -> dict[str, int]:
        """Jobs by phase."""
        return await self._call(self._table.counts, kind)

    def live(self, job_id: str, generation: int) -> Live | None:
        found = self._live.get(job_id)
        return found if found is not None and found.generation == generation else None

    async def completion(self, job_id: str, generation: int) -> Completion | None:
        """A completion set; one that is not here is asked of the broker."""
        found = self.live(job_id, generation)
        if found is not None and found.completion is not None:
            return found.completion
        asked = await records.get_state(self._bus, job_id, generation)
        return asked[0] if asked else None

    def workers(self) -> list[Worker]:
        """Converters that were heard of lately, by name."""
        return self.crew.present()

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
