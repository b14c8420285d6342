"""Objects as files below one folder: what a laptop and a single host use.

    put:  <folder>/.put-<random>  ── write, fsync ──>  rename (or link, for `if_absent`)  ──>  fsync of the folder

A name that begins with `.put-` is never a key, so a writer that dies leaves nothing that a reader could take for an
object; `sweep` removes what is left once it is old. Objects are immutable, so `copy` is a hard link where the file
system has them. All file work runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

from stereospot import history, keys
from stereospot.storage.base import ObjectInfo
from stereospot.storage.files import (
    CHUNK_BYTES,
    NO_FILE,
    below,
    blocks,
    make_folder,
    sync_folder,
    thread,
    translated,
    write_all,
)
from stereospot.storage.local_partial import PART, LocalPartial

TEMPORARY = ".put-"
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES})


class LocalStore:
    """An `ObjectStore` below `root`, which is made when the first object comes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # ---- writing ----------------------------------------------------------------------------------------
    async def put(self, key: str, data: bytes | AsyncIterable[bytes], *, if_absent: bool = False) -> bool:
        writer = _Writer(self._path(key))
        with translated(key):
            if isinstance(data, bytes):
                stored = await thread(writer.whole, data, if_absent)
            else:
                stored = await self._put_blocks(writer, data, if_absent)
        if stored:
            history.record("put", key=key)
        return stored

    async def _put_blocks(self, writer: _Writer, data: AsyncIterable[bytes], if_absent: bool) -> bool:
        if if_absent and await thread(writer.is_taken):
            return False
        try:
            await thread(writer.open)
            async for block in blocks(data):
                await thread(writer.write, block)
            return await thread(writer.publish, if_absent)
        finally:
            writer.close()

    async def put_file(self, key: str, path: Path, *, move: bool = False) -> None:
        target = self._path(key)
        with translated(key, missing=str(path.name)):
            await thread(_take if move else _copy_in, path, target)
        history.record("put", key=key)

    async def copy(self, source: str, target: str) -> None:
        with translated(source, missing=source):
            await thread(_link_or_copy, self._path(source), self._path(target))

    async def begin(self, key: str, scratch: str) -> str:
        partial = self.partial(key, scratch, "", 0)
        with translated(key):
            await thread(partial.create)
        return ""

    def partial(self, key: str, scratch: str, handle: str, size: int) -> LocalPartial:
        if not keys.is_key(f"{scratch}x"):
            raise ValueError(f"not a folder's prefix: {scratch!r}")
        return LocalPartial(key, self._path(key), self.root / scratch / PART, size)

    async def delete(self, key: str) -> None:
        with translated(key):
            await thread(self._remove, self._path(key))

    async def delete_prefix(self, prefix: str) -> int:
        if not prefix.endswith("/"):
            raise ValueError(f"not a folder's prefix: {prefix!r}")

        def remove() -> int:
            found = self._walk(prefix)
            for info in found:
                self._remove(self._path(info.key))
            return len(found)

        with translated(prefix):
            return await thread(remove)

    async def sweep(self, older_than_seconds: float, *, keep: frozenset[str] = frozenset()) -> int:
        def remove() -> int:
            count = 0
            limit = time.time() - older_than_seconds
            for top in keys.TOPS:  # a file system's own folders may lie beside them, for nobody else to see
                for path in below(self.root / top):
                    with contextlib.suppress(FileNotFoundError):
                        if path.name.startswith((TEMPORARY, PART)) and path.stat().st_mtime <= limit:
                            path.unlink()
                            count += 1
            return count

        with translated(""):
            return await thread(remove)

    # ---- reading ----------------------------------------------------------------------------------------
    async def get(self, key: str) -> bytes | None:
        path = self._path(key)
        with translated(key):
            try:
                return await thread(path.read_bytes)
            except NO_FILE:
                return None

    async def read(self, key: str, offset: int, length: int) -> bytes:
        path = self._path(key)

        def read() -> bytes:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _pread(descriptor, offset, length)
            finally:
                os.close(descriptor)

        with translated(key, missing=key):
            return await thread(read)

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        path = self._path(key)
        opened: list[int] = []
        try:
            with translated(key, missing=key):
                await thread(lambda: opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
            while end is None or start < end:
                length = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
                with translated(key, missing=key):
                    block = await thread(_pread, opened[0], start, length)
                if not block:
                    return
                start += len(block)
                yield block
        finally:
            for descriptor in opened:
                os.close(descriptor)

    async def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with translated(key):
            return await thread(_info, path, key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        with translated(prefix):
            found = await thread(self._walk, prefix)
        for info in found:
            yield info

    async def free_bytes(self) -> int | None:
        def free() -> int:
            folder = self.root
            while not folder.exists():
                folder = folder.parent
            return shutil.disk_usage(folder).free

        with translated(""):
            return await thread(free)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    async def close(self) -> None:
        """Nothing is held open between calls."""

    # ---- inside -----------------------------------------------------------------------------------------
    def _path(self, key: str) -> Path:
        if not keys.is_key(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self.root / key

    def _walk(self, prefix: str) -> list[ObjectInfo]:
        """Objects under a prefix, by key; only the deepest folder that the prefix names is walked."""
        folder = self.root / prefix.rpartition("/")[0]
        found: list[ObjectInfo] = []
        for path in below(folder):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and not path.name.startswith("."):
                info = _info(path, key)
                if info is not None:
                    found.append(info)
        found.sort(key=lambda info: info.key)
        return found

    def _remove(self, path: Path) -> None:
        """Unlink, and drop the folders that this leaves empty."""
        with contextlib.suppress(*NO_FILE):
            path.unlink()
        for folder in path.parents:
            if folder == self.root:
                return
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return


def _pread(descriptor: int, offset: int, length: int) -> bytes:
    blocks: list[bytes] = []
    while length > 0 and (block := os.pread(descriptor, length, offset)):
        blocks.append(block)
        offset += len(block)
        length -= len(block)
    return b"".join(blocks)


def _info(path: Path, key: str) -> ObjectInfo | None:
    try:
        status = path.stat()
    except NO_FILE:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    # Objects appear by rename, so inode and time change whenever the bytes do.
    # Whatever was moved here keeps the time of its last change, which may be years ago; it has been here since less.
    return ObjectInfo(
        key, status.st_size, max(status.st_mtime, status.st_ctime), f"{status.st_mtime_ns:x}-{status.st_size:x}"
    )


class _Writer:
    """A temporary beside `target`, then `target`. Its methods block; `close` leaves nothing behind but the object."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.temporary: Path | None = None
        self.descriptor: int | None = None

    def whole(self, data: bytes, if_absent: bool) -> bool:
        """All of it at once: `open`, `write`, `publish`, `close`."""
        if if_absent and self.is_taken():
            return False
        try:
            self.open()
            self.write(data)
            return self.publish(if_absent)
        finally:
            self.close()

    def is_taken(self) -> bool:
        """Whether the object is there. It is durable then: whoever put it may not have synced its name yet."""
        if not self.target.exists():
            return False
        sync_folder(self.target.parent)
        return True

    def open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._make(lambda path: os.open(path, flags, 0o644))

    def link(self, source: Path) -> None:
        """Make the temporary another name of `source`."""
        self._make(lambda path: os.link(source, path))

    def _make(self, make: Callable[[Path], int | None]) -> None:
        for attempt in range(16):
            path = self.target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
            try:
                make_folder(self.target.parent)
                self.descriptor = make(path)
                self.temporary = path
                return
            except FileNotFoundError:
                # A delete took the folder away while it was empty.
                if attempt == 15:
                    raise

    def write(self, data: bytes) -> None:
        assert self.descriptor is not None
        write_all(self.descriptor, data)

    def publish(self, if_absent: bool) -> bool:
        """Sync the bytes and give them their name; False if `if_absent` and the name is taken."""
        assert self.temporary is not None
        if self.descriptor is not None:
            os.fsync(self.descriptor)
        if if_absent:
            try:
                os.link(self.temporary, self.target)
            except FileExistsError:
                sync_folder(self.target.parent)
                return False
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                # Without links (exFAT, some shares) two that come at one moment are both told that theirs is stored.
                if self.is_taken():
                    return False
                os.replace(self.temporary, self.target)
        else:
            os.replace(self.temporary, self.target)
        sync_folder(self.target.parent)
        return True

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)


def _copy_in(path: Path, target: Path) -> None:
    """Copy the bytes of a file that others may still change."""
    writer = _Writer(target)
    try:
        with path.open("rb") as source:
            writer.open()
            while block := source.read(CHUNK_BYTES):
                writer.write(block)
        writer.publish(if_absent=False)
    finally:
        writer.close()


def _take(path: Path, target: Path) -> None:
    """Rename a file into the store; copy it where that is another file system."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        make_folder(target.parent)
        os.replace(path, target)
        sync_folder(target.parent)
    except OSError as error:
        if error.errno not in _NO_LINK and not isinstance(error, FileNotFoundError):
            raise
        _copy_in(path, target)
        path.unlink()


def _link_or_copy(source: Path, target: Path) -> None:
    if not stat.S_ISREG(source.stat().st_mode):
        raise FileNotFoundError(errno.ENOENT, "no such object", str(source))
    if target.exists() and target.samefile(source):
        return
    writer = _Writer(target)
    try:
        writer.link(source)
        writer.publish(if_absent=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy_in(source, target)
    finally:
        writer.close()
