"""Bodies that are streamed to storage: never whole in memory, never a file that is not complete.

    request ─blocks─> [multipart parser] ─> count, limit, sha256 ─> ObjectStore.put ─> what is stored

The multipart parser is fed block by block; only the one file part goes to storage, small fields are kept as text. A
body that ends early, exceeds the limit, or stops arriving stores nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from services import contents, submit
from services.gateway.idempotency import used_otherwise
from services.gateway.state import Gateway
from services.intake import Arrived, Turn
from stereospot import errors, keys, titles
from stereospot.messages import SourceRef
from stereospot.storage.base import ObjectStore

IDLE_SECONDS = 60.0
"""A sender that is silent for so long has gone."""

MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 << 10
RESERVE_BYTES = 256 << 20
"""Kept free beside an upload: the broker's store and the film's fragments need room, too."""


@dataclass(slots=True)
class Form:
    """A multipart body: its fields, and the file that was stored on the way (None if it held none)."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    stored: Arrived | None = None
    complete: bool = False


async def body(request: Request[Any, Any, Any], limit: int, turn: Turn | None = None) -> AsyncGenerator[bytes]:
    """The request's body as it comes; raises UPLOAD_INCOMPLETE, or TOO_LARGE beyond `limit` bytes.

    With a `turn`, whoever wants the next one ends this body: its sender has come back.
    """
    announced = request.headers.get("content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise errors.error("TOO_LARGE", f"{int(announced)} bytes; the limit is {limit}.")
    blocks = request.stream()
    size = 0
    ended = False
    waiting: asyncio.Timeout | None = None

    def end() -> None:
        nonlocal ended
        ended = True
        if waiting is not None:
            waiting.reschedule(0)

    if turn is not None:
        turn.end = end
    while True:
        if ended:
            raise errors.error("UPLOAD_INCOMPLETE", "The sender goes on by another connection.")
        try:
            async with asyncio.timeout(IDLE_SECONDS) as waiting:
                block = await anext(blocks, None)
        except TimeoutError:
            if ended:
                continue
            raise errors.error("UPLOAD_INCOMPLETE", f"Nothing came for {IDLE_SECONDS:.0f} s.") from None
        except HTTPException as problem:
            raise errors.error("UPLOAD_INCOMPLETE", "The connection ended.") from problem
        finally:
            waiting = None
        if block is None:
            return
        size += len(block)
        if size > limit:
            raise errors.error("TOO_LARGE", f"The limit is {limit} bytes.")
        yield block


async def check_space(store: ObjectStore, request: Request[Any, Any, Any], size: int | None = None) -> None:
    """Refuse before the first byte what cannot fit: `size`, or what the request announces; raises STORAGE_FULL."""
    free = await store.free_bytes()
    announced = request.headers.get("content-length", "")
    wanted = size if size is not None else int(announced) if announced.isdigit() else 0
    if free is not None and wanted + RESERVE_BYTES > free:
        raise errors.error("STORAGE_FULL", f"{wanted} bytes are announced, {max(0, free - RESERVE_BYTES)} are free.")


async def store_stream(
    gateway: Gateway, name: str, blocks: AsyncIterator[bytes], *, upload_id: str | None = None
) -> Arrived:
    """Store one file's bytes under a new upload id, or the given one; raises EMPTY_INPUT for none."""
    upload_id = upload_id or submit.new_id()
    key = keys.source(upload_id, name.rpartition(".")[2] if "." in name else "")
    digest = hashlib.sha256()
    size = 0
    head = b""

    async def hashed() -> AsyncIterator[bytes]:
        nonlocal size, head
        async for block in blocks:
            if size == 0:
                head = block[: contents.LOOK_BYTES]
                if (what := contents.refusal(head)) is not None:
                    raise errors.error("UNSUPPORTED_CONTAINER", f"The bytes of {name} are {what}.")
            # Hashing 64 KiB takes 40 us with the CPU's own instructions: not worth a thread's way there and back.
            digest.update(block)
            size += len(block)
            yield block
        if size == 0:
            raise errors.error("EMPTY_INPUT", name)

    try:
        await gateway.context.store.put(key, hashed())
    except BaseException:
        gateway.metrics.uploads.labels("failed").inc()
        raise
    gateway.metrics.uploads.labels("stored").inc()
    gateway.metrics.upload_bytes.inc(size)
    arrived = Arrived(
        upload_id=upload_id, key=key, name=name, size_bytes=size, sha256=digest.hexdigest(),
        container=contents.container(head), at=time.time(),
    )  # fmt: skip
    await gateway.intake.note(arrived)
    return arrived


async def drop(gateway: Gateway, arrived: Arrived) -> None:
    """Remove what was stored for a request that is refused after all."""
    await gateway.context.store.delete(arrived.key)
    await gateway.context.store.delete_prefix(keys.upload_prefix(arrived.upload_id))


async def stored_before(request: Request[Any, Any, Any], gateway: Gateway, upload_id: str | None) -> Arrived | None:
    """What an earlier request stored under this id; raises CONFLICT when the body that comes again is another."""
    arrived = await gateway.intake.arrived(upload_id) if upload_id is not None else None
    if arrived is not None:
        again = await _measure(arrived.source(), arrived.name, body(request, gateway.context.settings.max_upload_bytes))
        if again.sha256 != arrived.sha256:
            raise used_otherwise()
    return arrived


async def _measure(before: SourceRef, name: str, blocks: AsyncIterator[bytes]) -> Arrived:
    """A film that came before: read, hashed and thrown away; as if it had been stored where the first one lies."""
    parsed = keys.parse_source(before.key or "")
    assert parsed is not None
    digest = hashlib.sha256()
    size = 0
    async for block in blocks:
        digest.update(block)
        size += len(block)
    return Arrived(
        upload_id=parsed.job_id, key=before.key or "", name=name, size_bytes=size, sha256=digest.hexdigest(),
        at=time.time(),
    )  # fmt: skip


async def store_raw(
    request: Request[Any, Any, Any], gateway: Gateway, name: str, *, upload_id: str | None = None
) -> Arrived:
    """The whole body is the file."""
    await check_space(gateway.context.store, request)
    blocks = body(request, gateway.context.settings.max_upload_bytes)
    return await store_stream(gateway, name, blocks, upload_id=upload_id)


async def store_form(
    request: Request[Any, Any, Any], gateway: Gateway, *, upload_id: str | None = None, before: SourceRef | None = None
) -> Form:
    """A multipart/form-data body: the first part that is a file is stored, fields are kept; raises INVALID_REQUEST.

    before: what the same request stored when it came first; the file is only hashed then, and named with that key.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary")
    if kind != "multipart/form-data" or not boundary:
        raise errors.error("INVALID_REQUEST", "Send the file as multipart/form-data in the field `file`.")
    if before is None:
        await check_space(gateway.context.store, request)
    # The fields and the envelope are not the file: leave them room above its limit.
    limit = gateway.context.settings.max_upload_bytes + MAX_FIELDS * MAX_FIELD_BYTES
    form = Form()
    events = _events(body(request, limit), str(boundary))
    try:
        await _read_parts(events, form, gateway, upload_id, before)
    except MultipartError as problem:
        code = "UPLOAD_INCOMPLETE" if "unexpected end" in str(problem).lower() else "INVALID_REQUEST"
        raise errors.error(code, f"{problem}.") from problem
    finally:
        await events.aclose()
        if not form.complete and form.stored is not None and before is None:
            await drop(gateway, form.stored)
    return form


async def _events(blocks: AsyncGenerator[bytes], boundary: str) -> AsyncGenerator[MultipartSegment | bytes | None]:
    """Parser events: a segment's head, its payload, None at its end."""
    with PushMultipartParser(boundary, max_segment_count=MAX_FIELDS, strict=False) as parser:
        async for block in blocks:
            for event in parser.parse(block):
                yield bytes(event) if isinstance(event, (bytes, bytearray)) else event


async def _read_parts(
    events: AsyncGenerator[MultipartSegment | bytes | None],
    form: Form,
    gateway: Gateway,
    upload_id: str | None,
    before: SourceRef | None,
) -> None:
    async for event in events:
        if not isinstance(event, MultipartSegment):
            continue
        if event.filename is not None:
            if form.stored is not None:
                raise errors.error("INVALID_REQUEST", "One file at a time, please.")
            if not event.filename:
                await _skip(events)  # an empty file input of a browser's form
                continue
            name = display_name(event.filename)
            if before is None:
                form.stored = await store_stream(gateway, name, _payload(events), upload_id=upload_id)
            else:
                form.stored = await _measure(before, name, _payload(events))
            continue
        name = (event.name or "")[:40]
        value = b""
        async for block in _payload(events):
            value += block
            if len(value) > MAX_FIELD_BYTES:
                raise errors.error("INVALID_REQUEST", f"The field {name!r} is too long.")
        form.fields[name] = value.decode(errors="replace")
    form.complete = True


async def _payload(events: AsyncIterator[MultipartSegment | bytes | None]) -> AsyncIterator[bytes]:
    async for event in events:
        if not isinstance(event, bytes):
            return
        yield event


async def _skip(events: AsyncIterator[MultipartSegment | bytes | None]) -> None:
    async for _ in _payload(events):
        pass


def display_name(text: str) -> str:
    """What a browser says the file is called, as display text: no folders, no control characters, at most 200.

    What joins two characters to one stays, and what marks a flag: they are of no use to anybody who means harm.
    """
    name = text.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in name if letter.isprintable() or titles.joins(letter))
    return titles.shown(kept[:200]) or "film"
