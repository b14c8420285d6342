"""A job's source as bytes: a stored object, or a local file that is referenced in place and checked for change.

A file that is referenced is not copied, so it can change under a job. Its size, its time of change and a digest of its
first and last MiB are in the job's record; every service that opens it compares them first.
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
from pathlib import Path

from stereospot import errors
from stereospot.media.source import FileSource, Source, StoredSource, unopened
from stereospot.messages import SourceRef
from stereospot.storage.base import ObjectStore

EDGE_BYTES = 1 << 20
"""How much of the head and of the tail goes into a quick digest."""


def quick_digest(path: Path, size: int) -> str:
    """`quick:` + sha256 of the size, the first and the last MiB: reads 2 MiB of a file of any size. Blocking."""
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(EDGE_BYTES))
        if size > EDGE_BYTES:
            file.seek(max(EDGE_BYTES, size - EDGE_BYTES))
            digest.update(file.read(EDGE_BYTES))
    return f"quick:{digest.hexdigest()}"


def identify(path: Path) -> SourceRef:
    """The reference to a local file, with what tells whether it is still the same. Blocking."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise errors.error("UNSUPPORTED_CONTAINER", f"{path.name} is not a regular file.")
        if found.st_size == 0:
            raise errors.error("EMPTY_INPUT", path.name)
        digest = quick_digest(path, found.st_size)
    except OSError as error:
        raise unopened(path.name, error) from error
    return SourceRef(
        path=str(path), name=path.name, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, digest=digest
    )


def check(ref: SourceRef) -> None:
    """Raise SOURCE_CHANGED if the file that `ref` names is another one now. Blocking."""
    path = Path(ref.path or "")
    try:
        found = path.stat()
        same = ref.size_bytes in (None, found.st_size)
        if same and ref.mtime_ns != found.st_mtime_ns and (ref.digest or "").startswith("quick:"):
            # Touched or copied back: the bytes decide.
            same = ref.digest == quick_digest(path, found.st_size)
    except OSError as error:
        raise unopened(path.name, error) from error
    if not same:
        raise errors.error("SOURCE_CHANGED", path.name)


async def open_source(store: ObjectStore, ref: SourceRef) -> Source:
    """Open a job's source for the jail's parent; raises SOURCE_MISSING, SOURCE_CHANGED, or STORAGE_UNAVAILABLE."""
    if ref.path is not None:
        await asyncio.to_thread(check, ref)
        return await asyncio.to_thread(FileSource, Path(ref.path))
    if ref.key is None:
        raise errors.error("SOURCE_MISSING", "The source was never fetched.")
    local = store.local_path(ref.key)
    if local is not None and await asyncio.to_thread(local.is_file):
        return await asyncio.to_thread(FileSource, local)
    found = await store.head(ref.key)
    if found is None:
        raise errors.error("SOURCE_MISSING", ref.name or ref.key)
    return StoredSource(store, ref.key, found.size, asyncio.get_running_loop())
