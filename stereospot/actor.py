"""The one loop of every service: fetch, handle, and turn the outcome into ack, nak or dead letter in one place.

Handlers see a `Delivery` and return an `Outcome`; they never see NATS. What is out of a handler's hands is here: slots,
lanes, heartbeats, backoff, attempts, dead letters, hand-over at a stop, and waiting out a broker or a storage that is
away without using up a message's tries.

An attempt is a real try. The server counts deliveries; those that were given back untried (`Return`, a stop) are
excused (`tries`). A message that killed every worker that tried it is buried by the next one, untried.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from stereospot import crash, errors, history, letters, log
from stereospot.bus import Bus, Delivery, Puller, PullError
from stereospot.bus.pull import HAND_OVER_SECONDS, Received
from stereospot.messages import Failure
from stereospot.outcome import Ack, Outcome, Reject, Retry, Return
from stereospot.patience import Resting, Wait
from stereospot.subjects import dead
from stereospot.tries import Tries

crash.declare("actor.fetched", "actor.handled", "actor.dead_lettered", "actor.settled")

Handler = Callable[[Delivery], Awaitable[Outcome]]
OnReject = Callable[[Delivery, Failure], Awaitable[None]]
OnWait = Callable[[Delivery, Failure], Awaitable[None]]

PATIENT = frozenset({"BROKER_UNAVAILABLE", "STORAGE_UNAVAILABLE", "STORAGE_FULL"})
"""The surroundings failed, not the work: the handler is run again here, with the same attempt, after a pause."""

BEAT_SECONDS = 0.5
"""Beats are no further apart: the server waits as long as who provisioned it said, which may be less than said here."""

TELL_SECONDS = 60.0
"""How long a message waits here before `on_wait` hears of it: short outages are nobody's business."""

UNREADABLE_SECONDS = 30.0
"""How long work rests whose job's record is of a newer version: until another process, or this one renewed, has it."""

HAND_OVER_PATIENCE_SECONDS = 1.0
"""How long a stop waits for the broker to note that a delivery was no try."""


class Actor:
    """One message a handler; `slots` handlers at a time; several consumers are lanes, probed in order each time.

    All times in seconds. `max_attempts` None: never dead-letter for failing often. `patience_seconds` bounds how long a
    message waits here for a broker or a storage before that counts as a failed try; `on_wait` is told once of each that
    waits for a storage, and what it raises is only logged. With `rest_seconds` such a message is then given back for so
    long, and for longer while the storage is still away (`patience`): it may be one object alone that cannot be read.
    At `stop` running handlers get `grace_seconds`, then are cancelled and their messages handed over at once.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str | Sequence[str],
        handler: Handler,
        *,
        name: str,
        slots: int = 1,
        ack_wait: float = 20.0,
        max_attempts: int | None = 4,
        on_reject: OnReject | None = None,
        on_wait: OnWait | None = None,
        grace_seconds: float = 1.0,
        backoff_seconds: float = 1.0,
        backoff_cap_seconds: float = 60.0,
        patience_seconds: float = 600.0,
        rest_seconds: float | None = None,
        idle_seconds: float = 5.0,
    ) -> None:
        self.name = name
        self.bus = bus
        self.slots = slots
        self._handler = handler
        self._on_reject = on_reject
        self._on_wait = on_wait
        self._ack_wait = ack_wait
        self._max_attempts = max_attempts
        self._grace = grace_seconds
        self._backoff = backoff_seconds
        self._backoff_cap = backoff_cap_seconds
        self._patience = patience_seconds
        self._rest_after = rest_seconds
        self._idle = idle_seconds
        self._wake = asyncio.Event()
        lanes = [consumer] if isinstance(consumer, str) else list(consumer)
        self._lanes = [Puller(bus, stream, lane, wake=self._wake) for lane in lanes]
        self._running: dict[asyncio.Task[None], Received] = {}
        self._tries = Tries(bus)
        self._resting = Resting(patience_seconds)
        self._stopping = False
        self._log = log.get(name)

    @property
    def busy(self) -> int:
        """Handlers at work."""
        return len(self._running)

    def resize(self, slots: int) -> None:
        """Change how many handlers may work at a time; those at work are left alone."""
        self.slots = slots
        self._wake.set()

    def stop(self) -> None:
        """Fetch no more; `run` returns once the work is finished or handed over. Safe to call from a signal handler."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`; raises BROKER_UNAVAILABLE when the connection has ended for good."""
        reason = "stopped"
        self._log.info("start", action="start", slots=self.slots, lanes=[lane.consumer for lane in self._lanes])
        try:
            for lane in self._lanes:
                await lane.open()
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._heartbeat())
                try:
                    await self._loop(group)
                    await self._finish()
                finally:
                    beat.cancel()
                    for lane in self._lanes:
                        await self._hand_over(await lane.release())
                        await lane.close()
            if not self._stopping:
                raise errors.error("BROKER_UNAVAILABLE", "The connection was closed.")
        except asyncio.CancelledError:
            reason = "cancelled"
            raise
        except BaseException as problem:
            reason = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            self._log.info("stop", action="stop", reason=reason)

    # ---- fetching --------------------------------------------------------------------------------------------
    async def _loop(self, group: asyncio.TaskGroup) -> None:
        faults = 0
        while not self._stopping and not self.bus.is_closed:
            self._wake.clear()
            try:
                if not await self._fetch(group):
                    await self._rest()
                faults = 0
            except (PullError, errors.StereoSpotError) as problem:
                faults += 1
                if faults <= 3 or faults % 30 == 0:
                    self._log.warning("fetch failed", action="retry", reason=str(problem), faults=faults)
                await self._pause(min(0.1 * 2 ** min(faults, 5), 1.0))

    async def _fetch(self, group: asyncio.TaskGroup) -> bool:
        """Start what is there now, most urgent lane first, never more than there are free slots."""
        before = len(self._running)
        for lane in self._lanes:
            if self._room() > 0:
                self._start(group, await lane.take(self._room()))
        return len(self._running) > before

    async def _rest(self) -> None:
        """Nothing to do: wait for a slot, or for a message on any lane."""
        if self._room() > 0:
            for lane in self._lanes:
                lane.check()
                await lane.expect(self._idle)
            if any(lane.held for lane in self._lanes):
                return
        if not self._stopping:
            await self._pause(self._idle + 1.0)

    async def _pause(self, seconds: float) -> None:
        """Sleep until something happens, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _room(self) -> int:
        return self.slots - len(self._running)

    def _start(self, group: asyncio.TaskGroup, taken: Iterable[Received]) -> None:
        for received in taken:
            if self._has(received):
                continue
            crash.point("actor.fetched")
            task = group.create_task(self._process(received))
            self._running[task] = received
            task.add_done_callback(self._ended)

    def _has(self, received: Received) -> bool:
        """Whether this message is being worked on here already: a broker that came back offers it once more."""
        for running in self._running.values():
            if running.is_same(received):
                running.reply = received.reply  # the newest delivery's acknowledgement counts
                return True
        return False

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()

    async def _heartbeat(self) -> None:
        """Keep alive what is being worked on and what is held back for want of a slot."""
        while True:
            await asyncio.sleep(min(self._ack_wait / 3, BEAT_SECONDS))
            for received in [*self._running.values(), *(held for lane in self._lanes for held in lane.held)]:
                try:
                    await received.in_progress()
                except errors.Transient as problem:
                    self._log.warning("heartbeat failed", action="retry", reason=str(problem))
                    break

    # ---- one message: process, persist, log --------------------------------------------------------------------
    async def _process(self, received: Received) -> None:
        started = time.monotonic()
        try:
            received.delivery = await self._tries.counted(received.delivery)
            delivery = received.delivery
            outcome = self._judge(delivery, await self._handle(delivery))
            crash.point("actor.handled")
            if isinstance(outcome, Return) and not await self._excuse(delivery) and delivery in self._resting:
                self._rest_after = None  # it would count as a try: from now on all wait in their slots
                outcome = self._judge(delivery, await self._handle(delivery))
            await self._persist(received, outcome)
        except asyncio.CancelledError:
            await self._hand_over([received])
            raise
        except Exception as problem:
            # Not settled: the server offers it again after the ack wait, and handlers are idempotent.
            self._log.warning("not settled", action="retry", subject=received.delivery.subject, reason=str(problem))
            return
        self._record(received.delivery, outcome, time.monotonic() - started)
        crash.point("actor.settled")

    async def _handle(self, delivery: Delivery) -> Outcome:
        """Run the handler; while its surroundings are away, wait here and run it again. Raises CancelledError, and
        Transient where a message is out of tries and the broker away."""
        if not delivery.is_first and (buried := await self._buried(delivery)) is not None:
            return buried
        if self._max_attempts is not None and delivery.attempt > self._max_attempts:
            lost = errors.error("WORKER_LOST", "No worker that took it came back.")
            return Retry(failure=Failure.of(lost))  # `_judge` makes it the end
        wait = self._resting.take(delivery, time.monotonic())
        tries, told = 0, False
        while True:
            started = time.monotonic()
            try:
                return await self._handler(delivery)
            except errors.StereoSpotError as problem:
                now = time.monotonic()
                wait = wait or Wait(now, now, str(problem))
                if problem.code not in PATIENT or now > wait.began + self._patience:
                    return _outcome_of(problem, delivery)
                wait.fails(str(problem), ran_seconds=now - started, now=now, long_seconds=TELL_SECONDS)
                cause = problem
            except Exception as problem:
                self._log.exception("handler failed", action="retry", subject=delivery.subject)
                return _outcome_of(problem, delivery)
            delay = self._delay(tries := tries + 1)
            said = {"subject": delivery.subject, "reason": str(cause), "delay_seconds": round(delay, 3)}
            self._log.warning("waiting", action="retry", **said)
            is_long = cause.code != "BROKER_UNAVAILABLE" and wait.is_long(now, TELL_SECONDS)
            told = told or (is_long and await self._tell(delivery, cause))
            if is_long and told and cause.code == "STORAGE_UNAVAILABLE" and self._rest_after is not None:
                self._resting.add(delivery, wait, now)
                return Return(wait.rest(self._rest_after, now), reason=str(cause), failure=Failure.of(cause))
            await asyncio.sleep(delay)

    async def _buried(self, delivery: Delivery) -> Reject | None:
        """The end of a message that has its letter: whoever wrote that died before it was heard everywhere."""
        try:
            letter = await letters.find(self.bus, delivery)
        except errors.Misconfigured as problem:  # rights of an older version
            self._log.warning("not read", action="retry", code=problem.code, detail=problem.detail)
            return None
        return None if letter is None else Reject(letter.failure)

    async def _tell(self, delivery: Delivery, cause: errors.StereoSpotError) -> bool:
        """Have said what a message waits for; whether that was said."""
        try:
            if self._on_wait is not None:
                await self._on_wait(delivery, Failure.of(cause))
        except errors.StereoSpotError as problem:
            self._log.warning("not told", action="retry", subject=delivery.subject, reason=str(problem))
            return False
        return True

    def _judge(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """At the last attempt a retry becomes a rejection that keeps the cause."""
        if not isinstance(outcome, Retry) or self._max_attempts is None or delivery.attempt < self._max_attempts:
            return outcome
        cause = outcome.failure
        said = f"{cause.sentence} {cause.detail}".strip() if cause else outcome.reason
        tries = min(delivery.attempt, self._max_attempts)
        problem = errors.error("ATTEMPTS_EXHAUSTED", f"After {tries} attempts: {said}")
        failure = Failure.of(problem, attempts=tries)
        if cause is not None:
            failure = failure.model_copy(
                update={"details": {"cause": cause.model_dump(mode="json")}, "segment_index": cause.segment_index}
            )
        return Reject(failure)

    async def _persist(self, received: Received, outcome: Outcome) -> None:
        """Tell the broker; the only place where messages are acknowledged, given back or buried."""
        delivery = received.delivery
        match outcome:
            case Ack():
                await received.ack_confirmed()
            case Retry(delay_seconds=delay):
                await received.nak(self._delay(delivery.attempt) if delay is None else delay)
            case Return(delay_seconds=delay):
                # In step with the renewal of waiting requests it would come back to the same worker for ever.
                await received.nak(delay * random.uniform(0.7, 1.3))
            case Reject(failure=failure):
                await self._bury(delivery, failure)
                await received.terminate(f"{failure.code} {failure.detail}")

    async def _excuse(self, delivery: Delivery) -> bool:
        """Note that this was no try, and keep the message until the broker has taken that: without the note it would
        count. Raises Transient in the end; False where rights of an older version forbid it.
        """
        deadline = time.monotonic() + self._patience
        waits = 0
        while True:
            try:
                return await self._tries.excuse(delivery, waited_seconds=self._resting.waited_seconds(delivery))
            except errors.Transient as problem:
                if self.bus.is_closed or time.monotonic() > deadline:
                    raise
                waits += 1
                self._log.warning("not excused yet", action="retry", subject=delivery.subject, reason=str(problem))
                await asyncio.sleep(self._delay(waits))

    async def _bury(self, delivery: Delivery, failure: Failure) -> None:
        """Dead letter first, then `on_reject`, so that a crash in between repeats both and loses neither."""
        letter = letters.dead_letter(delivery, failure, worker_id=self.name, at=time.time())
        await self.bus.publish(dead(letter.kind, letter.dead_id), letter, msg_id=f"dead.{letter.dead_id}")
        crash.point("actor.dead_lettered")
        if self._on_reject is not None:
            await self._on_reject(delivery, letter.failure)

    def _record(self, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        said = {"subject": delivery.subject, "attempt": delivery.attempt, "seconds": round(seconds, 3)}
        history.record("settle", outcome=type(outcome).__name__, sequence=delivery.stream_sequence, **said)
        match outcome:
            case Ack(note=note):
                self._log.debug("done", action="done", **said, note=note)
            case Return(reason=reason, failure=failure):
                tell = self._log.info if failure is None else self._log.warning  # no failure: it only lets others pass
                tell("given back", action="retry", **said, reason=reason, code=failure and failure.code)
            case Retry(reason=reason, failure=failure):
                self._log.warning("retry", action="retry", **said, reason=reason, code=failure and failure.code)
            case Reject(failure=failure):
                self._log.error("rejected", action="reject", **said, code=failure.code, reason=failure.detail)

    def _delay(self, attempt: int) -> float:
        """Capped exponential backoff, with jitter so that those who failed together do not come back together."""
        full = min(self._backoff_cap, self._backoff * 2 ** (min(attempt, 30) - 1))
        return full * random.uniform(0.5, 1.0)

    # ---- the end -----------------------------------------------------------------------------------------------
    async def _finish(self) -> None:
        """Let running handlers finish within the grace, then cancel them."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._grace)
        for task in list(self._running):
            task.cancel()

    async def _hand_over(self, unfinished: Sequence[Received]) -> None:
        """Give messages to whoever is next, at once; nobody's try is used up by our leaving."""
        for received in unfinished:
            try:
                async with asyncio.timeout(HAND_OVER_PATIENCE_SECONDS):
                    await self._tries.excuse(received.delivery)
            except (TimeoutError, errors.StereoSpotError) as problem:
                self._log.warning("not excused", action="stop", reason=str(problem) or "no answer in time")
            try:
                await received.nak(HAND_OVER_SECONDS)
            except errors.Transient as problem:
                self._log.warning("not handed over", action="stop", reason=str(problem))


def _outcome_of(problem: Exception, delivery: Delivery) -> Outcome:
    """Transient and unnamed failures are retried, permanent ones rejected; another process may read the record."""
    failure = Failure.of(problem, attempts=delivery.attempt)
    if isinstance(problem, errors.Misconfigured) and problem.code == "RECORD_UNREADABLE":
        return Return(UNREADABLE_SECONDS, reason=str(problem), failure=failure)
    if isinstance(problem, errors.Permanent):
        return Reject(failure)
    return Retry(reason=str(problem), failure=failure)
