"""What the API answers of the service itself, as models: dead letters, converters, numbers, limits, the catalogue.

See `answers.py`, which has those of films.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from services.gateway.answers import Count, Counts, Cursor, Failed, Moment, Seconds
from stereospot.options import Codec, Layout


class DeadLetter(BaseModel):
    """A message that will not be tried again by itself."""

    dead_id: str
    kind: str
    job_id: str | None
    page: str | None = Field(description="of its film, while that is there")
    at: Moment
    attempts: int
    worker_id: str
    error: Failed
    subject: str
    original: str = Field(description="the message's body, at most its first 4096 characters")
    can_retry: bool = Field(description="whether trying again may help, by what is known of its job and of its error")
    why_not: str | None = Field(description="why it cannot, in a sentence")


class DeadLetterList(BaseModel):
    """A page of dead letters, newest first."""

    dead_letters: list[DeadLetter]
    next: Cursor


class GoneLetter(BaseModel):
    """A letter that the same request sent on its way before: no more is kept of it than its id."""

    dead_id: str


class AtWork(BaseModel):
    """A segment that a converter is at."""

    job_id: str
    generation: int
    segment_index: Count
    title: str = Field(description="the film's; empty where the job is not known here")
    page: str


class Worker(BaseModel):
    """What a converter says of itself."""

    worker_id: str
    host: str
    pid: int
    pool: str
    slots: Count
    busy: list[str] = Field(description="`job.generation.index` of each segment at work")
    engines: list[str]
    device: str
    fps: float | None
    version: str
    started_at: Moment
    seen_at: Moment
    silent_seconds: Seconds
    at_work: list[AtWork] = Field(description="what it is at now, what it began last first")


class WorkerList(BaseModel):
    """Converters that were heard of in the last seconds."""

    workers: list[Worker]


class Stats(BaseModel):
    """Depths, counts and the rate of the last ten minutes."""

    queue_depth: Count
    dlq_depth: Count
    total_jobs: Count
    jobs_by_status: Counts
    processing_rate_per_minute: Annotated[float, Field(ge=0)]
    workers: Count


class Tus(BaseModel):
    """What of the protocol is spoken."""

    version: str
    extensions: list[str]
    checksums: list[str]


class UploadWays(BaseModel):
    """How a film gets here."""

    tus: Tus
    direct: bool = Field(description="whether parts may go straight to the store")


class Capabilities(BaseModel):
    """Limits and options of this version."""

    version: str
    layouts: list[Layout]
    codecs: list[Codec]
    engines: list[str]
    engines_present: list[str] = Field(description="those that a converter at work has")
    containers: list[str]
    max_upload_bytes: Count
    max_pixels: Count
    max_duration_seconds: Seconds | None = Field(description="null: there is no limit")
    uploads: UploadWays
    inputs: list[Literal["upload", "path"]]


class CatalogueEntry(BaseModel):
    """Something that can go wrong."""

    code: str
    title: str
    advice: str
    status: int = Field(ge=400, le=599)
    retryable: bool


class Catalogue(BaseModel):
    """Everything that can go wrong."""

    errors: list[CatalogueEntry]


# ---- for clients of the older pipeline -------------------------------------------------------------------
class OldLetter(BaseModel):
    """A dead letter in the words of the older pipeline."""

    message_id: str
    job_id: str | None
    original_message_id: str
    error: str
    timestamp: Moment


class OldLetters(BaseModel):
    """The newest dead letters, and how many there are."""

    messages: list[OldLetter]
    count: Count


class Requeued(BaseModel):
    """The work is tried once more."""

    message: str
    job_id: str | None
    at: Moment
