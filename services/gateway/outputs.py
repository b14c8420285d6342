"""What a job has made: listed, and served under the file names that players parse."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from services.gateway import resources
from services.gateway.ranges import object_response
from services.gateway.state import Given
from stereospot import errors


@get("/jobs/{job_id:str}/outputs")
async def list_outputs(gateway: Given, job_id: FromPath[str]) -> dict[str, Any]:
    """What a job has made, with where it is fetched from; empty before the film is finished."""
    row = await gateway.index.fresh(job_id)
    base = f"/api/v1/jobs/{row.job.job_id}/outputs"
    found = [item | {"href": f"{base}/{quote(str(item['file_name']), safe='')}"} for item in resources.outputs(row.job)]
    return {"job_id": row.job.job_id, "generation": row.job.generation, "outputs": found}


@get("/jobs/{job_id:str}/outputs/{name:str}")
async def get_output(
    request: Request[Any, Any, Any], gateway: Given, job_id: FromPath[str], name: FromPath[str]
) -> Response[Any] | Stream:
    """One output's bytes: HEAD, single ranges, If-Range and If-None-Match are understood."""
    row = await gateway.index.fresh(job_id)
    film = row.job.film
    if film is None or name != film.file_name:
        raise errors.error("NOT_FOUND", f"The job has no output {name[:80]}.")
    info = await gateway.context.store.head(film.key)
    if info is None:
        raise errors.error("SOURCE_MISSING", "The film is not in the store any more.")
    return await object_response(request, gateway.context.store, info, file_name=film.file_name, inline=False)


HANDLERS = (list_outputs, get_output)
