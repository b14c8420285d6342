"""Where the bytes of a source come from: the trusted, outer side of the jail's ranged reads."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Protocol

from stereospot.errors import StereoSpotError, error
from stereospot.storage.base import ObjectStore

READ_SECONDS = 60.0

AWAY = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
        errno.ENETUNREACH, errno.EMFILE, errno.ENFILE,
    }
)  # fmt: skip
"""What a file system in the network says while its server is away, and a machine with too many files open."""


def unopened(name: str, failure: OSError) -> StereoSpotError:
    """Why a local file cannot be opened: STORAGE_UNAVAILABLE for what passes, SOURCE_MISSING for all else."""
    code = "STORAGE_UNAVAILABLE" if failure.errno in AWAY else "SOURCE_MISSING"
    return error(code, f"{name}: {failure.strerror}.")


class Source(Protocol):
    """Random access to one immutable source; blocking and thread-safe."""

    size: int
    name: str
    """For logs only; never a way to the bytes."""
    read_ahead: int
    """How many blocks to fetch ahead of a sequential reader; 0 where reads are cheap."""

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end of the source."""
        ...

    def close(self) -> None: ...


class FileSource:
    """A regular local file; raises SOURCE_MISSING for anything else, SOURCE_CHANGED when it shrinks under way, and
    STORAGE_UNAVAILABLE while its file system does not answer."""

    read_ahead = 0

    def __init__(self, path: Path | str) -> None:
        self.name = Path(path).name
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        except OSError as failure:
            raise unopened(self.name, failure) from failure
        state = os.fstat(self._descriptor)
        if not stat.S_ISREG(state.st_mode):
            self.close()
            raise error("SOURCE_MISSING", f"{self.name} is not a regular file.")
        self.size = state.st_size

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as failure:
            raise error("STORAGE_UNAVAILABLE", f"{self.name}: {failure.strerror}") from failure
        if len(data) < min(length, self.size - offset):
            raise error("SOURCE_CHANGED", f"{self.name} is shorter than it was.")
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class StoredSource:
    """An object of the storage, read from threads through the event loop that owns the store."""

    read_ahead = 4

    def __init__(self, store: ObjectStore, key: str, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.name = key
        self.size = size
        self._store = store
        self._loop = loop

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        future = asyncio.run_coroutine_threadsafe(self._store.read(self.name, offset, length), self._loop)
        try:
            data = future.result(READ_SECONDS)
        except FutureTimeout as failure:
            future.cancel()
            raise error("STORAGE_UNAVAILABLE", f"{self.name}: no answer in {READ_SECONDS:.0f} s.") from failure
        if len(data) < length:
            raise error("SOURCE_CHANGED", f"{self.name} is shorter than it was.")
        return data

    def close(self) -> None:
        """Nothing to close: the store is its owner's."""
