"""`stereospot demo`: everything embedded, one clip of our own converted, and the page stays up to watch it."""

from __future__ import annotations

import asyncio
import json as jsonlib
from pathlib import Path

from services.cli.app import DEFAULTS, QUIET, Common
from services.context import Context
from stereospot import errors


async def demo(*, seconds: float = 24.0, port: int | None = None, once: bool = False, common: Common = DEFAULTS) -> int:
    """Draw a short clip with sound, convert it, and stay up so that it can be watched.

    Parameters
    ----------
    seconds
        length of the clip, 0.5 to 3600
    port
        port of page and API (default 8666)
    once
        end when the film is finished
    """
    from services import daemon

    if not 0.5 <= seconds <= 3600:
        raise errors.error("INVALID_OPTIONS", f"--seconds: 0.5 to 3600, not {seconds:g}.")
    settings = common.settings(port=port, log_level=None if common.verbose else QUIET)
    clip = settings.data_dir / "demo" / f"landscape-{seconds:g}s.mp4"
    if not clip.exists():
        if not common.json:
            print("drawing a clip …", flush=True)
        try:
            await asyncio.to_thread(_draw, clip, seconds)
        except OSError as error:
            reason = f"{clip}: {error.strerror or error}; --data names another folder."
            raise errors.error("OUTPUT_UNWRITABLE", reason) from error
    finished = asyncio.Event()
    made = False

    async def ready(context: Context) -> None:
        nonlocal made
        made = await _show(context, clip, common.json, once)
        if once:
            finished.set()

    code = await daemon.run(daemon.ALL, settings, ready=ready, until=finished)
    return code if made or not once else 1


def _draw(path: Path, seconds: float) -> None:
    from services.cli.clip import write_clip

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.mp4")
    write_clip(part, seconds)
    part.rename(path)


async def _show(context: Context, clip: Path, as_json: bool, once: bool) -> bool:
    """Submit the clip, say where to look at once, and where the film is once it is there; returns whether it is."""
    from services import follow, submit
    from services.cli.progress import Bar
    from services.gateway import access
    from stereospot.options import Options

    settings = context.settings
    source = await submit.local_source(clip, None)
    job = await submit.create(context, source, Options(), title="Landscape (demo)")
    watch = await asyncio.to_thread(access.entry_url, settings, f"/jobs/{job.job_id}")
    if not as_json:
        print(f"watch it while it converts: {watch}", flush=True)
    bar = Bar("Landscape", quiet=as_json)
    try:
        async for snapshot in follow.follow(context, job.job_id):
            bar.show(snapshot)
            job = snapshot.job
    finally:
        bar.close()
    # In a bucket it has a key and no path.
    path = str(context.store.local_path(job.film.key) or job.film.key) if job.film else None
    if as_json:
        print(jsonlib.dumps({"job_id": job.job_id, "phase": job.phase, "url": watch, "film": path}), flush=True)
    elif path:
        print(f"the film: {path}", flush=True)
        if not once:
            address = await asyncio.to_thread(access.entry_url, settings)
            print(f"StereoSpot stays up at {address} ; Ctrl-C stops it", flush=True)
    elif job.failure:
        print(f"it failed: {job.failure.code} {job.failure.sentence} {job.failure.detail}", flush=True)
    return path is not None
