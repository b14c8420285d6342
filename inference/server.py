"""The inference server: `GET /ping`, `POST /invocations`, as SageMaker and the seed system call them; an ASGI app.

    request ─> slot or 429 ─> input fetched into a folder ─> work in a thread ─> output stored or sent ─> folder gone

`/ping` answers at any time: the work is in threads, never on the event loop. Inputs come by URI (`s3://`, and `file://`
below the folders that were allowed) or inline (`handover.WIRE_TYPE`: one line of JSON, then the video). Errors are JSON
with `error`, and with our stable `code` and `advice`. A client that hangs up stops the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from inference import invocation
from inference.backends import handover
from inference.invocation import Invocation, Workshop
from stereospot import errors, keys, log
from stereospot.storage.base import ObjectStore

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LARGEST_JSON_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18
BODY_SECONDS = 60.0
"""Silence of a client in the middle of its body."""

_log = log.get("inference")


@dataclass(frozen=True, slots=True)
class Options:
    """slots: conversions at a time; retry_seconds: what a refused client is told to wait; token: bearer, None for none.

    roots: folders below which `file://` may read and write; largest_bytes: of an input.
    """

    slots: int = 1
    retry_seconds: float = 2.0
    token: str | None = None
    roots: tuple[Path, ...] = ()
    largest_bytes: int = 20 << 30


@dataclass(slots=True)
class Server:
    """The ASGI application. `open_bucket` opens the store of a bucket, for `s3://` URIs; None refuses them."""

    workshop: Workshop
    options: Options = field(default_factory=Options)
    open_bucket: Callable[[str], ObjectStore] | None = None
    busy: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        if route == ("GET", "/ping"):
            await _respond(send, 200, b"OK", "text/plain; charset=utf-8")
            return
        try:
            if route != ("POST", "/invocations"):
                raise errors.error("NOT_FOUND", f"{scope['method']} {scope['path']}")
            await self._invoke(scope, receive, send)
        except _HungUp:
            _log.info("client hung up", action="request", busy=self.busy)
        except errors.StereoSpotError as failure:
            await _refuse(send, failure)
        except Exception as failure:
            _log.exception("request failed", action="reject")
            await _refuse(send, errors.error("INTERNAL", f"{type(failure).__name__}: {failure}"))

    async def _invoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = {name.lower(): value for name, value in scope["headers"]}
        token = self.options.token
        if token is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), f"Bearer {token}".encode()
        ):
            await _respond_json(send, 401, {"error": "This server wants its bearer token."})
            return
        if self.busy >= self.options.slots:
            wait = str(max(1, round(self.options.retry_seconds))).encode()
            body = {"error": f"All {self.options.slots} slots are busy."}
            await _respond_json(send, 429, body, [(b"retry-after", wait)])
            return
        folder = Path(tempfile.mkdtemp(prefix="stereospot-inference-"))
        self.busy += 1
        try:
            body = _Body(receive)
            kind = headers.get(b"content-type", b"").decode("latin-1")
            if kind.partition(";")[0].strip() == handover.WIRE_TYPE:
                await self._inline(body, folder, send)
            else:
                wanted = invocation.parse(await body.whole(LARGEST_JSON_BYTES))
                await _respond_json(send, 200, {"status": "ok", **await self._by_uri(wanted, body, folder)})
        finally:
            self.busy -= 1
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _inline(self, body: _Body, folder: Path, send: Send) -> None:
        source, target = folder / "input.mp4", folder / "output.mp4"
        line = await body.line(LARGEST_JSON_BYTES)
        wanted = invocation.parse_handover(line)
        await body.save(source, self.options.largest_bytes)
        report = await self._work(body, lambda stop: self.workshop.segment(source, target, wanted, stop))
        head = handover.Answer(report=report).model_dump_json().encode() + b"\n"
        size = len(head) + target.stat().st_size
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", handover.WIRE_TYPE.encode()), (b"content-length", str(size).encode())],
        }
        await send(start)
        await send({"type": "http.response.body", "body": head, "more_body": True})
        with target.open("rb") as file:
            while block := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _by_uri(self, wanted: Invocation, body: _Body, folder: Path) -> dict[str, Any]:
        """Fetch, work and store; returns what the answer says beyond its status."""
        source, target = folder / "input.mp4", folder / "output.mp4"
        outward = self._place(wanted.output_uri)
        async with self._place(wanted.input_uri).opened() as found:
            await found.fetch(source, self.options.largest_bytes)
        given = wanted.stereospot
        told: dict[str, Any] = {}
        if given is not None:
            told["report"] = await self._work(body, lambda stop: self.workshop.segment(source, target, given, stop))
        else:
            await self._work(body, lambda stop: self.workshop.film(source, target, wanted.settled, stop))
        async with outward.opened() as place:
            await place.store(target)
        return told

    async def _work(self, body: _Body, work: Callable[[threading.Event], Any]) -> Any:
        """Run the work in a thread; a client that goes away stops it."""
        stop = threading.Event()
        running = asyncio.ensure_future(asyncio.to_thread(work, stop))
        gone = asyncio.ensure_future(body.gone())
        try:
            await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            raise _HungUp
        finally:
            stop.set()
            gone.cancel()
            # The slot is free only when the thread has ended: it gives way within a frame.
            with contextlib.suppress(Exception):
                await asyncio.shield(running)

    def _place(self, uri: str) -> _Place:
        """Where a URI points, if it may be used; raises INVALID_REQUEST."""
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            key = unquote(parts.path.lstrip("/"))
            if self.open_bucket is None or not parts.netloc or not keys.is_key(key):
                raise errors.error("INVALID_REQUEST", f"{uri} is not an object that this server can reach.")
            return _Object(self.open_bucket, parts.netloc, key)
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            path = Path(unquote(parts.path)).resolve()
            if not any(path.is_relative_to(root.resolve()) for root in self.options.roots):
                raise errors.error("INVALID_REQUEST", "That path is below none of this server's folders.")
            return _File(path)
        raise errors.error("INVALID_REQUEST", f"A URI begins with s3:// or file://, not {parts.scheme or uri[:20]}.")


# ---- places -----------------------------------------------------------------------------------------------
class _Place:
    """Where an input lies or an output goes."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[_Place]:
        yield self

    async def fetch(self, target: Path, largest: int) -> None:
        raise NotImplementedError

    async def store(self, source: Path) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class _File(_Place):
    path: Path

    async def fetch(self, target: Path, largest: int) -> None:
        if not self.path.is_file():
            raise errors.error("INVALID_REQUEST", f"There is no {self.path.name}.")
        if self.path.stat().st_size > largest:
            raise errors.error("TOO_LARGE", f"At most {largest} bytes.")
        await asyncio.to_thread(shutil.copyfile, self.path, target)

    async def store(self, source: Path) -> None:
        def move() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the target first: a reader never sees half a file.
            part = self.path.with_name(self.path.name + ".part")
            shutil.copyfile(source, part)
            part.replace(self.path)

        await asyncio.to_thread(move)


@dataclass(slots=True)
class _Object(_Place):
    open_bucket: Callable[[str], ObjectStore]
    bucket: str
    key: str
    bucket_store: ObjectStore | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[_Place]:
        self.bucket_store = self.open_bucket(self.bucket)
        try:
            yield self
        finally:
            await self.bucket_store.close()

    async def fetch(self, target: Path, largest: int) -> None:
        assert self.bucket_store is not None
        info = await self.bucket_store.head(self.key)
        if info is None:
            raise errors.error("INVALID_REQUEST", f"There is no s3://{self.bucket}/{self.key}.")
        if info.size > largest:
            raise errors.error("TOO_LARGE", f"At most {largest} bytes.")
        with target.open("wb") as file:
            async for block in self.bucket_store.stream(self.key):
                await asyncio.to_thread(file.write, block)

    async def store(self, source: Path) -> None:
        assert self.bucket_store is not None
        await self.bucket_store.put_file(self.key, source)


# ---- ASGI -------------------------------------------------------------------------------------------------
class _HungUp(Exception):
    """The client went away."""


class _Body:
    """A request's body, as a line and a rest, or whole."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept = b""
        self._ended = False

    async def _more(self) -> bytes:
        if self._ended:
            return b""
        try:
            message = await asyncio.wait_for(self._receive(), BODY_SECONDS)
        except TimeoutError as failure:
            raise errors.error("UPLOAD_INCOMPLETE", f"No byte came for {BODY_SECONDS:.0f} s.") from failure
        if message["type"] == "http.disconnect":
            raise _HungUp
        self._ended = not message.get("more_body", False)
        return message.get("body", b"")

    async def whole(self, largest: int) -> bytes:
        while not self._ended:
            self._kept += await self._more()
            if len(self._kept) > largest:
                raise errors.error("INVALID_REQUEST", f"The body has more than {largest} bytes.")
        return self._kept

    async def line(self, largest: int) -> bytes:
        while b"\n" not in self._kept:
            if self._ended or len(self._kept) > largest:
                raise errors.error("INVALID_REQUEST", "The body does not begin with a line of JSON.")
            self._kept += await self._more()
        line, _, self._kept = self._kept.partition(b"\n")
        return line

    async def save(self, target: Path, largest: int) -> None:
        size = 0
        with target.open("wb") as file:
            while True:
                block, self._kept = self._kept, b""
                size += len(block)
                if size > largest:
                    raise errors.error("TOO_LARGE", f"At most {largest} bytes.")
                await asyncio.to_thread(file.write, block)
                if self._ended:
                    return
                self._kept = await self._more()

    async def gone(self) -> None:
        """Wait until the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _respond(
    send: Send, status: int, body: bytes, kind: str, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _respond_json(
    send: Send, status: int, body: dict[str, Any], more: list[tuple[bytes, bytes]] | None = None
) -> None:
    await _respond(send, status, json.dumps(body).encode(), "application/json", more)


_CLIENTS = frozenset({"INVALID_REQUEST", "UPLOAD_INCOMPLETE", "INVALID_OPTIONS", "TOO_LARGE", "LICENSE_NOT_ACCEPTED"})
"""What the caller did wrong; everything else is this server's or the video's, which the contract calls 500."""


async def _refuse(send: Send, failure: errors.StereoSpotError) -> None:
    status = 404 if failure.code == "NOT_FOUND" else 400 if failure.code in _CLIENTS else 500
    _log.warning("refused", action="refuse", code=failure.code, status=status, detail=failure.detail)
    body = {"error": str(failure), "code": failure.code, "advice": failure.advice}
    await _respond_json(send, status, body)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
