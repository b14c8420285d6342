"""The routes that clients of the older web UI and of the older pipeline call, at the root and with their manners.

Where those two disagree about a path, the answer holds what both read. Routes of live sessions, URL ingest and web push
say what is missing until they come.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, patch, post, route
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Redirect

from services import operations
from services.gateway import handoff, service, uploads
from services.gateway.idempotency import once, used_otherwise
from services.gateway.requests import JobChanges, create_from_upload, options_of
from services.gateway.resources import timestamp
from services.gateway.state import Gateway, Given
from services.gateway.table import Row
from stereospot import errors, records, subjects
from stereospot.jobs import Job
from stereospot.messages import SourceRef


# ---- submitting ------------------------------------------------------------------------------------------
@post("/upload", status_code=200, request_max_body_size=None, include_in_schema=False)
async def upload(request: Request[Any, Any, Any], gateway: Given) -> dict[str, Any]:
    """multipart/form-data with the field `file` (and options as fields); the job is queued when all is stored."""
    job = await _job_of_form(request, gateway)
    return {
        "job_id": job.job_id,
        "filename": job.source.name,
        "status": "queued",
        "message": "Video uploaded and queued for processing",
        "created_at": timestamp(job.created_at),
        "url": f"/jobs/{job.job_id}",
    }


@post("/jobs", request_max_body_size=None, include_in_schema=False)
async def post_job(request: Request[Any, Any, Any], gateway: Given) -> Redirect:
    """The form of the home page, which works without scripts: a film and its options; 303 to the job's page."""
    job = await _job_of_form(request, gateway)
    return Redirect(f"/jobs/{job.job_id}", status_code=303)


async def _job_of_form(request: Request[Any, Any, Any], gateway: Gateway) -> Job:
    """The job of the film in a form; raises INVALID_REQUEST for a form without one.

    A form that comes again goes the same way: its film is compared and not stored, its job is found and not made, and
    work that was never published is published. CONFLICT if the film, its name or its options are others.
    """
    async with once(gateway, request, "form", request.headers.get("content-length")) as told:
        before = await _film_before(gateway, told.made_id) if told.came and told.made_id is not None else None
        form = await uploads.store_form(request, gateway, upload_id=told.made_id, before=before)
        if form.stored is None:
            raise errors.error("INVALID_REQUEST", "Send the film in the field `file`.")
        if before is not None and form.stored.source() != before:
            raise used_otherwise()
        try:
            options = options_of(form.fields)
        except BaseException:
            if before is None:
                await uploads.drop(gateway, form.stored)
            raise
        title = form.fields.get("title", "")[:500]
        job = await create_from_upload(gateway, form.stored, options=options, title=title)
        if job.options != options:
            raise used_otherwise()
        return job


async def _film_before(gateway: Gateway, upload_id: str) -> SourceRef | None:
    """The film that a form left when it came first: its job's, or one that is stored and has no job yet."""
    found = await records.get_job(gateway.context.bus, upload_id)
    if found is not None:
        return found[0].source
    arrived = await gateway.intake.arrived(upload_id)
    is_there = arrived is not None and await gateway.context.store.head(arrived.key) is not None
    return arrived.source() if arrived is not None and is_there else None


# ---- one job ---------------------------------------------------------------------------------------------
@patch("/jobs/{job_id:str}", status_code=204, include_in_schema=False)
async def patch_job(gateway: Given, job_id: FromPath[str], data: JSONBody[JobChanges]) -> None:
    await gateway.index.fresh(job_id)
    await operations.edit(gateway.context.bus, job_id, title=data.title, priority=data.priority)


@post("/jobs/{job_id:str}/delete", include_in_schema=False)
async def delete_job(gateway: Given, job_id: FromPath[str]) -> Redirect:
    await gateway.index.fresh(job_id)
    await operations.delete(gateway.context.bus, job_id)
    return Redirect("/jobs?removed=1", status_code=303)


@get("/jobs/{job_id:str}/play", include_in_schema=False)
async def play(gateway: Given, job_id: FromPath[str]) -> Redirect:
    """302 to the finished film."""
    row = await gateway.index.fresh(job_id)
    path = handoff.film_path(gateway, row)
    if path is None:
        raise _unfinished(row)
    return Redirect(path, status_code=302)


def _unfinished(row: Row) -> errors.StereoSpotError:
    return errors.error("INVALID_REQUEST", f"The film is not finished; the job is {row.job.phase}.")


# ---- for players -----------------------------------------------------------------------------------------
@get("/playlist.m3u", include_in_schema=False)
async def playlist_all(
    request: Request[Any, Any, Any], gateway: Given, limit: FromQuery[int] = handoff.LISTED
) -> Response[str]:
    """The newest finished films, for any player."""
    return await handoff.newest(request, gateway, max(1, min(limit, 500)))


@get("/playlist/{file_name:str}", include_in_schema=False)
async def playlist_one(request: Request[Any, Any, Any], gateway: Given, file_name: FromPath[str]) -> Response[str]:
    """One film, or its stream while it is being made; INVALID_REQUEST before its first segment is there."""
    job_id, dot, extension = file_name.rpartition(".")
    if not dot or extension != "m3u":
        raise errors.error("NOT_FOUND", f"There is no playlist {file_name[:80]}.")
    row = await gateway.index.fresh(job_id)
    if handoff.path_of(gateway, row) is None:
        raise _unfinished(row)
    return handoff.playlist(request, gateway, [row], f"{job_id}.m3u")


# ---- the pipeline's numbers ------------------------------------------------------------------------------
@get("/stats", include_in_schema=False)
async def stats(gateway: Given) -> dict[str, Any]:
    return await service.numbers(gateway)


@get("/queue", include_in_schema=False)
async def queue(gateway: Given) -> dict[str, Any]:
    """Messages that wait, by consumer."""
    bus = gateway.context.bus
    info = await bus.stream_info(subjects.CONVERT)
    groups: list[dict[str, Any]] = []
    pools = sorted({item.pool for item in gateway.index.workers()} | {gateway.context.settings.pool})
    for pool in pools:
        for lane in subjects.LANES:
            found = await bus.consumer_info(subjects.CONVERT, subjects.convert_consumer(pool, lane))
            groups.append(
                {
                    "name": found["name"],
                    "consumers": sum(item.pool == pool for item in gateway.index.workers()),
                    "pending": found["num_ack_pending"],
                    "waiting": found["num_pending"],
                    "last_delivered_id": str(found["delivered"]["stream_seq"]),
                }
            )
    return {
        "stream_length": info["state"]["messages"],
        "consumer_groups": groups,
        "pending_messages": sum(group["pending"] for group in groups),
    }


# ---- not yet ---------------------------------------------------------------------------------------------
_MISSING = {
    "ingest": "The ingest service, which fetches URLs, is not part of this version: upload the file.",
    "live": "Live sessions are not part of this version.",
    "push": "Web push is not part of this version.",
    "setup": "The Windows launcher is not part of this version: open the playlist in your player.",
}


def _not_available(what: str) -> errors.StereoSpotError:
    return errors.error("NOT_AVAILABLE", _MISSING[what])


@post(
    ["/upload-url", "/jobs/from-url", "/jobs/{job_id:str}/ingest-from-url"],
    include_in_schema=False, request_max_body_size=1 << 20,
)  # fmt: skip
async def no_ingest() -> None:
    raise _not_available("ingest")


@post(["/stream_sessions", "/stream_sessions/{session_id:str}/end"], include_in_schema=False)
async def no_live() -> None:
    raise _not_available("live")


@get("/stream/{session_id:str}/playlist.m3u8", include_in_schema=False)
async def no_live_playlist() -> None:
    raise _not_available("live")


@route(["/api/vapid-public-key", "/api/push-subscriptions"], http_method=["GET", "POST"], include_in_schema=False)
async def no_push() -> None:
    raise _not_available("push")


@get("/setup/windows", include_in_schema=False)
async def no_setup() -> None:
    raise _not_available("setup")


HANDLERS = (
    upload, post_job, patch_job, delete_job, play, playlist_all, playlist_one, stats, queue,
    no_ingest, no_live, no_live_playlist, no_push, no_setup,
)  # fmt: skip
