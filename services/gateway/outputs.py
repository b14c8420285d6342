"""What a job has made: listed, and served under the file names that players parse.

film                       the record names it
depth.mkv                  exported depth, where it was asked for
<film>.ass, <film>.2.ass   text subtitles, every cue once for each eye: a player shows them over the packed picture
"""

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
from stereospot import errors, keys
from stereospot.jobs import Job
from stereospot.media import naming
from stereospot.storage.base import ObjectInfo

DEPTH_NAME = "depth.mkv"
"""Under which exported depth is listed and served."""

REVALIDATED = "private, no-cache"
"""These addresses outlive a generation, so whoever kept an answer asks whether it still holds; the ETag says so."""


@get("/jobs/{job_id:str}/outputs")
async def list_outputs(gateway: Given, job_id: FromPath[str]) -> dict[str, Any]:
    """What a job has made, with where it is fetched from; empty before the film is finished."""
    row = await gateway.index.fresh(job_id)
    return {"job_id": row.job.job_id, "generation": row.job.generation, "outputs": await listed(gateway, row.job)}


@get("/jobs/{job_id:str}/outputs/{name:str}")
async def get_output(
    request: Request[Any, Any, Any], gateway: Given, job_id: FromPath[str], name: FromPath[str]
) -> Response[Any] | Stream:
    """One output's bytes: HEAD, single ranges, If-Range and If-None-Match are understood."""
    job = (await gateway.index.fresh(job_id)).job
    if job.film is not None and name == job.film.file_name:
        info = await gateway.context.store.head(job.film.key)
        if info is None:
            raise errors.error("SOURCE_MISSING", "The film is not in the store any more.")
    elif name == DEPTH_NAME:
        info = await _depth(gateway, job)
    else:
        # Only names of this shape are worth a look into the store.
        info = (await _sidecars(gateway, job)).get(name) if name.endswith(".ass") else None
    if info is None:
        raise errors.error("NOT_FOUND", f"The job has no output {name[:80]}.")
    store = gateway.context.store
    return await object_response(request, store, info, cache=REVALIDATED, file_name=name, inline=False)


async def listed(gateway: Gateway, job: Job) -> list[dict[str, Any]]:
    """Every output: the film first, as the job's record has it, then what lies beside it; each with its `href`."""
    items = resources.outputs(job)
    if job.film is None:
        return items
    length = {"frames": job.film.frames, "duration_seconds": job.film.duration_seconds}
    if (depth := await _depth(gateway, job)) is not None:
        items.append(
            {"profile": "depth", "file_name": DEPTH_NAME, "container": "mkv", "size_bytes": depth.size} | length
        )
    sidecars = await _sidecars(gateway, job)
    languages = await _languages(gateway, job) if sidecars else {}
    for name, info in sidecars.items():
        language = languages.get(PurePosixPath(info.key).stem)
        items.append(
            {"profile": "subtitles", "file_name": name, "container": "ass", "size_bytes": info.size}
            | ({"language": language} if language else {})
        )
    base = f"/api/v1/jobs/{job.job_id}/outputs"
    return [item | {"href": f"{base}/{quote(str(item['file_name']), safe='')}"} for item in items]


# ---- what lies beside the film: of the generation that it is of, not of one that is being made (`keys.py`) ----
async def _depth(gateway: Gateway, job: Job) -> ObjectInfo | None:
    """The depth that was written out, if it was asked for."""
    if job.film is None or not job.options.export_depth:
        return None
    return await gateway.context.store.head(str(PurePosixPath(job.film.key).with_name(DEPTH_NAME)))


async def _sidecars(gateway: Gateway, job: Job) -> dict[str, ObjectInfo]:
    """Text subtitles for both eyes; the first is named as the film is, which players load by themselves."""
    if job.film is None:
        return {}
    prefix = f"{PurePosixPath(job.film.key).parent}/subtitles/"
    found = [info async for info in gateway.context.store.list(prefix) if info.key.endswith(".ass")]
    found.sort(key=lambda info: (len(info.key), info.key))  # track 10 comes after track 9
    return {naming.sidecar_name(job.film.file_name, number): info for number, info in enumerate(found, 1)}


async def _languages(gateway: Gateway, job: Job) -> dict[str, str]:
    """The languages of the film's subtitles by their tracks' numbers, as far as the source names them."""
    made = keys.parse_film(job.film.key) if job.film is not None else None
    plan = await gateway.plans.head(job.job_id, made[1]) if made is not None else None
    tracks = plan.source.subtitles if plan is not None else ()
    return {str(number): track.language for number, track in enumerate(tracks) if track.language}


HANDLERS = (list_outputs, get_output)
