"""Pictures of a film itself, its poster and the scrubber's, made when somebody first asks, and kept in storage.

    …/poster.jpg, …/storyboard.vtt, …/storyboard/<sheet>.jpg          beside the playlists, under the same path token

The sheets are stored before the cues that name them, with equal bytes whoever makes them: two gateways may do it at
once. A film that gives no pictures gets a text without cues, so that it is not tried again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import av
from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from services import sources
from services.context import Context
from services.gateway.pictures import Darkroom, GivenDarkroom, jpeg
from services.gateway.playback import GivenPlayer, NotYet, number_in
from services.gateway.state import Gateway, Given
from services.gateway.stored import stored
from stereospot import errors, keys, log
from stereospot.jobs import Job
from stereospot.media import storyboard as drawing
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, PlanTotal

_log = log.get("gateway")

ResultT = TypeVar("ResultT")

VTT = "text/vtt; charset=utf-8"
BLANK = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 90"><g fill="none" stroke="#2e2c29" stroke-width="2">'
    b'<circle cx="73" cy="45" r="13"/><circle cx="87" cy="45" r="13"/></g></svg>'
)
CACHED = {"Cache-Control": "private, max-age=3600"}


async def cues(gateway: Gateway, darkroom: Darkroom, job: Job) -> bytes:
    """The stored WebVTT of a job, drawn first where it is missing; raises NotYet until the film is planned."""
    store = gateway.context.store
    key = keys.storyboard(job.job_id, job.generation)
    found = await store.get(key)
    if found is not None:
        return found
    head = await gateway.plans.head(job.job_id, job.generation)
    total = await gateway.plans.total(job.job_id, job.generation)
    if head is None or total is None:
        raise NotYet
    async with darkroom.drawing:
        found = await store.get(key)
        if found is None:
            found = await _draw(gateway.context, job, head, total)
            await store.put(key, found)
    return found


async def poster(gateway: Gateway, darkroom: Darkroom, job: Job) -> bytes | None:
    """The stored poster of a job, drawn first where it is missing; None where the film shows none (yet).

    It is there as soon as the film is planned, long before its first segment is converted.
    """
    store = gateway.context.store
    key = keys.poster(job.job_id, job.generation)
    found = await store.get(key)
    head = await gateway.plans.head(job.job_id, job.generation) if found is None else None
    if head is None:
        return found
    seconds = job.duration_seconds or head.source.duration_seconds
    if not seconds:
        return None
    async with darkroom.drawing:
        found = await store.get(key)
        if found is None:
            first = head.source.video.first_pts
            picture = await _looked(gateway.context, job, head, drawing.still, first, seconds)
            if picture is None:
                return None
            found = await asyncio.to_thread(_developed, picture)
            await store.put(key, found)
    return found


async def _looked(
    context: Context, job: Job, head: Plan, look: Callable[..., ResultT], first_pts: int, seconds: float
) -> ResultT | None:
    """What `look` finds in a job's source; None, with a line in the log, where it cannot be read."""
    try:
        source = await sources.open_source(context.store, job.source)
        try:
            return await asyncio.to_thread(
                look,
                source,
                head.source,
                head.decode,
                first_pts=first_pts,
                duration_seconds=seconds,
                limits=Limits.of(context.settings),
            )
        finally:
            await asyncio.to_thread(source.close)
    except errors.Permanent as error:
        _log.info("no pictures", action="refuse", job_id=job.job_id, code=error.code, detail=error.detail)
        return None


async def _draw(context: Context, job: Job, head: Plan, total: PlanTotal) -> bytes:
    seconds = float((total.end_pts - total.first_pts) * head.source.video.time_base)
    tiles = await _looked(context, job, head, drawing.tiles, total.first_pts, seconds) or []
    for number, sheet in enumerate(drawing.sheets(tiles)):
        picture = await asyncio.to_thread(_developed, sheet)
        await context.store.put(keys.storyboard_sheet(job.job_id, job.generation, number), picture)
    _log.info("storyboard", action="store", job_id=job.job_id, tiles=len(tiles))
    return drawing.cues(tiles).encode()


def _developed(sheet: Any) -> bytes:
    return jpeg(av.VideoFrame.from_ndarray(sheet, format="rgb24").reformat(format="yuvj420p"))


@get("/v/{token:str}/{generation:int}/poster.jpg", include_in_schema=False)
async def poster_picture(
    gateway: Given, player: GivenPlayer, darkroom: GivenDarkroom, token: FromPath[str], generation: FromPath[int]
) -> Response[bytes]:
    """A picture of the film itself; where there is none, of what is converted; before that, two empty rings."""
    row = await player.row(token, generation)
    found = await poster(gateway, darkroom, row.job)
    if found is None:
        try:
            if not row.job.has_stream:
                raise NotYet
            found = await darkroom.poster(await player.showing(token, generation))
        except NotYet:
            return Response(BLANK, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})
    return Response(found, media_type="image/jpeg", headers=CACHED)


@get("/v/{token:str}/{generation:int}/storyboard.vtt", include_in_schema=False)
async def storyboard(
    gateway: Given, player: GivenPlayer, darkroom: GivenDarkroom, token: FromPath[str], generation: FromPath[int]
) -> Response[bytes]:
    row = await player.row(token, generation)
    return Response(await cues(gateway, darkroom, row.job), media_type=VTT, headers=CACHED)


@get("/v/{token:str}/{generation:int}/storyboard/{name:str}", include_in_schema=False)
async def sheet(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    name: FromPath[str],
) -> Response[Any] | Stream:
    job_id = (await player.row(token, generation)).job.job_id
    key = keys.storyboard_sheet(job_id, generation, number_in(name, ".jpg"))
    return await stored(request, gateway, key)


HANDLERS = (poster_picture, storyboard, sheet)
