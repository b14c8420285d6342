"""Subtitles for both eyes beside a film that `convert` has made: `Film.ass`, `Film.2.ass`, … (one a text track).

In a daemon the service `audio` makes the same texts while it cuts the sound for playback; `convert` plays nothing, so
they are made here, from the source, once the film is whole. A picture that is one alone needs none: the film's own
tracks are drawn right.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from services import sources
from services.context import Context
from services.plans import Plans
from stereospot import errors
from stereospot.jobs import Job
from stereospot.media import clocks, naming, subtitles
from stereospot.media.limits import Limits
from stereospot.storage import files


async def write(
    context: Context, job: Job, target: Path, *, overwrite: bool
) -> tuple[list[Path], list[dict[str, str]]]:
    """The files written beside `target`, and warnings: a film is not held up by subtitles that cannot be read.

    A file that exists stays as it is unless `overwrite` says otherwise.
    """
    try:
        return await _written(context, job, target, overwrite), []
    except (errors.Permanent, errors.Transient) as error:
        text = f"No subtitles for both eyes were written: {error.detail or error}"
        return [], [{"code": error.code, "text": text}]


async def _written(context: Context, job: Job, target: Path, overwrite: bool) -> list[Path]:
    plans = Plans(context.store)
    head, total = await plans.head(job.job_id, job.generation), await plans.total(job.job_id, job.generation)
    if head is None or total is None or not subtitles.is_in_parts(head.encode.layout):
        return []
    if all(track.bitmap for track in head.source.subtitles):
        return []
    source = await sources.open_source(context.store, job.source)
    try:
        limits = Limits.of(context.settings)
        origin = clocks.origin_seconds(head)
        found = await asyncio.to_thread(
            subtitles.read, source, head.source, origin=origin, resets=total.resets, limits=limits
        )
    finally:
        await asyncio.to_thread(source.close)
    encode = head.encode
    written: list[Path] = []
    for number, cues in enumerate(found.values(), 1):
        path = target.with_name(naming.sidecar_name(target.name, number))
        if path.exists() and not overwrite:
            continue
        text = subtitles.ass(cues, encode.layout, encode.width, encode.height)
        await asyncio.to_thread(_write, path, text.encode())
        written.append(path)
    return written


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, and for good."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    files.sync_folder_if_possible(path.parent)
