"""The parent's handle on the forkserver: start it clean, start it again if it died, ask it for tasks."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from stereospot import log
from stereospot.errors import error
from stereospot.jail import layers, server

PRELOAD = (
    "av",
    "numpy",
    "stereospot.media.preload",
)
"""Imported before the first fork: a task starts in milliseconds, and needs no file system."""

START_SECONDS = 60.0

_BOOT = "import sys, json; a = json.loads(sys.argv[1]); sys.path[:] = a['path']; " + (
    "from stereospot.jail.server import main; main(a['preload'], a['sandbox'], a['descriptor'])"
)


class Forkserver:
    """One forkserver process; thread-safe. It dies with this process, however that dies."""

    def __init__(self, sandbox: layers.Sandbox = "auto", preload: tuple[str, ...] = PRELOAD) -> None:
        self._sandbox: layers.Sandbox = sandbox
        self._preload = preload
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process if it does not run; returns when it is ready. Raises KERNEL_UNSUPPORTED, INTERNAL."""
        with self._lock:
            self._ensure()

    def spawn(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Fork one task. The caller keeps, and closes, its copies of the descriptors."""
        body = json.dumps(request).encode()
        head = server.LENGTH.pack(len(body))
        with self._lock:
            for attempt in (1, 2):
                channel = self._ensure()
                try:
                    socket.send_fds(channel, [head], descriptors)
                    channel.sendall(body)
                    return
                except OSError as failure:  # it died since the last task
                    self._discard()
                    if attempt == 2:
                        raise error("INTERNAL", f"The forkserver does not take tasks: {failure}") from failure

    def close(self) -> None:
        """End the process and every task in it; one that still starts is not waited for."""
        self._is_closing = True
        if self._lock.locked() and (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._discard()
            self._is_closing = False

    def _ensure(self) -> socket.socket:
        if self._owner != os.getpid():  # a fork of the owner must not share the channel
            self._channel = self._process = None
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self._discard()
        ours, theirs = socket.socketpair()
        arguments = {
            "path": sys.path,
            "preload": list(self._preload),
            "sandbox": self._sandbox,
            "descriptor": theirs.fileno(),
        }
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, json.dumps(arguments)],
                env=layers.environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # A signal to our group (a terminal, a supervisor) is for us to handle: it must not end the tasks.
                start_new_session=True,
            )
        self._process, self._channel, self._owner = process, ours, os.getpid()
        try:
            if self._is_closing:  # `close` came before there was a process that it could end
                process.kill()
            ours.settimeout(START_SECONDS)
            hello = b""
            while not hello.endswith(b"\n"):
                part = ours.recv(4096)
                if not part:
                    raise error("INTERNAL", f"The forkserver ended with status {process.wait(5)} while it started.")
                hello += part
            ours.settimeout(None)
        except BaseException:
            self._discard()
            raise
        refused: list[str] = json.loads(hello)["refused"]
        if refused and self._sandbox == "require":
            self._discard()
            raise error("KERNEL_UNSUPPORTED", "; ".join(refused))
        if refused:
            log.get("jail").warning("the sandbox is incomplete", action="start", refused=refused)
        return ours

    def _discard(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(5)
        self._channel = self._process = None


_servers: dict[layers.Sandbox, Forkserver] = {}
_servers_lock = threading.Lock()


def shared(sandbox: layers.Sandbox = "auto") -> Forkserver:
    """The forkserver of this process for one setting of STEREOSPOT_SANDBOX; not started yet."""
    with _servers_lock:
        found = _servers.get(sandbox)
        if found is None:
            found = _servers[sandbox] = Forkserver(sandbox)
            atexit.register(found.close)
        return found


def warm(sandbox: layers.Sandbox = "auto") -> threading.Thread:
    """Start the shared forkserver in the background; the first task then starts in milliseconds."""

    def start() -> None:
        with contextlib.suppress(Exception):  # the first task meets the same failure and reports it
            shared(sandbox).start()

    thread = threading.Thread(target=start, name="jail-warm", daemon=True)
    thread.start()
    return thread
