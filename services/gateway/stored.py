"""What playlists, players and pages name by its place: fragments, inits, subtitles, the film; whole or by ranges."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from services.gateway.playback import GivenPlayer, NotYet, number_in
from services.gateway.ranges import object_response
from services.gateway.state import Gateway, Given
from services.gateway.table import Row
from stereospot import errors, keys


async def stored(request: Request[Any, Any, Any], gateway: Gateway, key: str) -> Response[Any] | Stream:
    """An object, or the range of it that was asked for; raises NotYet."""
    info = await gateway.context.store.head(key) if keys.is_key(key) else None
    if info is None:
        raise NotYet
    return await object_response(request, gateway.context.store, info)


async def piece(request: Request[Any, Any, Any], gateway: Gateway, row: Row, key: str) -> Response[Any] | Stream:
    """The same for a piece of a job's stream; raises STREAM_EXPIRED for what was cleared away with it."""
    try:
        return await stored(request, gateway, key)
    except NotYet:
        if row.job.has_stream:
            raise
        raise errors.error("STREAM_EXPIRED") from None


@get("/v/{token:str}/{generation:int}/video/{name:str}", include_in_schema=False)
async def video_object(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    name: FromPath[str],
) -> Response[Any] | Stream:
    """A fragment, or the init segment that its playlist names."""
    row = await player.row(token, generation)
    job_id = row.job.job_id
    if name.startswith("init-") and name.endswith(".mp4"):
        return await piece(request, gateway, row, f"{keys.generation_prefix(job_id, generation)}{name}")
    return await piece(request, gateway, row, keys.segment(job_id, generation, number_in(name, ".m4s")))


@get("/v/{token:str}/{generation:int}/audio/{track:int}/{name:str}", include_in_schema=False)
async def audio_object(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    track: FromPath[int],
    name: FromPath[str],
) -> Response[Any] | Stream:
    row = await player.row(token, generation)
    job_id = row.job.job_id
    if name == "init.mp4":
        return await piece(request, gateway, row, keys.audio_init(job_id, generation, track))
    return await piece(request, gateway, row, keys.audio_segment(job_id, generation, track, number_in(name, ".m4s")))


@get("/v/{token:str}/{generation:int}/subtitles/{name:str}", include_in_schema=False)
async def subtitles(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    name: FromPath[str],
) -> Response[Any] | Stream:
    job_id = (await player.row(token, generation)).job.job_id
    return await stored(request, gateway, keys.subtitles(job_id, generation, number_in(name, ".vtt"), "vtt"))


@get("/v/{token:str}/{generation:int}/film", include_in_schema=False)
async def film(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
) -> Response[Any] | Stream:
    """The finished film, as the record names it; `?download` saves it under a name that players parse."""
    return await _film(request, gateway, await player.row(token, generation))


@get("/v/{token:str}/{generation:int}/film/{name:str}", include_in_schema=False)
async def named_film(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
    name: FromPath[str],
) -> Response[Any] | Stream:
    """The same under the film's own name: players that are given an address read the layout from its end."""
    row = await player.row(token, generation)
    if row.job.film is not None and row.job.film.file_name != name:
        raise errors.error("NOT_FOUND", f"The film is not called {name[:80]}.")
    return await _film(request, gateway, row)


async def _film(request: Request[Any, Any, Any], gateway: Gateway, row: Row) -> Response[Any] | Stream:
    if row.job.film is None:
        raise NotYet
    info = await gateway.context.store.head(row.job.film.key)
    if info is None:
        raise errors.error("SOURCE_MISSING", "The film is not in the store any more.")
    inline = "download" not in request.query_params
    return await object_response(request, gateway.context.store, info, file_name=row.job.film.file_name, inline=inline)


HANDLERS = (video_object, audio_object, subtitles, film, named_film)
