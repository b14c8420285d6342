"""The connection of one process to NATS: publish, commit, read, administrate; reconnects for ever.

nats-py's defaults give up after two minutes and leave a zombie; here the connection is sought until `drain`, and an end
that nobody asked for calls `on_closed`, which ends the process so that its supervisor starts a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from stereospot import crash, errors, history, log
from stereospot.bus import api, buckets, credentials, tail
from stereospot.bus.administration import Administration
from stereospot.bus.api import Conflict, Refused, Stored
from stereospot.bus.buckets import Bucket, Write
from stereospot.messages import Message
from stereospot.settings import Settings

crash.declare("bus.before_publish", "bus.after_publish", "bus.before_commit", "bus.after_commit")

_log = log.get("bus")

_FORBIDDEN = re.compile(r'(?i)permissions violation for publish to "([^"]+)"')

Handler = Callable[[Msg], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that waits for its answer; `sent` is false for one asked while there was no connection."""

    subject: str
    sent: bool


class Bus(Administration):
    """One connection; made by `connect`, ended by `drain`."""

    def __init__(self, nc: Client, name: str, on_closed: Callable[[], None] | None) -> None:
        self.nc = nc
        self.name = name
        self._on_closed = on_closed
        self._draining = False
        self._is_new = True
        self._asking: dict[asyncio.Timeout, _Question] = {}
        self._forbidden: set[str] = set()
        self._listeners: set[Callable[[], None]] = set()
        self._problem = ""
        self._buckets: dict[str, Bucket] = {}

    # ---- life ------------------------------------------------------------------------------------------------
    @classmethod
    async def connect(
        cls,
        settings: Settings,
        *,
        name: str,
        on_closed: Callable[[], None] | None = None,
        connect_seconds: float = 30.0,
    ) -> Bus:
        """Connect as `settings` say, waiting up to `connect_seconds` for a server.

        `on_closed` is called when the connection has ended for good without `drain`. Raises BROKER_UNAVAILABLE,
        BROKER_FORBIDDEN for credentials that the server does not know, and INVALID_SETTINGS for an address or a file
        that cannot be used and for a server without the TLS that was asked for.
        """
        servers = credentials.servers(settings)
        nc = credentials.SecureClient()
        nc.needs_tls = credentials.needs_tls(settings, servers)
        bus = cls(nc, name, on_closed)
        options: dict[str, Any] = {
            "name": name,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "ping_interval": 20,
            "max_outstanding_pings": 2,
            "connect_timeout": 5,
            "inbox_prefix": f"_INBOX_{name.split('-')[0]}",
            "error_cb": bus._on_error,
            "disconnected_cb": bus._on_disconnected,
            "reconnected_cb": bus._on_reconnected,
            "closed_cb": bus._on_end,
            **credentials.options(settings, servers),
        }
        try:
            async with asyncio.timeout(connect_seconds):
                await nc.connect([credentials.bare(url) for url in servers], **options)
        except (TimeoutError, OSError, nats.errors.Error, errors.StereoSpotError) as problem:
            bus._draining = True
            with contextlib.suppress(AssertionError):  # nats-py's, where it came no further than its options
                await nc.close()
            if isinstance(problem, errors.StereoSpotError):
                raise
            said = bus._problem or f"{type(problem).__name__}: {problem}"
            raise errors.error("BROKER_UNAVAILABLE", f"{credentials.addresses(servers)}: {said}") from problem
        bus._is_new = False
        _log.info(
            "connected",
            action="connect",
            name=name,
            server=nc.connected_url and nc.connected_url.netloc.rpartition("@")[2],
        )
        return bus

    async def drain(self, seconds: float = 5.0) -> None:
        """Send what is pending, then close; never raises."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self.nc.drain()
        except (TimeoutError, nats.errors.Error) as problem:
            _log.warning("drain cut short", action="stop", reason=str(problem) or type(problem).__name__)
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):  # the server may be away
                async with asyncio.timeout(seconds):
                    await self.nc.close()

    @property
    def is_closed(self) -> bool:
        return self.nc.is_closed

    @property
    def is_connected(self) -> bool:
        return self.nc.is_connected

    @property
    def server_version(self) -> str:
        version = self.nc.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}" + (f"-{version.dev}" if version.dev else "")

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each loss and each return of the connection; returns what ends that."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    # ---- writing ---------------------------------------------------------------------------------------------
    async def publish(
        self,
        subject: str,
        body: Message | bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        patience_seconds: float = 30.0,
    ) -> int:
        """Store a message; returns its stream sequence.

        `msg_id` drops repeats within the stream's window (its scope is the stream, so put subject, generation and
        attempt into it); without one, a random id keeps at least this call's own retries from storing twice.
        Raises BROKER_UNAVAILABLE after `patience_seconds` (it may be stored all the same), STORAGE_FULL, and Conflict
        when an expectation in `headers` fails.
        """
        data = body if isinstance(body, bytes) else body.body()
        named = {**(headers or {}), "Nats-Msg-Id": msg_id or uuid.uuid4().hex}
        crash.point("bus.before_publish")

        async def once(timeout: float) -> dict[str, Any]:
            return api.check((await self.ask(subject, data, timeout=timeout, headers=named)).data)

        answer = await self._patiently(once, patience_seconds)
        crash.point("bus.after_publish")
        history.record("publish", subject=subject, stream=answer.get("stream"), sequence=int(answer["seq"]))
        return int(answer["seq"])

    async def send(
        self, subject: str, body: Message | bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Core NATS: no acknowledgement; for what may be lost.

        While the connection is away it waits in a buffer; raises BROKER_UNAVAILABLE when that is full or all is closed.
        """
        data = body if isinstance(body, bytes) else body.body()
        try:
            await self.nc.publish(subject, data, reply=reply, headers=dict(headers) if headers else None)
        except nats.errors.Error as problem:
            raise api.unavailable(problem) from problem

    async def commit(self, writes: Sequence[Write], *, patience_seconds: float = 30.0) -> tuple[int, ...]:
        """Write all keys (of one bucket with `allow_atomic`) or none; returns their revisions.

        Raises Conflict when an expectation fails, BROKER_UNAVAILABLE when it stays unknown whether they were written.
        """
        if len({write.bucket for write in writes}) != 1:
            raise ValueError("a commit is for one bucket")
        crash.point("bus.before_commit")

        identity = uuid.uuid4().hex

        async def once(timeout: float) -> dict[str, Any]:
            return await buckets.commit_once(self, list(writes), identity, timeout=timeout)

        try:
            last = int((await self._patiently(once, patience_seconds))["seq"])
        except Conflict as problem:
            last = await buckets.own_revision(self, writes[-1], buckets.part_id(identity, len(writes)), problem)
        crash.point("bus.after_commit")
        history.record("commit", bucket=writes[0].bucket, keys=[write.key for write in writes], sequence=last)
        return tuple(range(last - len(writes) + 1, last + 1))

    async def ask(
        self, subject: str, data: bytes = b"", *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> Msg:
        """One request, with nats-py's errors; raises BROKER_FORBIDDEN where our rights end.

        If the connection was lost meanwhile it times out when that is back, since its answer may be lost.
        """
        scope = asyncio.timeout(timeout)
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        self._asking[scope] = _Question(subject.lower(), sent=self.nc.is_connected)
        try:
            async with scope:
                answer = await self.nc.request(
                    subject, data, timeout=timeout + 1, headers=dict(headers) if headers else None
                )
                if task is not None and task.cancelling() > cancels:
                    # nats-py waits with `wait_for`, which in Python 3.11 loses a cancel that comes with the answer:
                    # whoever cancelled would wait for ever.
                    raise asyncio.CancelledError
                return answer
        except TimeoutError as problem:
            if subject.lower() in self._forbidden:
                self._forbidden.discard(subject.lower())
                raise errors.error("BROKER_FORBIDDEN", subject) from problem
            raise nats.errors.TimeoutError from problem
        except nats.errors.MaxPayloadError as problem:
            raise errors.error("INVALID_REQUEST", f"A message of {len(data)} bytes is too large for NATS.") from problem
        finally:
            del self._asking[scope]

    async def confirm(self, subject: str, data: bytes, *, patience_seconds: float) -> None:
        """Send until somebody answers, whatever the answer; for acknowledgements."""

        async def once(timeout: float) -> dict[str, Any]:
            await self.ask(subject, data, timeout=min(timeout, 1.0))
            return {}

        await self._patiently(once, patience_seconds)

    async def _patiently(
        self, once: Callable[[float], Awaitable[dict[str, Any]]], patience_seconds: float
    ) -> dict[str, Any]:
        """Repeat a write until it is acknowledged: elections last 4 to 9 s, restarts about one."""
        deadline = time.monotonic() + patience_seconds
        pause = 0.05
        unsure = False
        while True:
            try:
                return await once(min(5.0, max(0.2, deadline - time.monotonic())))
            except Refused as problem:
                if problem.err_code in api.WRONG_LAST_SEQUENCE or problem.err_code == api.DUPLICATE_IN_BATCH:
                    raise Conflict(str(problem), unsure=unsure) from problem
                if not problem.is_temporary:
                    raise
                cause: Exception = problem
            except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as problem:
                raise api.unavailable(problem) from problem
            except api.UNREACHABLE as problem:
                unsure = unsure or not isinstance(problem, nats.errors.NoRespondersError)
                cause = problem
            if time.monotonic() + pause >= deadline:
                raise api.unavailable(cause) from cause
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, 1.0)

    # ---- reading ---------------------------------------------------------------------------------------------
    def bucket(self, name: str) -> Bucket:
        """The KV bucket `name`."""
        return self._buckets.setdefault(name, Bucket(self, name))

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, from the stream's leader."""
        return await self._get(stream, {"last_by_subj": subject})

    async def get(self, stream: str, sequence: int) -> Stored | None:
        """The message at a sequence, or None when it is gone."""
        return await self._get(stream, {"seq": sequence})

    async def after(self, stream: str, sequence: int) -> Stored | None:
        """The first message at or after a sequence, or None when there is none."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": ">"})

    async def _get(self, stream: str, query: Mapping[str, Any]) -> Stored | None:
        try:
            return api.stored((await self.api(f"STREAM.MSG.GET.{stream}", query))["message"])
        except Refused as problem:
            if problem.err_code == api.MESSAGE_MISSING:
                return None
            raise

    async def direct_last(self, stream: str, subject: str) -> Stored | None:
        """`last` from whichever replica answers: faster, and on a cluster possibly stale."""
        try:
            answer = await self.ask(f"$JS.API.DIRECT.GET.{stream}.{subject}")
        except api.UNREACHABLE as problem:
            raise api.unavailable(problem) from problem
        headers = answer.headers or {}
        status = headers.get("Status")
        if status == "404":
            return None
        if status is not None:
            raise errors.error("BROKER_UNAVAILABLE", f"direct get: {status} {headers.get('Description', '')}".strip())
        sequence, at = int(headers["Nats-Sequence"]), api.seconds(headers["Nats-Time-Stamp"])
        return Stored(headers["Nats-Subject"], answer.data, sequence, at, headers)

    async def last_per_subject(self, stream: str, pattern: str) -> list[Stored]:
        """The last message of every subject that matches, in order of sequence; markers of deleted keys included."""
        return await tail.last_per_subject(self, stream, pattern)

    async def read(self, stream: str, pattern: str = ">", *, start: int = 1, end: int | None = None) -> list[Stored]:
        """What is there now from one sequence to another, which is not read, in order; raises BROKER_UNAVAILABLE."""
        return await tail.read(self, stream, pattern, start=start, end=end)

    def tail(self, stream: str, pattern: str = ">", *, start: tail.Start = "new") -> tail.Tail:
        """Messages in order, for ever: `async with bus.tail(…) as messages: async for message in messages`."""
        return tail.Tail(self, stream, pattern, start)

    async def api(
        self, path: str, body: Mapping[str, Any] | None = None, *, patience_seconds: float = 5.0
    ) -> dict[str, Any]:
        """One request to `$JS.API.<path>`, repeated within the patience; raises Refused or BROKER_UNAVAILABLE."""
        data = json.dumps(body).encode() if body is not None else b""

        async def once(timeout: float) -> dict[str, Any]:
            return api.check((await self.ask(f"$JS.API.{path}", data, timeout=timeout)).data)

        return await self._patiently(once, patience_seconds)

    # ---- core NATS -------------------------------------------------------------------------------------------
    async def request(self, subject: str, data: bytes = b"", *, timeout: float = 5.0) -> bytes:
        """Ask a service; raises BROKER_UNAVAILABLE when nobody answers."""
        try:
            return (await self.ask(subject, data, timeout=timeout)).data
        except api.UNREACHABLE as problem:
            raise api.unavailable(problem) from problem

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Core subscription: nothing is kept for those who are away. Raises BROKER_UNAVAILABLE when all is closed."""
        try:
            return await self.nc.subscribe(subject, queue=queue, cb=handler)
        except nats.errors.Error as problem:
            raise api.unavailable(problem) from problem

    # ---- callbacks of nats-py --------------------------------------------------------------------------------
    async def _on_error(self, problem: Exception) -> None:
        said = f"{type(problem).__name__}: {problem}"
        if said != self._problem:  # while the server is away the same line comes four times a second
            self._problem = said
            _log.error("nats", action="connect", reason=said)
        if self._is_new and isinstance(problem, nats.errors.SecureConnWantedError):
            reason = "tls:// or STEREOSPOT_NATS_TLS_CA asks for TLS, which the server has not; no password was sent."
            raise errors.error("INVALID_SETTINGS", f"STEREOSPOT_NATS_URL: {reason}")
        if self._is_new and "authorization violation" in said.lower():
            raise errors.error("BROKER_FORBIDDEN", "The server does not know this user, password or token.")
        found = _FORBIDDEN.search(said)
        if found is not None:
            # The server answers a forbidden publish with silence and this one line; end the request that waits for it.
            self._forbidden.add(found[1])
            for scope, question in tuple(self._asking.items()):
                if question.subject == found[1]:
                    scope.reschedule(0)

    async def _on_disconnected(self) -> None:
        if not self._draining:
            _log.warning("disconnected", action="disconnect", name=self.name)
        self._notify()

    async def _on_reconnected(self) -> None:
        self._problem = ""
        for scope, question in tuple(self._asking.items()):
            if question.sent:  # the others wait in nats-py's buffer and go out now
                scope.reschedule(0)
        _log.info("reconnected", action="connect", name=self.name)
        self._notify()

    async def _on_end(self) -> None:
        self._notify()
        if self._draining:
            return
        _log.error("connection closed", action="stop", reason=self._problem or str(self.nc.last_error))
        if self._on_closed is not None:
            self._on_closed()

    def _notify(self) -> None:
        for callback in tuple(self._listeners):
            callback()
