"""A KV bucket over its stream: `$KV.<bucket>.<key>` in `KV_<bucket>`.

nats-py's own KV is not used: its `get` and `create` trip over the markers of expired keys, and its `update` has no id
that would make a retry after a timeout harmless.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stereospot import crash, subjects
from stereospot.bus import api
from stereospot.bus.api import Conflict, Stored
from stereospot.messages import Message

if TYPE_CHECKING:
    from stereospot.bus.connection import Bus

crash.declare("bucket.before_write", "bucket.after_write", "bus.in_commit")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's present value; `revision` is what an update must name, and the ETag of the resource. A revision has its
    headers, and, read where they may be stale, a few of the server's."""

    key: str
    value: bytes
    revision: int
    created: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)


@dataclass(frozen=True, slots=True)
class Write:
    """One write of an atomic batch; expected_revision 0: the key must not exist, None: whatever is there."""

    bucket: str
    key: str
    value: bytes
    expected_revision: int | None = None

    @property
    def subject(self) -> str:
        return subjects.kv_subject(self.bucket, self.key)

    @property
    def expectation(self) -> dict[str, str]:
        return expectation(self.expected_revision)


def expectation(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"Nats-Expected-Last-Subject-Sequence": str(revision)}


class Bucket:
    """One KV bucket. Reads go to the leader unless `stale` is said to be fine (a follower may answer then)."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self.name = name
        self.stream = subjects.kv_stream(name)

    async def get(self, key: str, *, stale: bool = False) -> Entry | None:
        """The entry, or None when the key is absent, deleted or expired."""
        found = await self._last(key, stale=stale)
        return None if found is None or found.is_marker else self._entry(found)

    async def create(
        self,
        key: str,
        value: Message | bytes,
        *,
        ttl_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Write a key that must be absent; returns its revision, raises Conflict when it is there."""
        try:
            return await self.update(key, value, 0, ttl_seconds=ttl_seconds, headers=headers)
        except Conflict:
            found = await self._last(key)
            if found is None or not found.is_marker:
                raise
        return await self.update(key, value, found.sequence, ttl_seconds=ttl_seconds, headers=headers)

    async def update(
        self,
        key: str,
        value: Message | bytes,
        revision: int,
        *,
        ttl_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Write if the key's revision is `revision`; returns the new one, raises Conflict when it is another.

        BROKER_UNAVAILABLE leaves open whether it was written: read again. `headers` are read back with the entry; a
        later write without them drops them.
        """
        return await self._write(key, value, {**(headers or {}), **expectation(revision)}, ttl_seconds)

    async def put(self, key: str, value: Message | bytes, *, ttl_seconds: int | None = None) -> int:
        """Write whatever is there; `ttl_seconds` (whole, at least 1) needs a bucket with `allow_msg_ttl`."""
        return await self._write(key, value, {}, ttl_seconds)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Leave a delete marker; no-op in effect when the key is absent."""
        await self._write(key, b"", {"KV-Operation": "DEL", **expectation(revision)}, None)

    async def purge(self, key: str) -> None:
        """Remove the key and its history; a purge marker stays until the bucket's limits drop it."""
        await self._write(key, b"", {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}, None)

    async def keys(self, prefix: str = "") -> list[str]:
        """Names of present keys below `prefix` (whole tokens: `state` or `state.`), in order of revision."""
        return [entry.key for entry in await self.entries(prefix)]

    async def entries(self, prefix: str = "") -> list[Entry]:
        """Present entries below `prefix`, in order of revision; on a cluster it may lag by some milliseconds."""
        tokens = prefix.strip(".")
        pattern = subjects.kv_subject(self.name, f"{tokens}.>" if tokens else ">")
        found = await self._bus.last_per_subject(self.stream, pattern)
        return [self._entry(item) for item in found if not item.is_marker]

    def key_of(self, subject: str) -> str:
        """The key that a subject of this bucket names."""
        return subject.removeprefix(subjects.kv_subject(self.name, ""))

    def _entry(self, found: Stored) -> Entry:
        return Entry(self.key_of(found.subject), found.data, found.sequence, found.timestamp, found.headers)

    async def _last(self, key: str, *, stale: bool = False) -> Stored | None:
        subject = subjects.kv_subject(self.name, key)
        if stale:
            return await self._bus.direct_last(self.stream, subject)
        return await self._bus.last(self.stream, subject)

    async def _write(
        self, key: str, value: Message | bytes, headers: Mapping[str, str], ttl_seconds: int | None
    ) -> int:
        crash.point("bucket.before_write")
        write = Write(self.name, key, value if isinstance(value, bytes) else value.body())
        identity = uuid.uuid4().hex
        named: dict[str, str] = dict(headers)
        if ttl_seconds is not None:
            named["Nats-TTL"] = f"{max(1, int(ttl_seconds))}s"
        try:
            revision = await self._bus.publish(write.subject, write.value, msg_id=identity, headers=named)
        except Conflict as problem:
            revision = await own_revision(self._bus, write, identity, problem)
        crash.point("bucket.after_write")
        return revision


def part_id(identity: str, number: int) -> str:
    """The message id of one write of a commit."""
    return f"{identity}.{number}"


async def own_revision(bus: Bus, write: Write, msg_id: str, problem: Conflict) -> int:
    """The revision of `write` if the conflict is with the call's own unanswered try; else raises the conflict again.

    The server looks at expectations before it looks at message ids, so a retry of a write that landed is a conflict.
    """
    if problem.unsure:
        found = await bus.last(subjects.kv_stream(write.bucket), write.subject)
        if found is not None and found.headers.get("Nats-Msg-Id") == msg_id:
            return found.sequence
    raise problem


async def commit_once(bus: Bus, writes: list[Write], identity: str, *, timeout: float) -> dict[str, Any]:
    """Send one atomic batch; the last message commits and its answer speaks for all of them."""
    batch = uuid.uuid4().hex
    for number, write in enumerate(writes, 1):
        headers = {
            "Nats-Batch-Id": batch,
            "Nats-Batch-Sequence": str(number),
            "Nats-Msg-Id": part_id(identity, number),
            **write.expectation,
        }
        if number < len(writes):
            await bus.nc.publish(write.subject, write.value, headers=headers)
            crash.point("bus.in_commit")
        else:
            headers["Nats-Batch-Commit"] = "1"
            answer = await bus.ask(write.subject, write.value, timeout=timeout, headers=headers)
            return api.check(answer.data)
    raise ValueError("a commit needs at least one write")
