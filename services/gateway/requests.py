"""What the API takes, as models, and how a request becomes a job; shared by `/api/v1` and the older routes."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Annotated, Any

from litestar.params import QueryParameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services import submit
from services.gateway.state import Gateway
from services.intake import Arrived
from stereospot import errors, keys, records, subjects, titles
from stereospot.jobs import Job, Phase
from stereospot.messages import SourceRef, SubmitWork
from stereospot.options import Asked, Layout, Options, known
from stereospot.settings import Settings

MODES = {"sbs": Layout.FULL_SBS, "anaglyph": Layout.ANAGLYPH}
"""The two modes of the older web UI."""


Limit = Annotated[int, QueryParameter(ge=1, le=200)]
"""How many a page of a list holds at most."""

Title = Annotated[str, Field(max_length=500), BeforeValidator(titles.given)]
FileName = Annotated[str, Field(max_length=200), BeforeValidator(titles.given)]
"""What an uploaded file is called, for display."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewJob(_Request):
    """Exactly one input: `upload` (the id of an upload, or its key), `path` under a configured root, or `url`."""

    upload: str | None = Field(default=None, max_length=512, examples=["01JD0000000000000000000000"])
    path: str | None = Field(default=None, max_length=4096, examples=["/films/holiday.mp4"])
    url: str | None = Field(default=None, max_length=4096)
    depth_upload: str | None = Field(
        default=None, max_length=512, description="depth for the engine `user`: an upload (id or key) …"
    )
    depth_path: str | None = Field(default=None, max_length=4096, description="… or a path under a configured root")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-fA-F]{64}$", description="of the upload, compared with what is stored"
    )
    title: Title = ""
    filename: FileName = Field(default="", description="what an uploaded file is called, for display")
    options: Asked = Options()
    priority: int = Field(default=4, ge=0, le=9, description="9 first")
    pool: str | None = Field(
        default=None, max_length=64, description="a label of converters; default: by backend and engine"
    )
    passthrough: str = Field(default="", max_length=1000)


class JobChanges(_Request):
    """What may change without a new conversion."""

    title: Annotated[str, Field(min_length=1, max_length=500), BeforeValidator(titles.given)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    source_file_size_bytes: int | None = Field(default=None, description="accepted from older clients, ignored")


class Seek(_Request):
    """Where somebody watches: a time of the film, or a segment; neither means nobody does."""

    seconds: Annotated[float, Field(ge=0)] | None = None
    segment_index: Annotated[int, Field(ge=0)] | None = None


async def create(gateway: Gateway, wanted: NewJob, *, job_id: str | None = None) -> Job:
    """Make the job; with the `job_id` of one that exists, that one is returned."""
    if job_id is not None:
        found = await records.get_job(gateway.context.bus, job_id)
        if found is not None and found[0].phase is not Phase.CREATED:
            return found[0]
        # In its first phase its work may never have been published: whoever recorded it may have died.
    source, title = await source_of(gateway, wanted)
    if job_id is None and source.key is not None:
        job_id = await own_id(gateway, source.key)
    return await submit.create(
        gateway.context,
        source,
        wanted.options,
        job_id=job_id,
        title=wanted.title or title,
        priority=wanted.priority,
        pool=wanted.pool,
        passthrough=wanted.passthrough,
        depth=await _depth(gateway, wanted),
    )


async def source_of(gateway: Gateway, wanted: NewJob) -> tuple[SourceRef, str]:
    """The source that a request names, and the title that it has by itself (empty for none)."""
    if wanted.url is not None and wanted.upload is None and wanted.path is None:
        raise errors.error("NOT_AVAILABLE", "Jobs from URLs come with the ingest service.")
    arrived = await _arrived(gateway, wanted)
    if arrived is not None:
        source = arrived.source()
        if await gateway.context.store.head(arrived.key) is None:
            raise errors.error("SOURCE_MISSING", arrived.key)
    else:
        work = SubmitWork(
            key=wanted.upload, url=wanted.url, path=wanted.path, title=wanted.title, options=wanted.options,
            priority=wanted.priority,
        )  # fmt: skip
        source = await submit.source_of(gateway.context, work)
    title = titles.shown(PurePath(source.name).stem) if arrived is not None else ""
    if wanted.filename and source.key is not None:
        source = source.model_copy(update={"name": wanted.filename})
    return source, title


async def _depth(gateway: Gateway, wanted: NewJob) -> SourceRef | None:
    """The depth that a request names, checked as its film is."""
    if wanted.depth_upload is not None and wanted.depth_path is not None:
        raise errors.error("INVALID_REQUEST", "Give one of depth_upload and depth_path.")
    if wanted.depth_upload is None and wanted.depth_path is None:
        return None
    return (await source_of(gateway, NewJob(upload=wanted.depth_upload, path=wanted.depth_path)))[0]


async def _arrived(gateway: Gateway, wanted: NewJob) -> Arrived | None:
    """The checked upload that a request names by id or key; None for a key that did not come by an upload.

    Raises UPLOAD_INCOMPLETE before all of it is there, CHECKSUM_MISMATCH where the request says another sha256.
    """
    if wanted.upload is None or wanted.path is not None or wanted.url is not None:
        return None
    parsed = keys.parse_source(wanted.upload)
    upload_id = wanted.upload if parsed is None else parsed.job_id
    if not subjects.is_token(upload_id):
        raise errors.error("INVALID_REQUEST", f"{wanted.upload[:80]!r} is neither an upload's id nor its key.")
    arrived = await gateway.intake.arrived(upload_id)
    if arrived is None:
        try:
            upload = await gateway.intake.find(upload_id)
        except errors.Permanent:
            if parsed is None:
                raise
            return None
        async with gateway.intake.turn(upload_id):
            arrived = await gateway.intake.finish(upload)
    if wanted.sha256 is not None and wanted.sha256.lower() != arrived.sha256:
        raise errors.error("CHECKSUM_MISMATCH", f"The upload has {arrived.sha256}.")
    return arrived


async def own_id(gateway: Gateway, key: str) -> str | None:
    """The first job of an upload has the upload's id, so that its source lies under its own prefix; no other has it,
    also when that one was deleted."""
    parsed = keys.parse_source(key)
    if parsed is None or await records.is_taken(gateway.context.bus, parsed.job_id):
        return None
    return parsed.job_id


async def create_from_upload(
    gateway: Gateway, stored: Arrived, *, options: Options, title: str = "", priority: int = 4
) -> Job:
    """The job of an upload that has just been stored."""
    return await submit.create(
        gateway.context,
        stored.source(),
        options,
        job_id=stored.upload_id,
        title=titles.shown(title) or titles.shown(PurePath(stored.name).stem),
        priority=priority,
    )


def as_curl(job: Job, settings: Settings) -> str:
    """The command that asks for this conversion once more, for a shell; its address lacks the origin."""
    usual = submit.pool_of(job.options, settings)
    wanted = NewJob(
        upload=job.source.key,
        path=job.source.path,
        depth_upload=job.depth.key if job.depth else None,
        depth_path=job.depth.path if job.depth else None,
        title=job.title,
        filename=job.source.name[:200] if job.source.key else "",
        priority=job.priority,
        pool=None if job.pool == usual else job.pool,
        passthrough=job.passthrough,
    ).model_copy(update={"options": job.options})  # as they are recorded, unknown ones too
    body = wanted.model_dump_json(exclude_defaults=True)
    return f"curl -sS /api/v1/jobs -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def options_of(fields: dict[str, str]) -> Options:
    """Options from a form: `options` as JSON, or single fields by their names; `mode` as the older web UI has it."""
    if fields.get("options"):
        return known(Options.model_validate_json(fields["options"]))
    values: dict[str, Any] = {name: fields[name] for name in Options.model_fields if fields.get(name)}
    mode = fields.get("mode")
    if mode:
        if mode not in MODES:
            raise errors.error("INVALID_REQUEST", f"The mode is sbs or anaglyph, not {mode[:40]!r}.")
        values.setdefault("layout", MODES[mode])
    return Options.model_validate(values)
