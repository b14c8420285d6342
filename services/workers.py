"""Converters as processes of their own, watched by the daemon: they die with it, and are started again when they die.

A process for each slot keeps one segment's Python apart from another's, and a segment that kills its process kills no
other. Settings travel by environment, so a child is what `stereospot run converter` would be.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

from pydantic import SecretStr

from services.context import Context
from services.parts import Part
from stereospot import errors, log
from stereospot.settings import CONFIG, Settings, load

_log = log.get("daemon")

SERVICES = frozenset({"converter", "analyse"})
"""What such a process may run: both use the same engine, which is loaded once a process."""

PARENT = "STEREOSPOT_PARENT"
"""Process id of the daemon that a child belongs to."""

ALONE = "STEREOSPOT_ALONE"
"""Set when that daemon has its broker to itself."""

BACKOFF_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 30.0
STEADY_SECONDS = 30.0
"""A child that lived so long is started again without a pause."""

_PR_SET_PDEATHSIG = 1


def environment(settings: Settings) -> dict[str, str]:
    """What makes another process's `Settings()` equal to these."""
    found = {name: value for name, value in os.environ.items() if name != CONFIG}
    for name in type(settings).model_fields:
        found.pop(f"STEREOSPOT_{name.upper()}", None)
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
        elif isinstance(value, tuple):
            text = json.dumps([str(item) for item in value])
        elif isinstance(value, Path):
            text = str(value.absolute())
        else:
            text = str(value)
        found[f"STEREOSPOT_{name.upper()}"] = text
    return found


def supervised(context: Context, count: int, services: Collection[str]) -> Part:
    """`count` processes with these services as one part of the daemon; of several each has one slot."""
    settings = context.settings if count == 1 else context.settings.model_copy(update={"slots": 1})
    ours = {PARENT: str(os.getpid())} | ({ALONE: "1"} if context.alone else {})
    stopping = asyncio.Event()

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                variables = environment(_own(settings, number)) | ours
                group.create_task(_keep(sorted({"converter", *services}), variables, stopping))

    return Part("workers", run, stopping.set)


def _own(settings: Settings, number: int) -> Settings:
    """The settings of one child: each serves its own numbers, from `metrics_port` on."""
    port = settings.metrics_port
    return settings if not port else settings.model_copy(update={"metrics_port": port + number})


async def _keep(services: list[str], variables: dict[str, str], stopping: asyncio.Event) -> None:
    """One child, again and again, until `stopping`; then SIGTERM, and its end is waited for."""
    pause = BACKOFF_SECONDS
    while not stopping.is_set():
        started = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.workers", *services,
            stdin=asyncio.subprocess.DEVNULL, env=variables,
            process_group=0,  # a terminal's Ctrl-C is for the daemon, whose SIGTERM would be the child's second
        )  # fmt: skip
        try:
            code = await _end(child, stopping)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            raise
        if stopping.is_set():
            return
        pause = BACKOFF_SECONDS if time.monotonic() - started > STEADY_SECONDS else min(pause * 2, BACKOFF_CAP_SECONDS)
        _log.error("worker process ended", action="retry", pid=child.pid, code=code, delay_seconds=pause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stopping.wait()


async def _end(child: asyncio.subprocess.Process, stopping: asyncio.Event) -> int:
    """Exit status of the child, which is asked to end once `stopping` is set."""
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(stopping.wait())
        ended = group.create_task(child.wait())
        await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        asked.cancel()
        return await ended


def die_with_parent() -> None:
    """SIGKILL this process when the daemon that started it ends, however it ends (Linux)."""
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the daemon is gone")


def main() -> None:
    """The child: the services that its arguments name."""
    die_with_parent()
    from services import daemon

    settings = load()
    log.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(daemon.run(sys.argv[1:], settings, alone=ALONE in os.environ))
    except errors.StereoSpotError as error:
        if error.code in errors.ENDS_PROCESS:
            os._exit(1)
        raise


if __name__ == "__main__":
    main()
