"""The bodies of everything that goes over the bus, as plain JSON.

A reader ignores what it does not know and keeps it when it writes a record back, so that services of two versions can
run side by side. `schema_version` is raised only when the meaning of a field changes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from stereospot import errors, subjects, titles
from stereospot import spans as packing
from stereospot.media.model import SourceInfo
from stereospot.options import Asked, Options


class Message(BaseModel):
    """Base of every body; immutable, unknown fields kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = 1

    def body(self) -> bytes:
        return self.model_dump_json().encode()


def _packed(text: str) -> str:
    if not packing.unpack(text):
        raise ValueError("no spans")
    return text


def _pool(text: str) -> str:
    if not subjects.is_token(text):
        raise ValueError("not a pool's label")
    return text


Spans = Annotated[str, AfterValidator(_packed)]
"""Windows that each segment of a plan part needs, packed (`spans`); not empty."""

Pool = Annotated[str, AfterValidator(_pool)]
"""The label of some converters, as it stands in the subjects of their work."""

Title = Annotated[str, BeforeValidator(titles.given)]
"""What a film is called (`titles`)."""


class Failure(Message):
    """Why something failed, in the catalogue's words."""

    code: str
    sentence: str
    advice: str
    detail: str = ""
    segment_index: int | None = None
    attempts: int | None = None
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException, *, segment_index: int | None = None, attempts: int | None = None) -> Failure:
        if not isinstance(error, errors.StereoSpotError):
            error = errors.error("INTERNAL", f"{type(error).__name__}: {error}")
        return cls(
            code=error.code, sentence=error.entry.sentence, advice=error.advice, detail=error.detail,
            details=error.details, segment_index=segment_index, attempts=attempts,
        )  # fmt: skip


class Notice(Message):
    """Something a user should know about a result that is otherwise fine."""

    code: str
    text: str


class SourceRef(Message):
    """Where the source is and what identifies it."""

    key: str | None = Field(
        default=None, description="storage key; the gateway and the ingest service store sources whole"
    )
    path: str | None = Field(default=None, description="a local file that is referenced in place, not copied")
    url: str | None = Field(default=None, description="what the ingest service has still to fetch")
    name: str = Field(default="", description="display name; never used as a path")
    size_bytes: int | None = None
    mtime_ns: int | None = None
    digest: str | None = Field(
        default=None, description="sha256 of the whole (uploads) or `quick:` + sha256 of size, head and tail"
    )


class Film(Message):
    """The recorded result; readers follow this record and never guess a key."""

    key: str
    sha256: str
    size_bytes: int
    frames: int
    duration_seconds: float
    container: str
    file_name: str = Field(description="the name to save it under; players parse it")
    stream_withdrawn_at: float | None = Field(
        default=None, description="since then it is played from its file alone; a day later its fragments go"
    )
    stream_cleared: bool = Field(default=False, description="its fragments are gone")


# ---- work ------------------------------------------------------------------------------------------------
class SubmitWork(Message):
    """`work.submit.<id>`: what the API takes, for those who speak NATS; exactly one of the three inputs is given."""

    key: str | None = None
    url: str | None = None
    path: str | None = None
    depth_key: str | None = Field(default=None, description="depth for the engine `user`: a storage key …")
    depth_path: str | None = Field(default=None, description="… or a path under a configured root")
    title: Title = ""
    options: Asked = Options()
    priority: int = Field(default=4, ge=0, le=9, description="9 first")
    pool: str | None = Field(default=None, description="label of the converters to use; default: by backend and engine")


class PlanWork(Message):
    """`work.plan.<job>`: plan (or, with `redecode`, plan again from a decode pass) this generation."""

    job_id: str
    generation: int
    attempt: int = 1
    redecode: bool = False


class AudioWork(Message):
    job_id: str
    generation: int
    attempt: int = 1


class AnalyseWork(Message):
    """`work.analyse.<job>.<gen>.<window>`: take the samples of one window of a learned engine's curve."""

    job_id: str
    generation: int
    attempt: int = 1
    window: int


class DeleteWork(Message):
    job_id: str


class SegmentTask(Message):
    """`convert.<pool>.<lane>.<job>.<generation>.<index>`: one segment; ranges are in the plan part `part`."""

    job_id: str
    generation: int
    attempt: int
    index: int
    part: int = Field(description="first index of the plan part that holds this segment")


# ---- done ------------------------------------------------------------------------------------------------
class SegmentDone(Message):
    """`done.<job>.<generation>.<index>`: the fragment and its init are stored."""

    job_id: str
    generation: int
    index: int
    frames: int
    init_sha256: str
    size_bytes: int
    worker_id: str
    seconds: float
    engine: dict[str, Any] = {}


class PartDone(Message):
    """`done.<job>.<generation>.part`: segments `first … first+count-1` may be dispatched."""

    job_id: str
    generation: int
    attempt: int = 1
    pool: Pool
    first: int = Field(ge=0)
    count: int
    spans: Literal[""] | Spans = Field(
        default="", description="windows that each segment needs, packed; empty: no curve"
    )
    silent: bool = Field(default=False, description="the source is known to have no sound")


class TotalDone(Message):
    """`done.<job>.<generation>.total`: the plan is complete; it comes after every part."""

    job_id: str
    generation: int
    attempt: int = 1
    pool: Pool
    total: int
    parts: tuple[Annotated[int, Field(ge=0)], ...]
    audio: bool = Field(description="whether sound has to be ready before the film is assembled or played")
    spans: dict[Annotated[int, Field(ge=0)], Spans] = Field(default={}, description="`PartDone.spans` of every part")


class AudioDone(Message):
    """`done.<job>.<generation>.audio`: sound of segments `first … until-1` is stored for every track.

    `ready` is that of the film's beginning, and 0 for other runs: a collector that knows of none reads no more into it.
    """

    job_id: str
    generation: int
    ready: int = 0
    first: int = 0
    until: int = 0


class WindowDone(Message):
    """`done.<job>.<generation>.window`: the samples of one window of the curve are stored."""

    job_id: str
    generation: int
    window: int


class Trigger(Message):
    """`$KV.state.trigger.<job>.<generation>`: every segment is stored; written once an attempt, with the last bit."""

    job_id: str
    generation: int
    total: int
    attempt: int = 1


# ---- what people read ------------------------------------------------------------------------------------
class SegmentEvent(Message):
    """`event.segment.<job>.<generation>.<index>`: the newest is the cell of the segment strip."""

    job_id: str
    generation: int
    index: int
    state: Literal["running", "retrying", "done", "failed"]
    worker_id: str
    attempt: int = 1
    at: float
    seconds: float | None = None
    fps: float | None = None
    failure: Failure | None = None


class JobEvent(Message):
    """`event.job.<job>.<name>`: a transition or a notice, with the whole job where it is small."""

    job_id: str
    generation: int
    name: str
    at: float
    phase: str
    title: str = ""
    failure: Failure | None = None
    data: dict[str, Any] = {}


class DeadLetter(Message):
    """`dead.<kind>.<id>`: a message that will not be tried again by itself, with why and how to send it once more."""

    dead_id: str
    kind: str
    subject: str
    original: str = Field(description="the original body, as text")
    cut: bool = Field(default=False, description="`original` is its beginning only: it was too long for a letter")
    headers: dict[str, str] = {}
    failure: Failure
    attempts: int
    worker_id: str
    job_id: str | None = None
    at: float


class Worker(Message):
    """Bucket `workers`, TTL: what a converter says of itself every few seconds."""

    worker_id: str
    host: str
    pid: int
    pool: str
    slots: int
    busy: tuple[str, ...] = Field(default=(), description="job.generation.index of each segment at work")
    engines: tuple[str, ...] = ()
    device: str = "cpu"
    fps: float | None = None
    started_at: float
    seen_at: float
    version: str = ""


class Submission(Message):
    """Bucket `idempotency`: the answer that a repeated request gets again."""

    job_id: str
    request_sha256: str
    answered: bool = False
    probe: SourceInfo | None = None
