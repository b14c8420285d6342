"""The collector: it alone adds to completion sets (see `lost` for what leaves them), and is the home of the dispatcher.

    DONE ─fetch(256)─> by (job, generation) ─one compare-and-set each─> state [+ trigger] ─> ack ─> dispatch

A message is acknowledged after its write is. What is unknown then is asked again by the redelivery, and a set counts
nothing twice. Results of generations that are history, or of deleted jobs, are dropped. Two collectors are safe.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import nats.errors
from pydantic import ValidationError

from services.context import Context
from services.dispatcher import Dispatcher
from services.states import States
from services.view import View
from stereospot import crash, errors, log, records, subjects
from stereospot.bus import Puller, PullError
from stereospot.bus.pull import Received
from stereospot.completion import MAX_SEGMENTS, Completion
from stereospot.jobs import Phase
from stereospot.letters import dead_letter
from stereospot.messages import AudioDone, Failure, PartDone, TotalDone, WindowDone

_log = log.get("collector")

crash.declare("collector.fetched", "collector.stored", "collector.acked")


TRIES = 4
"""A message whose change cannot be made, by itself, is buried then."""

GIVEN_BACK_SECONDS = 10.0
"""The longest rest of what could not be stored, from `pause_seconds` on twice as long each time: what is tried in vain
takes its turn from the others."""


class Impossible(Exception):
    """A change that cannot be made, whatever the broker does; its cause says why."""


@dataclass(slots=True)
class Group:
    """What one batch says of one generation."""

    members: dict[str | None, int] = field(default_factory=dict[str | None, int])
    parts: list[PartDone] = field(default_factory=list[PartDone])
    total: TotalDone | None = None
    audio: list[AudioDone] = field(default_factory=list[AudioDone])
    windows: list[int] = field(default_factory=list[int])
    received: list[Received] = field(default_factory=list[Received])

    def apply(self, state: Completion) -> Completion:
        """The set after this batch; returns `state` itself when the batch holds nothing new. Raises Impossible."""
        try:
            return self._applied(state)
        except Exception as error:
            raise Impossible from error

    def _applied(self, state: Completion) -> Completion:
        for part in self.parts:
            state = state.with_part(part.first, part.count, part.attempt, part.pool, part.spans, silent=part.silent)
        if self.total is not None:
            total = self.total
            state = state.with_total(
                total.total, total.parts, total.attempt, total.pool, total.audio, total.spans
            )  # fmt: skip
        for init, bitmap in self.members.items():
            state = state.with_done_set(bitmap, init)
        if self.windows:
            state = state.with_windows(self.windows)
        for sound in self.audio:
            state = state.with_audio(sound.until or sound.ready, sound.first)
        return state


def add(groups: dict[tuple[str, int], Group], received: Received) -> bool:
    """Put a message into its group; False for what is not a completion. Segments cost no model: they are the many."""
    delivery = received.delivery
    found = subjects.parse_done(delivery.subject)
    if found is None or (isinstance(found.what, int) and found.what >= MAX_SEGMENTS):
        return False
    group = groups.get((found.job_id, found.generation)) or Group()
    try:
        if isinstance(found.what, int):
            init = json.loads(delivery.data).get("init_sha256")
            if init is not None and not subjects.is_token(init):
                return False
            group.members[init] = group.members.get(init, 0) | 1 << found.what
        elif found.what == "part":
            group.parts.append(PartDone.model_validate_json(delivery.data))
        elif found.what == "total":
            total = TotalDone.model_validate_json(delivery.data)
            # One of an earlier attempt may come again behind the present one's.
            group.total = max(group.total or total, total, key=lambda item: item.attempt)
        elif found.what == "window":
            group.windows.append(WindowDone.model_validate_json(delivery.data).window)
        elif found.what == "audio":
            group.audio.append(AudioDone.model_validate_json(delivery.data))
    except (ValidationError, ValueError, AttributeError, TypeError, RecursionError):
        return False
    group.received.append(received)
    groups[found.job_id, found.generation] = group
    return True


class Collector:
    """Reads DONE until cancelled; one a deployment is plenty, two are safe."""

    def __init__(
        self, context: Context, *, batch: int = 256, wait_seconds: float = 5.0, pause_seconds: float = 0.5
    ) -> None:
        self._bus = context.bus
        self._batch = batch
        self._wait_seconds = wait_seconds
        self._pause_seconds = pause_seconds
        self._refusals: dict[int, int] = {}
        """How often the change of a message, by its sequence, could not be made."""
        self.view = View()
        self.states = States(context.bus, self._changed)
        self.dispatcher = Dispatcher(context.bus, self.view, self.states)

    def _changed(self, state: Completion) -> None:
        self.view.set_state(state)
        self.dispatcher.wake()

    async def run(self) -> None:
        """Collect and dispatch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.dispatcher.run())
            group.create_task(self.collect())

    async def collect(self) -> None:
        """Only the collecting half, until cancelled; what was fetched and not stored is then handed over at once."""
        puller = Puller(self._bus, subjects.DONE, "collector")
        await puller.open()
        batch: list[Received] = []
        try:
            while True:
                try:
                    if await puller.wait(self._wait_seconds, self._batch):
                        batch = await puller.take(self._batch)
                        await self.apply(batch)
                        batch = []
                except (PullError, nats.errors.Error, errors.Transient) as error:
                    if self._bus.is_closed:
                        raise errors.error("BROKER_UNAVAILABLE", "The connection was closed.") from error
                    _log.warning("pause", action="retry", reason=str(error))
                    await asyncio.sleep(self._pause_seconds)
        finally:
            await _give_back([*batch, *puller.held], 0.05)
            await puller.close()

    async def apply(self, batch: Iterable[Received]) -> None:
        """Store what a batch says, one write a generation, and acknowledge it; one group's trouble is not another's."""
        groups: dict[tuple[str, int], Group] = {}
        for received in batch:
            if not add(groups, received):
                await self._bury(received)
        crash.point("collector.fetched")
        await asyncio.gather(
            *(self._apply(job_id, generation, group) for (job_id, generation), group in groups.items())
        )
        crash.point("collector.acked")

    async def _bury(self, received: Received) -> None:
        """What is no completion will never be one: a dead letter, and out of the queue."""
        _log.error("not a completion", action="reject", subject=received.delivery.subject)
        await self._reject(received, Failure.of(errors.error("INVALID_REQUEST", "This is not a completion.")))

    async def _reject(self, received: Received, failure: Failure) -> None:
        delivery = received.delivery
        letter = dead_letter(delivery, failure, worker_id="collector", at=time.time())
        subject = subjects.dead(letter.kind, letter.dead_id)
        try:
            await self._bus.publish(subject, letter, msg_id=f"dead.{letter.dead_id}")
        except errors.Permanent as error:  # one message, whatever is in it, ends no collector
            _log.error("no letter", action="reject", subject=delivery.subject, code=error.code, detail=error.detail)
        await received.terminate(f"{failure.code} {failure.detail}")

    async def _apply(self, job_id: str, generation: int, group: Group) -> None:
        try:
            if not self.view.is_old(job_id, generation):
                await self.states.change(
                    job_id, generation, group.apply, create=lambda: self._is_current(job_id, generation)
                )
        except Impossible as error:
            await self._refused(job_id, generation, group, error.__cause__ or error)
            return
        except errors.Permanent as error:  # the set would be too long for the broker
            await self._refused(job_id, generation, group, error)
            return
        except errors.Misconfigured as error:
            if error.code != "RECORD_UNREADABLE":
                raise
            await self._return(group.received, job_id, error)
            return
        except Exception as error:  # the broker's, whatever it is: that passes, and a good completion is kept
            await self._return(group.received, job_id, error)
            return
        crash.point("collector.stored")
        for received in group.received:
            self._refusals.pop(received.delivery.stream_sequence, None)
            await received.ack()

    async def _return(self, messages: list[Received], job_id: str, error: BaseException) -> None:
        _log.warning("not stored", action="retry", job_id=job_id, reason=repr(error))
        tries = max(item.delivery.attempt for item in messages)
        await _give_back(messages, min(GIVEN_BACK_SECONDS, self._pause_seconds * 2 ** min(tries - 1, 8)))

    async def _refused(self, job_id: str, generation: int, group: Group, error: BaseException) -> None:
        """A change that cannot be made: its messages are tried one by one, and what fails alone is buried in the end,
        so that it costs neither the others nor the collector."""
        if len(group.received) == 1:
            (received,) = group.received
            sequence = received.delivery.stream_sequence
            # Counted here: a delivery may have been given back for what is not its doing.
            count = self._refusals[sequence] = self._refusals.get(sequence, 0) + 1
            if count < TRIES:
                await self._return([received], job_id, error)
            else:
                await self._reject(received, Failure.of(error, attempts=count))
                del self._refusals[sequence]
            return
        for received in group.received:
            single: dict[tuple[str, int], Group] = {}
            add(single, received)
            await self._apply(job_id, generation, single[job_id, generation])

    async def _is_current(self, job_id: str, generation: int) -> bool:
        """Whether a completion set may be begun: the job exists and this is its generation."""
        found = await records.get_job(self._bus, job_id)
        return found is not None and found[0].generation == generation and found[0].phase is not Phase.DELETED


async def _give_back(received: Iterable[Received], delay_seconds: float) -> None:
    """Offer messages again; while the broker is away it does so by itself, after the ack wait."""
    for item in received:
        try:
            await item.nak(delay_seconds)
        except nats.errors.Error as error:
            _log.warning("not given back", action="retry", reason=str(error))
            return
