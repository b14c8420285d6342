"""What a headset or a player of one's own is handed: addresses that carry their token, and playlists of them.

    job ── path_of ──> launch page (QR codes, links), M3U ──> player

Neither sends headers or cookies, so nothing here may lead to what needs a key. The film is named as its file is: most
players know the layout by that alone.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from litestar import Request, Response

from services.gateway import api
from services.gateway.state import Gateway
from services.gateway.table import Row

M3U = "application/x-mpegurl"


# ---- addresses -------------------------------------------------------------------------------------------
def base_url(request: Request[Any, Any, Any], gateway: Gateway) -> str:
    """What is put before paths that are opened elsewhere, without a slash at its end."""
    return (gateway.context.settings.public_url or str(request.base_url)).rstrip("/")


def folder(gateway: Gateway, row: Row) -> str:
    return f"/v/{gateway.token(row)}/{row.job.generation}"


def film_path(gateway: Gateway, row: Row) -> str | None:
    """The finished film under its file name."""
    film = row.job.film
    return None if film is None else f"{folder(gateway, row)}/film/{quote(film.file_name, safe='')}"


def hls_path(gateway: Gateway, row: Row) -> str | None:
    """The stream, from the first converted segment on."""
    return api.resource(gateway, row)["playback"]["hls"]


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
