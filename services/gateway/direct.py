"""Uploads that go straight to an S3 store, past the gateway: a multipart upload by presigned PUTs.

    POST /uploads/direct {name, size_bytes}   ─> upload_id, part_bytes, how many parts
    POST /uploads/<id>/parts {numbers}        ─> a URL for the PUT of each, good for an hour and for that length; with
                                                 `sha256`, for those bytes and no others
    GET  /uploads/<id>/parts                  ─> which parts are there: what is missing is sent again
    POST /uploads/<id>/complete               ─> the object; its size, first bytes and sha256 are read back and checked
    POST /jobs {"upload": "<id>"}

Never a presigned POST: several stores have none. The client keeps no ETags; the store's own list of parts counts.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.params import FromPath, JSONBody
from pydantic import BaseModel, ConfigDict, Field

from services.gateway import tus, uploads
from services.gateway.idempotency import once
from services.gateway.resources import timestamp
from services.gateway.state import Gateway, Given
from services.intake import Upload
from stereospot import errors

URL_SECONDS = 3600
MAX_URLS = 200
NO_STORE = {"Cache-Control": "no-store"}


class Announced(BaseModel):
    """A file whose parts the client PUTs to the store itself."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "a.mp4", "size_bytes": 52428800}]}
    )

    name: str = Field(default="film", max_length=200, description="what the file is called, for display")
    size_bytes: int = Field(ge=1, le=10**18)
    sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$", description="compared with what came")


class Numbers(BaseModel):
    """Parts, counted from 1."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"numbers": [1, 2]}]})

    numbers: Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=1, max_length=MAX_URLS)]
    sha256: list[Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]] | None = Field(
        default=None, description="of each part, in the same order, for the store to check; see `takes_sums`"
    )


@post("/uploads/direct", status_code=201)
async def announce(
    request: Request[Any, Any, Any], gateway: Given, data: JSONBody[Announced]
) -> Response[dict[str, Any]]:
    """Begin an upload whose parts go straight to the store; NOT_AVAILABLE where the store is a local folder."""
    if gateway.context.settings.storage != "s3":
        raise errors.error("NOT_AVAILABLE", "This server stores on its own disk: upload to /api/v1/uploads.")
    name = uploads.display_name(data.name)
    sha256 = data.sha256.lower() if data.sha256 else None
    async with once(gateway, request, "direct", data.model_dump_json()) as told:
        upload = await gateway.intake.begin(name, data.size_bytes, sha256=sha256, how="parts", upload_id=told.made_id)
    body = {"upload_id": upload.upload_id, "upload": upload.key, "name": upload.name, **_shape(gateway, upload)}
    headers = NO_STORE | {"Location": f"/api/v1/uploads/{upload.upload_id}"} | told.headers
    return Response(body, status_code=told.made_status, headers=headers)


def _shape(gateway: Gateway, upload: Upload) -> dict[str, Any]:
    step = gateway.intake.partial(upload).part_bytes or upload.size_bytes
    return {
        "size_bytes": upload.size_bytes,
        "part_bytes": step,
        "part_count": -(-upload.size_bytes // step),
        # AWS wants sums announced at the beginning, then one of every part, and all of them again at the end, where the
        # store's list of parts need not have them (SeaweedFS's has none). Its lines are TLS, which has sums.
        "takes_sums": gateway.context.settings.s3_endpoint is not None,
    }


async def _find(gateway: Gateway, upload_id: str) -> Upload:
    upload = await gateway.intake.find(upload_id)
    if upload.how != "parts":
        raise errors.error("CONFLICT", "The bytes of this upload come by PATCH, not as parts.")
    return upload


@get("/uploads/{upload_id:str}/parts")
async def list_parts(gateway: Given, upload_id: FromPath[str]) -> Response[dict[str, Any]]:
    """The parts that the store has."""
    upload = await _find(gateway, upload_id)
    present = await gateway.intake.partial(upload).parts()
    found = [{"number": number, "size_bytes": size} for number, size in sorted(present.items())]
    return Response({**_shape(gateway, upload), "parts": found}, headers=NO_STORE)


@post("/uploads/{upload_id:str}/parts", status_code=200)
async def sign_parts(gateway: Given, upload_id: FromPath[str], data: JSONBody[Numbers]) -> Response[dict[str, Any]]:
    """URLs to PUT these parts to, with the `headers` of each. The store refuses what has another length, or sum."""
    upload = await _find(gateway, upload_id)
    if data.sha256 is not None and len(data.sha256) != len(data.numbers):
        raise errors.error("INVALID_REQUEST", f"{len(data.numbers)} parts, but {len(data.sha256)} sums.")
    progress = await gateway.intake.progress(upload)
    if progress.finished:
        raise errors.error("CONFLICT", "All parts of this upload are stored already.")
    partial = gateway.intake.partial(upload)
    sums = [bytes.fromhex(item) for item in data.sha256] if data.sha256 is not None else [None] * len(data.numbers)
    found: list[dict[str, Any]] = []
    for number, sha256 in dict(zip(data.numbers, sums, strict=True)).items():
        signed = await partial.presign(number, sha256=sha256, seconds=URL_SECONDS)
        assert signed is not None, "only uploads to S3 come as parts"
        found.append({"number": number, "url": signed.url, "headers": signed.headers})
    return Response({"parts": found, "method": "PUT", "expires_in_seconds": URL_SECONDS}, headers=NO_STORE)


@post("/uploads/{upload_id:str}/complete", status_code=200)
async def complete(gateway: Given, upload_id: FromPath[str]) -> Response[dict[str, Any]]:
    """Make the parts one object and check it; again is no error. Reading a long film back takes a while."""
    upload = await gateway.intake.find(upload_id)
    async with gateway.intake.turn(upload_id):
        arrived = await gateway.intake.finish(upload)
    return Response(tus.whole(arrived) | {"checked_at": timestamp(arrived.at)}, headers=NO_STORE)


HANDLERS = (announce, list_parts, sign_parts, complete)
