"""Tasks for the tests of the jail; they run inside it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

from stereospot.errors import error
from stereospot.jail import Cell


def echo(cell: Cell, request: dict[str, Any]) -> None:
    while (message := cell.receive()).body.get("go", True):
        cell.send({"request": request, "body": message.body}, message.blob[::-1])


def digest(cell: Cell, request: dict[str, Any]) -> None:
    total = hashlib.sha256()
    while data := cell.source.read(300_001):
        total.update(data)
    cell.send({"sha256": total.hexdigest(), "holes": cell.source.holes})


def read_at(cell: Cell, request: dict[str, Any]) -> None:
    for offset, length in request["ranges"]:
        cell.send({}, cell.source.read_exactly_at(offset, length))


def write(cell: Cell, request: dict[str, Any]) -> None:
    with os.fdopen(cell.outputs[0], "wb") as file:
        file.write(cell.source.read_exactly_at(0, cell.source.size))


def fill_ring(cell: Cell, request: dict[str, Any]) -> None:
    assert cell.ring is not None
    cell.ring[:] = bytes(range(256)) * (len(cell.ring) // 256)
    cell.send({"size": len(cell.ring)})


def die(cell: Cell, request: dict[str, Any]) -> None:
    how = request["how"]
    if how == "segv":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    elif how == "nonsense":
        os.write(cell._control.fileno(), b"\xff" * 64)  # pyright: ignore[reportPrivateUsage]
        time.sleep(60)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def fail(cell: Cell, request: dict[str, Any]) -> None:
    if request["how"] == "ours":
        raise error("ENCRYPTED_INPUT", "locked\x1b[31m", frames=3)
    if request["how"] == "memory":
        bytearray(request["bytes"])
    raise ValueError("no such thing")


def spin(cell: Cell, request: dict[str, Any]) -> None:
    while True:
        pass


def sleep(cell: Cell, request: dict[str, Any]) -> None:
    """Never speaks again; with a grandchild of its own where the sandbox lets it."""
    grandchild = os.fork()
    if grandchild == 0:
        while True:
            time.sleep(60)
    cell.send({"pid": os.getpid(), "grandchild": grandchild})
    while True:
        time.sleep(60)


def surroundings(cell: Cell, request: dict[str, Any]) -> None:
    """What is still possible inside: each attempt by name, with the error it meets or None."""

    def attempt(action: Callable[[], Any]) -> str | None:
        try:
            action()
        except (OSError, subprocess.SubprocessError) as failure:
            return type(failure).__name__
        return None

    def connect() -> None:
        with socket.socket() as client:
            client.settimeout(2)
            client.connect(("127.0.0.1", request["port"]))

    def datagram() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", ("127.0.0.1", request["port"]))

    cell.send(
        {
            "environment": dict(os.environ),
            "descriptors": len(os.listdir("/proc/self/fd")) if request["listing"] else None,
            "attempts": {
                "open": attempt(lambda: open(request["path"]).close()),
                "create": attempt(lambda: open(request["path"] + ".new", "w").close()),
                "connect": attempt(connect),
                "datagram": attempt(datagram),
                "execute": attempt(lambda: subprocess.run(["/bin/true"], check=True)),
                "signal": attempt(lambda: os.kill(request["pid"], 0)),
            },
        }
    )
