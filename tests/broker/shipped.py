"""Real servers from the configurations that are shipped: one node, or three."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stereospot.settings import Settings
from tests.support import nats_binary, wait_until

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "nats"

ROLES = tuple(re.findall(r"user: (\w+), password: \$STEREOSPOT_PASSWORD", (FOLDER / "permissions.conf").read_text()))
VARIABLES = tuple(re.findall(r"\$(STEREOSPOT_PASSWORD_\w+)", (FOLDER / "permissions.conf").read_text()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Node:
    """One server of a shipped configuration; `url` without a user."""

    config: Path
    environment: dict[str, str]
    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        self.process = _spawn(self.config, self.environment)


def _spawn(config: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    log = (config.parent / "server.log").open("ab")
    with log:
        return subprocess.Popen([nats_binary(), "-c", str(config)], env=environment, stdout=log, stderr=log)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _prepare(folder: Path, name: str) -> Path:
    """A copy of a configuration without the parts that are fixed to a host: its ports."""
    text = (FOLDER / name).read_text()
    text = re.sub(r"^http: .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(host): 0\.0\.0\.0$", r"\1: 127.0.0.1", text, flags=re.MULTILINE)
    text = re.sub(r"^(port): 4222$", r"\1: $NATS_PORT", text, flags=re.MULTILINE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / "permissions.conf").write_text((FOLDER / "permissions.conf").read_text())
    return folder / name


@contextmanager
def servers(name: str, count: int) -> Generator[list[Node]]:
    """`count` servers of `single.conf` or `cluster.conf`; killed at the end."""
    nodes: list[Node] = []
    with tempfile.TemporaryDirectory(prefix="stereospot-nats-") as temporary:
        routes = [free_port() for _ in range(count)]
        try:
            for index in range(count):
                folder = Path(temporary) / str(index)
                port = free_port()
                environment = {
                    **dict.fromkeys(VARIABLES, "secret"),
                    "PATH": os.environ.get("PATH", ""),
                    "NATS_STORE": str(folder / "store"),
                    "NATS_NODE": f"node{index}",
                    "NATS_HOST": "127.0.0.1",
                    "NATS_PORT": str(port),
                    "NATS_CLUSTER_PORT": str(routes[index]),
                    "NATS_ROUTES": json.dumps([f"nats://127.0.0.1:{route}" for route in routes]),
                }
                config = _prepare(folder, name)
                nodes.append(Node(config, environment, port, _spawn(config, environment)))
            for node in nodes:
                wait_until(lambda node=node: _listening(node.port), what="a server of the shipped configuration")
            yield nodes
        finally:
            for node in nodes:
                node.process.kill()
                node.process.wait(10)


def settings_for(nodes: list[Node], user: str, **changes: object) -> Settings:
    urls = ",".join(f"nats://{user}:secret@127.0.0.1:{node.port}" for node in nodes)
    return Settings(nats_url=urls).model_copy(update=changes)
