"""The work of `convert`: services on a private broker, one job on them, its film in its place.

    begin or go on ─> follow ─> deliver depth, subtitles, film ─> what is told

There is no second code path: planner, converter, collector and assembler are those of `stereospot up`.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services import daemon, follow, operations, submit
from services.cli import outputs, sidecars
from services.cli.app import Failed
from services.cli.progress import Bar
from services.context import Context
from stereospot import errors, keys, records
from stereospot.jobs import Job, Phase
from stereospot.messages import Failure, Film, SourceRef
from stereospot.options import Options
from stereospot.settings import Settings

SERVICES = frozenset({"planner", "analyse", "converter", "collector", "assembler", "janitor", "dead-letters"})
"""The last two have work only where something got lost between two writes, or was given back too often for the broker:
without them the command would wait for it for ever."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be converted, by which options, and where film and depth go; `overwrite`: whatever lies there."""

    job_id: str
    source: SourceRef
    depth: SourceRef | None
    options: Options
    target: Path
    exported: Path | None
    overwrite: bool


@dataclass(frozen=True, slots=True)
class Delivered:
    """What lies beside the film, and what is to be said of it."""

    subtitles: list[Path]
    warnings: list[dict[str, str]]


async def run(settings: Settings, order: Order, *, quiet: bool) -> dict[str, Any]:
    """Start the services, run (or resume) the job, move the film; returns what is told of it.

    After a failure the folder stays as long as a finished segment lies in it, whatever the reason: hours of work are
    not for us to throw away, and the next run of the same command retries the job. An empty one goes.
    """
    started = time.monotonic()
    try:
        async with daemon.running(settings, SERVICES) as context:
            await _begin(context, order)
            job, resumed = await _follow(context, order, quiet=quiet)
            if job.phase is not Phase.COMPLETED or job.film is None:
                raise Failed(job.failure) if job.failure else errors.error("CANCELLED")
            delivered = await _deliver(context, order, job, job.film)
    except (errors.Misconfigured, Failed) as error:
        # Another run of the same command may be at work in the folder.
        ours = isinstance(error, Failed) or error.code != "ALREADY_RUNNING"
        if ours and not await asyncio.to_thread(_holds_segments, settings.storage_dir):
            await asyncio.to_thread(shutil.rmtree, settings.data_dir, ignore_errors=True)
        elif isinstance(error, Failed):
            raise Failed(_kept(error.failure, settings.data_dir)) from error
        raise
    return _result(order, job, job.film, delivered, resumed=resumed, seconds=time.monotonic() - started)


async def _begin(context: Context, order: Order) -> None:
    """Make the job, or go on with the one that an earlier run has left."""
    found = await records.get_job(context.bus, order.job_id)
    if found is None:
        await submit.create(
            context, order.source, order.options, job_id=order.job_id, title=order.target.stem, depth=order.depth
        )
    elif found[0].phase in (Phase.FAILED, Phase.CANCELLED):
        await operations.retry(context.bus, order.job_id)
    else:
        await operations.resume(context.bus, found[0])


async def _follow(context: Context, order: Order, *, quiet: bool) -> tuple[Job, int]:
    """Show how far the job is until it ends; returns it, and how many of its frames this run found."""
    resumed: tuple[int, int] | None = None  # the generation, and how many of its frames this run found
    bar = Bar(order.target.name, quiet=quiet)
    try:
        async for snapshot in follow.follow(context, order.job_id):
            bar.show(snapshot)
            job = snapshot.job
            if resumed is None:
                resumed = (job.generation, snapshot.done)
            elif resumed[0] != job.generation:
                resumed = (job.generation, 0)  # begun in this run: all that it has is of this run
            if not job.is_active:
                return job, resumed[1]
    finally:
        bar.close()
    raise errors.error("INTERNAL", "The job's record went away.")


async def _deliver(context: Context, order: Order, job: Job, film: Film) -> Delivered:
    """Put depth, subtitles and film where they were asked for, the film last.

    Raises CONFLICT where something came to lie there meanwhile, OUTPUT_UNWRITABLE where they cannot be written.
    """
    made = context.store.local_path(film.key)
    kept = context.store.local_path(keys.depth(order.job_id, job.generation))
    assert made is not None, "a private store is local"
    assert kept is not None, "a private store is local"
    for own, path in ((kept, order.exported), (made, order.target)):
        if path is not None and not order.overwrite:
            await asyncio.to_thread(outputs.refuse_taken, [path], [own], outputs.TAKEN_MEANWHILE)
    try:
        if order.exported is not None:
            await asyncio.to_thread(outputs.deliver, kept, order.exported)
        subtitles, missing = await sidecars.write(context, job, order.target, overwrite=order.overwrite)
        await asyncio.to_thread(outputs.deliver, made, order.target)
    except OSError as error:
        raise outputs.unwritable(order.target, error) from error
    return Delivered(subtitles, missing)


def _result(
    order: Order, job: Job, film: Film, delivered: Delivered, *, resumed: int, seconds: float
) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "output": str(order.target),
        "frames": film.frames,
        "frames_resumed": resumed,
        "seconds": round(seconds, 3),
        "fps": round((film.frames - resumed) / seconds, 3),
        "duration_seconds": film.duration_seconds,
        "engine": str(job.engine.get("name", order.options.engine)),
        "model_sha256": job.engine.get("model_sha256"),
        "layout": str(order.options.layout),
        "sha256": film.sha256,
        "subtitles": [str(path) for path in delivered.subtitles],
        "warnings": [{"code": item.code, "text": item.text} for item in job.warnings] + delivered.warnings,
        "report": job.report,
    }


def _holds_segments(storage: Path) -> bool:
    """Whether any segment was finished."""
    return next(storage.glob("jobs/*/*/segments/*"), None) is not None


def _kept(failure: Failure, folder: Path) -> Failure:
    """The failure, with where its finished segments are, how to go on with them and how to be rid of them."""
    kept = f"Finished segments are kept in {folder}: the same command tries again with them; delete it to give them up."
    return failure.model_copy(update={"advice": f"{failure.advice} {kept}"})
