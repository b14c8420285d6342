"""Connections that say nothing: each of them ends, there are never too many, and what is at work is not cut."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from services.gateway import connections
from services.gateway.peers import Peers
from services.listener import listen
from tests.support import Nats, eventually
from tests.system import certificates
from tests.system.gateway import served

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hasty(connections.Protocol):
    head_seconds = 0.2


class Answering:
    """An application that answers with the length of the body: `/early` before it came, `/late` once it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        size, more = 0, scope["path"] != "/early"
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        if scope["path"] == "/late":
            await self.go.wait()
        text = str(size).encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


@asynccontextmanager
async def running(
    app: Any, *, most: int = 100, http: type[connections.Protocol] = Hasty, keep_alive: int = 60
) -> AsyncGenerator[int]:
    """Its port."""
    sock = connections.Bounded(listen("127.0.0.1", 0), most, Peers())
    config = uvicorn.Config(app, http=http, log_config=None, lifespan="off", ws="none", timeout_keep_alive=keep_alive)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await eventually(lambda: server.started, what="the server")
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def ended(streams: Streams) -> bytes:
    """What comes until the other side ends it."""
    reader, writer = streams
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def answer(streams: Streams) -> bytes:
    async with asyncio.timeout(10):
        head = await streams[0].readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return await streams[0].readexactly(1)


async def a_place(port: int) -> None:
    """Wait until one more connection is served; it is closed then."""

    async def served_again() -> bool:
        fresh = await asyncio.open_connection("127.0.0.1", port)
        fresh[1].write(HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return (await ended(fresh)).startswith(b"HTTP/1.1 200")

    await eventually(served_again, what="a place")


async def test_a_connection_without_a_whole_head_is_closed() -> None:
    async with running(Answering()) as port:
        silent = await asyncio.open_connection("127.0.0.1", port)
        half = await asyncio.open_connection("127.0.0.1", port)
        half[1].write(HEAD[:20])
        second = await asyncio.open_connection("127.0.0.1", port)
        second[1].write(HEAD)
        assert await answer(second) == b"0"
        second[1].write(HEAD[:20])
        assert await asyncio.gather(*map(ended, (silent, half, second))) == [b"", b"", b""]


async def test_a_head_that_drips_is_closed() -> None:
    async with running(Answering()) as port:
        drip = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(ended(drip))
        drip[1].write(HEAD[:-2])

        def more() -> bool:
            if not closed.done() and not drip[1].is_closing():
                drip[1].write(b"X: y\r\n")
            return closed.done()

        await eventually(more, what="its end")


async def test_bodies_and_answers_take_as_long_as_they_like() -> None:
    app = Answering()
    async with running(app) as port:
        body, late, kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        body[1].write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        late[1].write(HEAD.replace(b" / ", b" /late "))
        kept[1].write(HEAD)
        assert await answer(kept) == b"0"
        for _ in range(2):  # twice as long as a head may take
            await ended(await asyncio.open_connection("127.0.0.1", port))
        body[1].write(b"cd")
        app.go.set()
        kept[1].write(HEAD)
        assert [await answer(item) for item in (body, late, kept)] == [b"4", b"0", b"0"]
        for _, writer in (body, late, kept):
            writer.close()


async def test_the_rest_of_a_refused_body_may_come_but_not_stop() -> None:
    async with running(Answering()) as port:
        streams = await asyncio.open_connection("127.0.0.1", port)
        streams[1].write(b"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert await answer(streams) == b"0"
        streams[1].write(b"a")
        other = asyncio.create_task(ended(await asyncio.open_connection("127.0.0.1", port)))

        def more() -> bool:
            streams[1].write(b"a")
            return other.done()

        await eventually(more, what="a time that a head may take")
        assert not streams[0].at_eof()
        assert await ended(streams) == b""


async def test_a_refused_body_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hasty, "refused_seconds", 0.4)
    async with running(Answering()) as port:
        streams = await asyncio.open_connection("127.0.0.1", port)
        streams[1].write(b"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert await answer(streams) == b"0"
        other = asyncio.create_task(ended(streams))

        def more() -> bool:
            with contextlib.suppress(OSError):
                streams[1].write(b"a")
            return other.done()

        await eventually(more, what="the end of a body that nobody wants")


async def test_one_too_many_is_closed_and_its_place_is_free_again() -> None:
    app = Answering()
    async with running(app, most=2) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for streams in held:
            streams[1].write(HEAD.replace(b" / ", b" /late "))
        assert await ended(await asyncio.open_connection("127.0.0.1", port)) == b""
        app.go.set()
        for streams in held:
            assert await answer(streams) == b"0"
        held[0][1].close()

        await a_place(port)
        held[1][1].close()


async def test_without_descriptors_accepting_fails_once_and_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio asks again for as many connections as wait, and logs every failure with its traceback."""

    def lacking(_: socket.socket) -> tuple[socket.socket, Any]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", lacking)
    with connections.Bounded(listen("127.0.0.1", 0), 2) as sock:
        with pytest.raises(OSError, match="Too many open files"):
            sock.accept()
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_half_of_all_descriptors_are_for_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        assert connections.most() == 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("is_tls", [False, True])
async def test_the_gateway_has_both_bounds(
    server: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    """A client that never begins its TLS counts, too."""
    monkeypatch.setattr(connections, "most", lambda: 4)
    monkeypatch.setattr(connections.Protocol, "head_seconds", 0.2)
    cert, key = certificates.write(tmp_path)
    more: dict[str, Any] = {"tls_certificate": cert, "tls_key": key} if is_tls else {}
    async with served(server, tmp_path / "data", **more) as gateway:
        address = gateway.client.base_url.host, gateway.client.base_url.port
        opened = [await asyncio.open_connection(*address) for _ in range(6)]
        first = [asyncio.create_task(ended(item)) for item in opened]
        # Without TLS all of them end; with it those above the bound, the others when a handshake has taken too long.
        await eventually(lambda: sum(item.done() for item in first) >= (3 if is_tls else 6), what="their end")
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*first)
        answered = await gateway.client.get("/livez")
        assert answered.text == "ok\n"
