"""B7: playlists over bare uvicorn sending the same bytes, and event streams held open.

    load process ── keep-alive connections ──> gateway (a process of its own, over a real broker, a job half converted)
                 ── the same, in turn       ──> uvicorn with an ASGI function that sends the very same answer

One load generator asks both in turn, slice by slice, so both see the same neighbours; each slice gives a ratio.
Sockets and bytes are written by hand: a client library would cost more than either server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from bench import measure
from services.context import Context
from stereospot import broker
from stereospot.bus import Bus
from stereospot.settings import Settings
from stereospot.storage import open_store
from tests.support import nats_server
from tests.system.showing import Showing

CONNECTIONS = 16
SLICE_SECONDS = 1.5
SLICES = 6
STREAMS = 5000

BARE = """
import sys, uvicorn
body = open(sys.argv[1], "rb").read()
headers = [tuple(line.split(b": ", 1)) for line in open(sys.argv[2], "rb").read().splitlines()]
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[3]), log_level="critical", access_log=False, lifespan="off", server_header=False)
"""


class Asker:
    """Keep-alive connections to one server that ask for one path as fast as answers come."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port
        self._head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.hostname}:{parts.port}\r\n\r\n".encode()
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self, count: int) -> None:
        self._open = [await asyncio.open_connection(self.host, self.port) for _ in range(count)]

    async def ask(self, seconds: float) -> list[float]:
        """Latencies of all requests that were answered within `seconds`."""
        until = time.perf_counter() + seconds
        found: list[float] = []

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (begun := time.perf_counter()) < until:
                writer.write(self._head)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                lower = head.lower()
                at = lower.index(b"content-length: ") + 16
                await reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
                found.append(time.perf_counter() - begun)

        async with asyncio.TaskGroup() as group:
            for pair in self._open:
                group.create_task(one(*pair))
        return found

    def close(self) -> None:
        for _, writer in self._open:
            writer.close()


@contextlib.asynccontextmanager
async def gateway() -> AsyncGenerator[tuple[str, str, Process]]:
    """(address, path of a media playlist of 60 segments, process) of a gateway with a job in the middle."""
    with nats_server() as server, tempfile.TemporaryDirectory(prefix="stereospot-bench-") as folder:
        settings = Settings(nats_url=server.url, data_dir=Path(folder), log_level="critical")
        bus = await Bus.connect(settings, name="bench")
        store = open_store(settings)
        await broker.provision(bus, settings)
        context = Context(settings, bus, store)
        shown = Showing(context, "J1", lengths=(1,) * 80)
        await shown.begin()
        await shown.convert(*range(60))
        port = free_port()
        command = [
            sys.executable, "-m", "services.cli", "run", "gateway", "--nats", server.url, "--data", folder,
            "--port", str(port),
        ]  # fmt: skip
        environment = os.environ | {"STEREOSPOT_LOG_LEVEL": "critical"}
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        address = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=address, timeout=20, trust_env=False) as client:
                await answers(client)
                job = (await client.get("/api/v1/jobs/J1")).json()
            yield address, job["playback"]["hls"].replace("master.m3u8", "from/0/video.m3u8"), process
        finally:
            process.terminate()
            await process.wait()
            await bus.drain()
            await store.close()


@contextlib.asynccontextmanager
async def bare(body: bytes, headers: Sequence[tuple[str, str]]) -> AsyncGenerator[tuple[str, Process]]:
    """Address and process of a uvicorn that answers everything with these bytes."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="stereospot-bench-") as folder:
        text, lines = Path(folder, "body"), Path(folder, "headers")
        await asyncio.to_thread(text.write_bytes, body)
        own = [f"{name}: {value}" for name, value in headers if name not in ("date", "x-request-id")]
        await asyncio.to_thread(lines.write_text, "\n".join([*own, "x-request-id: 0123456789abcdef"]))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", BARE, str(text), str(lines), str(port))
        address = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=address, timeout=20, trust_env=False) as client:
                await answers(client)
            yield address, process
        finally:
            process.terminate()
            await process.wait()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


async def answers(client: httpx.AsyncClient) -> None:
    """Until the server is ready."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/readyz")).status_code == 200:
                return
        if time.monotonic() > deadline:
            raise SystemExit("a server did not start")
        await asyncio.sleep(0.05)


async def requests() -> list[list[object]]:
    """Both servers in turn."""
    async with gateway() as (address, path, ours):
        async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
            answer = await client.get(path)
        async with bare(answer.content, list(answer.headers.items())) as (other, theirs):
            both = Asker(address + path), Asker(other + path)
            rates: list[tuple[float, float]] = []
            times: tuple[list[float], list[float]] = [], []
            for asker in both:
                await asker.open(CONNECTIONS)
                await asker.ask(1.0)
            processes = ours, theirs
            before = [measure.cpu_seconds(process.pid) for process in processes]
            for _ in range(SLICES):
                pair: list[float] = []
                for asker, all_of_it in zip(both, times, strict=True):
                    found = await asker.ask(SLICE_SECONDS)
                    pair.append(len(found) / SLICE_SECONDS)
                    all_of_it += found
                rates.append((pair[0], pair[1]))
            spent = [measure.cpu_seconds(process.pid) - at for process, at in zip(processes, before, strict=True)]
            for asker in both:
                asker.close()
    ratios = [first / second for first, second in rates]
    costs = [1e6 * cpu / len(found) for cpu, found in zip(spent, times, strict=True)]
    ninety_nine = [sorted(found)[int(len(found) * 0.99)] * 1000 for found in times]
    return [
        [
            "the gateway", statistics.median(rate[0] for rate in rates), ninety_nine[0], round(costs[0]),
            f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})", costs[1] / costs[0],
        ],
        ["bare uvicorn", statistics.median(rate[1] for rate in rates), ninety_nine[1], round(costs[1]), "", ""],
    ]  # fmt: skip


def resident_mib(process: Process) -> float:
    """Resident memory of a process, in MiB; a Linux kernel tells."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def streams(count: int) -> list[list[object]]:
    """Event streams held open, then one change that all of them must hear of."""
    async with gateway() as (address, _, process), httpx.AsyncClient(base_url=address, trust_env=False) as client:
        before = await asyncio.to_thread(resident_mib, process)
        parts = urlsplit(address)
        head = f"GET /api/v1/events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def one() -> None:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(head)
            await reader.readuntil(b"event: counts")
            held.append((reader, writer))

        begun = time.perf_counter()
        for first in range(0, count, 250):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(250, count - first)):
                    group.create_task(one())
        opened = time.perf_counter() - begun
        holding = await asyncio.to_thread(resident_mib, process)
        heard: list[float] = []

        async def hear(reader: asyncio.StreamReader) -> None:
            await reader.readuntil(b"event: job")
            heard.append(time.perf_counter())

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for reader, _ in held:
                group.create_task(hear(reader))
            begun = time.perf_counter()
            (await client.patch("/api/v1/jobs/J1", json={"title": "Another title"}, timeout=60)).raise_for_status()
        told = sorted(at - begun for at in heard)
        for _, writer in held:
            writer.close()
    per = (holding - before) * 1024 / count
    return [[len(held), opened, before, holding, per, told[len(told) // 2], told[int(len(told) * 0.99)]]]


def b7(count: int = STREAMS) -> str:
    """Two tables: rates beside each other, and what held streams cost."""
    rates = asyncio.run(requests())
    held = asyncio.run(streams(count))
    title = f"B7: a playlist of 60 segments, {CONNECTIONS} connections; target: >= 0.5 at p99 < 20 ms"
    head = ["server", "requests/s", "p99, ms", "CPU a request, us", "rate over bare uvicorn", "the same by CPU time"]
    first = measure.table(title, head, rates)
    head = ["streams", "opened in s", "MiB before", "MiB held", "KiB a stream", "told, median s", "told, p99 s"]
    return first + "\n" + measure.table(f"B7: event streams held; target {STREAMS}", head, held)
