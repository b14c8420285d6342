"""The kernel's layers around a jailed process, in the order in which they are put on.

| layer        | where   | what it takes away                                                        |
|--------------|---------|---------------------------------------------------------------------------|
| environment  | server  | every variable but locale, time zone and library path                     |
| network      | server  | all networks: a user and a network namespace of its own (Linux)           |
| privileges   | server  | no_new_privs: nothing can be gained through set-uid programs (Linux)      |
| limits       | child   | address space, CPU seconds, open files, file size, core dumps             |
| file system  | child   | every path, TCP, signals to outsiders: Landlock without one rule (Linux)  |

Those marked Linux degrade with a warning where the kernel or a container refuses them; `STEREOSPOT_SANDBOX=require`
makes that an error, `off` leaves them out. They stand behind the allow-lists of `stereospot.media.opener`: FFmpeg has
readers of playlists and concat scripts that open other files and connections where nothing stops them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Literal

Sandbox = Literal["auto", "require", "off"]

KEPT_ENVIRONMENT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")
SET_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Numeric libraries must not start threads in the forkserver: a fork takes only one of them along."""

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_RESTRICT_SELF = 446

_LINUX = sys.platform == "linux"


def environment() -> dict[str, str]:
    """The environment in which the forkserver starts."""
    return {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ} | SET_ENVIRONMENT


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def network() -> None:
    """Leave every network; raises OSError where the kernel or a container forbids it."""
    _check(_libc().unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare")


def privileges() -> None:
    _check(_libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def file_system() -> None:
    """A Landlock domain that handles every right the kernel knows and grants none.

    Descriptors that are already open keep working. The kernel's ABI says which rights it knows: file rights grew
    from 13 to 16, TCP came with 4, abstract sockets and signals with 6.
    """
    libc = _libc()
    abi = _check(libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1), "landlock")
    files = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    rights = [(1 << files) - 1, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0]
    attributes = (ctypes.c_uint64 * 3)(*rights)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(
        libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0), "landlock"
    )
    try:
        _check(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)


def limits(*, memory_bytes: int, cpu_seconds: int | None, file_bytes: int) -> None:
    """Resource limits; soft and hard alike, so that the child cannot raise them again."""
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, file_bytes),
    ]
    if _LINUX:  # elsewhere RLIMIT_AS is not kept, or counts what is not used
        wanted.append((resource.RLIMIT_AS, memory_bytes))
    for kind, value in wanted:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    if cpu_seconds is not None:  # the soft limit ends it with SIGXCPU, which says why; the hard one with SIGKILL
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; ends it now if that has happened already."""
    if _LINUX:
        _check(_libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != parent:
        os._exit(1)


SERVER_LAYERS: tuple[tuple[str, Callable[[], None]], ...] = (("network", network), ("privileges", privileges))
CHILD_LAYERS: tuple[tuple[str, Callable[[], None]], ...] = (("file system", file_system),)


def put_on(layers: tuple[tuple[str, Callable[[], None]], ...], sandbox: Sandbox) -> list[str]:
    """Put on the kernel layers; returns one sentence for each that this system refuses."""
    if sandbox == "off":
        return []
    refused: list[str] = []
    for name, layer in layers:
        if not _LINUX:
            refused.append(f"{name}: not on {sys.platform}")
            continue
        try:
            layer()
        except OSError as failure:
            refused.append(f"{name}: {failure}")
    return refused
