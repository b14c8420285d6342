"""Pull requests to one consumer, sent and answered over one inbox.

nats-py's `fetch` is not used: it cannot ask two lanes at once, and what arrives after its timeout is lost until the
ack wait. Here every message that ever arrives is kept in `held` and given out by the next `take`; a cancelled or late
request loses nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import ValidationError

from stereospot import errors
from stereospot.bus import api
from stereospot.messages import Message

if TYPE_CHECKING:
    from stereospot.bus.connection import Bus

M = TypeVar("M", bound=Message)

_QUIET = frozenset({"404", "408"})
"""No messages, request timeout: the ordinary ends of a request."""

HAND_OVER_SECONDS = 0.05
"""Delay of the nak that gives work to another worker when this one stops."""

_LATE_SECONDS = 1.0
"""How long after its expiry a request without an end is taken for lost."""


class PullError(Exception):
    """The consumer cannot be pulled from at present: deleted, without a leader, too many requests."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a handler sees it. `attempt` counts tries from 1, `excused` the deliveries that were none, and
    `waited_seconds` is how long this attempt waited before, in whatever process (see `tries`); the heartbeat is the
    actor's business."""

    subject: str
    data: bytes
    attempt: int = 1
    stream: str = ""
    stream_sequence: int = 0
    consumer_sequence: int = 0
    pending: int = 0
    timestamp: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    excused: int = 0
    waited_seconds: float = 0.0

    @property
    def is_first(self) -> bool:
        """Whether nobody was ever given this message before."""
        return self.attempt == 1 and self.excused == 0

    @property
    def is_marker(self) -> bool:
        """Whether it says that a KV key is gone; consumers on KV streams skip such."""
        return api.is_marker(self.headers)

    def parse(self, model: type[M]) -> M:
        """The body as `model`; raises INVALID_REQUEST with the first thing that is wrong."""
        try:
            return model.model_validate_json(self.data)
        except ValidationError as problem:
            raise errors.error("INVALID_REQUEST", errors.first_of(problem, "body")) from problem


@dataclass(slots=True, eq=False)
class Received:
    """A delivery with the subject on which its acknowledgements go; these raise BROKER_UNAVAILABLE, rarely."""

    delivery: Delivery
    reply: str
    bus: Bus

    async def ack(self) -> None:
        """Fire and forget; a lost ack is a redelivery."""
        await self.bus.send(self.reply, b"+ACK")

    async def ack_confirmed(self, patience_seconds: float = 3.0) -> None:
        """Ack until the server says that it has taken it; raises BROKER_UNAVAILABLE. A late ack still counts.

        Patience is short: a server that was killed may have forgotten the delivery, and then answers no ack of it.
        """
        await self.bus.confirm(self.reply, b"+ACK", patience_seconds=patience_seconds)

    def is_same(self, other: Received) -> bool:
        """Whether the other is a delivery of the same message."""
        mine, its = self.delivery, other.delivery
        return (mine.stream, mine.stream_sequence) == (its.stream, its.stream_sequence)

    async def nak(self, delay_seconds: float) -> None:
        """Give it back; always with a delay, since a nak without one is redelivered at once, for ever."""
        nanoseconds = int(max(delay_seconds, 0.001) * 1e9)
        await self.bus.send(self.reply, b"-NAK " + json.dumps({"delay": nanoseconds}).encode())

    async def terminate(self, reason: str) -> None:
        """No more redeliveries; the reason shows in the server's advisory."""
        flat = " ".join(reason.split())[:200]
        await self.bus.send(self.reply, f"+TERM {flat}".encode())

    async def in_progress(self) -> None:
        await self.bus.send(self.reply, b"+WPI")


@dataclass(slots=True)
class _Request:
    """A pull request that the server may still answer; `remaining` messages are owed."""

    number: int
    remaining: int
    lost_at: float
    ended: bool = False

    @property
    def is_open(self) -> bool:
        return not self.ended and time.monotonic() < self.lost_at


class Puller:
    """Pull requests to one durable (or given ephemeral) consumer; for one reader at a time.

    `wake` is set whenever there is something to look at; several pullers may share one event. Deliveries beyond what
    was asked for (an answer that came late) wait in `held`, and whoever owns the puller keeps them alive.

    Requests that wait and requests that do not have an inbox each: a message comes under its own subject, so only the
    subscription tells what it answers.
    """

    def __init__(self, bus: Bus, stream: str, consumer: str, *, wake: asyncio.Event | None = None) -> None:
        self._bus = bus
        self.stream = stream
        self.consumer = consumer
        self.held: deque[Received] = deque()
        self._wake = wake or asyncio.Event()
        self._number = 0
        self._taking = _Request(0, 0, 0.0, ended=True)
        self._waiting = _Request(0, 0, 0.0, ended=True)
        self._fault: str | None = None
        self._inbox = ""
        self._subscriptions: list[Subscription] = []
        self._unlisten: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Subscribe the inboxes; the subscriptions survive reconnects."""
        self._inbox = self._bus.nc.new_inbox()
        for kind, arrive in (("take", self._on_take), ("wait", self._on_wait)):
            self._subscriptions.append(await self._bus.subscribe(f"{self._inbox}.{kind}.*", arrive))
        self._unlisten = self._bus.listen(self._reset)

    async def release(self) -> list[Received]:
        """Take back open requests; returns what is `held`, what was on its way here included."""
        self._unlisten()
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            async with asyncio.timeout(2.0):
                for subscription in subscriptions:
                    await subscription.drain()
        except (TimeoutError, nats.errors.Error):
            pass  # the connection is going away, and with it the subscription; the ack wait brings the rest back
        left = list(self.held)
        self.held.clear()
        return left

    async def close(self) -> None:
        """`release`, and hand over what was held; nothing on its way here is lost."""
        for received in await self.release():
            try:
                await received.nak(HAND_OVER_SECONDS)
            except errors.Transient:
                return

    async def take(self, batch: int, *, timeout: float = 2.0) -> list[Received]:
        """Up to `batch` messages that are there now, without waiting for more; raises PullError."""
        missing = batch - len(self.held)
        if missing > 0:
            self._taking = self._request(missing, timeout)
            await self._ask("take", self._taking, {"batch": missing, "no_wait": True})
            while self._taking.is_open:
                await self._woken(self._taking.lost_at - time.monotonic())
            self.check()
        return [self.held.popleft() for _ in range(min(batch, len(self.held)))]

    async def expect(self, seconds: float, batch: int = 1) -> None:
        """See that a request which waits for `batch` messages is open; no-op while one is. Its answer sets `wake`."""
        if not self._waiting.is_open:
            self._waiting = self._request(batch, seconds + _LATE_SECONDS)
            await self._ask("wait", self._waiting, {"batch": batch, "expires": int(max(seconds, 0.001) * 1e9)})

    def check(self) -> None:
        """Raise PullError if a request ended badly."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise PullError(f"{self.stream}/{self.consumer}: {fault}")

    async def wait(self, seconds: float, batch: int = 1) -> bool:
        """Whether a message is there within `seconds`; raises PullError. For readers of a single consumer."""
        deadline = time.monotonic() + seconds
        while not self.held and (rest := deadline - time.monotonic()) > 0:
            self._wake.clear()
            await self.expect(rest, batch)
            if not self.held and self._fault is None and self._waiting.is_open:
                await self._woken(rest)
            self.check()
        return bool(self.held)

    def _request(self, batch: int, seconds: float) -> _Request:
        self._number += 1
        return _Request(self._number, batch, time.monotonic() + seconds)

    async def _ask(self, kind: str, request: _Request, body: Mapping[str, object]) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}"
        reply = f"{self._inbox}.{kind}.{request.number}"
        try:
            await self._bus.send(subject, json.dumps(body).encode(), reply=reply)
        except errors.Transient as problem:
            request.ended = True
            raise PullError(str(problem)) from problem

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def _on_take(self, message: Msg) -> None:
        self._arrived(self._taking, message)

    async def _on_wait(self, message: Msg) -> None:
        self._arrived(self._waiting, message)

    def _arrived(self, request: _Request, message: Msg) -> None:
        """One answer: a message of the stream, or a status that ends a request."""
        if message.reply:
            self.held.append(_received(self._bus, message))
            request.remaining -= 1
            request.ended = request.ended or request.remaining <= 0
        else:
            self._on_status(request, message)
        self._wake.set()

    def _on_status(self, request: _Request, message: Msg) -> None:
        if message.subject.rpartition(".")[2] != str(request.number):
            return  # the end of a request that was given up before
        headers = message.headers or {}
        status = headers.get("Status", "")
        request.ended = True
        if status not in _QUIET:
            said = headers.get("Description", "").strip()
            self._fault = f"{status} {said.splitlines()[0] if said else ''}".strip()

    def _reset(self) -> None:
        """The connection went or came back: the server has forgotten the requests that were open."""
        self._taking.ended = self._waiting.ended = True
        self._wake.set()


def _received(bus: Bus, message: Msg) -> Received:
    """A message with what its reply subject says of it; nats-py's own parsing costs more than the rest of a pull.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`; servers of some set-ups put
    `<domain>.<account hash>` before the stream, and more tokens may follow.
    """
    tokens = message.reply.split(".")
    stream, _, delivered, sequence, consumer_sequence, nanoseconds, pending = tokens[2 if len(tokens) == 9 else 4 :][:7]
    delivery = Delivery(
        subject=message.subject,
        data=message.data,
        attempt=int(delivered),
        stream=stream,
        stream_sequence=int(sequence),
        consumer_sequence=int(consumer_sequence),
        pending=int(pending),
        timestamp=int(nanoseconds) / 1e9,
        headers=message.headers or {},
    )
    return Received(delivery, message.reply, bus)
