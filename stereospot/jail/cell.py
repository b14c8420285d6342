"""Inside the jail: what a task has, and how the child runs it.

A task is a plain function `task(cell, request)`; it reads `cell.sources`, sends and receives messages, writes to
`cell.outputs` and into `cell.ring`. Its return is the end; a StereoSpotError that it raises arrives in the parent with
its code, anything else as CORRUPT_INPUT (FFmpeg's errors) or INTERNAL.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import mmap
import select
import socket
import threading
import traceback
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from stereospot.errors import StereoSpotError, error
from stereospot.jail import wire

Task = Callable[["Cell", dict[str, Any]], None]

CACHED_BLOCKS = 8


class SourceUnavailable(OSError):
    """The parent could not read the source; it knows why, and says so itself."""


class SourceFile(io.RawIOBase):
    """A source as a seekable binary file: blocks of 1 MiB asked from the parent, a few of them kept.

    `holes` are byte ranges, in order, that read as zeros without being asked for: the payload of an mp4 that is planned
    from its index alone.
    """

    def __init__(self, channel: socket.socket, size: int) -> None:
        super().__init__()
        self.size = size
        self.holes: list[tuple[int, int]] = []
        self.bytes_read = 0
        self._channel = channel
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes from the position on, at most to the end of one block; empty at the end."""
        data = self.peek_at(self._position, size if size >= 0 else self.size)
        self._position += len(data)
        return data

    def peek_at(self, offset: int, size: int) -> bytes:
        """As `read`, at an offset and without moving."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if self.holes:
            at = bisect_right(self.holes, (offset, self.size))
            if at and offset < self.holes[at - 1][1]:
                return bytes(min(size, self.holes[at - 1][1] - offset))
            if at < len(self.holes):
                size = min(size, self.holes[at][0] - offset)
        number, within = divmod(offset, wire.BLOCK)
        return self._block(number)[within : within + size]

    def read_exactly_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, over as many blocks as it takes; fewer only at the end of the source."""
        parts: list[bytes] = []
        while size > 0 and (part := self.peek_at(offset, size)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _block(self, number: int) -> bytes:
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                return block
            self._channel.sendall(wire.READ.pack(number))
            (length,) = wire.READ_REPLY.unpack(wire.receive_exactly(self._channel, wire.READ_REPLY.size))
            if length < 0:
                raise SourceUnavailable("the source cannot be read")
            block = bytes(wire.receive_exactly(self._channel, length))
            self.bytes_read += length
            self._blocks[number] = block
            if len(self._blocks) > CACHED_BLOCKS:
                self._blocks.popitem(last=False)
            return block


class Cell:
    """The task's surroundings: messages, sources, outputs and the ring."""

    def __init__(
        self,
        control: socket.socket,
        sources: list[SourceFile],
        outputs: list[int],
        ring: mmap.mmap | None,
        warnings: list[str],
    ) -> None:
        self.sources = sources
        self.outputs = outputs
        self.ring = ring
        self.warnings = warnings
        self._control = control

    @property
    def source(self) -> SourceFile:
        """The first source."""
        return self.sources[0]

    def send(self, body: dict[str, Any], blob: bytes | memoryview = b"") -> None:
        """Send a message to the parent; blocks while the parent is behind."""
        wire.send(self._control, wire.MESSAGE, body, blob)

    def receive(self) -> wire.Message:
        """Wait for the parent's next message; raises wire.Closed when the parent is gone."""
        return wire.receive(self._control)[1]

    def readable(self) -> bool:
        """Whether a message is there already."""
        return bool(select.select([self._control], [], [], 0)[0])


def resolve(name: str) -> Task:
    """The function behind `package.module:function`."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def run(cell: Cell, control: socket.socket, task: Task) -> int:
    """Run one task to its end; returns the exit status of the child."""
    try:
        request = cell.receive().body
        task(cell, request)
        wire.send(control, wire.END, {})
        return 0
    except wire.Closed:
        return 0
    except Exception as failure:
        with contextlib.suppress(wire.Closed):
            wire.send(control, wire.ERROR, describe(failure))
        return 0


def describe(failure: Exception) -> dict[str, Any]:
    """An exception as the body of an ERROR frame."""
    if not isinstance(failure, StereoSpotError):
        trace = "".join(traceback.format_exception(failure))[-2000:]
        if isinstance(failure, MemoryError):
            failure = error("OUT_OF_MEMORY", "The decoder's memory limit was reached.")
        elif isinstance(failure, SourceUnavailable):
            failure = error("STORAGE_UNAVAILABLE", str(failure))
        elif type(failure).__module__.startswith("av."):
            failure = error("CORRUPT_INPUT", f"{type(failure).__name__}: {failure}")
        else:
            failure = error("INTERNAL", f"{type(failure).__name__}: {failure}", trace=trace)
    return {"code": failure.code, "detail": failure.detail, "details": failure.details}
