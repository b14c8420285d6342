"""A stream's messages in order, from a sequence on, across restarts of the broker.

Built on an ephemeral PULL consumer that is made anew from the last sequence + 1 whenever anything was lost: nats-py's
ordered consumers (and `kv.watch`) are silent for 20 s after a broker restart, this one goes on as soon as the
connection is back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal

import nats.errors

from stereospot import errors, log
from stereospot.bus.api import Refused, Stored
from stereospot.bus.pull import Puller, PullError, Received

if TYPE_CHECKING:
    from stereospot.bus.connection import Bus

__all__ = ["Start", "Stored", "Tail", "last_per_subject", "read"]

_log = log.get("bus")

Start = int | Literal["new", "all", "last"]
"""A stream sequence, what comes from now on, everything, or the last message of every subject and then the news."""

_INACTIVE_SECONDS = 60
"""How long the server keeps a consumer whose reader is gone."""

_EXPIRES_SECONDS = 5.0
_BATCH = 256


async def _create(bus: Bus, stream: str, pattern: str, start: Start) -> dict[str, Any]:
    """Make the ephemeral consumer; returns the server's answer (`name`, `num_pending`)."""
    config: dict[str, Any] = {
        "ack_policy": "none",
        "replay_policy": "instant",
        "filter_subject": pattern,
        "inactive_threshold": _INACTIVE_SECONDS * 10**9,
        "mem_storage": True,
        "num_replicas": 1,
        "max_waiting": 16,
    }
    if isinstance(start, int):
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, start)}
    else:
        config["deliver_policy"] = "last_per_subject" if start == "last" else start
    return await bus.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})


async def _delete(bus: Bus, stream: str, name: str) -> None:
    """Best effort: the server drops an unused consumer by itself after a minute."""
    try:
        await bus.api(f"CONSUMER.DELETE.{stream}.{name}", patience_seconds=1.0)
    except (Refused, errors.StereoSpotError, nats.errors.Error) as problem:
        _log.debug("consumer left to expire", action="stop", stream=stream, reason=str(problem))


async def last_per_subject(bus: Bus, stream: str, pattern: str, *, timeout: float = 15.0) -> list[Stored]:
    """The last message of every subject that matches, in order of sequence; raises BROKER_UNAVAILABLE."""
    return _newest(await _read(bus, stream, pattern, "last", None, timeout))


async def read(
    bus: Bus, stream: str, pattern: str = ">", *, start: int = 1, end: int | None = None, timeout: float = 15.0
) -> list[Stored]:
    """What is there now from one sequence to another, which is not read, in order; raises BROKER_UNAVAILABLE.

    A tail waits for what it was told of; this does not, where that is removed in the meantime.
    """
    return await _read(bus, stream, pattern, start, end, timeout)


async def _read(bus: Bus, stream: str, pattern: str, start: Start, end: int | None, timeout: float) -> list[Stored]:
    """One whole reading; begun anew where something was lost on the way, or was removed before it came."""
    deadline = time.monotonic() + timeout
    pause = 0.02
    while True:
        try:
            found = await _read_once(bus, stream, pattern, start, end)
            if found is not None:
                return found
            said = "messages were lost on the way"
        except Refused as problem:
            if not problem.is_temporary:
                raise
            said = str(problem)
        except (PullError, errors.Transient) as problem:
            said = str(problem)
        if time.monotonic() + pause > deadline:
            raise errors.error("BROKER_UNAVAILABLE", f"{stream} could not be read: {said}")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


async def _read_once(bus: Bus, stream: str, pattern: str, start: Start, end: int | None) -> list[Stored] | None:
    """One reading through an ephemeral consumer; None when something that it was told of did not come."""
    created = await _create(bus, stream, pattern, start)
    name = str(created["name"])
    found: list[Stored] = []
    puller = Puller(bus, stream, name)
    await puller.open()
    try:
        pending = int(created.get("num_pending", 0))
        at = start if isinstance(start, int) else 1
        while pending and (end is None or at < end):
            batch = await puller.take(_BATCH if end is None else min(_BATCH, end - at))
            found += map(_stored, batch)
            if not batch or batch[-1].delivery.consumer_sequence != len(found):
                return None
            pending, at = batch[-1].delivery.pending, found[-1].sequence + 1
        return [item for item in found if end is None or item.sequence < end]
    finally:
        await puller.close()
        await _delete(bus, stream, name)


def _newest(found: list[Stored]) -> list[Stored]:
    """A subject that was written during the read comes twice: keep its last."""
    newest = {item.subject: item for item in found}
    return sorted(newest.values(), key=lambda item: item.sequence)


class Tail:
    """Iterate over a stream's messages in order; never ends by itself, and waits while the broker is away.

    `caught_up` is set once everything that was there at the start has been handed out AND the reader has come back for
    more; `sequence` is that of the last message handed out, good as `start=sequence + 1` for a later tail.
    """

    def __init__(self, bus: Bus, stream: str, pattern: str, start: Start) -> None:
        self._bus = bus
        self._stream = stream
        self._pattern = pattern
        self._start: Start = start
        self._puller: Puller | None = None
        self._expected = 1
        self._lost = False
        self._pending: int | None = None
        self._unlisten = bus.listen(self._on_change)
        self.sequence = 0
        self.caught_up = asyncio.Event()

    async def __aenter__(self) -> Tail:
        """Open the consumer, so that "new" means from here on; raises BROKER_UNAVAILABLE or Refused."""
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> Stored:
        pause = 0.05
        while True:
            if self._bus.is_closed:
                raise StopAsyncIteration
            try:
                message = await self._next()
            except (PullError, Refused, errors.StereoSpotError, nats.errors.Error) as problem:
                if not isinstance(problem, PullError):
                    _log.warning("tail interrupted", action="retry", stream=self._stream, reason=str(problem))
                self._lost = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            if message is not None:
                self.sequence = message.sequence
                self._pending = message.pending
                return message

    @property
    def pending(self) -> int:
        """How many messages are still to come, as far as the server has said; 0 before the first look."""
        return self._pending or 0

    async def close(self) -> None:
        """Give the consumer back; safe to call twice."""
        self._unlisten()
        puller = await self._drop()
        if puller is not None and self._bus.is_connected:  # a server that is away forgets it by itself
            await _delete(self._bus, self._stream, puller.consumer)

    async def _next(self) -> Stored | None:
        if self._lost or self._puller is None:
            await self._reopen()
        puller = self._puller
        assert puller is not None
        if not puller.held:
            if self._pending == 0:
                self.caught_up.set()
            if not await puller.wait(_EXPIRES_SECONDS, _BATCH):
                return None
        received = puller.held.popleft()
        if self._lost or received.delivery.consumer_sequence != self._expected:
            self._lost = True  # one was lost on the way: no acks here, so nothing would bring it back
            return None
        self._expected += 1
        return _stored(received)

    async def _reopen(self) -> None:
        await self._drop()
        if self.sequence:
            self._start = self.sequence + 1
        await self._open()

    async def _open(self) -> None:
        created = await _create(self._bus, self._stream, self._pattern, self._start)
        if self._start == "new":
            # From now on "new" is a place: a restart must not skip what came while we were away.
            self._start = await self._next_sequence(created)
        self._pending = int(created.get("num_pending", 0))
        self._puller = Puller(self._bus, self._stream, created["name"])
        self._expected = 1
        self._lost = False
        await self._puller.open()

    async def _next_sequence(self, created: dict[str, Any]) -> int:
        """The first stream sequence that the new consumer will deliver."""
        return int(created.get("delivered", {}).get("stream_seq", 0)) + 1

    async def _drop(self) -> Puller | None:
        puller, self._puller = self._puller, None
        if puller is not None:
            puller.held.clear()
            await puller.close()
        return puller

    def _on_change(self) -> None:
        # What was under way on the old connection is gone; the consumer in memory may be, too.
        self._lost = True


def _stored(received: Received) -> Stored:
    item = received.delivery
    return Stored(item.subject, item.data, item.stream_sequence, item.timestamp, item.headers, item.pending)
