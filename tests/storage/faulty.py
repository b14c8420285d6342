"""A proxy before a real S3 server that does to chosen requests what networks and overloaded stores do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["503", "500", "200-with-error", "501", "cut", "drop", "unheard"]

_BODY = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>injected</Message></Error>"
_ANSWERS: dict[str, bytes] = {
    "503": b"HTTP/1.1 503 Slow Down\r\n",
    "500": b"HTTP/1.1 500 Internal Server Error\r\n",
    "501": b"HTTP/1.1 501 Not Implemented\r\n",
    "200-with-error": b"HTTP/1.1 200 OK\r\n",
}
_CODES = {"503": b"SlowDown", "500": b"InternalError", "501": b"NotImplemented", "200-with-error": b"InternalError"}


@dataclass
class Faulty:
    """`plan` lists (which request, fault); each entry is used up once. `seen` are the request lines that came."""

    endpoint: str
    plan: list[tuple[Callable[[str], bool], Fault]] = field(default_factory=list[tuple[Callable[[str], bool], Fault]])
    seen: list[str] = field(default_factory=list[str])

    def inject(self, fault: Fault, *words: str, times: int = 1) -> None:
        """Do `fault` to the next requests whose head holds all `words`."""

        def matches(head: str) -> bool:
            return all(word in head for word in words)

        entry: tuple[Callable[[str], bool], Fault] = (matches, fault)
        self.plan += [entry] * times

    def _fault(self, head: str) -> Fault | None:
        for number, (matches, fault) in enumerate(self.plan):
            if matches(head):
                del self.plan[number]
                return fault
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: str) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer, upstream)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: str) -> None:
        """One request a connection: the answer says so."""
        head = await reader.readuntil(b"\r\n\r\n")
        text = head.decode("latin-1")
        self.seen.append(text.split("\r\n")[0])
        headers = dict(line.lower().split(": ", 1) for line in text.split("\r\n")[1:] if ": " in line)
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        fault = self._fault(text)
        if fault == "drop":
            return
        if fault in _ANSWERS:
            answer = _BODY % _CODES[fault]
            writer.write(_ANSWERS[fault] + b"Content-Type: application/xml\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(answer) + (b"" if text.startswith("HEAD") else answer))
            await writer.drain()
            return
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        away_reader, away_writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            lines = [
                line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith((b"expect:", b"connection:"))
            ]
            away_writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
            await away_writer.drain()
            passed = 0
            while block := await away_reader.read(65536):
                if fault == "unheard":
                    continue
                if fault == "cut" and passed + len(block) > 300_000:
                    return
                passed += len(block)
                writer.write(block)
                await writer.drain()
        finally:
            away_writer.close()


@contextlib.asynccontextmanager
async def faulty(upstream: str) -> AsyncGenerator[Faulty]:
    proxy = Faulty("")
    server = await asyncio.start_server(lambda reader, writer: proxy.serve(reader, writer, upstream), "127.0.0.1", 0)
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
