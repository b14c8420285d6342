"""Resumable uploads whose connections and processes die, a hundred at once, and ten gigabytes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from stereospot import keys
from tests.support import Nats, eventually
from tests.system.gateway import Served, served
from tests.system.resumable import BYTES, FTYP, MIB, TUS, begin, broken, film, offset_of, send


async def test_what_came_before_a_broken_connection_counts(
    server: Nats, tmp_path: Path, stored_on: dict[str, Any]
) -> None:
    data = film(2 * MIB)
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        location = await begin(gateway, len(data))
        writer = await broken(gateway.url, location, 0, data[: MIB + 5], len(data))

        async def arrived() -> bool:
            writer.transport.abort()
            return await offset_of(gateway, location) == MIB + 5

        await eventually(arrived, what="all that was sent")
        answer = await send(gateway, location, MIB + 5, data[MIB + 5 :])
        assert answer.status_code == 204
        resource = (await gateway.client.get(location)).json()
        assert resource["sha256"] == hashlib.sha256(data).hexdigest()


async def test_who_comes_back_takes_the_turn_of_a_silent_connection(gateway: Served, tmp_path: Path) -> None:
    data = film(2 * MIB)
    location = await begin(gateway, len(data))
    silent = await broken(gateway.url, location, 0, data[:MIB], len(data))
    part = tmp_path / "data" / "storage" / keys.upload_prefix(location.rpartition("/")[2]) / ".part"
    await eventually(lambda: part.stat().st_size == MIB, what="the first half")
    async with asyncio.timeout(10):
        assert await offset_of(gateway, location) == MIB
        assert (await send(gateway, location, MIB, data[MIB:])).status_code == 204
    silent.close()
    assert (await gateway.client.get(location)).json()["stored"]


async def test_offsets_are_exact_after_kill_9(tmp_path: Path) -> None:
    """The daemon dies with a PATCH in its hands; the next one tells what is on disk, and the whole is right."""
    data = film(3 * MIB)
    environment = os.environ | {"STEREOSPOT_NATS_PORT": "0"}
    command = [sys.executable, "-m", "services.cli", "up", "--json", "--data", str(tmp_path), "--port", "0"]
    location = ""
    for attempt in range(2):
        daemon = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            assert daemon.stdout is not None
            async with asyncio.timeout(60):
                url = str(json.loads(await daemon.stdout.readline())["url"])
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                if attempt == 0:
                    headers = TUS | {"Upload-Length": str(len(data))}
                    location = (await client.post("/api/v1/uploads", headers=headers)).headers["location"]
                    first = await client.patch(location, headers=BYTES | {"Upload-Offset": "0"}, content=data[:1000])
                    assert first.headers["upload-offset"] == "1000"
                    writer = await broken(url, location, 1000, data[1000 : 2 * MIB], len(data) - 1000)
                    part = tmp_path / "storage" / keys.upload_prefix(location.rpartition("/")[2]) / ".part"
                    await eventually(lambda part=part: part.stat().st_size > MIB, what="a second part of it")
                    daemon.kill()
                    writer.close()
                else:
                    offset = int((await client.head(location, headers=TUS)).headers["upload-offset"])
                    assert MIB < offset <= 2 * MIB
                    named = BYTES | {"Upload-Offset": str(offset)}
                    assert (await client.patch(location, headers=named, content=data[offset:])).status_code == 204
                    resource = (await client.get(location)).json()
                    assert resource["sha256"] == hashlib.sha256(data).hexdigest()
        finally:
            if daemon.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    daemon.terminate()
            await daemon.wait()


async def test_a_hundred_at_once_with_broken_connections(gateway: Served) -> None:
    """Every fifth connection breaks in the middle, again and again; not one wrong byte."""
    chance = random.Random(11)
    films = [film(200_000 + 1000 * number, seed=number) for number in range(100)]
    breaks = 0

    async def one(data: bytes) -> None:
        nonlocal breaks
        location = await begin(gateway, len(data))
        offset = 0
        while offset < len(data):
            piece = data[offset : offset + 65_536]
            if chance.random() < 0.2:
                breaks += 1
                writer = await broken(
                    gateway.url, location, offset, piece[: chance.randrange(1, len(piece) + 1)], len(data)
                )
                writer.transport.abort()
                offset = await offset_of(gateway, location)
                continue
            answer = await send(gateway, location, offset, piece)
            if answer.status_code == 409:
                # The broken request was read after the question for the offset.
                offset = await offset_of(gateway, location)
                continue
            assert answer.status_code == 204, answer.text
            offset = int(answer.headers["upload-offset"])
        resource = (await gateway.client.get(location)).json()
        assert resource["sha256"] == hashlib.sha256(data).hexdigest()
        assert await gateway.context.store.get(resource["upload"]) == data

    async with asyncio.TaskGroup() as group:
        for data in films:
            group.create_task(one(data))
    assert breaks > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("gibibytes", [1, 10])
async def test_ten_gigabytes_take_no_memory(server: Nats, tmp_path: Path, gibibytes: int) -> None:
    """A gateway in a process of its own takes a sparse file in pieces; its memory stays what it was."""
    size, piece = gibibytes << 30, 1 << 29
    async with served(server, tmp_path / "first"):
        pass  # the broker has its streams
    source = tmp_path / "sparse.mp4"
    with source.open("wb") as file:
        file.write(FTYP)
        file.truncate(size)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
    words = ["run", "gateway", "--nats", server.url, "--data", str(tmp_path / "data"), "--port", str(port)]
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.cli", *words)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, seconds=60, what="the gateway")
            before = resident_kib(daemon.pid)
            headers = TUS | {"Upload-Length": str(size)}
            location = (await client.post("/api/v1/uploads", headers=headers)).headers["location"]
            with source.open("rb") as file:

                async def blocks(count: int) -> AsyncIterator[bytes]:
                    for _ in range(count >> 20):
                        yield file.read(MIB)

                for offset in range(0, size, piece):
                    named = BYTES | {"Upload-Offset": str(offset), "Content-Length": str(piece)}
                    answer = await client.patch(location, headers=named, content=blocks(piece))
                    assert answer.status_code == 204, answer.text
            peak = resident_kib(daemon.pid)
            resource = (await client.get(location)).json()
            assert (resource["stored"], resource["size_bytes"]) == (True, size)
            print(f"peak resident memory: {before} KiB before, {peak} KiB after {gibibytes} GiB")
            assert peak - before < 64 << 10
    finally:
        daemon.terminate()
        await daemon.wait()


def resident_kib(process_id: int) -> int:
    """The most that a process has held in memory, as a Linux kernel tells."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
