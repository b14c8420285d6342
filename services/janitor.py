"""The janitor: finds what a crash between two writes left unfinished, and finishes it; in a healthy run it has no work.

Each check compares what is recorded with what is stored or queued, and acts only on a contradiction that no order of
events in a running system explains: it reads the record, then the queue, then the record once more. Two are safe.
A ledger keeps what the last sweep saw, so a sweep costs what changed and what is suspect, not what there is.
Retention is here too, and is counted apart: it mends nothing. A film's stream is withdrawn in the record first, which
the gateways follow; its fragments go a day later, when whoever watched has come to the end. What is left to do follows
from the record at every moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services import alias, inputs, intake, ledger, operations
from services.context import Context
from services.ledger import Calendar, Ledger
from stereospot import completion, errors, jobs, keys, log, records, subjects
from stereospot.bus import Conflict
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import DeleteWork, Trigger

_log = log.get("janitor")

SETTLED_SECONDS = 30.0
"""A record that changed within this time is left alone: whoever changed it may be about to go on."""

STALE_SECONDS = 24 * 3600.0
"""Temporary files and orphaned objects of this age belong to nobody who lives."""

LOST = "`stereospot doctor --repair` rebuilds their records."

TROUBLES = 8
"""Jobs of one round that may fail, each for a reason of its own; after that it is the storage that is away, say. They
come last at the next one."""

WATCHED_SECONDS = 24 * 3600.0
"""So long fragments outlive the withdrawal of their stream: twice the longest film that is accepted."""


@dataclass(slots=True)
class Findings:
    """What one sweep mended, by kind, with the ids; and what it removed because its time had come."""

    mended: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    expired: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, kind: str, what: str) -> None:
        self.mended.setdefault(kind, []).append(what)
        _log.warning(kind, action="mend", what=what)

    @property
    def count(self) -> int:
        return sum(map(len, self.mended.values()))


class Janitor:
    """Sweeps every `every_seconds`, and storage every `storage_seconds`."""

    def __init__(
        self,
        context: Context,
        *,
        every_seconds: float = 60.0,
        storage_seconds: float = 3600.0,
        settled_seconds: float = SETTLED_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._context = context
        self._bus = context.bus
        self._store = context.store
        self._every = every_seconds
        self._storage_every = storage_seconds
        self._settled = settled_seconds
        self._stale = stale_seconds
        self._ledger = Ledger(context.bus)
        self._failed: set[str] = set()
        """Jobs and folders that could not be seen to: they come last, behind those that can."""

    async def run(self) -> None:
        """Sweep until cancelled; what fails is tried again at the next sweep."""
        storage_at = 0.0
        while True:
            try:
                await self.sweep()
                if time.monotonic() >= storage_at:
                    # Before it may fail: it lists all that is stored.
                    storage_at = time.monotonic() + self._storage_every
                    await self.sweep_storage()
            except (errors.StereoSpotError, OSError) as error:
                _log.warning("sweep cut short", action="retry", reason=str(error))
            except Exception:  # of one odd message, say: a daemon with all its services does not end for that
                _log.exception("sweep failed", action="retry")
            await asyncio.sleep(self._every)

    async def sweep(self) -> Findings:
        """Records against queues and completion sets; returns what was mended."""
        findings = Findings()
        now = time.time()
        await self._ledger.read()
        before = now - self._settled
        queued = await ledger.queued(self._bus) if self._ledger.open else None
        suspects = [] if queued is None else list(self._ledger.suspects(queued, before))
        await self._each(self._last(suspects), lambda job_id: self._mend(findings, job_id, before))
        await self._retire(findings, now)  # before what may need room
        settled = [job_id for job_id, at in self._ledger.finished.items() if at <= before]
        await self._each(self._last(settled), lambda job_id: self._finish(findings, job_id, now - STALE_SECONDS))
        self._ledger.forget_finished()
        return findings

    # ---- records and queues -----------------------------------------------------------------------------
    async def _mend(self, findings: Findings, job_id: str, before: float) -> None:
        """Look at one job again, from its record on, and mend what is wrong."""
        found = await records.get_job(self._bus, job_id)
        if found is None or found[0].updated_at > before:
            return
        job, revision = found
        if job.phase in (Phase.CREATED, Phase.PLANNING) and not await self._is_queued("plan", job_id):
            await self._mend_plan(findings, job, revision)
        elif job.phase in (Phase.CONVERTING, Phase.ASSEMBLING):
            await self._mend_state(findings, job, revision, await self._is_queued("plan", job_id))
        elif job.phase is Phase.DELETED and not await self._is_queued("delete", job_id):
            await self._bus.publish(subjects.work("delete", job_id), DeleteWork(job_id=job_id))
            findings.add("delete", job_id)

    async def _is_queued(self, kind: subjects.WorkKind, job_id: str) -> bool:
        return bool(await ledger.subjects_in(self._bus, subjects.WORK, subjects.work(kind, job_id)))

    async def _unchanged(self, job: Job, revision: int) -> bool:
        found = await records.get_job(self._bus, job.job_id)
        return found is not None and found[1] == revision

    async def _mend_plan(self, findings: Findings, job: Job, revision: int) -> None:
        """A job that waits for a plan that nobody was asked for."""
        if not await self._unchanged(job, revision):
            return
        await operations.publish_plan(self._bus, job, again=True)
        findings.add("plan", job.job_id)

    async def _mend_state(self, findings: Findings, job: Job, revision: int, planning: bool) -> None:
        """Segments that went missing, a complete set without a trigger, a trigger that nobody followed."""
        key = subjects.state_key(job.job_id, job.generation)
        bucket = self._bus.bucket(subjects.STATE)
        entry = await bucket.get(key)
        state = completion.decode(entry.value) if entry else None
        if entry is None or state is None or state.total is None or state.attempt != job.attempt:
            done = await ledger.subjects_in(self._bus, subjects.DONE, f"{subjects.PREFIX}.done.{job.job_id}.>")
            if not planning and not done and await self._unchanged(job, revision):
                await operations.publish_plan(self._bus, job, again=True)
                findings.add("total", job.job_id)
            return
        if state.is_complete:
            await self._mend_trigger(findings, job, revision, state)
            return
        place = (job.job_id, job.generation)
        sent = (await ledger.sent(self._bus, subjects.convert_filter(job_id=job.job_id))).get(place, 0)
        done = (await ledger.reported(self._bus, f"{subjects.PREFIX}.done.{job.job_id}.>"))[1].get(place, 0)
        lost = list(completion.bits(state.sent & ~state.done & ~sent & ~done))
        after = await bucket.get(key)
        if not lost or after is None or after.revision != entry.revision or not await self._unchanged(job, revision):
            return
        try:
            # Of the value that was just read: one that is kept from the sweep before would miss what was sent since.
            await bucket.update(key, completion.encode(state.with_reoffer(lost)), after.revision)
        except Conflict:
            return
        findings.add("segments", f"{job.job_id}.{job.generation}: {lost[:20]}")

    async def _mend_trigger(self, findings: Findings, job: Job, revision: int, state: Completion) -> None:
        bucket = self._bus.bucket(subjects.STATE)
        key = subjects.trigger_key(job.job_id, job.generation)
        entry = await bucket.get(key)
        body = Trigger(job_id=job.job_id, generation=job.generation, total=state.total or 0, attempt=state.attempt)
        if entry is not None and _attempt_of(entry.value) == state.attempt:
            info = await self._bus.consumer_info(subjects.kv_stream(subjects.STATE), "assembler")
            if entry.revision > int(info["ack_floor"]["stream_seq"]) or not await self._unchanged(job, revision):
                return  # still waiting for its assembler, or in its hands
            kind = "assembly"
        else:
            kind = "trigger"
        try:
            # A marker of an earlier trigger is no trigger: `create` writes over it.
            await (bucket.create(key, body) if entry is None else bucket.update(key, body, entry.revision))
        except Conflict:
            return
        findings.add(kind, f"{job.job_id}.{job.generation}")

    # ---- storage ----------------------------------------------------------------------------------------
    async def _finish(self, findings: Findings, job_id: str, before: float) -> None:
        """See that a finished job has its alias, unless it needs none; what fails is seen to at the next sweep."""
        if self._ledger.finished[job_id] > before:
            await self._mend_alias(findings, job_id)
        self._ledger.finished.pop(job_id, None)

    async def _mend_alias(self, findings: Findings, job_id: str) -> None:
        """Once a film, soon after its end: the alias that readers expect who know only the job's id."""
        found = await records.get_job(self._bus, job_id)
        job = found[0] if found else None
        if job is None or job.phase is not Phase.COMPLETED or job.film is None or job.film.container != "mp4":
            return
        present = await self._store.head(keys.film_alias(job.job_id))
        if present is not None and present.size == job.film.size_bytes:
            return
        if not await self._has_film(job, "mend"):
            return
        await alias.write_alias(self._context, job)
        findings.add("alias", job.job_id)

    async def _retire(self, findings: Findings, now: float) -> None:
        """Samples and streams whose time is over; what cannot be done now comes again, and stops nothing else."""
        before = now - self._context.settings.keep_fragments_days * 86400
        await self._due(self._ledger.aging, before, lambda job_id: self._expire(findings, job_id, before, now))
        watched = now - WATCHED_SECONDS
        await self._due(self._ledger.withdrawn, watched, lambda job_id: self._clear(findings, job_id, watched))

    async def _due(self, calendar: Calendar, before: float, see_to: Callable[[str], Awaitable[None]]) -> None:
        """See to what is due; what fails comes again behind all that is due now."""
        for job_id in await self._each((job_id for _, job_id in calendar.due(before)), see_to):
            calendar.add(before, job_id)

    async def _each(self, names: Iterable[str], see_to: Callable[[str], Awaitable[None]]) -> list[str]:
        """See to each, a job or a folder of one; returns those that failed, of which TROUBLES end this round."""
        failed: list[str] = []
        for name in names:
            try:
                with _readable(name):
                    await see_to(name)
                self._failed.discard(name)
            except Exception as error:  # whatever it is, it is this one's
                _log.warning("kept for now", action="retry", what=name, reason=repr(error))
                failed.append(name)
                if len(failed) >= TROUBLES:
                    break
        self._failed.update(failed)
        return failed

    def _last(self, names: Iterable[str]) -> list[str]:
        """In their order, but for those that failed when they were last seen to."""
        return sorted(names, key=self._failed.__contains__)

    async def _expire(self, findings: Findings, job_id: str, before: float, now: float) -> None:
        """Withdraw the stream of a film that was finished long ago: it plays from its file then. Samples go whole."""
        found = await records.get_job(self._bus, job_id)
        job = found[0] if found else None
        if job is None or job.is_active or job.phase is Phase.DELETED or job.updated_at > before:
            return  # renewed in the meantime
        if job.options.samples is not None:
            await operations.delete(self._bus, job_id)
            findings.expired["samples"] = findings.expired.get("samples", 0) + 1
            return
        if jobs.withdraw_stream(job, at=now, before=before) is None or not await self._has_film(job, "keep"):
            return
        await records.change_job(self._bus, job_id, lambda job: jobs.withdraw_stream(job, at=now, before=before))
        findings.expired["streams"] = findings.expired.get("streams", 0) + 1

    async def _clear(self, findings: Findings, job_id: str, before: float) -> None:
        """Remove the fragments of a stream that was withdrawn a while ago, then say that they are gone."""
        found = await records.get_job(self._bus, job_id)
        if found is None or not jobs.is_clearable(found[0], before=before):
            return
        job = found[0]
        if not await self._has_film(job, "keep"):
            return
        for prefix_of in (keys.segments_prefix, keys.audio_prefix):
            removed = await self._store.delete_prefix(prefix_of(job.job_id, job.generation))
            findings.expired["fragments"] = findings.expired.get("fragments", 0) + removed

        def cleared(found: Job) -> Job | None:
            if found.generation != job.generation or found.film is None or not jobs.is_clearable(found, before=before):
                return None
            return found.model_copy(update={"film": found.film.model_copy(update={"stream_cleared": True})})

        await records.change_job(self._bus, job_id, cleared)

    async def _has_film(self, job: Job, action: str) -> bool:
        """Whether the film's file is there, whole: where it is not, its fragments are all that there is of it."""
        assert job.film is not None
        present = await self._store.head(job.film.key)
        if present is not None and present.size == job.film.size_bytes:
            return True
        size = present.size if present else None
        _log.error("film missing", action=action, job_id=job.job_id, key=job.film.key, size_bytes=size)
        return False

    async def sweep_storage(self) -> Findings:
        """Temporary files of dead writers, and objects whose job is gone; both only when they are old."""
        findings = Findings()
        uploads, growing = await intake.sweep(self._store, self._stale)
        findings.expired["uploads"] = uploads
        removed = await asyncio.to_thread(_remove_old, self._context.settings.data_dir / "scratch", self._stale)
        try:
            removed += await self._store.sweep(self._stale, keep=growing)
        except errors.StereoSpotError as error:
            # A bucket may be one where uploads may not be listed: nothing else needs that right.
            _log.warning("unfinished uploads are kept for now", action="retry", reason=str(error))
        if removed:
            findings.add("temporary", str(removed))
        before = time.time() - self._stale
        await self._ledger.read()
        known = self._ledger.known
        orphans: set[str] = set()
        for top in ("input", "jobs"):
            async for prefix, modified in self._folders(top):
                job_id = prefix.split("/")[1]
                if job_id not in known and modified < before:
                    orphans.add(prefix)
        lost: set[str] = set()

        async def remove(prefix: str) -> None:
            job_id = prefix.split("/")[1]
            used = prefix.startswith("input/") and await inputs.is_used(self._bus, self._store, job_id)
            if used or await records.get_job(self._bus, job_id) is not None:
                return
            if await inputs.is_lost(self._bus, self._store, job_id):
                lost.add(job_id)  # its record can be rebuilt from what lies here
                return
            await self._store.delete_prefix(prefix)
            findings.add("orphan", prefix)

        await self._each(self._last(sorted(orphans)), remove)
        if lost:
            _log.error("jobs without a record", action="keep", count=len(lost), job_ids=sorted(lost)[:20], advice=LOST)
        return findings

    async def _folders(self, top: str) -> AsyncIterator[tuple[str, float]]:
        """`input/{job}/` or `jobs/{job}/` of every job that has objects, with its newest change."""
        present: tuple[str, float] | None = None
        async for item in self._store.list(f"{top}/"):
            parts = item.key.split("/")
            if len(parts) < 3:
                continue
            prefix = f"{parts[0]}/{parts[1]}/"
            if present is not None and present[0] != prefix:
                yield present
                present = None
            present = (prefix, max(item.modified, present[1] if present else 0.0))
        if present is not None:
            yield present


def _attempt_of(trigger: bytes) -> int | None:
    """The attempt that a trigger is of; None for what is none."""
    try:
        return Trigger.model_validate_json(trigger).attempt
    except ValidationError:
        return None


@contextlib.contextmanager
def _readable(what: str) -> Generator[None]:
    """Look at one job; one whose record is of a newer version is left to a janitor of that."""
    try:
        yield
    except errors.Misconfigured as error:
        if error.code != "RECORD_UNREADABLE":
            raise
        _log.warning("unreadable record", action="refuse", what=what, reason=error.detail)


def _remove_old(folder: Path, older_than_seconds: float) -> int:
    """Remove what dead processes left in scratch: films, a remote's folders; returns how many."""
    removed = 0
    before = time.time() - older_than_seconds
    entries: list[Any] = list(folder.iterdir()) if folder.is_dir() else []
    for path in entries:
        try:
            if path.stat().st_mtime >= before:
                continue
        except FileNotFoundError:
            continue  # its owner was quicker
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed += 1
    return removed
