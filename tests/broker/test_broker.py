"""The embedded server: one a data folder, private, mended when it dies, dead when its daemon is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stereospot import broker, embedded, errors
from stereospot.bus import Bus
from stereospot.embedded import Embedded
from stereospot.settings import Settings
from tests.support import eventually, wait_until

DAEMON = """
import asyncio, sys
from pathlib import Path
from stereospot import log
from stereospot.embedded import Embedded

log.configure()

async def main():
    async with Embedded(Path(sys.argv[1]), port=None) as server:
        print(server.port, server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def daemon(folder: Path) -> Generator[tuple[subprocess.Popen[str], int, int]]:
    """A process of its own that embeds a server: (process, port, the server's process id)."""
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        port, pid = process.stdout.readline().split()
        yield process, int(port), int(pid)
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_serves_behind_its_token_and_leaves_nothing(tmp_path: Path) -> None:
    async with Embedded(tmp_path, port=None) as server:
        settings = server.settings(Settings(data_dir=tmp_path))
        bus = await Bus.connect(settings, name="test")
        await broker.provision(bus, settings)
        await bus.drain()
        with pytest.raises(errors.Misconfigured, match="token"):
            await Bus.connect(Settings(nats_url=server.url), name="test")
        pid = server.pid
        assert pid is not None
        assert broker.parse_version(server.version) >= broker.OLDEST
        for name in ("token", "server.json"):
            assert stat.S_IMODE((tmp_path / "broker" / name).stat().st_mode) == 0o600
        config = json.loads((tmp_path / "broker" / "server.json").read_text())
        assert config["jetstream"]["sync_interval"] == "always"
        assert config["host"] == "127.0.0.1"
    assert not alive(pid)


async def test_token_and_messages_survive_a_restart(tmp_path: Path) -> None:
    tokens: list[str] = []
    for turn in range(2):
        async with Embedded(tmp_path, port=None) as server:
            tokens.append(server.token)
            settings = server.settings(Settings(data_dir=tmp_path))
            bus = await Bus.connect(settings, name="test")
            await broker.provision(bus, settings)
            if turn == 0:
                await bus.bucket("jobs").create("a", b"1")
            else:
                assert await bus.bucket("jobs").keys() == ["a"]
            await bus.drain()
    assert tokens[0] == tokens[1]


async def test_a_second_start_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with Embedded(tmp_path, port=None):
        with pytest.raises(errors.Misconfigured, match=str(os.getpid())) as raised:
            await Embedded(tmp_path, port=None).__aenter__()
        assert raised.value.code == "ALREADY_RUNNING"
        assert raised.value.entry.status == 409


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    async with Embedded(tmp_path / "a", port=None) as first:
        with pytest.raises(errors.Misconfigured, match=str(first.port)) as raised:
            await Embedded(tmp_path / "b", port=first.port).__aenter__()
        assert raised.value.code == "PORT_TAKEN"
        # `--port` is the page's.
        assert "STEREOSPOT_NATS_PORT" in str(raised.value)
    async with Embedded(tmp_path / "b", port=first.port) as second:
        assert second.port == first.port


async def test_a_server_that_is_killed_comes_back_on_its_port(tmp_path: Path) -> None:
    async with Embedded(tmp_path, port=None) as server:
        settings = server.settings(Settings(data_dir=tmp_path))
        bus = await Bus.connect(settings, name="test")
        await broker.provision(bus, settings)
        await bus.bucket("jobs").create("a", b"1")
        for _ in range(2):
            old = server.pid
            assert old is not None
            os.kill(old, signal.SIGKILL)
            await eventually(lambda old=old: server.pid not in (None, old), seconds=3)
            entry = await bus.bucket("jobs").get("a")
            assert entry is not None
            assert entry.value == b"1"
        await bus.drain()


async def test_a_server_that_could_not_write_is_started_again(tmp_path: Path) -> None:
    """nats-server stays dumb on a stream after one failed write; its log is where that shows."""
    async with Embedded(tmp_path, port=None, look_seconds=0.05) as server:
        old = server.pid
        with (tmp_path / "broker" / "server.log").open("a") as said:
            said.write("[1] [ERR] Filestore [WORK] Critical write error: no space left on device\n")
        await eventually(lambda: server.pid not in (None, old), seconds=5)
        new = server.pid
        await asyncio.sleep(0.2)  # an absence can only be waited for: four looks, and one error is one start
        assert server.pid == new


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_dies_with_its_daemon_and_the_next_start_works_at_once(tmp_path: Path) -> None:
    with daemon(tmp_path) as (process, _, pid):
        os.kill(pid, signal.SIGSTOP)  # however stuck it is
        process.kill()
        process.wait(5)
        with daemon(tmp_path) as (_, _, second):
            assert not alive(pid)
            assert alive(second)
    wait_until(lambda: not alive(second), seconds=3)


def test_an_orphan_on_the_store_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where children outlive their parents, the next start ends the one that holds the store."""
    monkeypatch.setattr(embedded, "_RELEASE_SECONDS", 0.6)
    folder = tmp_path / "broker"
    folder.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import fcntl, os, sys, time; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(f, 2);"
            "os.pwrite(f, str(os.getpid()).encode(), 0); print('held', flush=True); time.sleep(60)",
            str(folder / "store.lock"),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        async def start() -> None:
            async with Embedded(tmp_path, port=None) as server:
                assert server.pid is not None

        asyncio.run(start())
        assert holder.wait(5) == -signal.SIGTERM
        holder.stdout.close()
    finally:
        holder.kill()
        holder.wait(5)


async def test_a_broken_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "jetstream").write_text("not a folder")
    with pytest.raises(errors.Misconfigured) as raised:
        await Embedded(tmp_path, port=None).__aenter__()
    assert raised.value.code == "BROKER_FAILED"
    assert raised.value.detail.startswith("Can't start JetStream")
    # and the folder is free again
    (tmp_path / "broker" / "jetstream").unlink()
    async with Embedded(tmp_path, port=None):
        pass


def test_the_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATS_SERVER_BIN", raising=False)
    assert broker.binary().name.startswith("nats-server")
    monkeypatch.setenv("NATS_SERVER_BIN", "/nowhere/nats-server")
    with pytest.raises(errors.Misconfigured) as raised:
        broker.binary()
    assert raised.value.code == "BROKER_MISSING"


@pytest.mark.parametrize("version", ["2.12.4", "2.10.29", "v2.11.0-RC.1"])
def test_an_old_server_is_refused(version: str) -> None:
    with pytest.raises(errors.Misconfigured) as raised:
        broker.check_version(version)
    assert raised.value.code == "BROKER_TOO_OLD"


@pytest.mark.parametrize("version", ["2.12.5", "2.15.1", "3.0.0", "2.13.0-beta.1"])
def test_a_newer_server_is_taken(version: str) -> None:
    broker.check_version(version)
