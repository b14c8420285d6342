"""An object that comes in pieces, as one file that grows and is renamed into its place at the end.

    <scratch>/.part  ── write behind the end, fsync ──> …  ── rename ──>  the key  ──>  fsync of both folders

The file's length IS the state: there is no second place that could disagree with it after a crash. Its name begins
with a dot, so it is no key and no reader takes it for an object. One writer at a time holds the file's lock, which the
kernel takes away from a process that dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterable
from pathlib import Path

from stereospot import errors, history
from stereospot.storage.base import Progress, Signed
from stereospot.storage.files import blocks, make_folder, sync_folder, thread, translated, write_all

PART = ".part"


class LocalPartial:
    """A `Partial` whose bytes lie in `file` until they become `target`."""

    part_bytes: int | None = None

    def __init__(self, key: str, target: Path, file: Path, size: int) -> None:
        self.key = key
        self._target = target
        self._file = file
        self._size = size

    def create(self) -> None:
        """Make the empty file. Blocking."""
        make_folder(self._file.parent)
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        sync_folder(self._file.parent)

    async def progress(self) -> Progress:
        with translated(self.key, missing=self.key):
            return await thread(self._progress)

    def _progress(self) -> Progress:
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            status = self._target.stat()
            return Progress(status.st_size, status.st_mtime, finished=True)
        try:
            # What is told may be relied on: bytes that a dead process wrote may be in memory only.
            os.fsync(descriptor)
            status = os.fstat(descriptor)
            return Progress(status.st_size, status.st_mtime)
        finally:
            os.close(descriptor)

    async def append(self, offset: int, data: AsyncIterable[bytes]) -> int:
        with translated(self.key, missing=self.key):
            descriptor = await thread(self._open_at, offset)
            try:
                try:
                    async for block in blocks(data):
                        await thread(write_all, descriptor, block)
                finally:
                    await thread(os.fsync, descriptor)
                return os.lseek(descriptor, 0, os.SEEK_CUR)
            finally:
                os.close(descriptor)

    def _open_at(self, offset: int) -> int:
        descriptor = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.lseek(descriptor, 0, os.SEEK_END)
            if found != offset:
                raise errors.error("CONFLICT", f"The upload is at {found}, not at {offset}.", offset=found)
        except BlockingIOError:
            os.close(descriptor)
            raise errors.error("CONFLICT", "Another process is writing to this upload.") from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    async def finish(self) -> None:
        with translated(self.key, missing=self.key):
            await thread(self._finish)
        history.record("put", key=self.key)

    def _finish(self) -> None:
        found = self._progress()
        if found.size != self._size:
            raise errors.error("UPLOAD_INCOMPLETE", f"{found.size} of {self._size} bytes are there.")
        if found.finished:
            return
        while True:
            make_folder(self._target.parent)
            try:
                os.rename(self._file, self._target)
                break
            except FileNotFoundError as error:
                # Finished by somebody else meanwhile, or a delete took the empty folder away.
                if not self._file.exists():
                    if self._target.exists():
                        break
                    raise OSError(errno.ENOENT, "the upload is gone") from error
        sync_folder(self._target.parent)
        sync_folder(self._file.parent)

    async def discard(self) -> None:
        def remove() -> None:
            for path in (self._file, self._target):
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    path.parent.rmdir()

        with translated(self.key):
            await thread(remove)

    async def parts(self) -> dict[int, int]:
        return {}

    async def presign(self, number: int, *, sha256: bytes | None = None, seconds: int = 3600) -> Signed | None:
        return None
