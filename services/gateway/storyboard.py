"""The scrubber's small pictures of a job, made when somebody first asks for them, and kept in storage.

    …/storyboard.vtt, …/storyboard/<sheet>.jpg          beside the playlists, under the same path token

The sheets are stored before the cues that name them, with equal bytes whoever makes them: two gateways may do it at
once. A film that gives no pictures gets a text without cues, so that it is not tried again and again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import av
from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from services import sources
from services.context import Context
from services.gateway.pictures import Darkroom, GivenDarkroom, jpeg
from services.gateway.playback import GivenPlayer, NotYet
from services.gateway.ranges import object_response
from services.gateway.state import Gateway, Given
from stereospot import errors, keys, log
from stereospot.jobs import Job
from stereospot.media import storyboard as drawing
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, PlanTotal

_log = log.get("gateway")

VTT = "text/vtt; charset=utf-8"
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


async def _draw(context: Context, job: Job, head: Plan, total: PlanTotal) -> bytes:
    try:
        source = await sources.open_source(context.store, job.source)
        try:
            tiles = await asyncio.to_thread(
                drawing.tiles,
                source,
                head.source,
                head.decode,
                first_pts=total.first_pts,
                duration_seconds=float((total.end_pts - total.first_pts) * head.source.video.time_base),
                limits=Limits.of(context.settings),
            )
        finally:
            await asyncio.to_thread(source.close)
    except errors.Permanent as error:
        _log.info("no storyboard", action="refuse", job_id=job.job_id, code=error.code, detail=error.detail)
        tiles = []
    for number, sheet in enumerate(drawing.sheets(tiles)):
        picture = await asyncio.to_thread(_developed, sheet)
        await context.store.put(keys.storyboard_sheet(job.job_id, job.generation, number), picture)
    _log.info("storyboard", action="store", job_id=job.job_id, tiles=len(tiles))
    return drawing.cues(tiles).encode()


def _developed(sheet: Any) -> bytes:
    return jpeg(av.VideoFrame.from_ndarray(sheet, format="rgb24").reformat(format="yuvj420p"))


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
    number = name.removesuffix(".jpg")
    if not (name.endswith(".jpg") and number.isascii() and number.isdigit() and len(number) < 4):
        raise errors.error("NOT_FOUND", f"There is no {name[:80]}.")
    info = await gateway.context.store.head(keys.storyboard_sheet(job_id, generation, int(number)))
    if info is None:
        raise NotYet
    return await object_response(request, gateway.context.store, info)


HANDLERS = (storyboard, sheet)
