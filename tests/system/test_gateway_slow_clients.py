"""Clients that take nothing of their answers end, slow ones do not, and one address cannot have all the places."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from services.gateway import connections, peers
from services.gateway.peers import Peers
from tests.support import Nats, eventually
from tests.system import certificates
from tests.system.gateway import served
from tests.system.test_gateway_connections import HEAD, Answering, Hasty, Streams, a_place, answer, ended, running

BLOCK = b"x" * (1 << 14)
FILM_BYTES = 32 << 20
"""More than the kernel holds for both sides."""


class Film:
    """An application that answers with 32 MiB; or, at `/short`, with what the kernel takes and a little more."""

    def __init__(self) -> None:
        self.protocols: list[connections.Protocol] = []
        self.length = 0
        self.is_sent = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while self.length < FILM_BYTES and not (scope["path"] == "/short" and self.waiting):
            await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
            self.length += len(BLOCK)
        await send({"type": "http.response.body", "body": b""})
        self.is_sent = True

    @property
    def waiting(self) -> int:
        """Bytes of the newest connection that the kernel has not taken."""
        return self.protocols[-1].transport.get_write_buffer_size()

    def protocol(self, *, stalled_seconds: float, found: Peers | None = None) -> type[connections.Protocol]:
        """The gateway's, for this application; with no word on `found` nobody is a proxy."""
        protocols = self.protocols

        class Impatient(Hasty):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                protocols.append(self)
                super().connection_made(transport)

        Impatient.stalled_seconds = stalled_seconds
        Impatient.peers = found or Peers()
        return Impatient


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients on loopback are taken for any others."""
    monkeypatch.setattr(peers, "LOOPBACK", ())


async def opened(port: int, path: str = "/", *more: str) -> Streams:
    """A connection that has asked, and of whose answer nothing is read before somebody reads."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    lines = (f"GET {path} HTTP/1.1", "Host: localhost", *more, "", "")
    sock.sendall("\r\n".join(lines).encode())
    return await asyncio.open_connection(sock=sock, limit=1 << 12)


async def moments(port: int, count: int) -> None:
    """As long as so many heads may take, one after another."""
    for _ in range(count):
        await ended(await asyncio.open_connection("127.0.0.1", port))


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize("path", ["/", "/short"])
@pytest.mark.parametrize("more", [[], ["Connection: close"]])
async def test_a_client_that_takes_nothing_is_left(path: str, more: list[str]) -> None:
    film = Film()
    async with running(film, http=film.protocol(stalled_seconds=0.4)) as port:
        _, writer = await opened(port, path, *more)
        await eventually(lambda: bool(film.protocols) and film.waiting > 0, what="a full kernel")
        await eventually(lambda: film.is_sent and film.protocols[0].transport.is_closing(), what="its end")
        await eventually(lambda: not film.waiting, what="what waited to be forgotten")
        writer.close()


@pytest.mark.usefixtures("strangers")
async def test_a_client_that_takes_a_little_now_and_then_gets_all() -> None:
    """So little that the kernel asks for no more in all that time."""
    film = Film()
    async with running(film, http=film.protocol(stalled_seconds=1.5)) as port:
        streams = await opened(port)
        await eventually(lambda: bool(film.protocols) and film.waiting > 0, what="a full kernel")
        size = 0
        for _ in range(20):
            size += len(await streams[0].readexactly(1 << 16))
            await moments(port, 1)
        assert not film.protocols[0].transport.is_closing()
        while block := await streams[0].read(1 << 20):
            size += len(block)
            if film.is_sent and block.endswith(b"0\r\n\r\n"):
                break
        assert size > FILM_BYTES
        streams[1].close()


@pytest.mark.usefixtures("strangers")
async def test_the_end_of_an_answer_waits_for_a_slow_client() -> None:
    """Longer than a connection without a request is kept; then it is closed."""
    film = Film()
    async with running(film, http=film.protocol(stalled_seconds=60), keep_alive=1) as port:
        streams = await opened(port, "/short")
        await eventually(lambda: film.is_sent, what="the last byte")
        first = film.protocols[0]
        await moments(port, 8)
        assert first.transport.get_write_buffer_size() > 0
        assert not first.transport.is_closing()
        assert len(await ended(streams)) > film.length


class Unread(asyncio.Transport):
    """A TLS transport of which so many bytes are still to be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.unread_bytes = 1
        self.done: list[str] = []

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def is_closing(self) -> bool:
        return "close" in self.done or "abort" in self.done

    def pause_reading(self) -> None:
        self.done.append("pause")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")


async def test_tls_is_not_ended_before_all_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio, asked to close it, would cut off what is left after half a minute."""
    looks = 0
    of = connections.Taken.of

    def counted(transport: asyncio.Transport) -> connections.Taken:
        nonlocal looks
        looks += 1
        return of(transport)

    monkeypatch.setattr(connections.Taken, "of", counted)
    monkeypatch.setattr(connections, "FLUSHED_SECONDS", (0.001, 0.002))
    loop = asyncio.get_running_loop()
    slow, lost = Unread(), Unread()
    for transport in (slow, lost):
        unhurried = connections.Unhurried(transport, loop)
        unhurried.close()
        unhurried.close()
        assert unhurried.is_closing()
    lost.abort()
    await eventually(lambda: looks > 10, what="some looks")
    assert (slow.done, lost.done) == (["pause"], ["pause", "abort"])
    slow.unread_bytes = 0
    await eventually(lambda: slow.done == ["pause", "close"], what="its end")


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize("is_local", [True, False])
async def test_a_proxy_reads_when_its_client_does(is_local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_local:
        monkeypatch.undo()
    found = Peers() if is_local else Peers([peers.IPv4Network("127.0.0.1/32")])
    film = Film()
    async with running(film, http=film.protocol(stalled_seconds=0.2, found=found)) as port:
        streams = await opened(port)
        await eventually(lambda: bool(film.protocols) and film.waiting > 0, what="a full kernel")
        first = film.protocols[0]
        await moments(port, 5)
        assert not first.transport.is_closing()
        streams[1].close()


@pytest.mark.usefixtures("strangers")
async def test_one_address_has_a_part_of_the_places_only() -> None:
    app = Answering()
    async with running(app, most=2 * connections.ADDRESS_SHARE) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for streams in held:
            streams[1].write(HEAD.replace(b" / ", b" /late "))
        assert await ended(await asyncio.open_connection("127.0.0.1", port)) == b""
        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        other[1].write(HEAD)
        assert await answer(other) == b"0"
        app.go.set()
        assert [await answer(streams) for streams in held] == [b"0", b"0"]
        held[0][1].close()

        await a_place(port)
        for streams in (held[1], other):
            streams[1].close()


ADDRESSES = [
    ("192.0.2.7", "192.0.2.7"),
    ("::ffff:192.0.2.7", "192.0.2.7"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("127.0.0.1", None),
    ("127.9.9.9", None),
    ("::ffff:127.0.0.1", None),
    ("::1", None),
    ("10.0.0.5", None),
    ("::ffff:10.0.0.5", None),
    ("10.0.0.6", "10.0.0.6"),
    ("fd00::7", None),
]


@pytest.mark.parametrize(("address", "counted"), ADDRESSES)
def test_for_whom_a_connection_counts(address: str, counted: str | None) -> None:
    found = Peers([peers.IPv4Network("10.0.0.5/32"), peers.IPv6Network("fd00::/8")])
    assert found.counted(address) == counted


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)])
async def test_the_gateway_counts_by_address_and_knows_its_proxies(
    server: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxies: tuple[str, ...], is_tls: bool
) -> None:
    made: list[connections.Protocol] = []
    begin = connections.Protocol.connection_made

    def noted(self: connections.Protocol, transport: asyncio.Transport) -> None:
        made.append(self)
        begin(self, transport)

    monkeypatch.setattr(connections.Protocol, "connection_made", noted)
    monkeypatch.setattr(connections, "most", lambda: 4 * connections.ADDRESS_SHARE)
    cert, key = certificates.write(tmp_path)
    more: dict[str, Any] = {"tls_certificate": cert, "tls_key": key} if is_tls else {}
    async with served(server, tmp_path / "data", proxies=proxies, **more) as gateway:
        address = gateway.client.base_url.host, gateway.client.base_url.port
        silent = [await asyncio.open_connection(*address) for _ in range(5)]
        closed = [asyncio.create_task(ended(item)) for item in silent]
        answered = await gateway.client.get("/livez")  # on the connection that it has; those above were accepted before
        assert answered.text == "ok\n"
        await eventually(lambda: sum(item.done() for item in closed) == (0 if proxies else 2), what="two to be closed")
        assert {item.peers.counted("127.0.0.1") for item in made} == {None if proxies else "127.0.0.1"}
        for _, writer in silent:
            writer.close()
        await asyncio.gather(*closed)
