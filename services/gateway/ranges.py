"""Stored objects over HTTP, with the single ranges of RFC 9110 §14, `If-Range`, `If-None-Match`, HEAD.

Several ranges in one request are allowed to be answered as if there were none, and are: nobody who plays video asks
for them, and they are a known way to make servers work hard.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from litestar import Request, Response
from litestar.response import Stream

from services.gateway.etags import matches
from services.gateway.problems import problem
from stereospot import errors
from stereospot.storage.base import ObjectInfo, ObjectStore

_RANGE = re.compile(r"^bytes=(\d{0,19})-(\d{0,19})$", re.ASCII)

TYPES = {
    "mp4": "video/mp4",
    "m4s": "video/iso.segment",
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "jpg": "image/jpeg",
    "vtt": "text/vtt; charset=utf-8",
    "ass": "text/x-ssa; charset=utf-8",
    "json": "application/json",
}
IMMUTABLE = "private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start … end-1` of an object."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range begins behind the end: 416."""


def parse_range(header: str, size: int) -> Span | None:
    """The span that a Range header asks of an object of `size` bytes; None where the header is to be ignored.

    Raises Unsatisfiable for a valid range that holds no byte of the object.
    """
    found = _RANGE.match(header.strip())
    if found is None:
        return None
    first, last = found[1], found[2]
    if not first:
        if not last:
            return None
        length = int(last)
        if length == 0 or size == 0:
            raise Unsatisfiable
        return Span(max(0, size - length), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Span(start, min(int(last) + 1, size) if last else size)


async def object_response(
    request: Request[Any, Any, Any],
    store: ObjectStore,
    info: ObjectInfo,
    *,
    cache: str = IMMUTABLE,
    file_name: str | None = None,
    inline: bool = True,
) -> Response[Any] | Stream:
    """Serve `info` from the store: 200, 206, 304 or 416."""
    given: Mapping[str, str] = request.headers
    etag = f'"{info.etag}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": cache}
    if file_name is not None:
        headers["Content-Disposition"] = disposition(file_name, inline=inline)
    media_type = TYPES.get(info.key.rpartition(".")[2], "application/octet-stream")
    if (known := given.get("if-none-match")) is not None and matches(known, info.etag):
        return Response(None, status_code=304, headers=headers)
    span = None
    wanted = given.get("range")
    condition = given.get("if-range")
    # A weak or different validator, or a date (objects here have none to offer), means: send the whole.
    if wanted is not None and (condition is None or condition.strip() == etag):
        try:
            span = parse_range(wanted, info.size)
        except Unsatisfiable:
            answer = problem(request, errors.error("RANGE_NOT_SATISFIABLE", f"The object has {info.size} bytes."))
            answer.headers["Content-Range"] = f"bytes */{info.size}"
            return answer
    status = 200
    start, end = 0, info.size
    if span is not None:
        status, start, end = 206, span.start, span.end
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    headers["Content-Length"] = str(end - start)
    body = _nothing() if request.scope.get("stereospot_head") or start == end else store.stream(info.key, start, end)
    return Stream(body, status_code=status, headers=headers, media_type=media_type)


def disposition(file_name: str, *, inline: bool) -> str:
    """Content-Disposition with an ASCII name and, beside it, the real one (RFC 6266)."""
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "_" for letter in file_name)
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
