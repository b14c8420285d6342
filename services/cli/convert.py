"""`stereospot convert FILE`: the same services on a private broker that is kept until the film is there.

    FILE + options ─> folder convert/<key> (broker store, fragments) ─> job ─> film ─> OUT, and the folder goes

The folder's name is made from the source's identity and the options, so the same command after a kill, a crash or a
reboot finds its own half-done work and goes on. There is no second code path: planner, converter, collector and
assembler are those of `stereospot up`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json as jsonlib
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from services.cli import outputs
from services.cli.app import DEFAULTS, QUIET, Common, Failed, Unwritten, at_home
from stereospot import errors
from stereospot.messages import Failure
from stereospot.options import Container, Options

LayoutName = Literal[
    "half-sbs", "full-sbs", "half-tb", "full-tb", "cross-eyed", "anaglyph", "anaglyph-green-magenta",
    "anaglyph-amber-blue", "anaglyph-half-colour", "anaglyph-grey", "2d-depth", "left",
]  # fmt: skip
CodecName = Literal["x264", "x265", "svtav1", "nvenc-h264", "nvenc-hevc"]

SUFFIXES: dict[str, Container] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "mkv"}
SERVICES = frozenset({"planner", "analyse", "converter", "collector", "assembler", "janitor", "dead-letters"})
"""The last two have work only where something got lost between two writes, or was given back too often for the broker:
without them the command would wait for it for ever."""

_TAKEN = "exists; --overwrite replaces it."
_TAKEN_MEANWHILE = "has come to exist; the film is kept: give another place."


async def convert(
    file: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    layout: LayoutName = "half-sbs",
    engine: str | None = None,
    model: str | None = None,
    divergence: float | None = None,
    convergence: float = 0.5,
    codec: CodecName | None = None,
    crf: int = 20,
    preset: str = "veryfast",
    segment_seconds: float | None = None,
    swap_eyes: Annotated[bool, Parameter(negative="")] = False,
    synthesise: Literal["both", "left", "right"] = "both",
    tone_map: Annotated[bool, Parameter(negative="")] = False,
    depth: Path | None = None,
    export_depth: Path | None = None,
    accept_license: Annotated[bool, Parameter(negative="")] = False,
    backend: Literal["local", "stub"] = "local",
    workers: int | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Convert one film; the same command again goes on where an interrupted one stopped.

    Parameters
    ----------
    file
        the 2D film
    output
        the 3D film; its suffix chooses mp4, mov or mkv; default: a name beside FILE that 3D players understand
    layout
        how both eyes share the picture
    engine
        where depth comes from: relief, cues, flat, depth-anything, iw3, user (default: relief; user with --depth)
    model
        model of the engine, where it has several: small (default), base, large, v1-small, v1-base
        and v1-large of depth-anything, iw3's own names (default: Any_V2_S)
    divergence
        strength: total parallax over the depth range in percent of the width (default: the engine's)
    convergence
        which depth lies at the screen, 0 the farthest to 1 the nearest
    codec
        video codec, named to keep the source's bits and chroma (default: x264 as it plays everywhere; svtav1 for HDR)
    crf
        quality, lower is better and larger; 0 is lossless
    preset
        speed preset of the encoder
    segment_seconds
        length of a segment (default: 4 to 6 s after a quick start)
    swap_eyes
        right eye first
    synthesise
        which eyes are made; the other one is the source itself
    tone_map
        turn HDR into SDR
    depth
        depth of yours, near is white: a grey film, a folder or a zip of PNG files, or a pattern such as "d/*.png"
    export_depth
        write the depth that was used as a film of 16-bit grey pictures (.mkv); --depth takes it again
    accept_license
        use a model whose licence forbids commercial use; yours does not need it
    backend
        local, or stub (copies pixels; for tests)
    workers
        how many segments at a time
    overwrite
        replace OUTPUT if it exists
    """
    options = _options(
        {
            "engine": engine, "model": model, "accept_license": accept_license, "layout": layout,
            "divergence": divergence, "convergence": convergence, "codec": codec, "crf": crf, "preset": preset,
            "segment_seconds": segment_seconds, "swap_eyes": swap_eyes,
            "synthesise": synthesise, "tone_map": tone_map, "backend": backend,
            "export_depth": export_depth is not None,
            "container": _container(output),
        }
    )  # fmt: skip
    if common.nats is not None:
        raise errors.error("INVALID_OPTIONS", "convert has a broker of its own; submit to a running one with its API.")
    if workers is not None and workers < 1:
        raise errors.error("INVALID_OPTIONS", "--workers: 1 or more.")
    settings = common.settings(log_level=None if common.verbose else QUIET, slots=workers)
    from services import submit
    from stereospot.media import pictures

    file = at_home(file)
    depth = None if depth is None else at_home(depth)
    target = at_home(output or _beside(file, options)).absolute()
    exported = _exported(export_depth)
    written = [path for path in (target, exported) if path is not None]
    read = [path.absolute() for path in (file, depth) if path is not None]
    await asyncio.to_thread(outputs.check, written, read)
    source = await submit.local_source(file, None)
    for path in written:
        await asyncio.to_thread(outputs.try_folder, path)
    if not overwrite:
        others = (settings.data_dir / "convert").glob(f"*/{outputs.KEPT}")
        await asyncio.to_thread(outputs.refuse_taken, written, others, _TAKEN)
    given = packed = None
    if depth is not None:
        packed = await asyncio.to_thread(pictures.film_of, depth, settings.data_dir / "convert")
        given = await submit.local_source(packed, None)
    identity = [source.path, source.size_bytes, source.digest, options.model_dump_json()]
    if given is not None:
        identity += [given.path, given.size_bytes, given.digest]
    key = hashlib.sha256("|".join(map(str, identity)).encode()).hexdigest()[:20]
    folder = settings.data_dir / "convert" / key
    if not overwrite:
        await asyncio.to_thread(outputs.refuse_taken, written, folder.glob(outputs.KEPT), _TAKEN)
    if packed is not None and packed.parent == folder.parent:
        # The name that all runs know goes with the first of them that ends.
        await asyncio.to_thread(folder.mkdir, exist_ok=True)
        await asyncio.to_thread(outputs.deliver, packed, folder / packed.name)
        given = await submit.local_source(folder / packed.name, None)
    private = settings.model_copy(
        update={
            "data_dir": folder, "nats_url": None, "nats_port": -1, "storage": "local", "pool": _pool(options),
            "metrics_port": None,  # a worker's of this host
        }
    )  # fmt: skip
    result = await _run(
        private, source, given, options, f"C{key}", target, exported, quiet=common.json, overwrite=overwrite
    )
    # Only now, with the film in its place and synced, may what it was made from go.
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if packed is not None and packed.parent == folder.parent:
        await asyncio.to_thread(packed.unlink, missing_ok=True)
    try:
        _tell(result, common.json)
    except Unwritten as error:
        error.add_note(f"The film is at {target}.")
        raise
    return 0


async def _run(
    settings: Any,
    source: Any,
    depth: Any,
    options: Options,
    job_id: str,
    target: Path,
    exported: Path | None,
    *,
    quiet: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Start the services, run (or resume) the job, move the film.

    After a failure the folder stays as long as a finished segment lies in it, whatever the reason: hours of work are
    not for us to throw away, and the next run of the same command retries the job. An empty one goes.
    """
    from services import daemon, follow, operations, submit
    from services.cli import sidecars
    from services.cli.progress import Bar
    from stereospot import keys, records
    from stereospot.jobs import Phase

    started = time.monotonic()
    resumed: tuple[int, int] | None = None  # the generation, and how many of its frames this run found
    try:
        async with daemon.running(settings, SERVICES) as context:
            found = await records.get_job(context.bus, job_id)
            if found is not None and found[0].phase in (Phase.FAILED, Phase.CANCELLED):
                await operations.retry(context.bus, job_id)
            elif found is not None:
                await operations.resume(context.bus, found[0])
            else:
                await submit.create(context, source, options, job_id=job_id, title=target.stem, depth=depth)
            bar = Bar(target.name, quiet=quiet)
            try:
                async for snapshot in follow.follow(context, job_id):
                    bar.show(snapshot)
                    job = snapshot.job
                    if resumed is None:
                        resumed = (job.generation, snapshot.done)
                    elif resumed[0] != job.generation:
                        resumed = (job.generation, 0)  # begun in this run: all that it has is of this run
                    if not job.is_active:
                        break
                else:
                    raise errors.error("INTERNAL", "The job's record went away.")
            finally:
                bar.close()
            if job.phase is not Phase.COMPLETED or job.film is None:
                raise Failed(job.failure) if job.failure else errors.error("CANCELLED")
            film = context.store.local_path(job.film.key)
            kept = context.store.local_path(keys.depth(job_id, job.generation))
            assert film is not None, "a private store is local"
            assert kept is not None, "a private store is local"
            for made, path in ((kept, exported), (film, target)):
                if path is not None and not overwrite:
                    await asyncio.to_thread(outputs.refuse_taken, [path], [made], _TAKEN_MEANWHILE)
            try:
                if exported is not None:
                    await asyncio.to_thread(outputs.deliver, kept, exported)
                subtitles, missing = await sidecars.write(context, job, target, overwrite=overwrite)
                await asyncio.to_thread(outputs.deliver, film, target)
            except OSError as error:
                raise outputs.unwritable(target, error) from error
    except (errors.Misconfigured, Failed) as error:
        # Another run of the same command may be at work in the folder.
        ours = isinstance(error, Failed) or error.code != "ALREADY_RUNNING"
        if ours and not await asyncio.to_thread(_holds_segments, settings.storage_dir):
            await asyncio.to_thread(shutil.rmtree, settings.data_dir, ignore_errors=True)
        elif isinstance(error, Failed):
            raise Failed(_kept(error.failure, settings.data_dir)) from error
        raise
    seconds = time.monotonic() - started
    made = job.film.frames - (resumed[1] if resumed else 0)
    return {
        "output": str(target),
        "frames": job.film.frames,
        "frames_resumed": job.film.frames - made,
        "seconds": round(seconds, 3),
        "fps": round(made / seconds, 3),
        "duration_seconds": job.film.duration_seconds,
        "engine": str(job.engine.get("name", options.engine)),
        "model_sha256": job.engine.get("model_sha256"),
        "layout": str(options.layout),
        "sha256": job.film.sha256,
        "subtitles": [str(path) for path in subtitles],
        "warnings": [{"code": item.code, "text": item.text} for item in job.warnings] + missing,
        "report": job.report,
    }


def _tell(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(jsonlib.dumps(result), flush=True)
        return
    for path in (result["output"], *result["subtitles"]):
        print(path)
    print(f"{result['frames']} frames in {result['seconds']:.1f} s ({result['fps']:.1f} fps), {result['engine']}")
    for warning in result["warnings"]:
        print(f"warning {warning['code']}: {warning['text']}")
    print(end="", flush=True)


def _holds_segments(storage: Path) -> bool:
    """Whether any segment was finished."""
    return next(storage.glob("jobs/*/*/segments/*"), None) is not None


def _kept(failure: Failure, folder: Path) -> Failure:
    """The failure, with where its finished segments are, how to go on with them and how to be rid of them."""
    kept = f"Finished segments are kept in {folder}: the same command tries again with them; delete it to give them up."
    return failure.model_copy(update={"advice": f"{failure.advice} {kept}"})


def _options(values: dict[str, Any]) -> Options:
    from pydantic import ValidationError

    try:
        return Options(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "--" + str(first["loc"][0] if first["loc"] else "options").replace("_", "-")
        raise errors.error("INVALID_OPTIONS", f"{name}: {first['msg']}.") from None


def _container(output: Path | None) -> Container:
    if output is None:
        return "mp4"
    container = SUFFIXES.get(output.suffix.lower())
    if container is None:
        raise errors.error("INVALID_OPTIONS", f"The output must end in .mp4, .mov or .mkv, not {output.suffix!r}.")
    return container


def _exported(path: Path | None) -> Path | None:
    """Where the depth goes to."""
    if path is None:
        return None
    path = at_home(path).absolute()
    if path.suffix.lower() != ".mkv":
        raise errors.error("INVALID_OPTIONS", f"The depth is written as .mkv, not {path.suffix!r}.")
    return path


def _beside(file: Path, options: Options) -> Path:
    from stereospot.media import naming

    return file.with_name(naming.film_name(file.stem, options.layout, options.container, swapped=options.swap_eyes))


def _pool(options: Options) -> str:
    return "stub" if options.backend == "stub" else "cpu"
