"""Acknowledged means on the disk: the server's own system calls, and kill -9 again and again.

No power was cut: kill -9 keeps the page cache, so that fsync comes first is shown by tracing the calls.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stereospot import broker, subjects
from stereospot.bus import Bus, Write
from stereospot.embedded import Embedded
from stereospot.settings import Settings
from tests.faults.table import Tell
from tests.support import Nats, eventually

STRACE = shutil.which("strace")


@asynccontextmanager
async def traced(pid: int, path: Path) -> AsyncGenerator[None]:
    """Record the writes and syncs of a process."""
    assert STRACE is not None
    calls = "trace=write,writev,pwrite64,pwritev,fsync,fdatasync"
    process = await asyncio.create_subprocess_exec(
        STRACE, "-f", "-y", "-s", "4096", "-e", calls, "-p", str(pid), "-o", str(path),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.readline(), 10)
        if b"attached" not in said:
            pytest.skip(f"tracing is not allowed here: {said.decode().strip()}")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def unsynced_at_ack(trace: str, marker: str) -> list[str]:
    """Files of the store that hold `marker` and were not synced when the first answer after it left.

    Raises AssertionError when the marker was never written or never answered.
    """
    dirty: set[str] = set()
    written = False
    for line in trace.splitlines():
        call = re.match(r"\d+ +(?:<\.\.\. )?(\w+)[( ]", line)
        if call is None:
            continue
        file = re.search(r"\((\d+<([^>]*)>)", line)
        name = file[2] if file else ""
        if call[1] in ("write", "writev", "pwrite64", "pwritev") and "/jetstream/" in name and marker in line:
            dirty.add(name)
            written = True
        elif call[1] in ("fsync", "fdatasync"):
            dirty.discard(name)
        elif written and name.startswith("socket") and '\\"seq\\":' in line:
            return sorted(dirty)
    raise AssertionError("the message was not written" if not written else "it was not acknowledged")


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("kind", ["publish", "put", "commit"])
async def test_the_embedded_server_syncs_before_it_acknowledges(tmp_path: Path, tell: Tell, kind: str) -> None:
    writes: dict[str, Callable[[Bus], Awaitable[object]]] = {
        "publish": lambda bus: bus.publish("stereospot.work.plan.a", b"MARKER"),
        "put": lambda bus: bus.bucket(subjects.JOBS).create("a", b"MARKER"),
        "commit": lambda bus: bus.commit(
            [Write("state", "state.a.1", b"MARKER", 0), Write("state", "trigger.a.1", b"MARKER", 0)]
        ),
    }
    async with Embedded(tmp_path, port=None) as server:
        settings = server.settings(Settings(data_dir=tmp_path))
        bus = await Bus.connect(settings, name="test")
        await broker.provision(bus, settings)
        assert server.pid is not None
        async with traced(server.pid, tmp_path / "trace"):
            await writes[kind](bus)
        await bus.drain()
    unsynced = unsynced_at_ack((tmp_path / "trace").read_text(), "MARKER")
    tell("F4b fsync before the acknowledgement", lost=len(unsynced))
    assert unsynced == []


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
async def test_the_check_itself_sees_a_server_that_does_not_sync(bus: Bus, server: Nats, tmp_path: Path) -> None:
    """The tests' other servers run with nats-server's default, which syncs every two minutes."""
    async with traced(server.process.pid, tmp_path / "trace"):
        await bus.publish("stereospot.work.plan.a", b"MARKER")
    assert unsynced_at_ack((tmp_path / "trace").read_text(), "MARKER") != []


@pytest.mark.slow
async def test_commits_are_whole_under_forty_kills(tmp_path: Path, tell: Tell) -> None:
    async with Embedded(tmp_path, port=None) as server:
        settings = server.settings(Settings(data_dir=tmp_path))
        bus = await Bus.connect(settings, name="test")
        await broker.provision(bus, settings)
        stopping = asyncio.Event()
        committed: set[str] = set()

        async def commit(writer: int) -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                key = f"{writer}.{number}"
                await bus.commit([Write("state", f"{kind}.{key}", b"x", 0) for kind in ("state", "trigger")])
                committed.add(key)

        async with asyncio.TaskGroup() as group:
            for writer in range(8):
                group.create_task(commit(writer))
            for kill in range(40):
                before = len(committed)
                await eventually(lambda before=before, kill=kill: len(committed) > before + kill % 5, seconds=30)
                old = server.pid
                assert old is not None
                os.kill(old, signal.SIGKILL)
                await eventually(
                    lambda old=old: server.pid not in (None, old) and bus.is_connected, seconds=30, what="a new server"
                )
            stopping.set()
        bucket = bus.bucket(subjects.STATE)
        states = {key.removeprefix("state.") for key in await bucket.keys("state")}
        triggers = {key.removeprefix("trigger.") for key in await bucket.keys("trigger")}
        tell("F4 broker killed in commits, 40 times", lost=len(committed - states), duplicated=len(states ^ triggers))
        assert states == triggers == committed
        await bus.drain()


async def test_a_truncated_block_loses_its_last_message_and_nothing_else(tmp_path: Path) -> None:
    """What a dying system may leave of a block that was not synced: whatever lies before the tear is there."""
    async with Embedded(tmp_path, port=None) as server:
        settings = server.settings(Settings(data_dir=tmp_path))
        bus = await Bus.connect(settings, name="test")
        await broker.provision(bus, settings)
        for number in range(20):
            await bus.bucket(subjects.JOBS).create(f"job{number}", b"x" * 300)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        (block,) = (tmp_path / "broker" / "jetstream" / "$G" / "streams" / "KV_jobs" / "msgs").glob("*.blk")
        os.truncate(block, block.stat().st_size - 100)
        await eventually(lambda: bus.is_connected and server.pid is not None)
        keys = await bus.bucket(subjects.JOBS).keys()
        assert keys == [f"job{number}" for number in range(19)]
        await bus.bucket(subjects.JOBS).create("job19", b"again")
        assert not (await broker.provision(bus, settings)).changed
        await bus.drain()
