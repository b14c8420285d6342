"""The parent's side of one jailed task: start, talk, watch, and end it with its whole process group."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stereospot.errors import CATALOGUE, StereoSpotError, error
from stereospot.jail import forkserver, layers, server, wire
from stereospot.jail.reads import Reads

if TYPE_CHECKING:
    from stereospot.media.source import Source

POLL_SECONDS = 0.05
"""How soon a set stop event is seen."""

READING_SHARE = 20
"""Reads of the sources come on top of a task's wall time, up to so many times as much: a storage that hangs is not the
file's fault, but a hostile file must not have itself read for ever."""


@dataclass(frozen=True, slots=True)
class JailLimits:
    """What one task may use. `file_bytes` bounds each output file; without outputs it bounds the error text.

    `wall_seconds` are the task's own: what reads of its sources take is not counted, as far as READING_SHARE goes.
    """

    memory_bytes: int = 4 * 2**30
    cpu_seconds: int | None = None
    file_bytes: int = 2**20
    no_progress_seconds: float = 30.0
    wall_seconds: float | None = None
    sandbox: layers.Sandbox = "auto"
    stall_code: str = "DECODE_STALLED"


class Jail:
    """One task in a child of its own; a context manager, used by one thread at a time (`kill` by any).

    task: `package.module:function` inside the package; request: JSON for it; sources: served as ranged reads, never
    closed here; outputs: descriptors the task may write to; ring_bytes: shared memory, `ring` here and in the cell.
    stop: when set, the task is killed and CANCELLED raised.

    Raises DECODER_CRASHED when the child dies, WORKER_LOST when its forkserver does, `limits.stall_code` when it
    neither sends nor reads for `no_progress_seconds` or outlives `wall_seconds`, CANCELLED, what a source raised, and
    what the task raised.
    """

    def __init__(
        self,
        task: str,
        request: dict[str, Any],
        *,
        sources: Sequence[Source] = (),
        outputs: Sequence[int] = (),
        ring_bytes: int = 0,
        limits: JailLimits | None = None,
        stop: threading.Event | None = None,
        server: forkserver.Forkserver | None = None,
    ) -> None:
        self.limits = limits or JailLimits()
        self.pid: int | None = None
        self.ring: mmap.mmap | None = None
        self._task = task
        self._request = request
        self._sources = sources
        self._outputs = outputs
        self._ring_bytes = ring_bytes
        self._stop = stop
        self._server = server or forkserver.shared(self.limits.sandbox)
        self._started = time.monotonic()
        self._finished = False
        self._sending = threading.Lock()
        self._reads = Reads(sources)
        self._control, self._their_control = socket.socketpair()
        self._line, self._their_line = socket.socketpair()
        self._errors = _anonymous_file("stereospot-jail-errors")

    # ---- life ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        ring: list[int] = []
        try:
            if self._ring_bytes:
                ring = [_sealed_memory(self._ring_bytes)]
                self.ring = mmap.mmap(ring[0], self._ring_bytes)
            request = {
                "task": self._task,
                "sources": [source.size for source in self._sources],
                "ring_bytes": self._ring_bytes,
                "memory_bytes": self.limits.memory_bytes,
                "cpu_seconds": self.limits.cpu_seconds,
                "file_bytes": self.limits.file_bytes,
            }
            channels = [self._their_line.fileno(), self._errors, self._their_control.fileno()]
            channels += [channel.fileno() for channel in self._reads.theirs]
            self._server.spawn(request, [*channels, *ring, *self._outputs])
        finally:
            for number in ring:
                os.close(number)
        self._their_line.close()
        self._their_control.close()
        self._reads.start()
        self._started = time.monotonic()
        self.send(self._request)

    def kill(self) -> None:
        """Ask for the task's death; any thread may."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Kill the task and its group, and wait until they are gone. Views of the ring stay valid."""
        self.kill()
        for channel in (self._their_line, self._their_control, self._control):
            channel.close()
        self._status(5.0)
        self._line.close()
        self._reads.close()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1
        self.ring = None

    # ---- talk ------------------------------------------------------------------------------------------

    @property
    def bytes_read(self) -> int:
        """How many bytes of the sources were read for this task."""
        return self._reads.bytes_read

    def send(self, body: dict[str, Any], blob: bytes = b"") -> None:
        """Send a message to the task, from any thread; one that is gone is reported by the next `receive`."""
        try:
            with self._sending:
                self._control.settimeout(self.limits.no_progress_seconds)
                wire.send(self._control, wire.MESSAGE, body, blob)
        except wire.Closed:
            pass
        except TimeoutError as failure:
            raise error(self.limits.stall_code, "The child does not take messages.") from failure

    def messages(self) -> Iterator[wire.Message]:
        """Every message until the task ends; raises as the class says."""
        while (message := self.receive()) is not None:
            yield message

    def receive(self) -> wire.Message | None:
        """The next message, or None when the task has ended well."""
        if self._finished:
            return None
        self._wait()
        try:
            # A frame that has begun has to arrive whole within the same patience.
            self._control.settimeout(self.limits.no_progress_seconds)
            kind, message = wire.receive(self._control)
        except TimeoutError as failure:
            raise self._stalled() from failure
        except wire.Malformed as failure:
            raise error("DECODER_CRASHED", f"The child answers nonsense: {failure}.") from failure
        except wire.Closed as failure:
            raise self._died() from failure
        if kind == wire.END:
            self._finished = True
            return None
        if kind == wire.ERROR:
            self._finished = True
            raise self._failed(message.body)
        return message

    def _wait(self) -> None:
        """Until something arrives; watches the stop event, progress and the wall clock meanwhile."""
        begun = time.monotonic()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while not poll.poll(POLL_SECONDS * 1000):
            if self._stop is not None and self._stop.is_set():
                self.kill()
                raise error("CANCELLED")
            now = time.monotonic()
            if self._reads.busy:
                begun = now
            elif now - max(begun, self._reads.last) > self.limits.no_progress_seconds:
                raise self._stalled()
            if self._is_overdue(now):
                raise self._stalled()
        if self._stop is not None and self._stop.is_set():
            self.kill()
            raise error("CANCELLED")

    def _is_overdue(self, now: float) -> bool:
        wall = self.limits.wall_seconds
        if wall is None:
            return False
        return now - self._started - min(self._reads.seconds, READING_SHARE * wall) > wall

    def _stalled(self) -> StereoSpotError:
        self.kill()
        seconds = time.monotonic() - self._started
        return error(self.limits.stall_code, f"{self._task.rpartition(':')[2]} was stopped after {seconds:.0f} s.")

    def _died(self) -> StereoSpotError:
        if self._reads.failure is not None and not isinstance(self._reads.failure, StereoSpotError):
            return error("STORAGE_UNAVAILABLE", str(self._reads.failure))
        if isinstance(self._reads.failure, StereoSpotError):
            return self._reads.failure
        if self._stop is not None and self._stop.is_set():
            return error("CANCELLED")
        status = self._status(5.0)
        tail = self._error_tail()
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                return error(self.limits.stall_code, "The limit of CPU time was reached.", stderr=tail)
            name = signal.Signals(number).name
            return error("DECODER_CRASHED", f"It was ended by {name}.", signal=name, stderr=tail)
        if status is None:
            return error("WORKER_LOST", "The forkserver died, and the decoder with it.")
        code = os.waitstatus_to_exitcode(status)
        return error("DECODER_CRASHED", f"It ended with status {code}.", status=code, stderr=tail)

    def _failed(self, body: dict[str, Any]) -> StereoSpotError:
        if self._reads.failure is not None:
            return self._died()
        code = body.get("code")
        detail = body.get("detail")
        details = body.get("details")
        return error(
            code if isinstance(code, str) and code in CATALOGUE else "INTERNAL",
            _plain(detail)[:500] if isinstance(detail, str) else "",
            **({str(key): value for key, value in details.items()} if isinstance(details, dict) else {}),
        )

    def _status(self, seconds: float) -> int | None:
        """The wait status, once the server has reaped the child; also learns the pid on the way."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError, wire.Closed):
            while True:
                self._line.settimeout(max(0.001, deadline - time.monotonic()))
                kind, value = server.STATUS.unpack(wire.receive_exactly(self._line, server.STATUS.size))
                if kind == server.STARTED:
                    self.pid = value
                else:
                    return value
        return None

    def wait_started(self) -> int:
        """The child's process id, once the server has told it."""
        if self.pid is None:
            self._line.settimeout(10.0)
            _, self.pid = server.STATUS.unpack(wire.receive_exactly(self._line, server.STATUS.size))
        assert self.pid is not None
        return self.pid

    def _error_tail(self) -> str:
        with contextlib.suppress(OSError):
            size = os.fstat(self._errors).st_size
            return _plain(os.pread(self._errors, 2000, max(0, size - 2000)).decode(errors="replace"))
        return ""


def _plain(text: str) -> str:
    """Text from inside the jail without control characters: it ends up in logs, pages and terminals."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def _anonymous_file(name: str) -> int:
    if sys.platform == "linux":
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _sealed_memory(size: int) -> int:
    """Shared memory that nobody can name or shrink: a shrunk mapping would kill the reader with SIGBUS."""
    if sys.platform != "linux":
        number = _anonymous_file("")
        os.ftruncate(number, size)
        return number
    import fcntl

    number = os.memfd_create("stereospot-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(number, size)
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return number
