"""Resumable uploads: tus 1.0.0 (https://tus.io/protocols/resumable-upload) under `/api/v1/uploads`.

    POST   /uploads        creation, with the first bytes if they come along: 201, Location
    HEAD   /uploads/<id>   Upload-Offset: how much is durable        PATCH: bytes behind it, 204 once they are durable
    DELETE /uploads/<id>   termination                               OPTIONS: what this server speaks
    POST   /jobs           {"upload": "<id>"} when all of it is there

The offset that an answer tells has been synced before. A sender that lost its connection and comes back takes its turn
at once: its old request is ended, what that had received counts. With the last byte the whole is checked: its size, its
first bytes, and its sha256 where `Upload-Metadata` announced one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from email.utils import formatdate
from typing import Any

from litestar import MediaType, Request, Response, delete, get, patch, route
from litestar.params import FromPath

from services import contents, inputs
from services.gateway import methods, uploads
from services.gateway.idempotency import once
from services.gateway.problems import problem
from services.gateway.resources import timestamp
from services.gateway.state import Gateway, Given
from services.intake import EXPIRES_SECONDS, Arrived, Turn, Upload
from stereospot import errors, records
from stereospot.storage.files import thread

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration"
ALGORITHMS = ("sha256", "sha1", "md5")
OCTETS = "application/offset+octet-stream"
SPOOL_BYTES = 8 << 20
"""A piece with a checksum of its own is held back until it is checked: in memory up to this, else in a file."""

_SHA256 = re.compile(r"^[0-9a-fA-F]{64}$")


# ---- headers ---------------------------------------------------------------------------------------------
def is_tus(request: Request[Any, Any, Any]) -> bool:
    """Whether a POST to `/uploads` speaks tus; all others bring the whole file as their body."""
    return "tus-resumable" in request.headers


def metadata(header: str) -> dict[str, str]:
    """`Upload-Metadata` as text by key; raises INVALID_REQUEST."""
    found: dict[str, str] = {}
    for pair in filter(None, (item.strip() for item in header.split(","))):
        name, _, value = pair.partition(" ")
        try:
            text = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise errors.error("INVALID_REQUEST", f"Upload-Metadata: {name[:40]} is not base64 of text.") from None
        if name in found:
            raise errors.error("INVALID_REQUEST", f"Upload-Metadata names {name[:40]} twice.")
        found[name] = text
    return found


def _number(request: Request[Any, Any, Any], name: str) -> int:
    """A header that is a count of bytes; raises INVALID_REQUEST."""
    text = request.headers.get(name.lower(), "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise errors.error("INVALID_REQUEST", f"{name} must say a number of bytes, not {text[:40]!r}.")
    return int(text)


def _checksum(request: Request[Any, Any, Any]) -> tuple[str, bytes] | None:
    """(algorithm, digest) of `Upload-Checksum`; raises INVALID_REQUEST."""
    given = request.headers.get("upload-checksum")
    if given is None:
        return None
    algorithm, _, value = given.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise errors.error("INVALID_REQUEST", f"Upload-Checksum: one of {', '.join(ALGORITHMS)}, please.")
    try:
        return algorithm, base64.b64decode(value.strip(), validate=True)
    except binascii.Error:
        raise errors.error("INVALID_REQUEST", "Upload-Checksum is not base64.") from None


def _headers(upload: Upload | None = None, offset: int | None = None, touched: float | None = None) -> dict[str, str]:
    found = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
    if upload is not None and offset is not None:
        found |= {"Upload-Offset": str(offset), "Upload-Length": str(upload.size_bytes)}
        if touched is not None:
            # RFC 9110's date format, as the protocol wants it.
            found["Upload-Expires"] = _http_date(touched + EXPIRES_SECONDS)
    return found


def _http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


async def _answered(request: Request[Any, Any, Any], work: Awaitable[Response[Any]]) -> Response[Any]:
    """The answer, or the problem, with the protocol's header."""
    try:
        return await work
    except errors.StereoSpotError as error:
        answer = problem(request, error)
    for name, value in _headers().items():
        answer.headers[name] = value
    return answer


def _refused(request: Request[Any, Any, Any], error: errors.StereoSpotError, status: int, **more: str) -> Response[Any]:
    answer = problem(request, error, status)
    for name, value in (_headers() | {key.replace("_", "-"): value for key, value in more.items()}).items():
        answer.headers[name] = value
    return answer


def _other_version(request: Request[Any, Any, Any]) -> Response[Any] | None:
    given = request.headers.get("tus-resumable")
    if given == VERSION:
        return None
    error = errors.error("PRECONDITION_FAILED", f"Tus-Resumable must be {VERSION}, not {(given or '')[:20]!r}.")
    return _refused(request, error, 412, Tus_Version=VERSION)


# ---- creation --------------------------------------------------------------------------------------------
async def create(request: Request[Any, Any, Any], gateway: Gateway) -> Response[Any]:
    """`POST /uploads` with `Tus-Resumable`."""
    if (refusal := _other_version(request)) is not None:
        return refusal
    return await _answered(request, _create(request, gateway))


async def _create(request: Request[Any, Any, Any], gateway: Gateway) -> Response[Any]:
    if "upload-defer-length" in request.headers or "upload-concat" in request.headers:
        raise errors.error("INVALID_REQUEST", "Say Upload-Length at once; concatenation is not offered.")
    size = _number(request, "Upload-Length")
    given = metadata(request.headers.get("upload-metadata", ""))
    sha256 = given.get("sha256")
    if sha256 is not None and not _SHA256.match(sha256):
        raise errors.error("INVALID_REQUEST", "Upload-Metadata: sha256 is not 64 hexadecimal digits.")
    name = uploads.display_name(given.get("filename") or given.get("name") or "film")
    await uploads.check_space(gateway.context.store, request, size)
    digest = sha256.lower() if sha256 else None
    async with once(gateway, request, "tus", str(size), request.headers.get("upload-metadata")) as told:
        upload = await gateway.intake.begin(
            name, size, sha256=digest, metadata=request.headers.get("upload-metadata", ""), upload_id=told.made_id
        )
    reached, touched = 0, upload.created_at
    if told.came:
        progress = await gateway.intake.progress(upload)
        reached, touched = progress.size, progress.modified
    if reached == 0 and request.headers.get("content-type", "").partition(";")[0].strip() == OCTETS:
        reached, broken = await _take(request, gateway, upload, 0)
        if broken is not None and reached == 0:
            raise broken
        touched = time.time()
    headers = _headers(upload, reached, touched) | {"Location": f"/api/v1/uploads/{upload.upload_id}"}
    headers |= told.headers
    return Response(b"", status_code=201, media_type=MediaType.TEXT, headers=headers)


# ---- one upload ------------------------------------------------------------------------------------------
@get("/uploads/{upload_id:str}")
async def get_upload(request: Request[Any, Any, Any], gateway: Given, upload_id: FromPath[str]) -> Response[Any]:
    """An upload: how much of it is stored, and, once it is whole, its sha256. HEAD is tus's question for the offset."""
    if request.scope.get("stereospot_head") and is_tus(request):
        if (refusal := _other_version(request)) is not None:
            return refusal
        return await _answered(request, _head(gateway, upload_id))
    arrived = await gateway.intake.arrived(upload_id)
    if arrived is not None:
        return Response(whole(arrived), headers={"Cache-Control": "no-store"})
    upload = await gateway.intake.find(upload_id)
    progress = await gateway.intake.progress(upload)
    body = {
        "upload_id": upload.upload_id,
        "upload": upload.key,
        "name": upload.name,
        "size_bytes": upload.size_bytes,
        "offset": progress.size,
        "stored": False,
        "sha256": None,
        "media_type": None,
        "expires_at": timestamp(progress.modified + EXPIRES_SECONDS),
    }
    return Response(body, headers={"Cache-Control": "no-store"})


def whole(arrived: Arrived) -> dict[str, Any]:
    """An upload that is stored and checked."""
    return {
        "upload_id": arrived.upload_id,
        "upload": arrived.key,
        "name": arrived.name,
        "size_bytes": arrived.size_bytes,
        "offset": arrived.size_bytes,
        "stored": True,
        "sha256": arrived.sha256,
        "media_type": contents.media_type(arrived.container),
        "expires_at": timestamp(arrived.at + EXPIRES_SECONDS),
    }


async def _head(gateway: Gateway, upload_id: str) -> Response[Any]:
    upload = await gateway.intake.find(upload_id)
    async with gateway.intake.turn(upload_id):
        progress = await gateway.intake.progress(upload)
    told = {"Upload-Metadata": upload.metadata} if upload.metadata else {}
    return Response(None, status_code=200, headers=_headers(upload, progress.size, progress.modified) | told)


@patch("/uploads/{upload_id:str}", status_code=204, request_max_body_size=None)
async def append(request: Request[Any, Any, Any], gateway: Given, upload_id: FromPath[str]) -> Response[None]:
    """tus: bytes (application/offset+octet-stream) from `Upload-Offset` on; 204 once they are durable."""
    if (refusal := _other_version(request)) is not None:
        return refusal
    if request.headers.get("content-type", "").partition(";")[0].strip() != OCTETS:
        return _refused(request, errors.error("INVALID_REQUEST", f"Send the bytes as {OCTETS}."), 415)
    return await _answered(request, _append(request, gateway, upload_id))


async def _append(request: Request[Any, Any, Any], gateway: Gateway, upload_id: str) -> Response[Any]:
    offset = _number(request, "Upload-Offset")
    upload = await gateway.intake.find(upload_id)
    if upload.how != "tus":
        raise errors.error("CONFLICT", "The parts of this upload go straight to the store.")
    reached, broken = await _take(request, gateway, upload, offset)
    if broken is not None:
        raise broken
    return Response(None, status_code=204, headers=_headers(upload, reached, time.time()))


async def _take(
    request: Request[Any, Any, Any], gateway: Gateway, upload: Upload, offset: int
) -> tuple[int, errors.StereoSpotError | None]:
    """(size now, why the body ended early): what came before it broke off is kept, and is durable."""
    given = _checksum(request)
    broken: list[errors.StereoSpotError] = []
    async with gateway.intake.turn(upload.upload_id) as turn:
        progress = await gateway.intake.progress(upload)
        if progress.size != offset:
            raise errors.error("CONFLICT", f"The upload is at {progress.size}.", offset=progress.size)
        if offset == upload.size_bytes:
            reached = offset
        else:
            blocks = _received(request, upload.size_bytes - offset, turn, broken)
            if given is not None:
                folder = gateway.context.settings.data_dir / "scratch"
                blocks = _verified(blocks, *given, folder=str(folder), broken=broken)
            async with contextlib.aclosing(blocks):
                reached = await gateway.intake.append(upload, offset, blocks)
            gateway.metrics.upload_bytes.inc(reached - offset)
        if reached == upload.size_bytes:
            try:
                await gateway.intake.finish(upload)
            except errors.StereoSpotError:
                gateway.metrics.uploads.labels("failed").inc()
                raise
            if offset < reached:
                gateway.metrics.uploads.labels("stored").inc()
    return reached, broken[0] if broken else None


async def _received(
    request: Request[Any, Any, Any], limit: int, turn: Turn, broken: list[errors.StereoSpotError]
) -> AsyncGenerator[bytes]:
    """The body; where it breaks off it just ends, and `broken` says why."""
    try:
        async for block in uploads.body(request, limit, turn):
            yield block
    except errors.StereoSpotError as error:
        if error.code != "UPLOAD_INCOMPLETE":
            raise
        broken.append(error)


async def _verified(
    blocks: AsyncIterator[bytes], algorithm: str, wanted: bytes, *, folder: str, broken: list[errors.StereoSpotError]
) -> AsyncGenerator[bytes]:
    """The same bytes once all of them have come and are what `Upload-Checksum` says; none if they broke off."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with await thread(_spool, folder) as spool:
        async for block in blocks:
            digest.update(block)
            await thread(spool.write, block)
        if broken:
            return
        if digest.digest() != wanted:
            raise errors.error("CHECKSUM_MISMATCH", "These bytes are not the ones of Upload-Checksum.")
        await thread(spool.seek, 0)
        while block := await thread(spool.read, 1 << 20):
            yield block


def _spool(folder: str) -> tempfile.SpooledTemporaryFile[bytes]:
    os.makedirs(folder, exist_ok=True)
    return tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=folder)


@delete("/uploads/{upload_id:str}", status_code=204)
async def terminate(request: Request[Any, Any, Any], gateway: Given, upload_id: FromPath[str]) -> Response[None]:
    """Give an upload up and remove what came of it; refused once a job was made of it."""
    if is_tus(request) and (refusal := _other_version(request)) is not None:
        return refusal
    return await _answered(request, _terminate(gateway, upload_id))


async def _terminate(gateway: Gateway, upload_id: str) -> Response[Any]:
    try:
        upload = await gateway.intake.find(upload_id)
    except errors.Permanent:
        # One that came in one piece was never announced: that it has arrived is all there is of it.
        if await gateway.intake.arrived(upload_id) is None:
            raise
        upload = None
    context = gateway.context
    async with gateway.intake.turn(upload_id):
        # In one's turn: whoever had it may have made a job of the upload meanwhile. That has another id where its
        # request named one, or where it takes the upload as its depth.
        if await records.get_job(context.bus, upload_id) is not None or await inputs.is_used(
            context.bus, context.store, upload_id
        ):
            raise errors.error("CONFLICT", "A job was made of this upload; delete the job.")
        if upload is not None:
            await gateway.intake.discard(upload)
        elif (arrived := await gateway.intake.arrived(upload_id)) is not None:
            await uploads.drop(gateway, arrived)
    return Response(None, status_code=204, headers=_headers())


@route(["/uploads", "/uploads/{upload_id:str}"], http_method=["OPTIONS"], status_code=204)
async def offers(request: Request[Any, Any, Any], gateway: Given) -> Response[None]:
    """What of tus this server speaks."""
    headers = _headers() | {
        "Allow": methods.allowed(request),
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(gateway.context.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(None, status_code=204, headers=headers)


# First what answers OPTIONS: Litestar makes an answer of its own for a path that begins without it.
HANDLERS = (offers, get_upload, append, terminate)
