"""The forkserver's own process: one thread, one loop, nothing but fork, kill and reap.

It is started as `python -I -c …` by `forkserver.Forkserver`, imports what tasks need, puts on the layers that a whole
server can wear, and then waits. Per task the parent sends one line of JSON with descriptors; the fork runs the task.
The task's status socket is its life line: one byte or the end of file there kills its process group; the wait status
goes back on it. When the parent goes away, by whatever death, its socket ends, this process exits, and the kernel kills
the tasks (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import array
import contextlib
import faulthandler
import gc
import importlib
import json
import mmap
import os
import select
import signal
import socket
import struct
import traceback
from types import FrameType
from typing import Any, NoReturn

from stereospot.jail import cell, layers

LENGTH = struct.Struct(">I")
MAX_DESCRIPTORS = 32
STARTED = b"P"
ENDED = b"X"
STATUS = struct.Struct(">ci")


def main(preload: list[str], sandbox: layers.Sandbox, descriptor: int) -> NoReturn:
    """Serve until the parent's socket ends."""
    for name in preload:
        importlib.import_module(name)
    refused = layers.put_on(layers.SERVER_LAYERS, sandbox)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as parent:
        with contextlib.suppress(ConnectionError):  # the parent ended meanwhile, which `_serve` sees
            parent.sendall(json.dumps({"refused": refused}).encode() + b"\n")
        _serve(parent, sandbox)
    os._exit(0)


def _serve(parent: socket.socket, sandbox: layers.Sandbox) -> None:
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal is the parent's to handle
    signal.signal(signal.SIGCHLD, _wake)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    children: dict[int, socket.socket] = {}
    poll = select.poll()
    poll.register(parent, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        ready = {number for number, _ in poll.poll()}
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
        for pid, line in list(children.items()):
            if line.fileno() in ready:  # a byte or the end: the parent wants this task gone
                poll.unregister(line)
                _kill(pid)
        for pid in _reap(children, poll):
            children.pop(pid)
        if parent.fileno() in ready:
            received = _receive(parent)
            if received is None:
                for pid in children:
                    _kill(pid)
                return
            request, descriptors = received
            pid = _fork(request, descriptors, sandbox)
            line = socket.socket(fileno=descriptors[0])
            for number in descriptors[1:]:
                os.close(number)
            children[pid] = line
            poll.register(line, select.POLLIN)
            with contextlib.suppress(OSError):
                line.sendall(STATUS.pack(STARTED, pid))


def _wake(number: int, frame: FrameType | None) -> None:
    """Only there so that the signal reaches the wake-up descriptor."""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # before its setsid there is no such group


def _reap(children: dict[int, socket.socket], poll: select.poll) -> list[int]:
    gone: list[int] = []
    while children:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            break
        if found is None:
            break
        pid = found.si_pid
        _kill(pid)  # its group, while the dead leader still keeps the number from being used again
        _, status = os.waitpid(pid, 0)
        if (line := children.get(pid)) is not None:
            with contextlib.suppress(KeyError):
                poll.unregister(line)
            with contextlib.suppress(OSError):
                line.sendall(STATUS.pack(ENDED, status))
            line.close()
            gone.append(pid)
    return gone


def _receive(parent: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    descriptors = array.array("i")
    try:
        head, ancillary, _, _ = parent.recvmsg(LENGTH.size, socket.CMSG_SPACE(MAX_DESCRIPTORS * descriptors.itemsize))
    except ConnectionError:  # it ended before it read what we had to say
        return None
    if not head:
        return None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    while len(head) < LENGTH.size:
        head += parent.recv(LENGTH.size - len(head))
    body = b""
    (length,) = LENGTH.unpack(head)
    while len(body) < length:
        part = parent.recv(length - len(body))
        if not part:
            return None
        body += part
    return json.loads(body), list(descriptors)


def _fork(request: dict[str, Any], descriptors: list[int], sandbox: layers.Sandbox) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        status = _child(request, descriptors, sandbox, server)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _child(request: dict[str, Any], descriptors: list[int], sandbox: layers.Sandbox, server: int) -> int:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    layers.die_with(server)
    _, errors, control_number, *rest = descriptors
    os.dup2(errors, 2)
    kept = {0, 1, 2, control_number, *rest}
    _close_others(kept)
    faulthandler.enable()
    control = socket.socket(fileno=control_number)
    sizes: list[int] = request["sources"]
    sources = [cell.SourceFile(socket.socket(fileno=rest.pop(0)), size) for size in sizes]
    ring: mmap.mmap | None = None
    if request["ring_bytes"]:
        number = rest.pop(0)
        ring = mmap.mmap(number, request["ring_bytes"])
        os.close(number)
    task = cell.resolve(request["task"])
    layers.limits(
        memory_bytes=request["memory_bytes"] + request["ring_bytes"],
        cpu_seconds=request["cpu_seconds"],
        file_bytes=request["file_bytes"],
    )
    refused = layers.put_on(layers.CHILD_LAYERS, sandbox)
    if refused and sandbox == "require":
        from stereospot.errors import error
        from stereospot.jail import wire

        wire.send(control, wire.ERROR, cell.describe(error("KERNEL_UNSUPPORTED", "; ".join(refused))))
        return 0
    return cell.run(cell.Cell(control, sources, rest, ring, refused), control, task)


def _close_others(kept: set[int]) -> None:
    """Close what belongs to the server and to other tasks: their life lines must end with them."""
    first = 0
    for number in [*sorted(kept), 4096]:
        if first < number:  # an empty range from 0 closes everything
            os.closerange(first, number)
        first = number + 1
