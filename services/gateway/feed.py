"""What every open page hears: one text a change, made once and sent by as many streams as there are.

    index ──dirty jobs──> Feed.run ──[a text]──> ring ──> stream, stream, stream …

A stream remembers how much of the feed it has sent, and nothing else. One whose client is slow finds, once that has
taken what it got, either the texts in between or, if they are gone, an `open`: on that a client reads its list again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncGenerator

import nats.errors

from services.gateway.index import Watch
from services.gateway.snapshots import Snapshots, event
from services.gateway.state import Gateway
from stereospot import errors, log
from stereospot.jobs import Phase

_log = log.get("gateway")

GATHER_SECONDS = 0.2
RETRY_MILLISECONDS = 1000
KEPT = 64
OPEN = f"retry: {RETRY_MILLISECONDS}\nevent: open\ndata: {{}}\n\n".encode()


class Feed:
    """Run `run()` in a task group; `texts()` is one stream's part of it."""

    def __init__(self, gateway: Gateway, snapshots: Snapshots, *, keepalive_seconds: float = 15.0) -> None:
        self._gateway = gateway
        self._snapshots = snapshots
        self._keepalive_seconds = keepalive_seconds
        self._ring: deque[bytes] = deque(maxlen=KEPT)
        self._published = 0
        self._more = asyncio.Event()
        self._counts = b""
        self._streams = 0
        self._ended = False

    async def run(self) -> None:
        """Publish until the gateway stops."""
        try:
            with self._gateway.index.watch() as watch:
                while not self._gateway.stopping.is_set():
                    await self._step(watch)
        finally:
            self._ended = True
            self._wake()

    async def _step(self, watch: Watch) -> None:
        dirty = await watch.wait(self._keepalive_seconds)
        if not dirty:
            self.publish(b": keepalive\n\n")
            return
        await asyncio.sleep(GATHER_SECONDS)
        dirty |= watch.take()
        if self._streams == 0:
            self._counts = b""  # counted again for the next one
            return
        try:
            self.publish(await self._text(dirty))
        except (errors.Transient, nats.errors.Error) as problem:
            _log.warning("feed waits", action="retry", reason=str(problem))
            await asyncio.sleep(0.5)
            self.publish(OPEN)  # what was to be told is read instead

    async def _text(self, dirty: set[str]) -> bytes:
        """The events of these jobs, and the counts if they are others now."""
        parts: list[bytes] = []
        for job_id in dirty:
            try:
                found = await self._snapshots.get(job_id)
            except errors.Misconfigured as problem:
                if problem.code != "RECORD_UNREADABLE":
                    raise
                _log.warning("not told", action="refuse", job_id=job_id, code=problem.code)
                continue  # the others' pages go on
            if found is None or found[2].job.phase is Phase.DELETED:
                parts.append(event("deleted", "d", json.dumps({"job_id": job_id}).encode()))
            else:
                parts.append(event("job", found[0], found[1]))
        counts = await self._count()
        if counts != self._counts:
            self._counts = counts
            parts.append(counts)
        return b"".join(parts)

    async def _count(self) -> bytes:
        return event("counts", "c", json.dumps(await self._gateway.index.counts()).encode())

    def publish(self, text: bytes) -> None:
        """Have every stream send `text`."""
        self._ring.append(text)
        self._published += 1
        self._wake()

    def _wake(self) -> None:
        more, self._more = self._more, asyncio.Event()
        more.set()

    async def texts(self) -> AsyncGenerator[bytes]:
        """One stream: how things are, then every change."""
        self._streams += 1
        try:
            if not self._counts:
                self._counts = await self._count()
            seen = self._published
            yield OPEN + self._counts
            while not self._ended:
                missing = self._published - seen
                if missing == 0:
                    await self._more.wait()
                    continue
                seen = self._published
                if missing <= len(self._ring):
                    yield b"".join(itertools.islice(self._ring, len(self._ring) - missing, None))
                else:
                    yield OPEN + self._counts
        finally:
            self._streams -= 1
