"""Segments that come to nothing: what a worker makes of each failure, and what it leaves to others.

    a segment ─ fails ──────────────> rejected, tried again, planned anew or given back, by what failed
              ─ is cut off from its storage ─> waited for; after a while given back, and the job says so
              ─ is beyond this worker ─> given back untried, with all of its job, until that may have changed

A failure is the film's, this worker's, or of what is away for everybody; the last costs no try. It is nobody's where
another worker has stored the segment meanwhile: whoever slept through its lease must not fail a job that goes well.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from services import operations
from services.context import Context
from services.fitness import Fitness, Refusal, Work
from services.results import Results
from services.watch import is_wanted
from stereospot import errors, metrics
from stereospot.actor import PATIENT
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.messages import Failure, SegmentTask
from stereospot.outcome import Ack, Outcome, Reject, Retry, Return

PHASES = frozenset({Phase.PLANNING, Phase.CONVERTING})
"""Phases in which a segment is begun."""

FINISHING = PHASES | {Phase.FAILED}
"""Phases in which a segment that runs is brought to its end: a retry of a failed job finds it done."""

UNFIT_SECONDS = 3.0
"""How long a segment rests after a worker whose encoder writes another header gave it back."""

MISSING_SECONDS = 10.0
"""How long it rests after a worker that lacks its model or engine: such a worker is idle, so others need the time to
come to it first."""

CUT_OFF_SECONDS = 60.0
"""How long a worker waits for a storage that is away with the same segment, be it before or after its work. Longer than
that it may be this worker alone that cannot reach it: it says so on the job and leaves the segment to others."""

CUT_OFF_RESTS = 6
"""Such a segment rests for MISSING_SECONDS, each time for as much more, up to so many of them: a consumer gives a
message out a thousand times only, and a whole fleet may be without its storage for a day."""

STORED = "stored already"
"""Said of a segment that another worker has stored."""


class Tell(Protocol):
    """Publishes what became of a segment, for those who watch."""

    def __call__(self, task: SegmentTask, state: str, *, attempt: int, failure: Failure) -> Awaitable[None]: ...


class Setbacks:
    """Of one worker: what it cannot do, and for how long it has waited for what."""

    def __init__(self, context: Context, worker_id: str, tell: Tell, results: Results) -> None:
        self._context = context
        self._bus = context.bus
        self._worker_id = worker_id
        self._tell = tell
        self._results = results
        self._fitness = Fitness()
        self._waiting: dict[str, float] = {}
        self.lost: errors.StereoSpotError | None = None
        """What this process did not survive: it ends, whoever watches it starts a fresh one."""
        self.on_lost: Callable[[], None] = lambda: None

    def refused(self, task: SegmentTask) -> Return | None:
        """What to do with a segment of a job that this worker has found to be beyond it."""
        refusal = self._fitness.refusal(_work_of(task))
        return None if refusal is None else _give_back(task, refusal)

    async def failed(self, delivery: Delivery, task: SegmentTask, error: errors.StereoSpotError) -> Outcome:
        """What to do about a segment that failed; raises what is not its doing: a broker or a storage that is away."""
        if error.code in PATIENT or error.code == "RECORD_UNREADABLE":  # nor of this worker for good
            raise error
        if error.code == "CANCELLED":
            return Ack("cancelled")
        if error.code == "SEGMENT_MISMATCH" and (outcome := await self._miscounted(task, error)) is not None:
            return outcome
        if error.code == "ENCODER_MISMATCH":
            return await self._of_another_encoder(delivery, task, error)
        if error.details.get("device_lost") or error.code == "ENCODER_STALLED":
            self.lost = error
            self.on_lost()
        metrics.WORKER.failure(error.code)
        failure = Failure.of(error, segment_index=task.index, attempts=delivery.attempt)
        again = error.code in errors.SECOND_LOOK and delivery.attempt < 2
        # What is missing on this machine may be there on another, if there is one.
        final = errors.Permanent if not self._context.alone else (errors.Permanent, errors.Misconfigured)
        if isinstance(error, final) and not again:
            return Ack(STORED) if await self._results.look_again(task) else Reject(failure)
        return await self._tried(delivery, task, error, failure)

    async def _miscounted(self, task: SegmentTask, error: errors.StereoSpotError) -> Outcome | None:
        """The plan says another number of frames: it is made anew, once; None where it was before."""
        if await self._results.look_again(task):
            return Ack(STORED)
        reason = f"Segment {task.index}: {error.detail}"
        if await operations.replan(self._bus, task.job_id, task.generation, reason):
            return Ack("replanned")
        return None

    async def _of_another_encoder(
        self, delivery: Delivery, task: SegmentTask, error: errors.StereoSpotError
    ) -> Outcome:
        """The film has begun with another header: for a worker that writes that one, if there can be such."""
        if not self._context.alone:
            return await self._lacks(task, Failure.of(errors.error(error.code)), UNFIT_SECONDS)
        # Whoever wrote that header will not come back: this host has been upgraded, say.
        if await operations.reencode(self._bus, task.job_id, task.generation):
            return Ack("begun anew")
        if await self._results.look_again(task):
            return Ack(STORED)
        return Reject(Failure.of(error, segment_index=task.index, attempts=delivery.attempt))

    async def _tried(
        self, delivery: Delivery, task: SegmentTask, error: errors.StereoSpotError, failure: Failure
    ) -> Outcome:
        """A try that another one may make good, here or by a worker that has what this one lacks."""
        # What this worker cannot do is noted before anything is awaited: its slot has the next segment already.
        outcome: Outcome = Retry(reason=str(error), failure=failure)
        if isinstance(error, errors.Misconfigured):
            outcome = await self._lacks(task, failure, MISSING_SECONDS)
        elif isinstance(error, errors.Exhausted) and not self._context.alone:
            self._fitness.is_too_small(_work_of(task), failure, UNFIT_SECONDS)
            await self._explain(task, failure)
        # The last retry becomes a rejection, and that writes a letter first.
        if isinstance(outcome, Retry) and await self._results.look_again(task):
            return Ack(STORED)
        await self._tell(task, "retrying", attempt=delivery.attempt, failure=failure)
        return outcome

    async def held(self, task: SegmentTask, name: str, error: errors.Transient) -> None:
        """A result waits for the storage for long: raises where another worker may store one.

        A full storage is full for everybody, and computed once is enough.
        """
        if not self._context.alone and error.code != "STORAGE_FULL":
            self._waiting[name] = time.monotonic() - CUT_OFF_SECONDS
            raise error
        with contextlib.suppress(errors.StereoSpotError):  # a broker that is away costs no result
            await self._explain(task, Failure.of(error, segment_index=task.index), held=True)

    async def cut_off(self, delivery: Delivery, task: SegmentTask, name: str, error: errors.StereoSpotError) -> Outcome:
        """Give a segment back whose storage is away for this worker; raises `error` until it has been for long."""
        if self._context.alone or not self._is_cut_off(name, error):
            raise error  # the actor waits, in the slot or at rest, and asks again: no try, until it has for a day
        failure = Failure.of(error, segment_index=task.index)
        await self._explain(task, failure)
        rests = min(1 + delivery.excused, CUT_OFF_RESTS)
        return _give_back(task, Refusal(failure, rests * MISSING_SECONDS))

    def is_over(self, name: str) -> None:
        """A segment is in nobody's hand here any more: how long it waited is forgotten."""
        self._waiting.pop(name, None)

    def _is_cut_off(self, name: str, error: errors.StereoSpotError) -> bool:
        """Whether the storage has been away so long, for this worker, that another one had better try."""
        if error.code not in PATIENT or error.code == "BROKER_UNAVAILABLE":
            return False  # without the broker nothing can be given back
        now = time.monotonic()
        return now >= self._waiting.setdefault(name, now) + CUT_OFF_SECONDS

    async def _lacks(self, task: SegmentTask, failure: Failure, delay_seconds: float) -> Outcome:
        """Leave this job to others, and say so on it."""
        self._fitness.lacks(_work_of(task), failure, delay_seconds)
        await self._explain(task, failure)
        return _give_back(task, Refusal(failure, delay_seconds))

    async def _explain(self, task: SegmentTask, failure: Failure, *, held: bool = False) -> None:
        """Say on the job why it waits."""

        def wanted(job: Job) -> bool:
            return is_wanted(job, task.generation, PHASES, task.attempt)

        said = operations.HELD if held else operations.GIVEN_BACK
        await operations.explain_wait(self._bus, task.job_id, failure, wanted, worker_id=self._worker_id, said=said)


def _give_back(task: SegmentTask, refusal: Refusal) -> Return:
    """To others, without another look; it was not tried."""
    failure = refusal.failure.model_copy(update={"segment_index": task.index})
    return Return(refusal.delay_seconds, reason=failure.code, failure=failure)


def _work_of(task: SegmentTask) -> Work:
    return task.job_id, task.generation, task.attempt
