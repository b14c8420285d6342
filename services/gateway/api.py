"""`/api/v1`: jobs, uploads, workers, numbers, and what this version can do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from litestar import Request, Response, delete, get, patch, post, route
from litestar.params import FromPath, JSONBody, QueryParameter

from services import operations
from services.gateway import replies, resources, service, tus, uploads
from services.gateway.idempotency import once
from services.gateway.requests import JobChanges, Limit, NewJob, Seek, create
from services.gateway.state import Gateway, Given
from services.gateway.strip import segments_of
from services.gateway.table import Kind, Row, decode_cursor
from stereospot import errors
from stereospot.bus import Bus
from stereospot.jobs import Job

MAX_WAIT_SECONDS = 60.0
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})", re.ASCII)

JobId = FromPath[str]


# ---- jobs ------------------------------------------------------------------------------------------------
def if_match(request: Request[Any, Any, Any]) -> int | None:
    """The revision that a change is for, from If-Match; raises PRECONDITION_FAILED for what cannot be one."""
    given = request.headers.get("if-match", "").strip()
    if given in ("", "*"):
        return None
    text = given.strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise errors.error("PRECONDITION_FAILED", f"{given[:40]} is no ETag of a job.")
    return int(text)


async def expect(gateway: Gateway, job_id: str, revision: int | None) -> Row:
    """The present record; raises NOT_FOUND, or PRECONDITION_FAILED when it has another revision.

    Between this and a write others may write: the write is given the revision, too, and is refused then.
    """
    row = await gateway.index.fresh(job_id)
    if revision is not None and revision != row.revision:
        raise errors.error("PRECONDITION_FAILED", f"The job is at revision {row.revision}.", revision=row.revision)
    return row


@post("/jobs", status_code=201)
async def create_job(
    request: Request[Any, Any, Any], gateway: Given, data: JSONBody[NewJob]
) -> Response[dict[str, Any]]:
    """Make a job of an upload or of a file under a configured root."""
    async with once(gateway, request, "job", data.model_dump_json()) as told:
        job = await create(gateway, data, job_id=told.made_id)
    return await replies.made(gateway, job.job_id, told)


@get("/jobs")
async def list_jobs(
    gateway: Given,
    status: Annotated[
        str | None, QueryParameter(description="queued, processing, completed, failed, or a phase")
    ] = None,
    kind: Annotated[Kind, QueryParameter(description="films, samples of films (`POST /samples`), or all")] = "films",
    q: Annotated[str, QueryParameter(max_length=200, description="looked for in titles")] = "",
    cursor: Annotated[str | None, QueryParameter(max_length=200)] = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """Jobs, newest first, with the numbers of every state."""
    after = None
    if cursor is not None:
        after = decode_cursor(cursor)
        if after is None:
            raise errors.error("INVALID_REQUEST", "This cursor did not come from an earlier answer.")
    page, counts = await asyncio.gather(
        gateway.index.page(resources.phases_of(status), kind=kind, text=q, after=after, limit=limit),
        gateway.index.counts(kind),
    )
    return {
        "jobs": [resources.resource(gateway, row) for row in page.rows],
        "next": page.next_cursor,
        "counts": resources.public_counts(counts),
        "phases": counts,
    }


@get("/jobs/{job_id:str}")
async def get_job(request: Request[Any, Any, Any], gateway: Given, job_id: JobId) -> Response[Any]:
    """One job. With `If-None-Match` and `Prefer: wait=30` the answer waits for a change."""
    row = await gateway.index.fresh(job_id)
    known = request.headers.get("if-none-match", "").strip().removeprefix("W/").strip('"')
    wanted = _WAIT.search(request.headers.get("prefer", ""))
    if wanted is not None:
        row = await _wait(gateway, row, known, min(float(wanted[1]), MAX_WAIT_SECONDS))
    if known == str(row.revision):
        return Response(None, status_code=304, headers={"ETag": f'"{row.revision}"', "Cache-Control": "no-store"})
    headers = {"Preference-Applied": f"wait={wanted[1]}"} if wanted is not None else {}
    return replies.job_answer(gateway, row, headers=headers)


async def _wait(gateway: Gateway, row: Row, known: str, seconds: float) -> Row:
    """Until the record differs from `known`; without a known one, until the job is finished."""
    deadline = time.monotonic() + seconds
    job_id = row.job.job_id
    with gateway.index.watch(job_id) as watch:
        while (left := deadline - time.monotonic()) > 0 and not gateway.stopping.is_set():
            row = await gateway.index.fresh(job_id)
            if str(row.revision) != known if known else not row.job.is_active:
                break
            await watch.wait(min(left, 5.0))
    return row


@patch("/jobs/{job_id:str}")
async def edit_job(
    request: Request[Any, Any, Any], gateway: Given, job_id: JobId, data: JSONBody[JobChanges]
) -> Response[dict[str, Any]]:
    """Change the title or the priority; `If-Match` guards against changes of others, unless all is as asked already."""
    revision = if_match(request)
    row = await gateway.index.fresh(job_id)
    wanted = data.model_dump(include={"title", "priority"}, exclude_none=True)
    is_so = bool(wanted) and wanted == row.job.model_dump(include=set(wanted))
    # An earlier revision then is that of somebody whose answer got lost, or as good: RFC 9110, 13.1.1.
    if not is_so:
        await expect(gateway, job_id, revision)
        await operations.edit(gateway.context.bus, job_id, revision, **wanted)
    return replies.job_answer(gateway, await gateway.index.fresh(job_id))


@post("/jobs/{job_id:str}/cancel", status_code=200)
async def cancel_job(request: Request[Any, Any, Any], gateway: Given, job_id: JobId) -> Response[dict[str, Any]]:
    """Stop spending compute on a job; what is done stays, a retry goes on from there."""
    return await _changed(request, gateway, job_id, operations.cancel, operations.is_cancelled)


@post("/jobs/{job_id:str}/retry", status_code=200)
async def retry_job(request: Request[Any, Any, Any], gateway: Given, job_id: JobId) -> Response[dict[str, Any]]:
    """Go on with a failed or cancelled job: only what is missing is converted."""
    return await _changed(request, gateway, job_id, operations.retry, operations.is_retried)


async def _changed(
    request: Request[Any, Any, Any],
    gateway: Gateway,
    job_id: str,
    change: Callable[[Bus, str, int | None], Awaitable[Job]],
    is_done: Callable[[Job], bool],
) -> Response[dict[str, Any]]:
    bus = gateway.context.bus
    async with once(gateway, request, change.__name__, job_id, makes=False) as told:
        if not told.answered:
            row = await gateway.index.fresh(job_id)
            if told.came and is_done(row.job):
                # Whoever asked first wrote the record, and may have died before saying so to anybody.
                await operations.tell_again(bus, row.job)
            else:
                revision = if_match(request)
                await expect(gateway, job_id, revision)
                await change(bus, job_id, revision)
    return replies.job_answer(gateway, await gateway.index.fresh(job_id), headers=told.headers)


@delete("/jobs/{job_id:str}", status_code=204)
async def delete_job(request: Request[Any, Any, Any], gateway: Given, job_id: JobId) -> None:
    """Delete a job with everything that was stored for it."""
    await _delete(request, gateway, job_id)


@post("/jobs/{job_id:str}/delete", status_code=204)
async def delete_job_by_post(request: Request[Any, Any, Any], gateway: Given, job_id: JobId) -> None:
    """The same as DELETE, for clients that only POST."""
    await _delete(request, gateway, job_id)


async def _delete(request: Request[Any, Any, Any], gateway: Gateway, job_id: str) -> None:
    revision = if_match(request)
    await expect(gateway, job_id, revision)
    await operations.delete(gateway.context.bus, job_id, revision)


@post("/jobs/{job_id:str}/seek", status_code=200)
async def seek_job(gateway: Given, job_id: JobId, data: JSONBody[Seek]) -> dict[str, Any]:
    """Say where somebody watches; those segments are converted first. Answers with the anchor to play from."""
    row = await gateway.index.fresh(job_id)
    job = row.job
    index = data.segment_index
    start = None
    if index is not None or data.seconds is not None:
        if not job.has_stream:
            raise errors.error("STREAM_EXPIRED")
        found = [item async for item in segments_of(gateway, job)]
        if not found:
            raise errors.error("CONFLICT", "The film is not planned that far yet.")
        if index is None:
            seconds = data.seconds or 0.0
            index = max((item.index for item in found if item.start_seconds <= seconds + 1e-6), default=0)
        if index >= len(found):
            raise errors.error("INVALID_REQUEST", f"The film has {len(found)} segments as far as it is planned.")
        start = found[index].start_seconds
        if not job.is_active:
            state = await gateway.index.completion(job.job_id, job.generation)
            if state is None or not state.is_done(index):
                # Whoever waits for it would wait for ever.
                raise errors.error("CONFLICT", f"This part was not converted, and the job is {job.phase}: retry it.")
    await operations.seek(gateway.context.bus, job_id, index)
    base = f"/v/{gateway.token(row)}/{job.generation}"
    return {
        "segment_index": index,
        "start_seconds": start,
        "hls": f"{base}/from/{index}/master.m3u8" if index is not None else None,
    }


# ---- uploads ---------------------------------------------------------------------------------------------
@route("/uploads", http_method=["POST", "PUT"], status_code=201, request_max_body_size=None)
async def upload(
    request: Request[Any, Any, Any],
    gateway: Given,
    name: Annotated[str, QueryParameter(max_length=200, description="the file's name, for display")] = "film.mp4",
    sha256: Annotated[
        str | None, QueryParameter(pattern="^[0-9a-fA-F]{64}$", description="compared with what came")
    ] = None,
) -> Response[Any]:
    """Store the request's body as it is; answers with the id to make jobs of.

    With `Tus-Resumable: 1.0.0` a POST begins a resumable upload instead (see `Location`).
    """
    if request.method == "POST" and tus.is_tus(request):
        return await tus.create(request, gateway)
    async with once(gateway, request, "upload", name, sha256, request.headers.get("content-length")) as told:
        stored = await uploads.stored_before(request, gateway, told.made_id if told.came else None)
        if stored is None:
            stored = await uploads.store_raw(request, gateway, uploads.display_name(name), upload_id=told.made_id)
        if sha256 is not None and sha256.lower() != stored.sha256:
            await uploads.drop(gateway, stored)
            raise errors.error("CHECKSUM_MISMATCH", f"The bytes that came have {stored.sha256}.")
    headers = {"Location": f"/api/v1/uploads/{stored.upload_id}"} | told.headers
    return Response(tus.whole(stored), status_code=told.made_status, headers=headers)


# ---- workers, numbers ------------------------------------------------------------------------------------
@get("/workers")
async def list_workers(gateway: Given) -> dict[str, Any]:
    """Converters that were heard of in the last seconds."""
    return {"workers": await service.crew(gateway)}


@get("/stats")
async def stats(gateway: Given) -> dict[str, Any]:
    """Depths, counts and the rate of the last ten minutes."""
    return await service.numbers(gateway)


# ---- what this version can do ----------------------------------------------------------------------------
@get("/capabilities")
async def capabilities(gateway: Given) -> dict[str, Any]:
    """Limits and options, for clients that build forms of them."""
    return service.abilities(gateway.context.settings, gateway.index.workers())


@get("/errors")
async def list_errors() -> dict[str, Any]:
    """The catalogue of everything that can go wrong."""
    return {"errors": [resources.error_resource(code) for code in errors.CATALOGUE]}


@get("/errors/{code:str}")
async def get_error(code: FromPath[str]) -> dict[str, Any]:
    """One thing that can go wrong, and what to do then; the `type` of a problem leads here."""
    if code not in errors.CATALOGUE:
        raise errors.error("NOT_FOUND", f"There is no error {code[:64]}.")
    return resources.error_resource(code)


HANDLERS = (
    create_job, list_jobs, get_job, edit_job, cancel_job, retry_job, delete_job, delete_job_by_post, seek_job,
    upload, list_workers, stats, capabilities, list_errors, get_error,
)  # fmt: skip
