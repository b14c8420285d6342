"""Films on their way in: what was announced, how much is there, and the check of the whole before a job may start.

    begin ─> uploads/<id>/upload.json ─> append … append ─> finish: size, first bytes, sha256 ─> …/stored.json

Both records are objects beside the bytes, so an upload goes on through any gateway after any crash. Only two things
live in a process, and both can be lost: the running hash (without it the object is read once more at the end) and
whose turn it is (the store refuses bytes at a wrong place by itself).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from services import contents, submit
from services.context import Context
from stereospot import crash, errors, keys, log, subjects
from stereospot.messages import Message, SourceRef
from stereospot.storage.base import ObjectStore, Partial, Progress

_log = log.get("gateway")

crash.declare("intake.announced", "intake.appended", "intake.whole", "intake.noted")

EXPIRES_SECONDS = 24 * 3600.0
"""An upload that got no byte for so long is removed, and so is one that nobody made a job of."""

RUNNING_HASHES = 1024


class Upload(Message):
    """What was announced; never changed."""

    upload_id: str
    key: str
    name: str
    size_bytes: int
    sha256: str | None = None
    handle: str = ""
    how: Literal["tus", "parts"] = "tus"
    metadata: str = ""
    """What tus's creation said, as it said it."""
    created_at: float


class Arrived(Message):
    """What is stored, as this server read it."""

    upload_id: str
    key: str
    name: str
    size_bytes: int
    sha256: str
    container: str | None = None
    at: float

    def source(self) -> SourceRef:
        return SourceRef(key=self.key, name=self.name, size_bytes=self.size_bytes, digest=f"sha256:{self.sha256}")


@dataclass(slots=True)
class Turn:
    """One sender's exclusive access to an upload. `end` is called when another one wants it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    end: Callable[[], None] | None = None


class Intake:
    """The uploads of one process's store."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._limit = context.settings.max_upload_bytes
        self._turns: dict[str, Turn] = {}
        self._hashes: OrderedDict[str, tuple[int, Any]] = OrderedDict()

    # ---- beginning --------------------------------------------------------------------------------------
    async def begin(
        self,
        name: str,
        size: int,
        *,
        sha256: str | None = None,
        how: Literal["tus", "parts"] = "tus",
        metadata: str = "",
        upload_id: str | None = None,
    ) -> Upload:
        """Announce an upload; raises EMPTY_INPUT, TOO_LARGE, STORAGE_FULL before the first byte.

        With an `upload_id` that was announced already, that upload is returned unchanged.
        """
        if size == 0:
            raise errors.error("EMPTY_INPUT", name)
        if size > self._limit:
            raise errors.error("TOO_LARGE", f"{size} bytes; the limit is {self._limit}.")
        known = await _record(self._store, upload_id) if upload_id is not None else None
        if known is not None:
            return known
        upload_id = upload_id or submit.new_id()
        key = keys.source(upload_id, name.rpartition(".")[2] if "." in name else "")
        handle = await self._store.begin(key, keys.upload_prefix(upload_id))
        upload = Upload(
            upload_id=upload_id, key=key, name=name, size_bytes=size, sha256=sha256, handle=handle, how=how,
            metadata=metadata, created_at=time.time(),
        )  # fmt: skip
        await self._store.put(keys.upload_record(upload_id), upload.body())
        crash.point("intake.announced")
        _log.info("upload announced", action="start", upload_id=upload_id, size_bytes=size, how=how)
        return upload

    async def find(self, upload_id: str) -> Upload:
        """What was announced; raises NOT_FOUND, also for what has expired."""
        found = await _record(self._store, upload_id) if subjects.is_token(upload_id) else None
        if found is None:
            raise errors.error("NOT_FOUND", f"There is no upload {upload_id[:64]}; it may have expired.")
        return found

    def partial(self, upload: Upload) -> Partial:
        return partial(self._store, upload)

    async def progress(self, upload: Upload) -> Progress:
        """How much is there and durable; raises NOT_FOUND for an upload that was removed meanwhile."""
        try:
            return await touched(self._store, upload)
        except errors.Permanent as error:
            if error.code != "SOURCE_MISSING":
                raise
            raise errors.error("NOT_FOUND", f"The upload {upload.upload_id} is gone.") from None

    # ---- bytes ------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def turn(self, upload_id: str) -> AsyncGenerator[Turn]:
        """Wait for one's turn. Whoever has it now is told to end: its sender has come back by another way."""
        turn = self._turns.setdefault(upload_id, Turn())
        if turn.end is not None:
            turn.end()
        turn.waiting += 1
        try:
            async with turn.lock:
                try:
                    yield turn
                finally:
                    turn.end = None
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(upload_id, None)

    async def append(self, upload: Upload, offset: int, blocks: AsyncIterator[bytes]) -> int:
        """Add bytes behind `offset`; returns the new size, durable. Raises CONFLICT, TOO_LARGE, UNSUPPORTED_CONTAINER.

        To be called in one's turn. What is plainly no film is removed as soon as its first bytes tell.
        """
        running = self._hashes.pop(upload.upload_id, None)
        digest = running[1] if running is not None and running[0] == offset else None
        digest = hashlib.sha256() if offset == 0 else digest
        size = offset

        async def checked() -> AsyncIterator[bytes]:
            nonlocal size
            async for block in blocks:
                if size == 0 and (what := contents.refusal(block[: contents.LOOK_BYTES])) is not None:
                    raise errors.error("UNSUPPORTED_CONTAINER", f"The bytes of {upload.name} are {what}.")
                size += len(block)
                if size > upload.size_bytes:
                    raise errors.error("TOO_LARGE", f"{upload.size_bytes} bytes were announced.")
                if digest is not None:
                    # Hashing 64 KiB takes 40 us with the CPU's own instructions: not worth a thread's way and back.
                    digest.update(block)
                yield block

        try:
            reached = await self.partial(upload).append(offset, checked())
        except errors.StereoSpotError as error:
            if error.code == "UNSUPPORTED_CONTAINER":
                await self.discard(upload)
            raise
        crash.point("intake.appended")
        if digest is not None and reached == size:
            self._hashes[upload.upload_id] = reached, digest
            while len(self._hashes) > RUNNING_HASHES:
                self._hashes.popitem(last=False)
        return reached

    # ---- the end ----------------------------------------------------------------------------------------
    async def arrived(self, upload_id: str) -> Arrived | None:
        """What `finish` or `note` recorded."""
        body = await self._store.get(keys.upload_result(upload_id)) if subjects.is_token(upload_id) else None
        return None if body is None else Arrived.model_validate_json(body)

    async def finish(self, upload: Upload) -> Arrived:
        """Make the bytes an object and check the whole; again is no error. To be called in one's turn.

        Raises UPLOAD_INCOMPLETE; and, when it has removed the upload, CHECKSUM_MISMATCH or UNSUPPORTED_CONTAINER.
        """
        known = await self.arrived(upload.upload_id)
        if known is not None:
            return known
        await self.partial(upload).finish()
        crash.point("intake.whole")
        head = await self._store.read(upload.key, 0, contents.LOOK_BYTES)
        running = self._hashes.pop(upload.upload_id, None)
        if (what := contents.refusal(head)) is not None:
            await self.discard(upload)
            raise errors.error("UNSUPPORTED_CONTAINER", f"The bytes of {upload.name} are {what}.")
        if running is not None and running[0] == upload.size_bytes:
            sha256 = running[1].hexdigest()
        else:
            sha256 = await self._read_back(upload)
        if upload.sha256 is not None and upload.sha256 != sha256:
            await self.discard(upload)
            raise errors.error("CHECKSUM_MISMATCH", f"The bytes that came have {sha256}.")
        arrived = Arrived(
            upload_id=upload.upload_id, key=upload.key, name=upload.name, size_bytes=upload.size_bytes, sha256=sha256,
            container=contents.container(head), at=time.time(),
        )  # fmt: skip
        await self.note(arrived)
        return arrived

    async def note(self, arrived: Arrived) -> None:
        """Record what is stored, whichever way it came."""
        await self._store.put(keys.upload_result(arrived.upload_id), arrived.body())
        crash.point("intake.noted")
        _log.info("upload stored", action="store", upload_id=arrived.upload_id, size_bytes=arrived.size_bytes)

    async def _read_back(self, upload: Upload) -> str:
        """The object's sha256, from the store: after a restart, or where clients sent parts straight there."""
        digest = hashlib.sha256()
        async for block in self._store.stream(upload.key):
            await asyncio.to_thread(digest.update, block)
        return digest.hexdigest()

    async def discard(self, upload: Upload) -> None:
        """Remove an upload with all of its bytes."""
        self._hashes.pop(upload.upload_id, None)
        await remove(self._store, upload)


def partial(store: ObjectStore, upload: Upload) -> Partial:
    return store.partial(upload.key, keys.upload_prefix(upload.upload_id), upload.handle, upload.size_bytes)


async def touched(store: ObjectStore, upload: Upload) -> Progress:
    """The progress; `modified` is the announcement's time before the first byte."""
    found = await partial(store, upload).progress()
    return Progress(found.size, max(found.modified, upload.created_at), found.finished)


async def remove(store: ObjectStore, upload: Upload) -> None:
    """Bytes first, record last: whoever dies in between leaves something that can be found."""
    await partial(store, upload).discard()
    await store.delete_prefix(keys.upload_prefix(upload.upload_id))


async def _forget(store: ObjectStore, upload_id: str) -> None:
    """Remove the records of an upload and not its object. What was announced goes first: without what arrived it would
    look, to whoever finds the rest, like an upload that nobody finished."""
    await store.delete(keys.upload_record(upload_id))
    await store.delete_prefix(keys.upload_prefix(upload_id))


async def _record(store: ObjectStore, upload_id: str) -> Upload | None:
    body = await store.get(keys.upload_record(upload_id))
    try:
        return None if body is None else Upload.model_validate_json(body)
    except ValidationError as error:
        _log.error("unreadable upload", action="refuse", upload_id=upload_id, reason=str(error))
        return None


async def sweep(store: ObjectStore, older_than_seconds: float) -> tuple[int, frozenset[str]]:
    """Remove uploads that nobody goes on with; returns how many, and the keys of those that still grow.

    The records of a finished upload go, too, once they are old, and its object never: that is its job's, which may have
    another id, or nobody's, and then it is removed as such.
    """
    found: dict[str, float] = {}
    async for item in store.list("uploads/"):
        upload_id = item.key.split("/")[1]
        found[upload_id] = max(item.modified, found.get(upload_id, 0.0))
    before = time.time() - older_than_seconds
    removed = 0
    growing: set[str] = set()
    for upload_id in sorted(found):
        upload = await _record(store, upload_id)
        result = await store.head(keys.upload_result(upload_id))
        if result is not None or upload is None:
            # A record that cannot be read may be a newer version's, of an upload that is under way.
            if (result.modified if result is not None else found[upload_id]) <= before:
                await _forget(store, upload_id)
                removed += 1
            continue
        try:
            progress = await touched(store, upload)
        except errors.Permanent:
            progress = Progress(0, upload.created_at)
        if progress.modified <= before:
            if progress.finished:
                # Nobody noted it, or another sweep has just begun to forget it: a job may read its object.
                await _forget(store, upload_id)
            else:
                await remove(store, upload)
            removed += 1
        else:
            growing.add(upload.key)
    return removed, frozenset(growing)
