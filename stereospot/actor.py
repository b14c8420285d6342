"""The one loop of every service: fetch, handle, and turn the outcome into ack, nak or dead letter in one place.

Handlers see a `Delivery` and return an `Outcome`; they never see NATS. What is out of a handler's hands is here: slots,
lanes, heartbeats, backoff, attempts, dead letters, hand-over at a stop, and waiting out a broker or a storage that is
away without using up a message's tries.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from stereospot import crash, errors, history, log
from stereospot.bus import Bus, Delivery, Puller, PullError
from stereospot.bus.pull import HAND_OVER_SECONDS, Received
from stereospot.messages import DeadLetter, Failure
from stereospot.outcome import Ack, Outcome, Reject, Retry
from stereospot.subjects import dead

crash.declare("actor.fetched", "actor.handled", "actor.dead_lettered", "actor.settled")

crash.declare("actor.fetched", "actor.handled", "actor.dead_lettered", "actor.settled")

Handler = Callable[[Delivery], Awaitable[Outcome]]
BatchHandler = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]
OnReject = Callable[[Delivery, Failure], Awaitable[None]]

PATIENT = frozenset({"BROKER_UNAVAILABLE", "STORAGE_UNAVAILABLE", "STORAGE_FULL"})
"""The surroundings failed, not the work: the handler is run again here, with the same attempt, after a pause."""


class Actor:
    """One message a handler; `slots` handlers at a time; several consumers are lanes, probed in order each time.

    All times in seconds. `max_attempts` None: never dead-letter for failing often. `patience_seconds` bounds how long a
    message waits here for a broker or a storage before that counts as a failed try. At `stop` running handlers
    get `grace_seconds` to finish, then are cancelled and their messages handed over at once.
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
        grace_seconds: float = 1.0,
        backoff_seconds: float = 1.0,
        backoff_cap_seconds: float = 60.0,
        patience_seconds: float = 600.0,
        idle_seconds: float = 5.0,
    ) -> None:
        self.name = name
        self.bus = bus
        self.slots = slots
        self._handler = handler
        self._on_reject = on_reject
        self._ack_wait = ack_wait
        self._max_attempts = max_attempts
        self._grace = grace_seconds
        self._backoff = backoff_seconds
        self._backoff_cap = backoff_cap_seconds
        self._patience = patience_seconds
        self._idle = idle_seconds
        self._wake = asyncio.Event()
        lanes = [consumer] if isinstance(consumer, str) else list(consumer)
        self._lanes = [Puller(bus, stream, lane, wake=self._wake) for lane in lanes]
        self._running: dict[asyncio.Task[None], list[Received]] = {}
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

    def _start(self, group: asyncio.TaskGroup, taken: list[Received]) -> None:
        for portion in self._portions([received for received in taken if not self._has(received)]):
            crash.point("actor.fetched")
            task = group.create_task(self._process(portion))
            self._running[task] = portion
            task.add_done_callback(self._ended)

    def _has(self, received: Received) -> bool:
        """Whether this message is being worked on here already: a broker that came back offers it once more."""
        for portion in self._running.values():
            for running in portion:
                if running.is_same(received):
                    running.reply = received.reply  # the newest delivery's acknowledgement counts
                    return True
        return False

    def _portions(self, taken: list[Received]) -> list[list[Received]]:
        """How what was fetched is given to handlers."""
        return [[received] for received in taken]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()

    async def _heartbeat(self) -> None:
        """Keep alive what is being worked on and what is held back for want of a slot."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            running = [received for portion in self._running.values() for received in portion]
            for received in [*running, *(held for lane in self._lanes for held in lane.held)]:
                try:
                    await received.in_progress()
                except errors.Transient as problem:
                    self._log.warning("heartbeat failed", action="retry", reason=str(problem))
                    break

    # ---- one portion: process, persist, log --------------------------------------------------------------------
    async def _process(self, portion: list[Received]) -> None:
        started = time.monotonic()
        try:
            outcomes = await self._handle([received.delivery for received in portion])
        except asyncio.CancelledError:
            await self._hand_over(portion)
            raise
        crash.point("actor.handled")
        for received, outcome in zip(portion, outcomes, strict=True):
            settled = self._judge(received.delivery, outcome)
            try:
                # The server takes the acks of a connection in order: the last one's confirmation speaks for all.
                await self._persist(received, settled, confirm=received is portion[-1])
            except asyncio.CancelledError:
                await self._hand_over([received])
                raise
            except Exception as problem:
                # Not settled: the server offers it again after the ack wait, and handlers are idempotent.
                self._log.warning("not settled", action="retry", subject=received.delivery.subject, reason=str(problem))
                continue
            self._record(received.delivery, settled, time.monotonic() - started)
        crash.point("actor.settled")

    async def _handle(self, deliveries: list[Delivery]) -> Sequence[Outcome]:
        """Run the handler; while its surroundings are away, wait here and run it again. Raises only CancelledError."""
        deadline = time.monotonic() + self._patience
        tries = 0
        while True:
            try:
                return await self._call(deliveries)
            except errors.StereoSpotError as problem:
                if problem.code not in PATIENT or time.monotonic() > deadline:
                    return [_outcome_of(problem, delivery) for delivery in deliveries]
                cause: Exception = problem
            except Exception as problem:
                self._log.exception("handler failed", action="retry", subject=deliveries[0].subject)
                return [_outcome_of(problem, delivery) for delivery in deliveries]
            tries += 1
            delay = self._delay(tries)
            self._log.warning(
                "waiting",
                action="retry",
                subject=deliveries[0].subject,
                reason=str(cause),
                delay_seconds=round(delay, 3),
            )
            await asyncio.sleep(delay)

    async def _call(self, deliveries: list[Delivery]) -> Sequence[Outcome]:
        return [await self._handler(deliveries[0])]

    def _judge(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """At the last attempt a retry becomes a rejection that keeps the cause."""
        if not isinstance(outcome, Retry) or self._max_attempts is None or delivery.attempt < self._max_attempts:
            return outcome
        cause = outcome.failure
        said = f"{cause.sentence} {cause.detail}".strip() if cause else outcome.reason
        problem = errors.error("ATTEMPTS_EXHAUSTED", f"After {delivery.attempt} attempts: {said}")
        failure = Failure.of(problem, attempts=delivery.attempt)
        if cause is not None:
            failure = failure.model_copy(
                update={"details": {"cause": cause.model_dump(mode="json")}, "segment_index": cause.segment_index}
            )
        return Reject(failure)

    async def _persist(self, received: Received, outcome: Outcome, *, confirm: bool) -> None:
        """Tell the broker; the only place where messages are acknowledged, given back or buried."""
        delivery = received.delivery
        match outcome:
            case Ack():
                await (received.ack_confirmed() if confirm else received.ack())
            case Retry(delay_seconds=delay):
                await received.nak(self._delay(delivery.attempt) if delay is None else delay)
            case Reject(failure=failure):
                await self._bury(delivery, failure)
                await received.terminate(f"{failure.code} {failure.detail}")

    async def _bury(self, delivery: Delivery, failure: Failure) -> None:
        """Dead letter first, then `on_reject`, so that a crash in between repeats both and loses neither."""
        letter = dead_letter(delivery, failure, worker_id=self.name, at=time.time())
        await self.bus.publish(dead(letter.kind, letter.dead_id), letter, msg_id=f"dead.{letter.dead_id}")
        crash.point("actor.dead_lettered")
        if self._on_reject is not None:
            await self._on_reject(delivery, failure)

    def _record(self, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        said = {"subject": delivery.subject, "attempt": delivery.attempt, "seconds": round(seconds, 3)}
        history.record("settle", outcome=type(outcome).__name__, sequence=delivery.stream_sequence, **said)
        match outcome:
            case Ack(note=note):
                self._log.debug("done", action="done", **said, note=note)
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

    async def _hand_over(self, portion: Sequence[Received]) -> None:
        """Give messages to whoever is next, at once."""
        for received in portion:
            try:
                await received.nak(HAND_OVER_SECONDS)
            except errors.Transient as problem:
                self._log.warning("not handed over", action="stop", reason=str(problem))


class BatchActor(Actor):
    """Up to `batch` messages a handler, one handler at a time; it returns one outcome for each, in order.

    For work whose cost is per write rather than per message.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str,
        handler: BatchHandler,
        *,
        name: str,
        batch: int = 256,
        ack_wait: float = 30.0,
        max_attempts: int | None = None,
        on_reject: OnReject | None = None,
        grace_seconds: float = 5.0,
    ) -> None:
        super().__init__(
            bus, stream, consumer, _alone, name=name, slots=batch, ack_wait=ack_wait, max_attempts=max_attempts,
            on_reject=on_reject, grace_seconds=grace_seconds,
        )  # fmt: skip
        self._batch_handler = handler

    def _room(self) -> int:
        return 0 if self._running else self.slots

    def _has(self, received: Received) -> bool:
        """Whether this message is being worked on here already: a broker that came back offers it once more."""
        for portion in self._running.values():
            for running in portion:
                if running.is_same(received):
                    running.reply = received.reply  # the newest delivery's acknowledgement counts
                    return True
        return False

    def _portions(self, taken: list[Received]) -> list[list[Received]]:
        return [taken] if taken else []

    async def _call(self, deliveries: list[Delivery]) -> Sequence[Outcome]:
        return await self._batch_handler(deliveries)


async def _alone(delivery: Delivery) -> Outcome:
    raise AssertionError(f"a batch actor handles no message alone: {delivery.subject}")


def dead_letter(delivery: Delivery, failure: Failure, *, worker_id: str, at: float) -> DeadLetter:
    """The letter for a delivery; its id is stable, so that burying twice leaves one."""
    return DeadLetter(
        dead_id=f"{delivery.stream}-{delivery.stream_sequence}",
        kind=kind_of(delivery.subject),
        subject=delivery.subject,
        original=delivery.data.decode(errors="replace"),
        headers=dict(delivery.headers),
        failure=failure,
        attempts=delivery.attempt,
        worker_id=worker_id,
        job_id=_job_id(delivery.data),
        at=at,
    )


def kind_of(subject: str) -> str:
    """`work-plan`, `convert`, `done`, `live-open`, `trigger`, `advisory`: the token after `dead.`."""
    parts = subject.split(".")
    if parts[0] == "$KV":
        return parts[2] if len(parts) > 2 else "kv"
    if parts[0].startswith("$"):
        return "advisory"
    return "-".join(parts[1:3]) if parts[1:2] in (["work"], ["live"]) else ".".join(parts[1:2])


def _job_id(data: bytes) -> str | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    found = value.get("job_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _outcome_of(problem: Exception, delivery: Delivery) -> Outcome:
    """Transient and unnamed failures are retried, permanent and misconfigured ones rejected."""
    failure = Failure.of(problem, attempts=delivery.attempt)
    if isinstance(problem, errors.Permanent):
        return Reject(failure)
    return Retry(reason=str(problem), failure=failure)
