"""What a headset or a player of one's own is handed: addresses that carry their token, and what is under them.

    /v/<token>/<generation>/watch           the player's page, for the headset's browser
    /v/<token>/<generation>/playlist.m3u    the film, or its stream while it is being made
    /v/<token>/playlist.m3u                 the newest finished films; this token is of no job

Neither sends headers or cookies, so nothing here may lead to what needs a key. The film is named as its file is: most
players know the layout by that alone. What was handed holds when the film is made anew, in another generation.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from litestar import MediaType, Request, Response, get
from litestar.params import FromPath

from services.gateway import resources
from services.gateway.origins import Trust
from services.gateway.playback import NO_STORE, GivenPlayer, NotYet, nothing
from services.gateway.render import render
from services.gateway.state import Gateway, Given
from services.gateway.table import Row
from stereospot.jobs import Phase

M3U = "application/x-mpegurl"
LISTED = 50
LOOK_AGAIN_SECONDS = 4


# ---- addresses -------------------------------------------------------------------------------------------
def base_url(request: Request[Any, Any, Any], gateway: Gateway) -> str:
    """What is put before paths that are opened elsewhere, without a slash at its end."""
    return (gateway.context.settings.public_url or str(request.base_url)).rstrip("/")


def folder(gateway: Gateway, row: Row) -> str:
    return f"/v/{gateway.token(row)}/{row.job.generation}"


def watch_path(gateway: Gateway, row: Row) -> str:
    return f"{folder(gateway, row)}/watch"


def playlist_path(gateway: Gateway, row: Row | None) -> str | None:
    """The M3U of a job, None before there is anything to play; without a job that of all finished films."""
    if row is None:
        return f"/v/{gateway.tokens.issue_list()}/playlist.m3u"
    return f"{folder(gateway, row)}/playlist.m3u" if path_of(gateway, row) is not None else None


def film_path(gateway: Gateway, row: Row) -> str | None:
    """The finished film under its file name."""
    film = row.job.film
    return None if film is None else f"{folder(gateway, row)}/film/{quote(film.file_name, safe='')}"


def hls_path(gateway: Gateway, row: Row) -> str | None:
    """The stream, from the first converted segment on."""
    return resources.resource(gateway, row)["playback"]["hls"]


def path_of(gateway: Gateway, row: Row) -> str | None:
    """What a player can open now: the film, or while there is none the stream, which goes on while it is played."""
    return film_path(gateway, row) or hls_path(gateway, row)


# ---- playlists -------------------------------------------------------------------------------------------
def playlist(request: Request[Any, Any, Any], gateway: Gateway, rows: list[Row], name: str) -> Response[str]:
    """An M3U of what can be played of these jobs."""
    lines = ["#EXTM3U"]
    base = base_url(request, gateway)
    for row in rows:
        path, film = path_of(gateway, row), row.job.film
        if path is None:
            continue
        seconds = round(film.duration_seconds) if film is not None else -1
        title = " ".join(row.job.title.split())
        lines += [f"#EXTINF:{seconds},{title}", base + path]
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response("\n".join(lines) + "\n", headers=headers, media_type=M3U)


async def newest(request: Request[Any, Any, Any], gateway: Gateway, limit: int = LISTED) -> Response[str]:
    """The newest finished films as an M3U."""
    page = await gateway.index.page((Phase.COMPLETED,), limit=limit)
    return playlist(request, gateway, [row for row in page.rows if row.job.film is not None], "stereospot.m3u")


# ---- under a token ---------------------------------------------------------------------------------------
@get("/v/{token:str}/{generation:int}/watch", include_in_schema=False)
async def watch(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
) -> Response[str]:
    """The player alone; it asks for nothing that is not under this token, so it needs no key."""
    row = await player.handed(token, generation)
    item = resources.resource(gateway, row)
    if row.job.film is None:
        # To go where nothing is converted yet takes the API: until then the film ends where its stream does.
        item["duration_seconds"] = None
    headers = dict(NO_STORE)
    if not item["playback"]["ready"] and row.job.is_active:
        headers["Refresh"] = str(LOOK_AGAIN_SECONDS)
    asked = request.base_url
    has_vr = Trust(gateway.context.settings.public_url).has(asked.scheme, asked.hostname)
    body = render("handed.html", here="watch", job=item, has_vr=has_vr)
    return Response(body, media_type=MediaType.HTML, headers=headers)


@get("/v/{token:str}/{generation:int}/playlist.m3u", include_in_schema=False)
async def playlist_of_one(
    request: Request[Any, Any, Any],
    gateway: Given,
    player: GivenPlayer,
    token: FromPath[str],
    generation: FromPath[int],
) -> Response[str]:
    row = await player.handed(token, generation)
    if path_of(gateway, row) is None:
        raise NotYet
    return playlist(request, gateway, [row], f"{row.job.job_id}.m3u")


@get("/v/{token:str}/playlist.m3u", include_in_schema=False)
async def playlist_of_all(request: Request[Any, Any, Any], gateway: Given, token: FromPath[str]) -> Response[str]:
    if not gateway.tokens.is_list(token):
        raise nothing("no list of all films")
    return await newest(request, gateway)


HANDLERS = (watch, playlist_of_one, playlist_of_all)
