"""`stereospot jobs …`: look at jobs and steer them, over the broker."""

from __future__ import annotations

import json as jsonlib
import time
from typing import Annotated

from cyclopts import App, Parameter

from services.cli import tables
from services.cli.app import DEFAULTS, QUIET, Common
from stereospot.jobs import Job, Phase

jobs = App(name="jobs", help="List, show, watch, cancel, retry or delete jobs.")


@jobs.command(name="list")
async def list_(*, phase: Phase | None = None, limit: int = 50, common: Common = DEFAULTS) -> int:
    """Jobs, the newest first.

    Parameters
    ----------
    phase
        only those in this phase
    limit
        at most so many
    """
    from services.cli.reach import reach
    from stereospot import records

    async with reach(common.settings(log_level=QUIET)) as context:
        found = [job for job, _ in await records.list_jobs(context.bus)]
    found = sorted((job for job in found if phase in (None, job.phase)), key=lambda job: job.created_at, reverse=True)
    if common.json:
        print("[" + ",".join(job.model_dump_json() for job in found[:limit]) + "]")
        return 0
    rows: list[tuple[str, ...]] = []
    for job in found[:limit]:
        why = job.failure.code if job.failure else ""
        rows.append((job.job_id, job.phase, str(job.generation), _age(job.created_at), job.title, why))
    tables.show(("job", "phase", "gen", "age", "title", "why"), rows)
    return 0


@jobs.command
async def show(job_id: str, /, *, common: Common = DEFAULTS) -> int:
    """One job with its history, progress and, if it failed, the reason and what to do."""
    from services import follow, plans
    from services.cli.reach import reach
    from stereospot import errors

    async with reach(common.settings(log_level=QUIET)) as context:
        found = await follow.snapshot(context, plans.Plans(context.store), job_id)
    if found is None:
        raise errors.error("NOT_FOUND", f"No job {job_id}.")
    if common.json:
        body = jsonlib.loads(found.job.model_dump_json())
        print(jsonlib.dumps({"job": body, "frames_done": found.done, "frames": found.total}))
        return 0
    _print_job(found.job, found.done)
    return 0


@jobs.command
async def watch(job_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Follow a job until it ends; exits 1 if it failed."""
    from services import follow
    from services.cli.app import Failed
    from services.cli.progress import Bar
    from services.cli.reach import reach
    from stereospot import errors

    job: Job | None = None
    async with reach(common.settings(log_level=QUIET)) as context:
        bar = Bar(job_id, quiet=common.json)
        try:
            async for snapshot in follow.follow(context, job_id):
                job = snapshot.job
                bar.show(snapshot)
        finally:
            bar.close()
    if job is None:
        raise errors.error("NOT_FOUND", f"No job {job_id}.")
    if common.json:
        print(job.model_dump_json())
    if job.failure is not None:
        raise Failed(job.failure)
    return 0


@jobs.command
async def cancel(job_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Stop a job; what is stored stays, and a retry goes on from there."""
    return await _operate("cancel", job_id, common)


@jobs.command
async def retry(job_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Go on with a failed or cancelled job: only what is missing is done."""
    return await _operate("retry", job_id, common)


@jobs.command
async def delete(job_id: str, /, *, common: Common = DEFAULTS) -> int:
    """Delete a job with everything stored for it."""
    return await _operate("delete", job_id, common)


async def _operate(name: Annotated[str, Parameter(parse=False)], job_id: str, common: Common) -> int:
    from services import operations
    from services.cli.reach import reach

    async with reach(common.settings(log_level=QUIET)) as context:
        job = await getattr(operations, name)(context.bus, job_id)
    print(job.model_dump_json() if common.json else f"{job.job_id} is {job.phase}")
    return 0


def _print_job(job: Job, done: int) -> None:
    print(f"{job.job_id}  {job.title}\n  {job.phase}, generation {job.generation}, attempt {job.attempt}")
    if job.frames:
        print(f"  {done} of {job.frames} frames in {job.segments} segments")
    if job.film:
        print(f"  film {job.film.key} ({job.film.size_bytes} bytes, {job.film.frames} frames)")
    if job.failure:
        where = "" if job.failure.segment_index is None else f" in segment {job.failure.segment_index}"
        print(f"  {job.failure.code}{where}: {job.failure.sentence} {job.failure.detail}\n  {job.failure.advice}")
    for warning in job.warnings:
        print(f"  warning {warning.code}: {warning.text}")
    for step in job.history:
        print(f"  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(step.at))}  {step.phase:<12} {step.note}")


def _age(at: float) -> str:
    seconds = max(0.0, time.time() - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
