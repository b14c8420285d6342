"""The dispatcher: keeps the queue of each pool shallow, and chooses anew at every tick what goes into it.

    tails of jobs, state, workers ─> View ─> schedule() ─> convert.<pool>.<lane>.<job>.<generation>.<index> ─> sent bits
                                         ─> windows that segments wait for ─> work.analyse.<job>.<generation>.<window>

Segments are published before they are recorded as sent: a crash between the two sends them again, and their ids and the
workers' check for stored fragments make that harmless. A segment of an engine with a curve is sent when its windows are
stored; they are asked for a few at a time, in the order of playback, so that a seek or another job waits for few.
Lives in the collector's process; two of them are safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

from pydantic import ValidationError

from services.states import States
from services.view import Lacking, View
from stereospot import crash, errors, log, subjects
from stereospot.bus import Bus, Stored
from stereospot.jobs import Job
from stereospot.messages import AnalyseWork, SegmentTask, Worker
from stereospot.schedule import Dispatch, schedule

_log = log.get("dispatcher")

crash.declare("dispatcher.before_send", "dispatcher.after_send", "dispatcher.after_record", "dispatcher.after_ask")

PUBLISHING = 64
"""Publishes in flight: enough to hide the broker's fsync, few enough to leave it room for completions."""

ASKED = 32
"""Windows of one job that are asked for and not stored: work for a fleet of analysers, about two minutes of film."""

ASK_AGAIN_SECONDS = 900.0
"""A window that is still not stored after so long is asked for once more: its message may have been purged."""


class Dispatcher:
    """Sends what `schedule` chooses whenever something changed, and every `tick_seconds` in any case."""

    def __init__(self, bus: Bus, view: View, states: States, *, tick_seconds: float = 1.0) -> None:
        self._bus = bus
        self._view = view
        self._states = states
        self._tick_seconds = tick_seconds
        self._wake = asyncio.Event()
        self._publishing = asyncio.Semaphore(PUBLISHING)
        self._asked: dict[tuple[str, int, int], dict[int, float]] = {}

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(subjects.JOBS, ">", self._on_job))
            group.create_task(self._follow(subjects.STATE, "state.>", self._on_state))
            group.create_task(self._follow(subjects.WORKERS, ">", self._on_worker))
            group.create_task(self._dispatch())

    async def _dispatch(self) -> None:
        while True:
            self._wake.clear()
            started = time.monotonic()
            chosen = self.choose()
            thinking = time.monotonic() - started
            try:
                await _all(self._send(pool, items) for pool, items in chosen)
                await _all(self._ask(item) for item in self._view.lacking())
            except errors.StereoSpotError as error:
                if not isinstance(error, errors.Transient) and error.code != "RECORD_UNREADABLE":
                    raise
                _log.warning("tick failed", action="dispatch", code=error.code, detail=error.detail)
                await asyncio.sleep(self._tick_seconds)
                continue
            # Changes come by hundreds a second, and with thousands of jobs a choice takes milliseconds: at most a fifth
            # of the loop's time is spent on choosing.
            await asyncio.sleep(4 * thinking)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick_seconds):
                    await self._wake.wait()

    def choose(self) -> list[tuple[str, list[Dispatch]]]:
        """What every pool has room for, as (pool, segments of one job), jobs in the order in which they were chosen."""
        found: list[tuple[str, list[Dispatch]]] = []
        for pool in self._view.pools():
            jobs: dict[str, list[Dispatch]] = {}
            slots, in_flight = self._view.slots(pool), self._view.in_flight(pool)
            for item in schedule(self._view.candidates(pool), slots, in_flight=in_flight):
                jobs.setdefault(item.job_id, []).append(item)
            found += [(pool, items) for items in jobs.values()]
        return found

    async def _send(self, pool: str, items: list[Dispatch]) -> None:
        """Publish one job's segments, then record them as sent."""
        first = items[0]
        state = self._view.state(first.job_id)
        if state is None or state.generation != first.generation:
            return
        attempt = state.attempt
        crash.point("dispatcher.before_send")
        await _all(
            self._publish(
                subjects.convert(pool, item.lane, item.job_id, item.generation, item.index),
                SegmentTask(
                    job_id=item.job_id,
                    generation=item.generation,
                    attempt=attempt,
                    index=item.index,
                    part=state.part_of(item.index),
                ),
                f"{item.job_id}.{item.generation}.{item.index}.{attempt}.{state.resends}",
            )
            for item in items
        )
        crash.point("dispatcher.after_send")
        indices = [item.index for item in items]
        await self._states.change(
            first.job_id,
            first.generation,
            lambda value: value.with_sent(indices) if value.attempt == attempt else value,
        )
        crash.point("dispatcher.after_record")
        _log.debug("sent", action="dispatch", job_id=first.job_id, generation=first.generation, segments=indices)

    async def _ask(self, item: Lacking) -> None:
        """Publish the next windows of one job that nobody has been asked for."""
        job, state = item.job, item.state
        key = (job.job_id, job.generation, job.attempt)
        if key not in self._asked:
            # What is remembered is a saving only: a window that is asked for twice is taken once.
            self._asked = {known: asked for known, asked in self._asked.items() if self._view.is_at(*known)}
        now = time.monotonic()
        asked = {
            window: at
            for window, at in self._asked.get(key, {}).items()
            if at > now - ASK_AGAIN_SECONDS and not state.has_window(window)
        }
        windows = [window for window in item.windows if window not in asked][: max(0, ASKED - len(asked))]
        await _all(
            self._publish(
                subjects.work("analyse", job.job_id, job.generation, window),
                AnalyseWork(job_id=job.job_id, generation=job.generation, attempt=job.attempt, window=window),
                f"analyse.{job.job_id}.{job.generation}.{window}.{job.attempt}",
            )
            for window in windows
        )
        self._asked[key] = asked | dict.fromkeys(windows, now)
        crash.point("dispatcher.after_ask")

    async def _publish(self, subject: str, task: SegmentTask | AnalyseWork, msg_id: str) -> None:
        async with self._publishing:
            await self._bus.publish(subject, task, msg_id=msg_id)

    # ---- tails ------------------------------------------------------------------------------------------
    async def _follow(self, bucket: str, keys: str, take: Callable[[str, Stored], None]) -> None:
        """Read a bucket from its present values on, for ever."""
        prefix = subjects.kv_subject(bucket, "")
        async with self._bus.tail(subjects.kv_stream(bucket), prefix + keys, start="last") as messages:
            async for message in messages:
                try:
                    take(message.subject.removeprefix(prefix), message)
                except (ValidationError, errors.Misconfigured) as error:
                    _log.error("unreadable record", action="refuse", subject=message.subject, reason=str(error))
                    if bucket == subjects.STATE:  # what was known of it is no longer true
                        self._forget_state(message.subject.removeprefix(prefix))
                self.wake()

    def _on_job(self, key: str, message: Stored) -> None:
        if message.is_marker:
            self._view.drop_job(key)
            return
        job = Job.model_validate_json(message.data)
        self._view.set_job(job)
        if job.generation > 1:
            self._states.forget(subjects.state_key(job.job_id, job.generation - 1))

    def _on_state(self, key: str, message: Stored) -> None:
        if message.is_marker:
            self._states.forget(key)
        else:
            self._states.observe(key, message.data, message.sequence)

    def _forget_state(self, key: str) -> None:
        self._states.forget(key)
        parsed = subjects.parse_state_key(key)
        if parsed is not None:
            self._view.drop_state(parsed[1], parsed[2])

    def _on_worker(self, key: str, message: Stored) -> None:
        if message.is_marker:
            self._view.drop_worker(key)
        else:
            self._view.set_worker(Worker.model_validate_json(message.data))


async def _all(steps: Iterable[Awaitable[None]]) -> None:
    """Run all to their ends, then raise the first error: one job's trouble does not cut another's publish short."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
