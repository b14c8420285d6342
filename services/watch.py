"""Whether work is still wanted: a job's record, read again and again while something blocking works for it.

    async with watching(bus, job, generation, phases) as stop:   ─> threading.Event that the blocking work obeys
        await obeying(stop, store.put_file(…))                   ─> what is awaited obeys it, too
        async with beside(follow(…)):                            ─> runs as long as the block

The event is set within `every_seconds` of the moment when the job is cancelled, deleted or of another generation, and
when the block is left by an exception: a thread never outlives the message that it works for by more than a moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from stereospot import errors, log, records
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase

_log = log.get("watch")

P = ParamSpec("P")
T = TypeVar("T")


def is_wanted(job: Job | None, generation: int, phases: Collection[Phase], attempt: int | None = None) -> bool:
    """Whether work for this generation (and attempt) of a job still serves anyone."""
    if job is None or job.generation != generation or job.phase not in phases:
        return False
    return attempt is None or job.attempt == attempt


@asynccontextmanager
async def watching(
    bus: Bus,
    job_id: str,
    generation: int,
    phases: Collection[Phase],
    *,
    attempt: int | None = None,
    stop: threading.Event | None = None,
    every_seconds: float = 2.0,
) -> AsyncGenerator[threading.Event]:
    """A stop event (a new one, or `stop`) that follows the job's record."""
    stop = stop or threading.Event()

    async def follow() -> None:
        while not stop.is_set():
            await asyncio.sleep(every_seconds)
            try:
                found = await records.get_job(bus, job_id)
            except errors.Transient as error:
                # Nothing is known: go on, the result is dropped later if nobody wants it.
                _log.debug("not read", action="retry", job_id=job_id, code=error.code)
                continue
            if not is_wanted(found and found[0], generation, phases, attempt):
                _log.info("not wanted any more", action="stop", job_id=job_id, generation=generation)
                stop.set()

    async with beside(follow()):
        try:
            yield stop
        except BaseException:
            stop.set()
            raise


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run `work` as long as the block: its end cancels it, and has waited for it; an error in it ends the block."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            try:
                yield
            finally:
                task.cancel()
    except BaseExceptionGroup as group_error:
        # The block raises what it raised, not a group of one.
        if len(group_error.exceptions) == 1:
            raise group_error.exceptions[0] from None
        raise


OBEY_SECONDS = 0.25
"""How often an awaited transfer looks at its stop event."""


async def obeying(stop: threading.Event, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and cancel it soon after `stop` is set; raises CANCELLED then. For transfers of any length."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=OBEY_SECONDS))[0]:
            if stop.is_set():
                raise errors.error("CANCELLED")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Threads:
    """Threads of one service for blocking work: bounded by its slots, and apart from the loop's own pool, whose few
    threads the storage needs while these wait for it."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function; a cancelled wait leaves it to the stop event that it was given."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Give the threads up without waiting; they end with the work that is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
