"""Try before you convert: two seconds from three places of a film, with settings that somebody chose.

A sample job is a job like any other whose plan has three ranges; its segments go to the lane `now`. What is asked for
twice is one job: its id is made of the film and the settings, with a number where an earlier one was given up or has
gone with its time. `…/sample/<n>.mp4` is one of its places as a small film that begins at zero, which every browser
loops.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypedDict

from litestar import Request, Response, get, post
from litestar.params import FromPath, JSONBody
from pydantic import BaseModel, ConfigDict, Field

from services import submit
from services.gateway import replies, requests
from services.gateway.idempotency import once
from services.gateway.playback import GivenPlayer, NotYet
from services.gateway.state import Gateway, Given
from stereospot import errors, keys, records
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.media import boxes
from stereospot.messages import SourceRef
from stereospot.options import Asked, Layout, Options
from stereospot.settings import Settings

PLACES = (0.2, 0.5, 0.8)
"""Where the samples lie, as parts of the film."""

BLIND = (60.0, 300.0, 900.0)
"""Seconds of a film whose length nobody knows yet; a start behind the end gives the last frames."""

SECONDS = 2.0
CRF = 18
_GONE = frozenset({Phase.FAILED, Phase.CANCELLED, Phase.DELETED})


class NewSamples(BaseModel):
    """Of a job's film, or of an upload. `depth` shows the film beside its depth map instead of the two eyes."""

    model_config = ConfigDict(extra="forbid")

    job_id: str | None = Field(default=None, max_length=64)
    upload: str | None = Field(default=None, max_length=512)
    title: requests.Title = ""
    filename: requests.FileName = ""
    options: Asked | None = Field(default=None, description="default: those of the job")
    kind: Literal["stereo", "depth"] = "stereo"
    duration_seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="of the film, where the one who asks knows it"
    )


class WholeFilm(BaseModel):
    """The film of a job once more, whole, with these options (default: its own)."""

    model_config = ConfigDict(extra="forbid")

    options: Asked | None = None
    title: requests.Title = ""


def starts(duration_seconds: float | None) -> tuple[float, ...]:
    """Where samples begin, in seconds of film."""
    if duration_seconds is None:
        return BLIND
    room = max(0.0, duration_seconds - SECONDS)
    return tuple(round(min(room, duration_seconds * part), 2) for part in PLACES)


def settings(options: Options, kind: str, places: tuple[float, ...]) -> Options:
    """The options of a sample job: both eyes at full width, so that every way to look at them is possible.

    The codec is what plays everywhere: which one the whole film gets is not what is looked at.
    """
    layout = Layout.DEPTH if kind == "depth" else Layout.FULL_SBS
    shown = {"layout": layout, "crf": CRF, "codec": None, "container": "mp4", "samples": places}
    return options.model_copy(update=shown)


async def _origin(
    gateway: Gateway, wanted: NewSamples
) -> tuple[SourceRef, Options, str, tuple[float, ...], Job | None]:
    """(source, options, title, places) of what is to be sampled, and the job that it is of, if any."""
    if (wanted.job_id is None) == (wanted.upload is None):
        raise errors.error("INVALID_REQUEST", "Give exactly one of job_id and upload.")
    if wanted.job_id is not None:
        job = (await gateway.index.fresh(wanted.job_id)).job
        places = job.options.samples or starts(wanted.duration_seconds or job.duration_seconds)
        return job.source, wanted.options or job.options, wanted.title or job.title, places, job
    source, title = await requests.source_of(gateway, requests.NewJob(upload=wanted.upload, filename=wanted.filename))
    return source, wanted.options or Options(), wanted.title or title, starts(wanted.duration_seconds), None


class Inherited(TypedDict):
    """What a job of another job's film has from that one."""

    depth: SourceRef | None
    pool: str | None


def inherited(origin: Job, options: Options, settings: Settings) -> Inherited:
    """The user's depth, where these options still want it, and a pool that somebody named. Pure."""
    wants_depth = (options.engine or settings.engine) == "user"
    is_named = origin.pool != submit.pool_of(origin.options, settings)
    return {"depth": origin.depth if wants_depth else None, "pool": origin.pool if is_named else None}


def sample_id(source: SourceRef, options: Options, depth: SourceRef | None = None) -> str:
    """The id of the job for these settings of this film."""
    text = f"{source.key or source.path}|{source.digest}|{source.size_bytes}|{options.fingerprint()}"
    if depth is not None:
        text += f"|{depth.key or depth.path}|{depth.digest}|{depth.size_bytes}"
    return f"try-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


async def open_id(bus: Bus, job_id: str) -> str:
    """The id, or the first of `<id>-2`, `<id>-3`, … whose job was neither given up nor deleted: no id is used twice."""
    number, found = 1, job_id
    while await _is_history(bus, found):
        number += 1
        found = f"{job_id}-{number}"
    return found


async def _is_history(bus: Bus, job_id: str) -> bool:
    if not await records.is_taken(bus, job_id):
        return False
    found = await records.get_job(bus, job_id)
    return found is None or found[0].phase in _GONE


@post("/api/v1/samples", status_code=201)
async def create_samples(
    request: Request[Any, Any, Any], gateway: Given, data: JSONBody[NewSamples]
) -> Response[dict[str, Any]]:
    """Convert two seconds from each of three places, before everything else; the same again is the same job."""
    source, options, title, places, origin = await _origin(gateway, data)
    chosen = settings(options, data.kind, places)
    more = (
        inherited(origin, chosen, gateway.context.settings) if origin is not None else Inherited(depth=None, pool=None)
    )
    async with once(gateway, request, "samples", data.model_dump_json()) as told:
        job_id = sample_id(source, chosen, more["depth"])
        if await _is_history(gateway.context.bus, job_id):
            # A repeated request finds what it made.
            job_id = f"try-{told.made_id}" if told.made_id else await open_id(gateway.context.bus, job_id)
        job = await submit.create(gateway.context, source, chosen, job_id=job_id, title=title, priority=9, **more)
    return await replies.made(gateway, job.job_id, told)


@post("/api/v1/jobs/{job_id:str}/whole", status_code=201)
async def convert_whole(
    request: Request[Any, Any, Any], gateway: Given, job_id: FromPath[str], data: JSONBody[WholeFilm]
) -> Response[dict[str, Any]]:
    """Convert the whole film that a job was made of, as a job of its own."""
    origin = (await gateway.index.fresh(job_id)).job
    options = (data.options or origin.options).model_copy(update={"samples": None})
    key = origin.source.key
    async with once(gateway, request, "whole", job_id, data.model_dump_json()) as told:
        made_id = told.made_id
        if made_id is None and key is not None:
            made_id = await requests.own_id(gateway, key)
        job = await submit.create(
            gateway.context,
            origin.source,
            options,
            job_id=made_id,
            title=data.title or origin.title,
            priority=origin.priority if origin.options.samples is None else 4,
            passthrough=origin.passthrough,
            **inherited(origin, options, gateway.context.settings),
        )
    return await replies.made(gateway, job.job_id, told)


def from_zero(init: bytes, media: bytes) -> bytes:
    """An init segment and one fragment as a small mp4 whose first picture lies at 0."""
    samples = boxes.read_fragment(media)
    first = samples[0].time
    moved = [
        boxes.Sample(item.time - first, item.offset, item.duration, item.size, item.key, item.position)
        for item in samples
    ]
    return init + boxes.write_fragment(moved, [media[item.position : item.position + item.size] for item in samples])


@get("/v/{token:str}/{generation:int}/sample/{name:str}", include_in_schema=False)
async def sample(
    gateway: Given, player: GivenPlayer, token: FromPath[str], generation: FromPath[int], name: FromPath[str]
) -> Response[bytes]:
    """One segment as a film of its own; for sample jobs, whose segments are whole places."""
    shown = await player.showing(token, generation)
    text = name.removesuffix(".mp4")
    if not (name.endswith(".mp4") and text.isascii() and text.isdigit() and len(text) < 4):
        raise errors.error("NOT_FOUND", f"There is no {name[:80]}.")
    index = int(text)
    if shown.row.job.options.samples is None:
        raise errors.error("NOT_FOUND", "This job has no samples.")
    if not shown.state.is_done(index):
        raise NotYet
    job, store = shown.row.job, gateway.context.store
    init = await store.get(keys.init(job.job_id, generation, shown.state.init or ""))
    media = await store.get(keys.segment(job.job_id, generation, index))
    if init is None or media is None:
        raise NotYet
    return Response(from_zero(init, media), media_type="video/mp4", headers={"Cache-Control": "private, max-age=3600"})


HANDLERS = (create_samples, convert_whole, sample)
