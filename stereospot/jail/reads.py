"""The parent's side of the ranged reads: one thread a jail, a small block cache, read-ahead where reads are slow."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from stereospot.jail import wire

if TYPE_CHECKING:
    from stereospot.media.source import Source

CACHED_BLOCKS = 8


class Blocks:
    """The blocks of one source: read once, the last few kept, the next ones fetched ahead in sequential runs."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bytes_read = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._ahead: dict[int, Future[bytes]] = {}
        self._last = -2
        self._run = 0
        depth = source.read_ahead
        self._pool = ThreadPoolExecutor(depth, "read-ahead") if depth else None
        self._depth = depth

    def get(self, number: int) -> bytes:
        """Block `number`; raises what the source raises. Bytes past the end of the source are empty."""
        if number * wire.BLOCK >= self.source.size:
            return b""
        self._run = self._run + 1 if number == self._last + 1 else 0 if number != self._last else self._run
        self._last = number
        data = self._kept.get(number)
        if data is None:
            future = self._ahead.pop(number, None)
            data = future.result() if future is not None else self._read(number)
            self.bytes_read += len(data)
            self._kept[number] = data
            if len(self._kept) > CACHED_BLOCKS:
                self._kept.popitem(last=False)
        self._fetch_ahead(number)
        return data

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, number: int) -> bytes:
        return self.source.read_at(number * wire.BLOCK, wire.BLOCK)

    def _fetch_ahead(self, number: int) -> None:
        if self._pool is None:
            return
        wanted = range(number + 1, number + 1 + min(self._run, self._depth))
        for old in [key for key in self._ahead if key not in wanted]:
            self._ahead.pop(old).cancel()
        for new in wanted:
            if new not in self._ahead and new not in self._kept and new * wire.BLOCK < self.source.size:
                self._ahead[new] = self._pool.submit(self._read, new)


class Reads:
    """Serves all sources of one jail from a thread until the child closes its ends, or `close`.

    `last` is the time of the last request served (monotonic), `busy` while a read of ours is under way: a child that
    waits for slow storage is not one that hangs. `seconds` is how long it has waited for reads so far. `failure` is
    what the first failing read raised.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.last = time.monotonic()
        self.failure: Exception | None = None
        self._since: float | None = None
        self._seconds = 0.0
        self.theirs: list[socket.socket] = []
        self._blocks: dict[int, tuple[socket.socket, Blocks]] = {}
        for source in sources:
            ours, theirs = socket.socketpair()
            self.theirs.append(theirs)
            self._blocks[ours.fileno()] = (ours, Blocks(source))
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="jail-reads", daemon=True)

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the sources, once each block however often the child asked for it."""
        return sum(blocks.bytes_read for _, blocks in self._blocks.values())

    @property
    def busy(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        since = self._since
        return self._seconds + (0.0 if since is None else time.monotonic() - since)

    def start(self) -> None:
        """Begin to serve; the child's ends have been handed over and are closed here."""
        for theirs in self.theirs:
            theirs.close()
        self._thread.start()

    def close(self) -> None:
        """Stop serving; waits for a read under way."""
        self._waker.close()
        if self._thread.ident is not None:
            self._thread.join()
        for theirs in self.theirs:
            theirs.close()
        for ours, blocks in self._blocks.values():
            ours.close()
            blocks.close()
        self._wake.close()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for number in self._blocks:
            poll.register(number, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if number == self._wake.fileno():
                    return
                channel, blocks = self._blocks[number]
                try:
                    self._answer(channel, blocks)
                except (OSError, wire.Closed):
                    poll.unregister(number)

    def _answer(self, channel: socket.socket, blocks: Blocks) -> None:
        channel.settimeout(30.0)
        (number,) = wire.READ.unpack(wire.receive_exactly(channel, wire.READ.size))
        self._since = since = time.monotonic()
        try:
            data = blocks.get(number)
        except Exception as failure:
            self.failure = self.failure or failure
            with contextlib.suppress(OSError):
                channel.sendall(wire.READ_REPLY.pack(-1))
            return
        finally:
            self.last = time.monotonic()
            self._seconds += self.last - since  # first: whoever asks in between counts a read twice, never not at all
            self._since = None
        channel.sendall(wire.READ_REPLY.pack(len(data)))
        channel.sendall(data)
        self.last = time.monotonic()
