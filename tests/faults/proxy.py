"""A proxy before a nats-server that loses acknowledgements and delivers messages again and out of order.

It speaks just enough of the protocol to see where one message ends: `PUB`, `HPUB` from the client, `MSG`, `HMSG` from
the server. Everything else passes as it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

REPEATED = ("stereospot.done.", "stereospot.convert.", "stereospot.work.", "$KV.state.trigger.")
"""Subjects of durable consumers. Tails ask for no acknowledgement and order their messages by number: not these."""


@dataclass(slots=True)
class Proxy:
    """Where to connect, and what was done so far."""

    dice: random.Random
    times: int = 1
    lose: float = 0.0
    shuffle: bool = False
    port: int = 0
    lost: int = 0
    repeated: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def upwards(self, head: bytes, body: bytes) -> list[bytes]:
        """What the server gets of one frame of a client: not every ack."""
        words = head.split()
        is_ack = len(words) > 1 and words[1].startswith(b"$JS.ACK.") and body.endswith(b"+ACK\r\n")
        if is_ack and self.dice.random() < self.lose:
            self.lost += 1
            return []
        return [head + body]

    def downwards(self, head: bytes, body: bytes) -> list[bytes]:
        """What the client gets of one frame of the server: some several times."""
        words = head.split()
        if words and words[0] in (b"MSG", b"HMSG") and words[1].decode().startswith(REPEATED):
            self.repeated += self.times - 1
            return [head + body] * self.times
        return [head + body]


@asynccontextmanager
async def proxy(
    target: str, *, times: int = 1, lose: float = 0.0, shuffle: bool = False, seed: int = 1
) -> AsyncGenerator[Proxy]:
    """A proxy on a free port before `target` (nats://host:port)."""
    made = Proxy(random.Random(seed), times, lose, shuffle)
    host, _, port = target.removeprefix("nats://").partition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, up_writer, made.upwards, None))
                group.create_task(_pump(up_reader, writer, made.downwards, made if shuffle else None))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, up_writer):
                end.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        made.tasks.add(task)
        task.add_done_callback(made.tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(made.tasks):
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    change: Callable[[bytes, bytes], list[bytes]],
    shuffled: Proxy | None,
) -> None:
    """Frames from one side to the other; with `shuffled`, deliveries that wait together leave in another order."""
    waiting: list[bytes] = []

    async def flush() -> None:
        if shuffled is not None:
            shuffled.dice.shuffle(waiting)
        writer.writelines(waiting)
        waiting.clear()
        with suppress(ConnectionError):
            await writer.drain()

    while True:
        if waiting:
            try:
                async with asyncio.timeout(0.005):
                    head = await reader.readuntil(b"\r\n")
            except TimeoutError:
                await flush()
                continue
        else:
            head = await reader.readuntil(b"\r\n")
        words = head.split()
        size = int(words[-1]) + 2 if words and words[0] in (b"PUB", b"HPUB", b"MSG", b"HMSG") else 0
        body = await reader.readexactly(size) if size else b""
        frames = change(head, body)
        if shuffled is not None and words and words[0] in (b"MSG", b"HMSG") and words[1].decode().startswith(REPEATED):
            waiting += frames
            continue
        await flush()
        writer.writelines(frames)
        await writer.drain()
