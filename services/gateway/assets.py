"""The pages' own files: read once, served from memory with an ETag and, where it helps, gzip."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from services.gateway.etags import matches
from stereospot import errors

FOLDER = Path(__file__).resolve().parent / "static"
HLS = "vendor/hls-1.7.4.min.mjs"
"""What the build hook puts there; a test holds the two names together."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    packed: bytes
    media_type: str
    etag: str


@cache
def load() -> dict[str, Asset]:
    """Every file of the folder by its path; blocking, a few milliseconds, done at start."""
    found: dict[str, Asset] = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            body = path.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:16]
            name = path.relative_to(FOLDER).as_posix()
            found[name] = Asset(body, gzip.compress(body, 6, mtime=0), _TYPES[path.suffix], etag)
    return found


def has_hls() -> bool:
    return HLS in load()


@get("/static/{name:path}", include_in_schema=False)
async def static(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[Any]:
    asset = load().get(name.lstrip("/"))
    if asset is None:
        raise errors.error("NOT_FOUND", f"There is no {name[:80]}.")
    # Third-party files carry their version in their name; our own are asked for again, which costs a 304.
    cached = "public, max-age=31536000, immutable" if name.lstrip("/").startswith("vendor/") else "no-cache"
    headers = {"ETag": f'"{asset.etag}"', "Cache-Control": cached, "Vary": "Accept-Encoding"}
    if matches(request.headers.get("if-none-match", ""), asset.etag):
        return Response(None, status_code=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.packed
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)


@get("/favicon.ico", include_in_schema=False)
async def favicon() -> Response[bytes]:
    asset = load()["icon.svg"]
    return Response(asset.body, media_type=asset.media_type, headers={"Cache-Control": "public, max-age=86400"})


HANDLERS = (static, favicon)
