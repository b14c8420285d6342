"""Where media bytes live: a small protocol, and rules every backend keeps.

* A key names a whole object or nothing: `put` makes it appear at once and complete, whatever dies when.
* Objects are immutable by convention; putting equal bytes under the same key again is harmless.
* `if_absent` is a conditional put where the store has it; False means somebody else's object stays.
* Errors are `Transient("STORAGE_UNAVAILABLE")`, `Transient("STORAGE_FULL")`, or `KeyError`-free `None` answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store says of one object; `modified` in seconds since the epoch, `etag` without quotes."""

    key: str
    size: int
    modified: float
    etag: str


class ObjectStore(Protocol):
    """A store of immutable objects under the keys of `stereospot.keys`."""

    async def put(self, key: str, data: bytes | AsyncIterable[bytes], *, if_absent: bool = False) -> bool:
        """Store the whole of `data` under `key`; returns False, and stores nothing, if `if_absent` and the key exists.

        A stream that raises stores nothing and leaves nothing behind.
        """
        ...

    async def put_file(self, key: str, path: Path, *, move: bool = False) -> None:
        """Store a local file; with `move` the file may be taken (renamed), and is gone afterwards."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The whole object, or None if there is none. For small objects: plans, reports, fragments."""
        ...

    async def read(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end; raises Permanent("SOURCE_MISSING") for no such key."""
        ...

    def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start … end-1` in chunks of at most 1 MiB; raises as `read` does."""
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """What is under `key`, or None."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, by key."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; no object is no error."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Remove all objects whose key starts with `prefix`, which must end in `/`; returns how many."""
        ...

    async def copy(self, source: str, target: str) -> None:
        """Make `target` the same bytes as `source`, atomically; raises as `read` does."""
        ...

    async def presign(self, key: str, *, seconds: int = 3600, file_name: str | None = None) -> str | None:
        """A URL under which anyone can GET the object for a while, or None where the store has no such thing."""
        ...

    async def free_bytes(self) -> int | None:
        """Free space, or None where that is not known."""
        ...

    async def sweep(self, older_than_seconds: float) -> int:
        """Remove temporary files and unfinished multipart uploads of dead writers; returns how many."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file behind a key where the store is local, else None; never handed to anything that writes."""
        ...

    async def close(self) -> None: ...
