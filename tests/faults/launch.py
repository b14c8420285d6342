"""Processes for the fleet, forked from one that has the libraries imported: a kill every 2 s is not to be all imports.

    test ── {argv, environment, folder, log} ──> launcher ── fork ──> `python -m …` in a process of its own
         <── {started: pid}, {ended: pid, status} ──

Each is a process as the shell would start it, with its own environment, log and end. Only libraries of others are
imported before the fork; ours read the environment when they are imported, and do so in the child. All of them end with
the launcher, and that with the test run, however it ends.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import json
import os
import queue
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PRELOAD = ("nats", "pydantic", "pydantic_settings", "structlog", "av", "numpy", "cyclopts", "rich.progress")
"""None of these starts a thread: a fork would not have it."""

_MESSAGE_BYTES = 128 * 1024


# ---- in the test -----------------------------------------------------------------------------------------
class Child:
    """A forked process: what the tests use of `asyncio.subprocess.Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._waiting: list[asyncio.Future[int]] = []

    def send_signal(self, number: signal.Signals) -> None:
        """Raises ProcessLookupError when it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Exit status: minus the signal's number where one ended it."""
        with self._lock:
            if self.returncode is not None:
                return self.returncode
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
        return await future

    def ended(self, status: int) -> None:
        """Called by the launcher's thread."""
        with self._lock:
            self.returncode = status
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future, status)


def _resolve(future: asyncio.Future[int], status: int) -> None:
    if not future.done():
        future.set_result(status)


class Launcher:
    """The process that forks, and the thread that hears of its children."""

    def __init__(self) -> None:
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-m", "tests.faults.launch", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, env=environment)
        theirs.close()
        self._children: dict[int, Child] = {}
        self._started: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._hear, daemon=True).start()
        atexit.register(self.close)

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """`python -m ARGV`, with nothing on its input, and both outputs in `log`; blocks for milliseconds."""
        wanted = {"argv": list(argv), "environment": dict(environment), "folder": str(ROOT), "log": str(log)}
        with self._lock:
            self._end.sendall(json.dumps(wanted).encode())
            return self._started.get(timeout=60)

    def close(self) -> None:
        """End the launcher, and all that it started with it."""
        self._end.shutdown(socket.SHUT_RDWR)
        self._process.wait(20)
        self._end.close()

    def _hear(self) -> None:
        while said := self._end.recv(_MESSAGE_BYTES):
            match json.loads(said):
                case {"started": pid}:
                    child = self._children[pid] = Child(pid)
                    self._started.put(child)
                case {"ended": pid, "status": status}:
                    self._children.pop(pid).ended(status)
                case other:
                    raise AssertionError(other)


@functools.cache
def launcher() -> Launcher:
    """The one of this test run, started when it is first needed."""
    return Launcher()


# ---- in the launcher -------------------------------------------------------------------------------------
def serve(end: socket.socket) -> dict[str, Any] | None:
    """Fork whatever is asked for; returns in every child, with its request, and at the end of the tests, with None."""
    for name in PRELOAD:
        importlib.import_module(name)
    woken, wake = os.pipe()
    for descriptor in (woken, wake):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, _heard)
    signal.set_wakeup_fd(wake)
    while True:
        ready, _, _ = select.select([end, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(end)
        if end not in ready:
            continue
        asked = end.recv(_MESSAGE_BYTES)
        if not asked:
            return None
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (woken, wake):
                os.close(descriptor)
            end.close()
            return json.loads(asked)
        end.sendall(json.dumps({"started": pid}).encode())


def _heard(*_: object) -> None:
    """A handler there must be, so that the signal wakes `select`."""


def _reap(end: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        end.sendall(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def become(wanted: Mapping[str, Any]) -> None:
    """Run the module in this process as `python -m` would; its end is the interpreter's."""
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for descriptor in (null, log):
        os.close(descriptor)

    from services import workers

    os.environ[workers.PARENT] = str(os.getppid())
    workers.die_with_parent()
    sys.argv = list(wanted["argv"])
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(request)
