"""What connections may cost this process: each a wait for the head of a request, then one for whoever takes nothing of
its answer; all together so many places, and those of one address a part of them.

uvicorn waits for ever for a first head, for the rest of a later one, and for somebody to read an answer; each
connection that does nothing keeps a file descriptor, which then the store, the broker's connection and whatever else is
in this process lack. Many addresses together can still take all the places.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import sys
import time
import weakref
from collections import Counter
from typing import Any, NamedTuple, NoReturn, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.gateway.peers import Peers
from stereospot import log

_log = log.get("gateway")

HEAD_SECONDS = 20.0
"""How long a head may take, from the connection on, or from the first byte after an answer."""

REFUSED_SECONDS = 300.0
"""How long somebody may go on sending a body that was refused."""

STALLED_SECONDS = 300.0
"""How long a client may take nothing of an answer. A player that is paused for longer asks for the rest when it needs
it, by `Range`; one that takes a little now and then is slow, and may be."""

FLUSHED_SECONDS = 0.01, 1.0
"""The first and the longest pause between two looks at whether a client of TLS has all of its last answer."""

LOOKS = 5
"""How often it is looked at in that time."""

MAX_CONNECTIONS = 4096

ADDRESS_SHARE = 8
"""The connections of one address are at most this part of all: 512, and a browser opens six."""

FULL_SECONDS = 60.0
"""How often the log says that there is no room."""

REST_SECONDS = 0.5
"""Without descriptors nothing is accepted for so long; asyncio, which logs each failure, comes back after a second."""

_ALL, _ADDRESS = "all", "address"
"""The two bounds; the first is also, beside the addresses, what all connections count for."""

_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def most() -> int:
    """How many connections may be open: half of what this process may, since most answers read a file of theirs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft // 2)


class Taken(NamedTuple):
    """How far a client has come with what was written for it."""

    unsent_bytes: int
    """Still in this process; over TLS 64 KiB more may be."""
    acknowledged_bytes: int
    """By its kernel, since the beginning: a part of what waits in ours may go for minutes before more is asked for. 0
    where only Linux would tell."""
    waits: bool
    """Whether anything is still on its way, here or in our kernel."""

    @classmethod
    def of(cls, transport: asyncio.Transport) -> Taken:
        unsent = transport.get_write_buffer_size()
        sock = transport.get_extra_info("socket")
        if sys.platform != "linux" or sock is None or sock.fileno() < 0:
            return cls(unsent, 0, unsent > 0)
        # struct tcp_info of linux/tcp.h: tcpi_unacked, tcpi_bytes_acked and tcpi_notsent_bytes.
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 148)
        acknowledged = int.from_bytes(info[120:128], sys.byteorder)
        return cls(unsent, acknowledged, unsent > 0 or any(info[24:28]) or any(info[144:148]))


class Unhurried:
    """A transport over TLS that closes when its client has everything: asyncio gives what is left half a minute.

    Whoever takes nothing is the protocol's business, as without TLS.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._closes = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._closes or self._transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._closes = True
            self._transport.pause_reading()
            self._flush(FLUSHED_SECONDS[0])

    def _flush(self, seconds: float) -> None:
        if self._transport.is_closing():  # it was lost, or aborted
            return
        if Taken.of(self._transport).waits:
            self._loop.call_later(seconds, self._flush, min(2 * seconds, FLUSHED_SECONDS[1]))
        else:
            self._transport.close()


class Protocol(H11Protocol):
    """uvicorn's, which ends a connection where no request is answered and the head of one takes too long, or where
    nothing of an answer is taken.

    While an answer is being made nothing else is timed: bodies, streams and their pauses may take as long as they like.
    """

    head_seconds = HEAD_SECONDS
    refused_seconds = REFUSED_SECONDS
    stalled_seconds = STALLED_SECONDS
    peers = Peers()
    _ending: asyncio.TimerHandle | None = None
    _refused_until: float | None = None
    _watching: asyncio.TimerHandle | None = None
    _taken: Taken
    _taken_at: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.scheme == "https":
            self.transport = cast(asyncio.Transport, Unhurried(transport, self.loop))
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if self._watching is not None:
            self._watching.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():  # too little for a pause, and perhaps the last
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete:
            self._stop()
            self._refused_until = None
        elif self.conn.their_state is h11.SEND_BODY:
            # Refused before all of it came; whoever goes on sending hears of it at the end.
            now = self.loop.time()
            self._refused_until = self._refused_until or now + self.refused_seconds
            if now < self._refused_until:
                self._stop()
                self._wait()
        elif self._ending is None:
            self._wait()

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing() and Taken.of(self.transport).waits:
            # Closing would wait for ever or, over TLS, for half a minute, and then cut what a slow client still reads.
            self._watch()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _watch(self) -> None:
        """From now on see to it that the client takes something, until it has all."""
        if self._watching is None and self.client is not None and self.peers.counted(self.client[0]) is not None:
            self._taken, self._taken_at = Taken.of(self.transport), self.loop.time()
            self._watching = self.loop.call_later(self.stalled_seconds / LOOKS, self._look)

    def _look(self) -> None:
        self._watching = None
        taken, now = Taken.of(self.transport), self.loop.time()
        if taken != self._taken:
            self._taken, self._taken_at = taken, now
        if now - self._taken_at >= self.stalled_seconds:
            _log.info("a client takes nothing of its answer", action="disconnect", address=self.client)
            self.transport.abort()
        elif taken.waits:
            self._watching = self.loop.call_later(self.stalled_seconds / LOOKS, self._look)

    def _wait(self) -> None:
        self._ending = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


class Bounded(socket.socket):
    """A listening socket with so many open connections at most, and a part of them of one address; one above either is
    closed as soon as it is accepted.

    It takes over the descriptor of `listening`. TLS counts from its first byte on, which a protocol does not see.
    """

    def __init__(self, listening: socket.socket, connections: int, peers: Peers | None = None) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self.setblocking(False)
        self._connections = connections
        self._of_one = max(1, connections // ADDRESS_SHARE)
        self._peers = peers or Peers()
        self._open: Counter[str] = Counter()
        self._rests_until = 0.0
        self._silent_until = {_ALL: 0.0, _ADDRESS: 0.0}

    def accept(self) -> tuple[socket.socket, Any]:
        """As of every socket. Raises ConnectionAbortedError for one too many: asyncio takes it for none having come."""
        now = time.monotonic()
        if now < self._rests_until:
            raise BlockingIOError
        try:
            accepted, address = super().accept()
        except OSError as problem:
            if problem.errno in _LACKS:
                self._rests_until = now + REST_SECONDS
            raise
        counted = self._peers.counted(address[0])
        if self._open[_ALL] >= self._connections:
            self._refuse(accepted, _ALL, now, "no room for more connections", connections=self._connections)
        if counted is not None and self._open[counted] >= self._of_one:
            said = "no room for more connections of an address (a proxy belongs into STEREOSPOT_PROXIES)"
            self._refuse(accepted, _ADDRESS, now, said, connections=self._of_one, address=counted)
        return _Connection(accepted, self._open, {_ALL, counted or _ALL}), address

    def _refuse(self, accepted: socket.socket, bound: str, now: float, said: str, **more: Any) -> NoReturn:
        accepted.close()
        if now >= self._silent_until[bound]:
            self._silent_until[bound] = now + FULL_SECONDS
            _log.warning(said, action="refuse", **more)
        raise ConnectionAbortedError


class _Connection(socket.socket):
    """One that was accepted; it counts until it is closed."""

    def __init__(self, accepted: socket.socket, counts: Counter[str], counted: set[str]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        counts.update(counted)
        self._uncount = weakref.finalize(self, _uncount, counts, counted)

    def close(self) -> None:
        self._uncount()
        super().close()


def _uncount(counts: Counter[str], counted: set[str]) -> None:
    for key in counted:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
