"""The job: one record, one table of legal transitions, no I/O.

    created ─┬─> ingesting ─> planning ─> converting ─> assembling ─> completed
             └──────────────────^             (failed, cancelled and deleted are reached from where the table says)

A record lives in the bucket `jobs` and is changed by compare-and-set only. `generation` counts changes of input,
options or engine: results of an older one are dropped. `attempt` counts retries within a generation: the completion
set stays, only what is missing is done again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field

from stereospot import errors
from stereospot.messages import Failure, Film, Message, Notice, SourceRef
from stereospot.options import Options


class Phase(StrEnum):
    CREATED = "created"
    INGESTING = "ingesting"
    PLANNING = "planning"
    CONVERTING = "converting"
    ASSEMBLING = "assembling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


_P = Phase
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    _P.CREATED: frozenset({_P.INGESTING, _P.PLANNING, _P.FAILED, _P.CANCELLED, _P.DELETED}),
    _P.INGESTING: frozenset({_P.PLANNING, _P.FAILED, _P.CANCELLED, _P.DELETED}),
    # A plan from a decode pass starts a new generation in the same phase: planning -> planning.
    _P.PLANNING: frozenset({_P.PLANNING, _P.CONVERTING, _P.FAILED, _P.CANCELLED, _P.DELETED}),
    _P.CONVERTING: frozenset({_P.PLANNING, _P.ASSEMBLING, _P.FAILED, _P.CANCELLED, _P.DELETED}),
    _P.ASSEMBLING: frozenset({_P.PLANNING, _P.COMPLETED, _P.FAILED, _P.CANCELLED, _P.DELETED}),
    # Finished jobs go on only by a retry (same generation) or a change (new generation), both through planning.
    _P.COMPLETED: frozenset({_P.PLANNING, _P.DELETED}),
    _P.FAILED: frozenset({_P.INGESTING, _P.PLANNING, _P.DELETED}),
    _P.CANCELLED: frozenset({_P.INGESTING, _P.PLANNING, _P.DELETED}),
    _P.DELETED: frozenset(),
}
"""Every legal transition; there are no others."""

ACTIVE = frozenset({_P.CREATED, _P.INGESTING, _P.PLANNING, _P.CONVERTING, _P.ASSEMBLING})
"""Phases in which something is still to be done without anyone asking for it."""

COMPUTING = frozenset({_P.PLANNING, _P.CONVERTING})
"""Phases in which a segment of the current generation may be worked on."""


class Step(Message):
    """One line of a job's history."""

    phase: Phase
    at: float
    generation: int
    attempt: int
    note: str = ""


class Job(Message):
    """The record in the bucket `jobs`; key is the job id, the revision is the resource's ETag."""

    job_id: str
    title: str = ""
    phase: Phase = Phase.CREATED
    generation: int = 1
    attempt: int = 1
    created_at: float
    updated_at: float
    source: SourceRef
    depth: SourceRef | None = Field(default=None, description="depth that the user gave, for the engine `user`")
    options: Options = Options()
    pool: str = "cpu"
    priority: int = Field(default=4, ge=0, le=9, description="9 first")
    owner: str = ""
    playhead: int | None = Field(
        default=None, description="segment that somebody watches: it and what follows come first"
    )
    segments: int | None = Field(default=None, description="total of the plan, once known")
    frames: int | None = None
    duration_seconds: float | None = None
    redecoded: bool = Field(default=False, description="the plan comes from a decode pass; there is no second re-plan")
    engine: dict[str, Any] = Field(default={}, description="engine and model that did the work, with hashes")
    film: Film | None = None
    failure: Failure | None = None
    warnings: tuple[Notice, ...] = ()
    history: tuple[Step, ...] = ()
    report: dict[str, Any] = Field(default={}, description="comfort report and other measurements of the finished film")
    passthrough: str = Field(default="", max_length=1000, description="echoed in every event and webhook")

    @property
    def is_active(self) -> bool:
        return self.phase in ACTIVE

    @property
    def has_stream(self) -> bool:
        """Whether what is converted may be streamed: until its film was there for long, and is played from its file."""
        return self.film is None or self.film.stream_withdrawn_at is None

    def accepts(self, generation: int) -> bool:
        """Whether a result of `generation` still counts."""
        return generation == self.generation and self.phase in COMPUTING

    def with_warning(self, code: str, text: str) -> Job:
        """Add a warning once."""
        return self.warned(Notice(code=code, text=text))

    def warned(self, notice: Notice) -> Job:
        """The same with a notice that was made elsewhere."""
        if any(item.code == notice.code and item.text == notice.text for item in self.warnings):
            return self
        return self.model_copy(update={"warnings": (*self.warnings, notice)})


PASSING = frozenset({"STORAGE_FULL", "STORAGE_UNAVAILABLE"})
"""What a job waits for that ends by itself."""


def without_warnings(job: Job, codes: Collection[str] = errors.ELSEWHERE) -> Job:
    """The job without the warnings that hold no more: those that say what it waited for, or of other codes."""
    return job.model_copy(update={"warnings": tuple(item for item in job.warnings if item.code not in codes)})


def advance(job: Job, phase: Phase, *, at: float, note: str = "", **changes: Any) -> Job:
    """The job in `phase`, with a line of history; raises CONFLICT when the table does not allow it."""
    if phase not in TRANSITIONS[job.phase]:
        raise errors.error("CONFLICT", f"A job that is {job.phase} cannot become {phase}.", phase=job.phase)
    moved = job.model_copy(update={"phase": phase, "updated_at": at, **changes})
    step = Step(phase=phase, at=at, generation=moved.generation, attempt=moved.attempt, note=note)
    return moved.model_copy(update={"history": (*job.history, step)[-64:]})


def fail(job: Job, failure: Failure, *, at: float) -> Job | None:
    """The failed job, or None when it is no longer active: then nobody waits for the failure."""
    if not job.is_active:
        return None
    return advance(without_warnings(job, PASSING), Phase.FAILED, at=at, note=failure.code, failure=failure)


def cancel(job: Job, *, at: float) -> Job | None:
    """The cancelled job, or None when it already came to an end."""
    return advance(without_warnings(job, PASSING), Phase.CANCELLED, at=at) if job.is_active else None


def delete(job: Job, *, at: float) -> Job | None:
    """The deleted job, or None when it is that already; without what nobody asks of it any more: a bucket that is full
    takes only a record that is smaller than the one before."""
    if job.phase is Phase.DELETED:
        return None
    gone = advance(job, Phase.DELETED, at=at, engine={}, report={}, warnings=(), failure=None, film=None)
    return gone.model_copy(update={"history": gone.history[-1:]})


def retry(job: Job, *, at: float) -> Job:
    """Same generation, one attempt more; goes on where the completion set says. Raises CONFLICT while it is active."""
    if job.is_active or job.phase in (Phase.DELETED, Phase.COMPLETED):
        raise errors.error("CONFLICT", f"Only a failed or cancelled job can be retried; this one is {job.phase}.")
    entry = Phase.INGESTING if job.source.key is None and job.source.path is None else Phase.PLANNING
    return advance(job, entry, at=at, note="retry", attempt=job.attempt + 1, failure=None)


def withdraw_stream(job: Job, *, at: float, before: float) -> Job | None:
    """The job of a film that came to rest `before`, without its stream; None where there is none to withdraw."""
    if job.phase is not Phase.COMPLETED or job.film is None or not job.has_stream or job.updated_at > before:
        return None
    return job.model_copy(update={"film": job.film.model_copy(update={"stream_withdrawn_at": at})})


def is_clearable(job: Job, *, before: float) -> bool:
    """Whether its fragments may go: the stream was withdrawn `before`, and they are still there."""
    at = job.film.stream_withdrawn_at if job.phase is Phase.COMPLETED and job.film is not None else None
    return at is not None and at <= before and job.film is not None and not job.film.stream_cleared


def renew(job: Job, *, at: float, note: str, **changes: Any) -> Job:
    """A new generation, planned from the start: input, options, engine or frame list changed."""
    return advance(
        job, Phase.PLANNING, at=at, note=note, generation=job.generation + 1, attempt=1,
        segments=None, frames=None, film=None, failure=None, playhead=None, **changes,
    )  # fmt: skip


PUBLIC_STATE: Mapping[Phase, str] = {
    _P.CREATED: "queued",
    _P.INGESTING: "queued",
    _P.PLANNING: "processing",
    _P.CONVERTING: "processing",
    _P.ASSEMBLING: "processing",
    _P.COMPLETED: "completed",
    _P.FAILED: "failed",
    _P.CANCELLED: "failed",
    _P.DELETED: "failed",
}
"""The four states that clients of the older pipelines know."""
