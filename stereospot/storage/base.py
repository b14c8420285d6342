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


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a partial is durable, when bytes last came, and whether it is an object already."""

    size: int
    modified: float
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Signed:
    """A request that anyone can make for a while, with these headers and no others that the URL signs."""

    url: str
    headers: dict[str, str]


class Partial(Protocol):
    """An object that comes in pieces, over hours, through any process; nothing of it lives in a process alone.

    Bytes that `append` has taken and `progress` has told survive whatever dies. The key names nothing before `finish`.
    """

    part_bytes: int | None
    """The size of all parts but the last, where clients may PUT parts straight to the store."""

    async def progress(self) -> Progress:
        """What is there; raises SOURCE_MISSING where there is neither a partial nor its object."""
        ...

    async def append(self, offset: int, data: AsyncIterable[bytes]) -> int:
        """Add bytes behind `offset`; returns the new size, all of it durable. Raises CONFLICT at another offset.

        Where `data` raises, what came before may have been kept: `progress` tells.
        """
        ...

    async def finish(self) -> None:
        """Make it the object, at once and whole; again is no error. Raises UPLOAD_INCOMPLETE before all is there."""
        ...

    async def discard(self) -> None:
        """Remove all of it, the object too; nothing there is no error."""
        ...

    async def parts(self) -> dict[int, int]:
        """Sizes of the parts that clients have PUT, by number from 1 on."""
        ...

    async def presign(self, number: int, *, sha256: bytes | None = None, seconds: int = 3600) -> Signed | None:
        """Where to PUT one part, or None where the store has no such thing.

        With its `sha256`, a store that knows such sums takes no other bytes.
        """
        ...


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

    async def begin(self, key: str, scratch: str) -> str:
        """Begin an object that comes in pieces; returns the handle that `partial` needs: record it.

        `scratch` is a prefix that ends in `/` and belongs to this object alone until it is finished.
        """
        ...

    def partial(self, key: str, scratch: str, handle: str, size: int) -> Partial:
        """The object that was begun, `size` bytes in the end."""
        ...

    async def free_bytes(self) -> int | None:
        """Free space, or None where that is not known."""
        ...

    async def sweep(self, older_than_seconds: float, *, keep: frozenset[str] = frozenset()) -> int:
        """Remove temporary files and unfinished multipart uploads of dead writers; returns how many.

        Keys in `keep` are partials that still grow.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """The file behind a key where the store is local, else None; never handed to anything that writes."""
        ...

    async def close(self) -> None: ...
