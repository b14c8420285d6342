"""What the API answers of films, as models: the description of `/api/v1` is made of them.

The answers themselves are made elsewhere (`resources.py` and the handlers), as plain dictionaries for pages, events and
JSON alike. Tests hold the two together: every answer of a running gateway has the members that are named here and no
others. Clients should ignore members that they do not know: a later version may have more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from stereospot.jobs import Phase
from stereospot.options import Layout, Options

Count = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Path = Annotated[str, Field(description="an address on this server", json_schema_extra={"format": "uri-reference"})]
Cursor = Annotated[str | None, Field(description="`cursor` of the page behind this one; null on the last")]
Status = Literal["queued", "processing", "completed", "failed"]
CellState = Literal["waiting", "running", "retrying", "done", "failed"]


def sometimes(description: str = "") -> Any:
    """A member that some answers do not have; that is not the same as null."""
    return Field(default_factory=lambda: None, description=description or None)


# ---- jobs ------------------------------------------------------------------------------------------------
class Failed(BaseModel):
    """Why something failed."""

    code: str = Field(description="of `/api/v1/errors`")
    reason: str
    detail: str
    advice: str
    segment_index: Count | None
    attempts: Count | None


class SegmentCounts(BaseModel):
    """Segments by their state; `total` is null until the film is planned."""

    done: Count
    running: Count
    retrying: Count
    total: Count | None


class Progress(BaseModel):
    """How far a job is; the rate and what is left are null until they are measured."""

    ratio: Ratio
    fps: float | None
    eta_seconds: Seconds | None
    segments: SegmentCounts


class Source(BaseModel):
    """What a job was made of."""

    name: str
    size_bytes: Count | None
    digest: str | None = Field(description="sha256 of the whole, or `quick:` and that of size, head and tail")


class Playback(BaseModel):
    """Where to watch; null where there is nothing yet. The addresses hold a token and need no key."""

    ready: bool
    poster: Path | None
    hls: Path | None = Field(description="null again once the stream of a finished film is kept no more")
    film: Path | None


class Output(BaseModel):
    """Something that a job has made."""

    profile: Layout | Literal["depth", "subtitles"]
    file_name: str
    container: str
    size_bytes: Count
    path: Path = sometimes("where the film plays")
    sha256: str = sometimes()
    frames: Count = sometimes()
    duration_seconds: Seconds = sometimes()
    language: str = sometimes("of subtitles: the code that the source gives them")


class Warned(BaseModel):
    """Something to know about a result that is otherwise fine."""

    code: str
    text: str


class Step(BaseModel):
    """A line of a job's history."""

    phase: Phase
    at: Moment
    generation: int
    attempt: int
    note: str


class Links(BaseModel):
    """What belongs to a job."""

    self: Path
    page: Path
    events: Path
    segments: Path


class Job(BaseModel):
    """A job with everything that is known of it; `revision` is its ETag."""

    job_id: str
    status: Status
    phase: Phase
    stage_label: str = Field(description="what happens now, in a few words")
    progress_percent: Annotated[int, Field(ge=0, le=100)]
    progress: Progress
    title: str
    filename: str
    created_at: Moment
    updated_at: Moment
    generation: int = Field(ge=1, description="counts changes of input and options")
    attempt: int = Field(ge=1, description="counts retries within a generation")
    revision: int = Field(description="the ETag")
    priority: int = Field(ge=0, le=9, description="9 first")
    pool: str = Field(description="the label of the converters that take it")
    options: Options
    source: Source
    frames: Count | None
    duration_seconds: Seconds | None
    engine: dict[str, Any] = Field(description="engine and model that did the work, with hashes; empty before")
    playhead: Count | None = Field(description="the segment that somebody watches")
    playback: Playback
    outputs: list[Output]
    warnings: list[Warned]
    lacks: list[str] = Field(description="what the film lacks of what its source promised; those warnings' sentences")
    error: Failed | None
    history: list[Step]
    report: dict[str, Any] = Field(description="comfort and other measurements of the finished film; empty before")
    passthrough: str = Field(description="as it was given")
    is_sample: bool
    links: Links


class Counts(BaseModel):
    """Jobs by status."""

    queued: Count
    processing: Count
    completed: Count
    failed: Count


class JobList(BaseModel):
    """A page of jobs, newest first; the counts are of all of them."""

    jobs: list[Job]
    next: Cursor
    counts: Counts
    phases: dict[Phase, Count] = Field(description="jobs by phase; one that has none may be missing")


class Anchor(BaseModel):
    """Where playing goes on after a seek; all null when nobody watches any more."""

    segment_index: Count | None
    start_seconds: Seconds | None
    hls: Path | None = Field(description="a playlist that begins there")


class ListedOutput(Output):
    """An output with where it is fetched from."""

    href: Path


class OutputList(BaseModel):
    """What a job has made: the film, and what lies beside it."""

    job_id: str
    generation: int
    outputs: list[ListedOutput]


# ---- segments --------------------------------------------------------------------------------------------
class Told(BaseModel):
    """What a converter said of a segment."""

    index: Count
    state: CellState
    worker_id: str
    attempt: int
    seconds: Seconds = sometimes("how long it took")
    fps: float | None = sometimes()
    error: Failed = sometimes()


class LogLine(Told):
    """A line of a segment's log."""

    at: Moment


class Segment(BaseModel):
    """A segment of the strip; who worked on it is there as soon as somebody did."""

    index: Count
    start_seconds: Seconds
    duration_seconds: Seconds
    frames: Count
    state: CellState
    worker_id: str = sometimes()
    attempt: int = sometimes()
    seconds: Seconds = sometimes("how long it took")
    fps: float | None = sometimes()
    error: Failed = sometimes()


class SegmentList(BaseModel):
    """The strip, as far as the film is planned."""

    job_id: str
    generation: int
    segments: list[Segment]


class WholeSegment(Segment):
    """A segment with its log, oldest first, and what its converter measured once it is done."""

    job_id: str
    generation: int
    log: list[LogLine]
    report: dict[str, Any] | None


# ---- uploads ---------------------------------------------------------------------------------------------
class Upload(BaseModel):
    """An upload; sha256 and media type are null until all of it is stored and checked."""

    upload_id: str
    upload: str = Field(description="the storage key; jobs take it or the id")
    name: str
    size_bytes: Count
    offset: Count = Field(description="how many bytes are durable")
    stored: bool
    sha256: str | None
    media_type: str | None
    expires_at: Moment


class CheckedUpload(Upload):
    """An upload whose parts have become one object."""

    checked_at: Moment


class DirectUpload(BaseModel):
    """An upload whose parts go straight to the store."""

    upload_id: str
    upload: str
    name: str
    size_bytes: Count
    part_bytes: Count = Field(description="of every part but the last")
    part_count: Count
    takes_sums: bool = Field(description="whether the store checks the sha256 of parts that are signed with it")


class Part(BaseModel):
    """A part that the store has."""

    number: int = Field(ge=1)
    size_bytes: Count


class PartList(BaseModel):
    """The parts that the store has."""

    size_bytes: Count
    part_bytes: Count
    part_count: Count
    takes_sums: bool
    parts: list[Part]


class PartAddress(BaseModel):
    """Where a part goes."""

    number: int = Field(ge=1)
    url: str = Field(json_schema_extra={"format": "uri"})
    headers: dict[str, str] = Field(description="to be sent with the PUT: they are signed, too")


class PartAddresses(BaseModel):
    """Where parts go, for how long."""

    parts: list[PartAddress]
    method: Literal["PUT"]
    expires_in_seconds: Count
