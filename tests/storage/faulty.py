"""A proxy before a real S3 server that does to chosen requests what networks and overloaded stores do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["503", "500", "200-with-error", "501", "cut", "torn", "drop", "reset", "stall", "unheard", "damage"]
"""An answer; or: the answer cut after 300 kB, or in its middle; no answer; a reset in the middle of what is sent;
silence for `stall_seconds` and then no answer; done, but not answered; a bit of what is sent is another one."""

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
    """`plan` lists (which request, fault); each entry is used up once. `seen` are the request lines that came.

    `rates` are the shares of requests that get each fault by chance; `done` counts the faults that were done.
    """

    endpoint: str
    plan: list[tuple[Callable[[str], bool], Fault]] = field(default_factory=list[tuple[Callable[[str], bool], Fault]])
    seen: list[str] = field(default_factory=list[str])
    rates: dict[Fault, float] = field(default_factory=dict[Fault, float])
    dice: random.Random = field(default_factory=lambda: random.Random(3))
    stall_seconds: float = 5.0
    done: Counter[Fault] = field(default_factory=Counter[Fault])

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
        left = self.dice.random()
        for fault, rate in self.rates.items():
            if left < rate:
                return fault if fault != "200-with-error" or _may_fail_late(head) else "500"
            left -= rate
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: str) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer, upstream)
        finally:
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
        fault = self._fault(text)
        length = int(headers.get("content-length", "0"))
        if fault is not None:
            self.done[fault] += 1
        if fault == "reset" and length:
            await reader.readexactly(length // 2)
            writer.transport.abort()
            return
        body = await reader.readexactly(length)
        if fault == "damage" and length:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "stall":
            await asyncio.sleep(self.stall_seconds)
        if fault in ("drop", "reset", "stall"):
            return
        if fault in _ANSWERS:
            answer = _BODY % _CODES[fault]
            writer.write(_ANSWERS[fault] + b"Content-Type: application/xml\r\nConnection: close\r\n")
            writer.write(b"Access-Control-Allow-Origin: *\r\n")  # pages may read why, as of the store itself
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
            if fault == "torn":
                whole = await away_reader.read()
                writer.write(whole[: len(whole) // 2])
                await writer.drain()
                writer.transport.abort()
                return
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


def _may_fail_late(head: str) -> bool:
    """Copies and completions are what S3 begins to answer with 200 before it knows how they end."""
    return "x-amz-copy-source" in head.lower() or (head.startswith("POST ") and "uploadId=" in head)


@contextlib.asynccontextmanager
async def faulty(upstream: str) -> AsyncGenerator[Faulty]:
    proxy = Faulty("")
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(proxy.serve(reader, writer, upstream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
