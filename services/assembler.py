"""The assembler: one trigger an attempt in, one recorded film out.

    $KV.state.trigger.<job>.<gen> ─> job assembling ─> scratch file, verified ─> stored ─> job completed {film} ─> alias

The trigger may come twice and an assembler may sleep through its lease: the film counts by the compare-and-set that
completes the job and names key and hash. The first delivery of a first attempt writes the plain key; every later one
writes under a name made of the film's hash, so nobody who wakes up late can put other bytes under a recorded key.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from stereospot.media.probe import Limits

from services import operations, plans, reports, sources, space
from services.context import Context
from services.watch import Threads, is_wanted, watching
from stereospot import crash, errors, jobs, keys, log, records
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.media import assemble as joining
from stereospot.media.model import Plan, PlanTotal
from stereospot.messages import Failure, Film, Trigger
from stereospot.outcome import Ack, Outcome, Reject, Retry

_log = log.get("assembler")

crash.declare(
    "assembler.begun", "assembler.written", "assembler.film_stored", "assembler.completed", "assembler.alias_written",
)  # fmt: skip

PHASES = frozenset({Phase.CONVERTING, Phase.ASSEMBLING})


class Assembler:
    """Handles triggers; one film a slot."""

    def __init__(self, context: Context, *, slots: int = 1) -> None:
        self._context = context
        self._bus = context.bus
        self._store = context.store
        self._plans = plans.Plans(context.store)
        self._threads = Threads(slots, "assemble")
        self._limits = Limits.of(context.settings)
        self._scratch = context.settings.data_dir / "scratch"

    def close(self) -> None:
        self._threads.close()

    async def handle(self, delivery: Delivery) -> Outcome:
        """Make, store and record the film of a complete generation."""
        if delivery.is_marker:
            return Ack("marker")
        try:
            trigger = delivery.parse(Trigger)
        except ValidationError as error:
            return Reject(Failure.of(errors.error("INVALID_REQUEST", str(error))))
        job = await self._begin(trigger)
        if job is None:
            return Ack("stale")
        if job.phase is Phase.COMPLETED:
            await self._after(job)
            return Ack("completed already")
        if job.phase is not Phase.ASSEMBLING:
            return Retry(delay_seconds=1.0, reason=f"the job is {job.phase}")
        crash.point("assembler.begun")
        head = await self._plans.head(job.job_id, job.generation)
        total = await self._plans.total(job.job_id, job.generation)
        if head is None or total is None:
            return Retry(reason="the plan is not readable")
        plain = delivery.attempt == 1 and trigger.attempt == 1
        try:
            await self._make(job, head, total, plain=plain)
        except errors.StereoSpotError as error:
            if error.code == "CANCELLED":
                return Ack("cancelled")
            raise
        return Ack()

    async def reject(self, delivery: Delivery, failure: Failure) -> None:
        """No film: the job fails with the reason; a retry assembles again from the stored fragments."""
        try:
            trigger = delivery.parse(Trigger)
        except ValidationError:
            return
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
    async def _make(self, job: Job, head: Plan, total: PlanTotal, *, plain: bool) -> None:
        await space.check_folder(self._scratch, space.film_bytes(head.source, head.encode.crf))
        path = self._scratch / f"{job.job_id}-{job.generation}-{secrets.token_hex(4)}.{head.container}"
        try:
            async with watching(self._bus, job.job_id, job.generation, PHASES, attempt=job.attempt) as stop:
                source = await sources.open_source(self._store, job.source)
                try:
                    fragments = await self._fragments(job, total)
                    report = await self._threads.run(
                        joining.assemble, head, total, fragments, source, path, limits=self._limits, stop=stop
                    )
                finally:
                    await asyncio.to_thread(source.close)
                crash.point("assembler.written")
                key = keys.film(job.job_id, job.generation, head.container)
                if not plain:
                    key = keys.film_again(job.job_id, job.generation, report.sha256, head.container)
                await self._store.put_file(key, path, move=True)
            crash.point("assembler.film_stored")
        finally:
            await asyncio.to_thread(_remove, path)
        film = Film(
            key=key,
            sha256=report.sha256,
            size_bytes=report.size_bytes,
            frames=report.frames,
            duration_seconds=report.duration_seconds,
            container=head.container,
            file_name=reports.file_name(job, head),
        )
        comfort = await reports.collect(self._store, job, total)
        done = await self._record(job, head, film, comfort, report.warnings)
        crash.point("assembler.completed")
        if done.film is None or done.film.key != key:
            # Cancelled, renewed, or recorded by another delivery in the meantime: this copy is nobody's.
            await self._store.delete(key)
            return
        await self._after(done)
        await operations.announce(self._bus, done, "completed", film=film.model_dump(mode="json"))
        _log.info("completed", action="done", job_id=job.job_id, generation=job.generation, frames=film.frames)

    async def _record(self, job: Job, head: Plan, film: Film, comfort: dict[str, Any], warnings: Any) -> Job:
        """The compare-and-set that makes this the film."""

        def complete(found: Job) -> Job | None:
            if not is_wanted(found, job.generation, {Phase.ASSEMBLING}, job.attempt):
                return None
            for warning in warnings:
                found = found.with_warning(warning.code, warning.text)
            return jobs.advance(
                found, Phase.COMPLETED, at=time.time(), film=film, report=comfort, failure=None,
                engine=comfort.get("engine") or {"name": head.stereo.engine, "model": head.stereo.model},
            )  # fmt: skip

        return await records.change_job(self._bus, job.job_id, complete)

    async def _after(self, job: Job) -> None:
        """What readers who know only the job's id expect; and the end of older generations."""
        await write_alias(self._context, job)
        crash.point("assembler.alias_written")
        for generation in range(1, job.generation):
            await self._store.delete_prefix(keys.generation_prefix(job.job_id, generation))

    async def _fragments(self, job: Job, total: PlanTotal) -> Any:
        """Where the fragments are, in order, for the child that joins them."""
        found = await records.get_state(self._bus, job.job_id, job.generation)
        if found is None or found[0].init is None:
            raise errors.error("ASSEMBLY_FAILED", "The completion set is gone.")
        raise NotImplementedError


async def write_alias(context: Context, job: Job) -> None:
    """Make `jobs/{job}/final.mp4` the recorded film, where that is an mp4."""
    if job.film is not None and job.film.container == "mp4":
        with contextlib.suppress(errors.Permanent):  # deleted in the meantime
            await context.store.copy(job.film.key, keys.film_alias(job.job_id))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
