"""Any set of services in one process: one broker connection, one store, one way to start and to end.

    Embedded broker (unless a server is named) ─> Bus ─> provision ─> store ─> services ─> ready … stop ─> drain

`running` is the composition as a context manager (`stereospot convert` lives in it), `run` adds what a process needs:
signals, the ready callback, a logged reason for its end. The first SIGTERM or SIGINT lets work finish or hands it over
and ends within ten seconds; the second ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from services import certificate, parts, workers
from services.context import Context
from services.listener import listen
from services.reclaim import reclaim
from stereospot import broker, errors, jail, log, metrics
from stereospot.bus import Bus, Refused
from stereospot.embedded import Embedded
from stereospot.settings import Settings
from stereospot.storage import open_store

_log = log.get("daemon")

Ready = Callable[[Context], Coroutine[Any, Any, None]]

ALL = frozenset(parts.BUILDERS)
"""Every service that `run` knows."""

_JAILED = frozenset({"planner", "analyse", "converter", "audio", "assembler"})
"""Services that open untrusted bytes."""

STOP_SECONDS = 8.0
"""How long services get to finish or hand over; with the broker's end that stays under ten seconds."""

MAX_FILES = 65_536
"""So many files and connections at once, where the host lets us; shells give 1,024, for the sake of select()."""


@asynccontextmanager
async def running(
    settings: Settings,
    services: Collection[str],
    *,
    processes: int = 0,
    provisioned: bool | None = None,
    alone: bool = False,
) -> AsyncGenerator[Context]:
    """Services at work around the block; what ends one of them ends the block with that error.

    processes: so many converter processes instead of a converter in this one, of one slot each where they are several;
        analysers go along.
    provisioned: whether to create streams and consumers first; None: only on a broker of our own.
    alone: whether the broker serves one daemon only, of which this process is a part; implied by one of our own.
    """
    if "gateway" in services:
        certificate.check(settings)
    if _JAILED & set(services):
        # A process of its own that takes a second to import PyAV: on its way before anything else is.
        jail.warm(settings.sandbox)
    async with AsyncExitStack() as stack:
        own = settings.nats_url is None
        if own:
            port = settings.nats_port if settings.nats_port > 0 else None
            server = await stack.enter_async_context(Embedded(settings.data_dir, port=port))
            settings = server.settings(settings)
        closed = asyncio.Event()
        bus = await Bus.connect(settings, name=f"{_role(services)}-{os.getpid()}", on_closed=closed.set)
        stack.push_async_callback(bus.drain)
        if own if provisioned is None else provisioned:
            await _provision(bus, settings)
        if own:
            await reclaim(bus, settings.pool)
        listener: socket.socket | None = None
        if "gateway" in services:
            await _one_secret(bus, settings)
            listener = stack.enter_context(contextlib.closing(listen(settings.host, settings.port)))
            settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        store = open_store(settings)
        stack.push_async_callback(store.close)
        context = Context(settings, bus, store, alone=own or alone)
        names = set(services)
        if processes:
            names -= workers.SERVICES
        if settings.metrics_port is not None and workers.SERVICES & names:
            stack.enter_context(metrics.served(settings.host, settings.metrics_port))
        chosen = [parts.BUILDERS[name](context, listener) for name in sorted(names)]
        if processes:
            chosen.append(workers.supervised(context, processes, workers.SERVICES & set(services)))
        async with _at_work(chosen, closed):
            yield context


async def run(
    services: Collection[str],
    settings: Settings,
    *,
    ready: Ready | None = None,
    until: asyncio.Event | None = None,
    processes: int = 0,
    provisioned: bool | None = None,
    alone: bool = False,
) -> int:
    """Run services until SIGTERM, SIGINT, `until` or a failure; returns the exit code 0 or raises what went wrong.

    ready: called once everything listens; it may take as long as it likes.
    """
    _raise_files()
    stop = until or asyncio.Event()
    reason = "finished"
    loop = asyncio.get_running_loop()
    signals = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal reason, signals
        signals += 1
        if signals > 1:
            os._exit(130)  # asked twice: now
        reason = number.name
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # not on Windows
            loop.add_signal_handler(number, on_signal, number)
    try:
        async with running(settings, services, processes=processes, provisioned=provisioned, alone=alone) as context:
            _log.info("ready", action="ready", services=sorted(services))
            async with asyncio.TaskGroup() as group:
                told = group.create_task(_tell(ready, context))
                await stop.wait()
                told.cancel()
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
        _log.info("ended", action="stop", reason=reason)
    if signals and await _stragglers():
        # A kernel that is being compiled, a library in the middle of a call: nothing that the next start needs, and
        # the interpreter would wait for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _raise_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    while soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
        except (OSError, ValueError):  # macOS has a bound of its own below an infinite one
            wanted //= 2


async def _stragglers() -> list[str]:
    """Names of our threads that are still at work a moment after everything was told to stop."""
    left: list[str] = []
    for _ in range(20):
        left = [
            thread.name
            for thread in threading.enumerate()
            if thread is not threading.main_thread() and not thread.daemon and not thread.name.startswith("asyncio")
        ]
        if not left:
            break
        await asyncio.sleep(0.05)
    if left:
        _log.info("not waited for", action="stop", threads=left)
    return left


async def _tell(ready: Ready | None, context: Context) -> None:
    if ready is not None:
        await ready(context)


@asynccontextmanager
async def _at_work(chosen: list[parts.Part], closed: asyncio.Event) -> AsyncGenerator[None]:
    """Start all parts; at the end stop all, wait, cancel what is left, and close them."""
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_end_with(closed))
            tasks = {group.create_task(part.run(), name=part.name): part for part in chosen}
            try:
                yield
            finally:
                watch.cancel()
                await _end_all(tasks)
    except BaseExceptionGroup as group_error:
        raise _first(group_error) from group_error
    finally:
        for part in chosen:
            if part.close is not None:
                await part.close()


async def _end_all(tasks: Mapping[asyncio.Task[None], parts.Part]) -> None:
    """Stop every part and wait for its end; what is late is cancelled.

    A cancellation may get lost (`asyncio.wait_for` of Python 3.11 returns a result that came at the same moment), so
    it is repeated.
    """
    deadline = asyncio.get_running_loop().time() + STOP_SECONDS
    for part in tasks.values():
        if part.stop is not None:
            part.stop()
    left = set(tasks)
    while left:
        late = asyncio.get_running_loop().time() > deadline
        for task in left:
            if late:
                _log.warning("does not stop", action="stop", service=tasks[task].name)
            if late or tasks[task].stop is None:
                task.cancel()
        _, left = await asyncio.wait(left, timeout=1.0)


async def _end_with(closed: asyncio.Event) -> None:
    """A connection that ended for good ends the process: its supervisor starts a fresh one."""
    await closed.wait()
    raise errors.error("BROKER_UNAVAILABLE", "The connection was closed and will not come back.")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of nested groups: what a person is to read."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


async def _provision(bus: Bus, settings: Settings) -> None:
    report = await broker.provision(bus, settings)
    if report.changed:
        _log.info("provisioned", action="ready", created=len(report.created), updated=len(report.updated))


async def _one_secret(bus: Bus, settings: Settings) -> None:
    """Before anybody is told an address with a key in it."""
    from services.gateway import tokens

    try:
        await tokens.agree(bus, settings.data_dir / "gateway.secret")
    except (Refused, errors.Transient) as error:
        _log.warning("keys and links of this gateway may not be those of others", action="start", reason=str(error))


def _role(services: Collection[str]) -> str:
    """The connection's name on the server: the service, `worker` for those of a GPU host, or `daemon` for several."""
    if len(services) == 1:
        return next(iter(services))
    return "worker" if frozenset(services) == workers.SERVICES else "daemon"
