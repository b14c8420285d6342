"""What connections may cost this process: each a wait for the head of a request, all together so many places.

uvicorn waits for ever for a first head, and for the rest of a later one; each connection that says nothing keeps a file
descriptor, which then the store, the broker's connection and whatever else is in this process lack. Whoever means harm
can still take all the places: a paused player reads as little as they do. A proxy in front can count by address.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import time
import weakref
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stereospot import log

_log = log.get("gateway")

HEAD_SECONDS = 20.0
"""How long a head may take, from the connection on, or from the first byte after an answer."""

REFUSED_SECONDS = 300.0
"""How long somebody may go on sending a body that was refused."""

MAX_CONNECTIONS = 4096

FULL_SECONDS = 60.0
"""How often the log says that there is no room."""

REST_SECONDS = 0.5
"""Without descriptors nothing is accepted for so long; asyncio, which logs each failure, comes back after a second."""

_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def most() -> int:
    """How many connections may be open: half of what this process may, since most answers read a file of theirs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft // 2)


class Protocol(H11Protocol):
    """uvicorn's, which ends a connection where no request is answered and the head of one takes too long.

    While an answer is being made nothing is timed here: bodies, streams and their pauses may take as long as they like.
    """

    head_seconds = HEAD_SECONDS
    refused_seconds = REFUSED_SECONDS
    _ending: asyncio.TimerHandle | None = None
    _refused_until: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

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
        if self.transport.get_write_buffer_size():  # nobody reads; closing would wait for them
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _wait(self) -> None:
        self._ending = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


class Bounded(socket.socket):
    """A listening socket with so many open connections at most; one above that is closed as soon as it is accepted.

    It takes over the descriptor of `listening`. TLS counts from its first byte on, which a protocol does not see.
    """

    def __init__(self, listening: socket.socket, connections: int) -> None:
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self.setblocking(False)
        self._connections = connections
        self._open: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._rests_until = self._silent_until = 0.0

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
        if len(self._open) >= self._connections:
            accepted.close()
            if now >= self._silent_until:
                self._silent_until = now + FULL_SECONDS
                _log.warning("no room for more connections", action="refuse", connections=self._connections)
            raise ConnectionAbortedError
        return _Connection(accepted, self._open), address


class _Connection(socket.socket):
    """One that was accepted; it counts until it is closed."""

    def __init__(self, accepted: socket.socket, counted: weakref.WeakSet[_Connection]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._counted = counted
        counted.add(self)

    def close(self) -> None:
        self._counted.discard(self)
        super().close()
