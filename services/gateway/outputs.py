"""What a job has made: listed, and served under the file names that players parse."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from services.gateway import resources
from services.gateway.ranges import object_response
from services.gateway.state import Gateway, Given
from stereospot import errors
from stereospot.jobs import Job
from stereospot.storage.base import ObjectInfo

DEPTH_NAME = "depth.mkv"
"""Under which exported depth is listed and served."""


@get("/jobs/{job_id:str}/outputs")
async def list_outputs(gateway: Given, job_id: FromPath[str]) -> dict[str, Any]:
    """What a job has made, with where it is fetched from; empty before the film is finished."""
    row = await gateway.index.fresh(job_id)
    base = f"/api/v1/jobs/{row.job.job_id}/outputs"
    items = resources.outputs(row.job)
    depth = await _depth(gateway, row.job)
    if depth is not None and row.job.film is not None:
        film = row.job.film
        items.append(
            {
                "profile": "depth", "file_name": DEPTH_NAME, "container": "mkv", "size_bytes": depth.size,
                "frames": film.frames, "duration_seconds": film.duration_seconds,
            }
        )  # fmt: skip
    found = [item | {"href": f"{base}/{quote(str(item['file_name']), safe='')}"} for item in items]
    return {"job_id": row.job.job_id, "generation": row.job.generation, "outputs": found}


@get("/jobs/{job_id:str}/outputs/{name:str}")
async def get_output(
    request: Request[Any, Any, Any], gateway: Given, job_id: FromPath[str], name: FromPath[str]
) -> Response[Any] | Stream:
    """One output's bytes: HEAD, single ranges, If-Range and If-None-Match are understood."""
    row = await gateway.index.fresh(job_id)
    film = row.job.film
    if name == DEPTH_NAME and (depth := await _depth(gateway, row.job)) is not None:
        return await object_response(request, gateway.context.store, depth, file_name=name, inline=False)
    if film is None or name != film.file_name:
        raise errors.error("NOT_FOUND", f"The job has no output {name[:80]}.")
    info = await gateway.context.store.head(film.key)
    if info is None:
        raise errors.error("SOURCE_MISSING", "The film is not in the store any more.")
    return await object_response(request, gateway.context.store, info, file_name=film.file_name, inline=False)


async def _depth(gateway: Gateway, job: Job) -> ObjectInfo | None:
    """The depth that was written out beside the job's film, if it was asked for."""
    if job.film is None or not job.options.export_depth:
        return None
    # Of the generation that the film is of, not of one that is being made (`keys.depth`).
    return await gateway.context.store.head(str(PurePosixPath(job.film.key).with_name(DEPTH_NAME)))


HANDLERS = (list_outputs, get_output)
