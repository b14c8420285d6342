"""Compare-and-set on completion sets, and the one reassembly trigger of an attempt in the same atomic batch.

    change(completion) ─> state.<job>.<generation> [+ trigger.<job>.<generation>]   one commit, or nothing

The value last written is kept with its revision, so a busy job costs one round trip a change. Keeping it is safe: the
commit names the revision, and a conflict reads again. Tails of the bucket may add what another process wrote.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stereospot import completion, crash, errors, log, subjects
from stereospot.bus import Bus, Conflict, Write
from stereospot.completion import Completion
from stereospot.messages import Trigger

_log = log.get("collector")

crash.declare("state.before_commit", "state.after_commit")

CONFLICT_PAUSE_SECONDS = 0.003
"""Upper bound of the random pause after the first conflict; it doubles up to 64 times that."""

CONFLICTS = 12
"""A change that loses so often, for most of a second, does not lose to another collector: it is given back, so that
the changes of other jobs do not wait for it."""


def trigger_due(before: Completion | None, after: Completion) -> bool:
    """Whether this change completes the set, or a retry begins on a complete one: then, and only then, one trigger."""
    if not after.is_complete:
        return False
    return before is None or not before.is_complete or after.attempt > before.attempt


@dataclass(slots=True)
class Known:
    """A completion set as it is stored under `revision`."""

    completion: Completion
    revision: int


class States:
    """The completion sets that this process works on; `on_change` hears of every newer value."""

    def __init__(self, bus: Bus, on_change: Callable[[Completion], None] | None = None) -> None:
        self._bus = bus
        self._bucket = bus.bucket(subjects.STATE)
        self._known: dict[str, Known] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._on_change = on_change
        self.conflicts = 0

    async def change(
        self,
        job_id: str,
        generation: int,
        apply: Callable[[Completion], Completion],
        *,
        create: Callable[[], Awaitable[bool]] | None = None,
    ) -> Completion | None:
        """Apply a pure change until it is stored; returns the stored value, or None if there is no such set.

        create: asked whether a set that is not there may be begun; without it, it may not.
        Raises Transient when the broker is away, or the value is never the one that was read: whether the change was
        stored is then unknown, and repeating it safe.
        """
        key = subjects.state_key(job_id, generation)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            try:
                return await self._change(key, job_id, generation, apply, create)
            except BaseException:
                self._known.pop(key, None)
                raise
            finally:
                if key not in self._known:
                    self._locks.pop(key, None)

    async def _change(
        self,
        key: str,
        job_id: str,
        generation: int,
        apply: Callable[[Completion], Completion],
        create: Callable[[], Awaitable[bool]] | None,
    ) -> Completion | None:
        pause = CONFLICT_PAUSE_SECONDS
        for _ in range(CONFLICTS):
            known = self._known.get(key) or await self._read(key)
            if known is None and (create is None or not await create()):
                return None
            before = known.completion if known else None
            after = apply(before or Completion(job_id=job_id, generation=generation))
            if before is not None and after is before:
                return before
            try:
                revision = await self._commit(key, before, after, known.revision if known else 0)
            except Conflict:
                self.conflicts += 1
                self._known.pop(key, None)
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(pause * 2, CONFLICT_PAUSE_SECONDS * 64)
                continue
            self._keep(key, Known(after, revision))
            return after
        raise errors.error("BROKER_UNAVAILABLE", f"The set {key} changed faster than it could be written.")

    async def _commit(self, key: str, before: Completion | None, after: Completion, revision: int) -> int:
        crash.point("state.before_commit")
        value = completion.encode(after)
        if not trigger_due(before, after):
            stored = (
                await self._bucket.update(key, value, revision) if revision else await self._bucket.create(key, value)
            )
        else:
            trigger = subjects.trigger_key(after.job_id, after.generation)
            body = Trigger(
                job_id=after.job_id, generation=after.generation, total=after.total or 0, attempt=after.attempt
            )
            stored, _ = await self._bus.commit(
                [
                    Write(subjects.STATE, key, value, revision or await self._last(key, vacant=True)),
                    # Whatever is there is of an earlier attempt: the set, which is written with it, is what counts.
                    Write(subjects.STATE, trigger, body.body(), await self._last(trigger)),
                ]
            )
            _log.info("complete", action="trigger", job_id=after.job_id, generation=after.generation, total=after.total)
        crash.point("state.after_commit")
        return stored

    async def _last(self, key: str, *, vacant: bool = False) -> int:
        """The sequence that a write of this key has to name: a marker, which a purge leaves for ever, counts too.

        vacant: the key was not there; raises Conflict when it is by now.
        """
        found = await self._bus.last(self._bucket.stream, subjects.kv_subject(subjects.STATE, key))
        if vacant and found is not None and not found.is_marker:
            raise Conflict(f"{key} is there.")
        return 0 if found is None else found.sequence

    async def _read(self, key: str) -> Known | None:
        entry = await self._bucket.get(key)
        if entry is None:
            return None
        known = Known(completion.decode(entry.value), entry.revision)
        self._keep(key, known)
        return known

    # ---- what others wrote ------------------------------------------------------------------------------
    def observe(self, key: str, value: bytes, revision: int) -> None:
        """Take over a value that a tail of the bucket delivers, unless it is known already."""
        known = self._known.get(key)
        if known is None or known.revision < revision:
            self._keep(key, Known(completion.decode(value), revision))

    def forget(self, key: str) -> None:
        """The key was purged."""
        self._known.pop(key, None)

    def get(self, job_id: str, generation: int) -> Completion | None:
        """What is known here, without asking the broker."""
        known = self._known.get(subjects.state_key(job_id, generation))
        return known.completion if known else None

    def _keep(self, key: str, known: Known) -> None:
        older = self._known.get(key)
        if older is not None and older.revision > known.revision:
            return  # a tail has brought a newer value in the meantime
        self._known[key] = known
        if self._on_change is not None:
            self._on_change(known.completion)
        if known.completion.is_complete:
            # What follows a complete set are duplicates; they may read it again.
            self._known.pop(key, None)
