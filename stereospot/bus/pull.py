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
    """A message as a handler sees it. `attempt` counts deliveries from 1; the heartbeat is the actor's business."""

    subject: str
    data: bytes
    attempt: int = 1
    stream: str = ""
    stream_sequence: int = 0
    consumer_sequence: int = 0
    pending: int = 0
    timestamp: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def is_marker(self) -> bool:
        """Whether it says that a KV key is gone; consumers on KV streams skip such."""
        return api.is_marker(self.headers)

    def parse(self, model: type[M]) -> M:
        """The body as `model`; raises pydantic's ValidationError."""
        return model.model_validate_json(self.data)


@dataclass(slots=True, eq=False)
class Received:
    """A delivery with the subject on which its acknowledgements go."""

    delivery: Delivery
    reply: str
    bus: Bus

    async def ack(self) -> None:
        """Fire and forget; a lost ack is a redelivery."""
        await self.bus.nc.publish(self.reply, b"+ACK")

    async def ack_confirmed(self, timeout: float = 5.0) -> None:
        """Wait until the server has taken the ack; raises what a request raises."""
        await self.bus.nc.request(self.reply, b"+ACK", timeout=timeout)

    async def nak(self, delay_seconds: float) -> None:
        """Give it back; always with a delay, since a nak without one is redelivered at once, for ever."""
        nanoseconds = int(max(delay_seconds, 0.001) * 1e9)
        await self.bus.nc.publish(self.reply, b"-NAK " + json.dumps({"delay": nanoseconds}).encode())

    async def terminate(self, reason: str) -> None:
        """No more redeliveries; the reason shows in the server's advisory."""
        flat = " ".join(reason.split())[:200]
        await self.bus.nc.publish(self.reply, f"+TERM {flat}".encode())

    async def in_progress(self) -> None:
        await self.bus.nc.publish(self.reply, b"+WPI")


@dataclass(slots=True)
class _Request:
    """A pull request that the server may still answer; `remaining` messages are owed."""

    remaining: int
    lost_at: float
    ended: bool = False


class Puller:
    """Pull requests to one durable (or given ephemeral) consumer; for one reader at a time.

    `wake` is set whenever there is something to look at; several pullers may share one event. Deliveries beyond what
    was asked for (an answer that came late) wait in `held`, and whoever owns the puller keeps them alive.
    """

    def __init__(self, bus: Bus, stream: str, consumer: str, *, wake: asyncio.Event | None = None) -> None:
        self._bus = bus
        self.stream = stream
        self.consumer = consumer
        self.held: deque[Received] = deque()
        self._wake = wake or asyncio.Event()
        self._requests: dict[str, _Request] = {}
        self._number = 0
        self._waiting: _Request | None = None
        self._fault: str | None = None
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._unlisten: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Subscribe the inbox; the subscription survives reconnects."""
        self._inbox = self._bus.nc.new_inbox()
        self._subscription = await self._bus.nc.subscribe(f"{self._inbox}.*", cb=self._arrive)
        self._unlisten = self._bus.listen(self._reset)

    async def close(self) -> None:
        """Take back open requests and hand over what is `held`; what was on its way here is waited for, not lost."""
        self._unlisten()
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            async with asyncio.timeout(2.0):
                await subscription.drain()
            while self.held:
                await self.held.popleft().nak(HAND_OVER_SECONDS)
        except (TimeoutError, nats.errors.Error):
            return  # the connection is going away, and with it the subscription; the ack wait brings the messages back

    async def take(self, batch: int, *, timeout: float = 2.0) -> list[Received]:
        """Up to `batch` messages that are there now, without waiting for more; raises PullError."""
        missing = batch - len(self.held)
        if missing > 0:
            request = await self._ask(missing, {"batch": missing, "no_wait": True}, timeout)
            while not request.ended and time.monotonic() < request.lost_at:
                await self._woken(request.lost_at - time.monotonic())
            self._raise_fault()
        return [self.held.popleft() for _ in range(min(batch, len(self.held)))]

    async def expect(self, seconds: float, batch: int = 1) -> None:
        """See that a request which waits for `batch` messages is open; no-op while one is. Its answer sets `wake`."""
        waiting = self._waiting
        if waiting is not None and not waiting.ended and time.monotonic() < waiting.lost_at:
            return
        body = {"batch": batch, "expires": int(seconds * 1e9)}
        self._waiting = await self._ask(batch, body, seconds + _LATE_SECONDS)

    def check(self) -> None:
        """Raise PullError if the last request ended badly."""
        self._raise_fault()

    async def wait(self, seconds: float, batch: int = 1) -> bool:
        """Whether a message is there within `seconds`; raises PullError. For readers of a single consumer."""
        deadline = time.monotonic() + seconds
        while not self.held and (rest := deadline - time.monotonic()) > 0:
            self._wake.clear()
            await self.expect(rest, batch)
            if not self.held and self._fault is None:
                await self._woken(rest)
            self._raise_fault()
        return bool(self.held)

    async def _ask(self, batch: int, body: Mapping[str, object], seconds: float) -> _Request:
        self._number += 1
        token = str(self._number)
        now = time.monotonic()
        for old in [key for key, request in self._requests.items() if request.lost_at + 60 < now]:
            del self._requests[old]
        request = self._requests[token] = _Request(batch, now + seconds)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}"
        try:
            await self._bus.nc.publish(subject, json.dumps(body).encode(), reply=f"{self._inbox}.{token}")
        except nats.errors.Error as problem:
            request.ended = True
            raise PullError(f"{type(problem).__name__}: {problem}") from problem
        return request

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def _arrive(self, message: Msg) -> None:
        """One answer: a message of the stream, or a status that ends a request."""
        token = message.subject.rsplit(".", 1)[-1]
        request = self._requests.get(token)
        status = (message.headers or {}).get("Status") if not message.reply else None
        if status is None:
            self.held.append(_received(self._bus, message))
            if request is not None:
                request.remaining -= 1
                request.ended = request.ended or request.remaining <= 0
        elif status != "100":
            if request is not None:
                request.ended = True
            if status not in _QUIET:
                said = (message.headers or {}).get("Description", "").strip()
                self._fault = f"{status} {said.splitlines()[0] if said else ''}".strip()
        if request is not None and request.ended:
            self._requests.pop(token, None)
        self._wake.set()

    def _reset(self) -> None:
        """The connection went or came back: the server has forgotten the requests that were open."""
        for request in self._requests.values():
            request.ended = True
        self._requests.clear()
        self._wake.set()

    def _raise_fault(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            raise PullError(f"{self.stream}/{self.consumer}: {fault}")


def _received(bus: Bus, message: Msg) -> Received:
    about = message.metadata
    delivery = Delivery(
        subject=message.subject,
        data=message.data,
        attempt=about.num_delivered,
        stream=about.stream,
        stream_sequence=about.sequence.stream,
        consumer_sequence=about.sequence.consumer,
        pending=about.num_pending,
        timestamp=about.timestamp.timestamp(),
        headers=message.headers or {},
    )
    return Received(delivery, message.reply, bus)
