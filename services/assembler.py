"""The assembler: one trigger an attempt in, one recorded film out.

    $KV.state.trigger.<job>.<gen> ─> job assembling ─> scratch file, verified ─> stored ─> job completed {film} ─> alias

The trigger may come twice and an assembler may sleep through its lease: the film counts by the compare-and-set that
completes the job and names key and hash. The first delivery of a first attempt writes the plain key; every later one
writes under a name made of attempt and hash, so nobody who wakes up late can put other bytes under a recorded key.
A scratch file is locked while its assembly lives, so the next one can tell what a killed one has left, and removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Future as ConcurrentFuture
from concurrent.futures import wait
from pathlib import Path
from typing import IO

from inference.comfort import Comfort
from inference.depth import export
from services import alias, lost, notices, operations, plans, reports, sources, space
from services.context import Context
from services.watch import Threads, is_wanted, obeying, watching
from stereospot import crash, errors, jobs, keys, log, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.media import assemble as joining
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, PlanTotal
from stereospot.messages import Failure, Film, Trigger
from stereospot.outcome import Ack, Outcome, Retry
from stereospot.storage.base import ObjectStore
from stereospot.storage.files import translated

_log = log.get("assembler")

crash.declare(
    "assembler.begun", "assembler.written", "assembler.film_stored", "assembler.completed", "assembler.alias_written",
)  # fmt: skip

AHEAD = 4
"""Fragments fetched before they are needed; a fragment of 6 s has some megabytes."""

FETCH_SECONDS = 120.0

FORGET_SECONDS = 5.0
"""A film that could not be removed within this time goes with its job."""

HELD = "assembly."
"""Begins the names of scratch files that are locked as long as their assembly lives. No job's id has a dot."""

LOOK_SECONDS = 0.5
"""How often the thread that waits for a fragment looks whether it is still wanted."""

PHASES = frozenset({Phase.CONVERTING, Phase.ASSEMBLING})


class Assembler:
    """Handles triggers; one film a slot."""

    def __init__(self, context: Context, *, slots: int = 1) -> None:
        self.slots = slots
        self._context = context
        self._bus = context.bus
        self._store = context.store
        self.plans = plans.Plans(context.store)
        self._threads = Threads(slots, "assemble")
        self._limits = Limits.of(context.settings)
        self._scratch = context.settings.data_dir / "scratch"

    def close(self) -> None:
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Make, store and record the film of a complete generation."""
        if delivery.is_marker:
            return Ack("marker")
        trigger = delivery.parse(Trigger)
        job = await self._begin(trigger)
        if job is None:
            return Ack("stale")
        if job.phase is Phase.COMPLETED:
            # Whoever recorded it may have died before it said so.
            await self._after(job)
            return Ack("completed already")
        if job.phase is not Phase.ASSEMBLING:
            return Retry(delay_seconds=1.0, reason=f"the job is {job.phase}")
        crash.point("assembler.begun")
        head = await self.plans.head(job.job_id, job.generation)
        total = await self.plans.total(job.job_id, job.generation)
        if head is None or total is None:
            return Retry(reason="the plan is not readable")
        plain = delivery.is_first and trigger.attempt == 1
        try:
            await self.make(job, head, total, plain=plain)
        except errors.StereoSpotError as error:
            if error.code == "CANCELLED":
                return Ack("cancelled")
            if error.code == "STORAGE_FULL":
                return await space.rest(self._bus, job, error, PHASES)
            raise
        return Ack()

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """No film: the job fails with the reason; a retry makes what the storage has lost, and assembles again."""
        try:
            trigger = delivery.parse(Trigger)
        except errors.Permanent:
            return
        try:
            # Before the job fails: whoever retries it a moment later finds the set as it is stored.
            await lost.forget(self._context, trigger.job_id, trigger.generation)
        except errors.StereoSpotError as error:
            _log.warning("not looked for", action="retry", job_id=trigger.job_id, code=error.code, detail=error.detail)
        await operations.fail(self._bus, trigger.job_id, trigger.generation, failure, attempt=trigger.attempt)

    async def _begin(self, trigger: Trigger) -> Job | None:
        """The job in the phase that it then has; None if this trigger is history."""

        def begin(job: Job) -> Job | None:
            wanted = is_wanted(job, trigger.generation, {Phase.CONVERTING}, trigger.attempt)
            return jobs.advance(job, Phase.ASSEMBLING, at=time.time()) if wanted else None

        if await records.get_job(self._bus, trigger.job_id) is None:
            return None
        job = await records.change_job(self._bus, trigger.job_id, begin)
        if (job.generation, job.attempt) != (trigger.generation, trigger.attempt):
            return None
        return job if job.is_active or job.phase is Phase.COMPLETED else None

    # ---- the film ---------------------------------------------------------------------------------------
    async def make(self, job: Job, head: Plan, total: PlanTotal, *, plain: bool) -> None:
        """Write, store and record the film of `job` as it was read; what came in between decides whether it counts."""
        await asyncio.to_thread(_clear, self._scratch)
        await space.check_folder(self._scratch, space.film_bytes(head.source, head.encode.crf))
        async with self._scratch_file(job, head.container) as path:
            async with watching(self._bus, job.job_id, job.generation, PHASES, attempt=job.attempt) as stop:
                source = await sources.open_source(self._store, job.source)
                try:
                    names = [keys.segment(job.job_id, job.generation, index) for index in range(total.segments)]
                    fragments = Fragments(self._store, names, asyncio.get_running_loop(), stop)
                    report = await self._threads.run(
                        joining.assemble, head, total, fragments, source, path,
                        init=await self._init(job), limits=self._limits, stop=stop,
                    )  # fmt: skip
                finally:
                    await asyncio.to_thread(source.close)
                if head.stereo.export_depth:
                    await self._export(job, head, total, stop)
                crash.point("assembler.written")
                key = keys.film(job.job_id, job.generation, head.container)
                if not plain:
                    key = keys.film_again(job.job_id, job.generation, job.attempt, report.sha256, head.container)
                # Minutes, to a store that is far away: a cancel does not wait for them.
                try:
                    await obeying(stop, self._store.put_file(key, path, move=True))
                except errors.StereoSpotError as error:
                    if error.code == "CANCELLED" and plain:
                        await self._forget(job, key)
                    raise
            crash.point("assembler.film_stored")
        film = Film(
            key=key,
            sha256=report.sha256,
            size_bytes=report.size_bytes,
            frames=report.frames,
            duration_seconds=report.duration_seconds,
            container=head.container,
            file_name=reports.file_name(job, head),
        )
        comfort = await reports.collect(self._store, head, total)
        done = await self._record(job, head, film, comfort, report.warnings)
        crash.point("assembler.completed")
        if done.film is None or done.film.key != key:
            # Cancelled, renewed, or recorded by another delivery in the meantime: this copy is nobody's.
            await self._store.delete(key)
            return
        await self._after(done)
        _log.info("completed", action="done", job_id=job.job_id, generation=job.generation, frames=film.frames)

    @contextlib.asynccontextmanager
    async def _scratch_file(self, job: Job, extension: str) -> AsyncGenerator[Path]:
        """A scratch file that is held while the block runs, and removed at its end."""
        path = self._scratch / f"{HELD}{job.job_id}-{job.generation}-{secrets.token_hex(4)}.{extension}"
        with translated(path.name):
            file = await asyncio.to_thread(_hold, path)
        with file:
            try:
                yield path
            finally:
                await asyncio.to_thread(_remove, path)

    async def _forget(self, job: Job, key: str) -> None:
        """Remove a film whose transfer was broken off: the store may have taken it all the same.

        The transfer may have been broken off because another first delivery was faster: then the job names this key,
        and the film there is that one's. Nor is it touched under a job that was renewed since: it goes with its
        generation.
        """
        try:
            async with asyncio.timeout(FORGET_SECONDS):
                found = await records.get_job(self._bus, job.job_id)
                now = found[0] if found is not None else job
                if now.generation == job.generation and (now.film is None or now.film.key != key):
                    await self._store.delete(key)
        except (TimeoutError, errors.StereoSpotError) as error:
            _log.warning("not removed", action="retry", key=key, reason=str(error) or "no answer in time")

    async def _export(self, job: Job, head: Plan, total: PlanTotal, stop: threading.Event) -> None:
        """Join the depth of all segments and store it; a repeated assembly writes the same bytes again."""
        names = [keys.segment_depth(job.job_id, job.generation, index) for index in range(total.segments)]
        parts = Fragments(self._store, names, asyncio.get_running_loop(), stop)
        async with self._scratch_file(job, "depth.mkv") as path:
            count = await self._threads.run(export.join, parts, path, head.source.video.average_rate)
            if count != total.frames:
                raise errors.error("ASSEMBLY_FAILED", f"There is depth for {count} of {total.frames} frames.")
            await obeying(stop, self._store.put_file(keys.depth(job.job_id, job.generation), path, move=True))

    async def _record(self, job: Job, head: Plan, film: Film, comfort: Comfort, warnings: Sequence[str]) -> Job:
        """The compare-and-set that makes this the film."""

        used = comfort.engine.model_dump(mode="json") if comfort.engine else {}

        def complete(found: Job) -> Job | None:
            if not is_wanted(found, job.generation, {Phase.ASSEMBLING}, job.attempt):
                return None
            found = jobs.without_warnings(found)
            for text in warnings:
                found = found.warned(notices.notice(text))
            for notice in comfort.warnings:
                found = found.warned(notice)
            return jobs.advance(
                found, Phase.COMPLETED, at=time.time(), film=film, failure=None,
                report=comfort.model_dump(mode="json", exclude={"warnings"}) if comfort.segments else {},
                engine={"name": head.stereo.engine, "model": head.stereo.model} | used,
            )  # fmt: skip

        return await records.change_job(self._bus, job.job_id, complete)

    async def _after(self, job: Job) -> None:
        """What readers who know only the job's id expect, word of it, and the end of what is older or beside it."""
        try:
            await alias.write_alias(self._context, job)
        except errors.StereoSpotError as error:
            if error.code not in jobs.PASSING:
                raise
            # Where files cannot have two names it is a copy, for which there may be no room: the film is there.
            _log.warning("no alias yet", action="retry", job_id=job.job_id, code=error.code, detail=error.detail)
            with contextlib.suppress(errors.StereoSpotError):
                await self._store.delete(keys.film_alias(job.job_id))  # it would be an older generation's
        crash.point("assembler.alias_written")
        film = job.film.model_dump(mode="json") if job.film else None
        await operations.announce(self._bus, job, "completed", film=film)
        state = self._bus.bucket(subjects.STATE)
        for generation in range(1, job.generation):
            await self._store.delete_prefix(keys.generation_prefix(job.job_id, generation))
            for key in (subjects.state_key(job.job_id, generation), subjects.trigger_key(job.job_id, generation)):
                if await state.get(key) is not None:
                    await state.purge(key)
        await self._clear_beside(job)

    async def _clear_beside(self, job: Job) -> None:
        """Remove what a delivery stored that died before it was recorded; one that still writes removes its own.

        Listed first: while the record still is of this attempt, no film that was there is of a later one.
        """
        prefix = keys.generation_prefix(job.job_id, job.generation)
        films = [item.key async for item in self._store.list(f"{prefix}final")]
        for key in films:
            if job.film is None or key == job.film.key or keys.parse_film(key) is None:
                continue
            found = await records.get_job(self._bus, job.job_id)
            now = None if found is None else found[0]
            if now is None or (now.generation, now.attempt, now.film) != (job.generation, job.attempt, job.film):
                return  # renewed, repaired or deleted since: what lies there may be that one's
            await self._store.delete(key)

    async def _init(self, job: Job) -> bytes:
        """The header that all fragments share."""
        found = await records.get_state(self._bus, job.job_id, job.generation)
        init = found[0].init if found else None
        body = await self._store.get(keys.init(job.job_id, job.generation, init)) if init else None
        if body is None:
            raise errors.error("ASSEMBLY_FAILED", "The header of the fragments is gone. A retry makes it again.")
        return body


class Fragments:
    """The media of all segments in order, fetched a little ahead; iterated by the blocking side, in its thread."""

    def __init__(
        self, store: ObjectStore, names: Sequence[str], loop: asyncio.AbstractEventLoop, stop: threading.Event
    ) -> None:
        self._store = store
        self._stop = stop
        self._names = iter(names)
        self._loop = loop
        self._ahead: deque[tuple[str, ConcurrentFuture[bytes | None]]] = deque()

    def __iter__(self) -> Iterator[bytes]:
        try:
            while True:
                while len(self._ahead) < AHEAD and (name := next(self._names, None)) is not None:
                    fetched = asyncio.run_coroutine_threadsafe(self._store.get(name), self._loop)
                    self._ahead.append((name, fetched))
                if not self._ahead:
                    return
                name, fetched = self._ahead.popleft()
                body = self._fetched(fetched)
                if body is None:
                    raise errors.error("ASSEMBLY_FAILED", f"{name} is gone. A retry makes it again.")
                yield body
        finally:
            for _, fetched in self._ahead:
                fetched.cancel()

    def _fetched(self, fetched: ConcurrentFuture[bytes | None]) -> bytes | None:
        """What comes, unless that takes too long or nobody wants it any more."""
        deadline = time.monotonic() + FETCH_SECONDS
        while not self._stop.is_set():
            if not wait([fetched], LOOK_SECONDS).not_done:
                return fetched.result()
            if time.monotonic() > deadline:
                fetched.cancel()
                raise errors.error("STORAGE_UNAVAILABLE", f"A fragment did not come within {FETCH_SECONDS:g} s.")
        fetched.cancel()
        raise errors.error("CANCELLED")


def _hold(path: Path) -> IO[bytes]:
    """Make the file and lock it; the lock goes with the process, however that dies."""
    while True:
        file = path.open("ab")
        # Where the file system has no locks nobody gets one, and nothing is removed as left behind.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file
        file.close()  # taken for left behind in the moment before it was locked


def _clear(folder: Path) -> None:
    """Remove what killed assemblies have left: the next one may not have room beside it."""
    for path in folder.glob(f"{HELD}*"):
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError for one that lives
            path.unlink()
            size = os.fstat(file.fileno()).st_size
            _log.info("removed what a killed assembly left", action="mend", path=path.name, size_bytes=size)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
