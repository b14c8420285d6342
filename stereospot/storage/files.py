"""File work of the local store: off the loop, durable, in the catalogue's words."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from stereospot import errors

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def translated(key: str, *, missing: str | None = None) -> Generator[None]:
    """File system errors in the catalogue's words; `missing` names what a missing file is."""
    try:
        yield
    except OSError as error:
        if missing is not None and isinstance(error, NO_FILE):
            raise errors.error("SOURCE_MISSING", f"There is no {missing}.", key=key) from error
        code = "STORAGE_FULL" if error.errno in _FULL else "STORAGE_UNAVAILABLE"
        raise errors.error(code, f"{error.strerror or error}.", key=key) from error


async def thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run in a thread and, when cancelled, still wait for its end: it works on a descriptor that is then closed."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(future)
        raise


async def blocks(data: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of at least 1 MiB, so that small network reads cost no thread switch each."""
    waiting: list[bytes] = []
    size = 0
    async for piece in data:
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in no order; none where there is no such folder, or no more.

    Raises for what cannot be listed. Whoever asks deletes what nothing here says is in use, so a folder that is not
    seen must not count as an empty one, which is what `os.walk` makes of it.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
    except NO_FILE:
        return
    for path, is_folder in found:
        if is_folder:
            yield from below(path)
        else:
            yield path


def make_folder(folder: Path) -> None:
    """mkdir -p, each new entry made durable in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder_if_possible(folder: Path) -> None:
    """Where somebody else says which folder: not every share can sync one, nor whoever may write in it and not list it.

    The file in it is there all the same.
    """
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENOTSUP):
            raise


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
