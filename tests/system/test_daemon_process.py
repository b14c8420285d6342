"""The daemon as a process: it answers, ends when it is told to, and takes its children with it however it ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services import daemon, workers
from stereospot.settings import Settings
from tests.support import wait_until

PROGRAM = """
import asyncio, json, os, sys
from services import daemon
from stereospot import errors, log
from stereospot.settings import Settings

async def ready(context):
    print(json.dumps({"url": context.settings.nats_url}), flush=True)

log.configure("info", "json")
try:
    sys.exit(asyncio.run(daemon.run(set(sys.argv[2].split(",")), Settings(), ready=ready, processes=int(sys.argv[1]))))
except errors.StereoSpotError as error:
    print(json.dumps({"code": error.code}), flush=True)
    sys.exit(78)
"""

SERVICES = "collector,submit,delete,dead-letters,janitor"


@contextmanager
def started(
    folder: Path, *, services: str = SERVICES, processes: int = 0, **settings: str
) -> Generator[subprocess.Popen[str]]:
    """A daemon on a broker of its own; killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
    environment |= {"STEREOSPOT_DATA_DIR": str(folder), "STEREOSPOT_NATS_PORT": "-1"}
    environment |= {f"STEREOSPOT_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(processes), services],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def first_line(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line and process.stderr is not None:
        pytest.fail(process.stderr.read())
    return json.loads(line)


def descendants(pid: int) -> set[int]:
    """Process ids of all living children, and theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    open_list = [pid]
    while open_list:
        for child in children.get(open_list.pop(), []):
            found.add(child)
            open_list.append(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_it_ends_within_seconds_of_sigterm_with_a_reason(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        first_line(process)
        children = descendants(process.pid)
        assert children, "the broker runs"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0, said
        last = json.loads(said.strip().splitlines()[-1])
        assert (last["action"], last["reason"]) == ("stop", "SIGTERM")
        wait_until(lambda: not any(map(alive, children)), what="the broker's end")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no way to ask for another process's limits")
def test_it_may_open_as_many_files_as_the_host_lets_it(tmp_path: Path) -> None:
    """Shells give 1,024, which clients of the gateway can use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        with started(tmp_path) as process:
            first_line(process)
            wanted = daemon.MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, daemon.MAX_FILES)
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (wanted, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nothing_is_left_of_it_after_kill_9(tmp_path: Path) -> None:
    with started(tmp_path, processes=2) as process:
        first_line(process)
        wait_until(lambda: len(descendants(process.pid)) >= 3, what="a broker and two workers")
        children = descendants(process.pid)
        process.kill()
        process.wait(5)
        wait_until(lambda: not any(map(alive, children)), what="the end of all children")


def test_a_worker_process_that_dies_is_started_again(tmp_path: Path) -> None:
    def worker_pids(parent: int) -> set[int]:
        return {pid for pid in descendants(parent) if "services.workers" in Path(f"/proc/{pid}/cmdline").read_text()}

    with started(tmp_path, processes=1) as process:
        first_line(process)
        (first,) = wait_until(lambda: worker_pids(process.pid), what="a worker")
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: worker_pids(process.pid) - {first}, what="another worker")
        assert len(second) == 1
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0, said
        wait_until(lambda: not any(map(alive, second)), what="the worker's end")


def test_a_second_daemon_and_a_taken_port_are_said_at_once(tmp_path: Path) -> None:
    with started(tmp_path) as first:
        first_line(first)
        with started(tmp_path) as second:
            assert first_line(second) == {"code": "ALREADY_RUNNING"}
            assert second.wait(10) == 78
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with started(tmp_path / "b", services="gateway", port=str(taken.getsockname()[1])) as third:
            assert first_line(third) == {"code": "PORT_TAKEN"}


def test_settings_reach_a_worker_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(
        data_dir=tmp_path, nats_url="nats://127.0.0.1:1", nats_token="secret", roots=(tmp_path / "a, b",),  # type: ignore[arg-type]
        allowed_hosts=("x", "y"), slots=1, keep_fragments_days=1.5, s3_secret_key="s",  # type: ignore[arg-type]
    )  # fmt: skip
    for name in ("STEREOSPOT_HISTORY", "STEREOSPOT_CRASHPOINT", "STEREOSPOT_IW3_PYTHON"):
        monkeypatch.setenv(name, "what tests watch and break goes along")
    environment = workers.environment(given)
    assert {"STEREOSPOT_HISTORY", "STEREOSPOT_CRASHPOINT", "STEREOSPOT_IW3_PYTHON"} <= set(environment)
    for name, value in environment.items():
        if name.startswith("STEREOSPOT_"):
            monkeypatch.setenv(name, value)
    assert Settings() == given
