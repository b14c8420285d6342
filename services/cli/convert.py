"""`stereospot convert FILE`: the same services on a private broker that is kept until the film is there.

    FILE + options ─> folder convert/<key> (broker store, fragments) ─> job ─> film ─> OUT, and the folder goes

The folder's name is made from the source's identity and the options, so the same command after a kill, a crash or a
reboot finds its own half-done work and goes on. `conversion` does that work.
"""

from __future__ import annotations

import asyncio
import hashlib
import json as jsonlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from services.cli import outputs
from services.cli.app import DEFAULTS, QUIET, Common, Unwritten, at_home
from stereospot import errors
from stereospot.messages import SourceRef
from stereospot.options import Container, Options
from stereospot.settings import Settings

LayoutName = Literal[
    "half-sbs", "full-sbs", "half-tb", "full-tb", "cross-eyed", "anaglyph", "anaglyph-green-magenta",
    "anaglyph-amber-blue", "anaglyph-half-colour", "anaglyph-grey", "2d-depth", "left",
]  # fmt: skip
CodecName = Literal["x264", "x265", "svtav1", "nvenc-h264", "nvenc-hevc"]

SUFFIXES: dict[str, Container] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "mkv"}


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
    file = at_home(file)
    depth = None if depth is None else at_home(depth)
    target, exported = at_home(output or _beside(file, options)).absolute(), _exported(export_depth)
    written = [path for path in (target, exported) if path is not None]
    folders = settings.data_dir / "convert"
    source = await _source(file, depth, written)
    if not overwrite:
        # Packing depth takes a while, and only then is it known which folder is ours: what any of them keeps may stay.
        kept = folders.glob(f"*/{outputs.KEPT}")
        await asyncio.to_thread(outputs.refuse_taken, written, kept, outputs.TAKEN)
    given, packed = (None, None) if depth is None else await _depth(depth, folders)
    folder = folders / _identity(source, given, options)
    if not overwrite:
        await asyncio.to_thread(outputs.refuse_taken, written, folder.glob(outputs.KEPT), outputs.TAKEN)
    if packed is not None:
        given = await _into(folder, packed)
    from services.cli import conversion

    order = conversion.Order(f"C{folder.name}", source, given, options, target, exported, overwrite)
    result = await conversion.run(_private(settings, folder, options), order, quiet=common.json)
    # Only now, with the film in its place and synced, may what it was made from go.
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if packed is not None:
        await asyncio.to_thread(packed.unlink, missing_ok=True)
    try:
        _tell(result, common.json)
    except Unwritten as error:
        error.add_note(f"The film is at {target}.")
        raise
    return 0


async def _source(file: Path, depth: Path | None, written: Sequence[Path]) -> SourceRef:
    """The film, once it is sure that what is written can be, and replaces nothing that is read."""
    from services import submit

    read = [path.absolute() for path in (file, depth) if path is not None]
    await asyncio.to_thread(outputs.check, written, read)
    source = await submit.local_source(file, None)
    for path in written:
        await asyncio.to_thread(outputs.try_folder, path)
    return source


async def _depth(depth: Path, folders: Path) -> tuple[SourceRef, Path | None]:
    """Depth of the user's as a film; and that film's path if it was packed here, from pictures."""
    from services import submit
    from stereospot.media import pictures

    film = await asyncio.to_thread(pictures.film_of, depth, folders)
    return await submit.local_source(film, None), film if film.parent == folders else None


def _identity(source: SourceRef, depth: SourceRef | None, options: Options) -> str:
    """The name of the folder of everybody who converts this film with this depth and these options."""
    identity = [source.path, source.size_bytes, source.digest, options.model_dump_json()]
    if depth is not None:
        identity += [depth.path, depth.size_bytes, depth.digest]
    return hashlib.sha256("|".join(map(str, identity)).encode()).hexdigest()[:20]


async def _into(folder: Path, packed: Path) -> SourceRef:
    """The packed depth under a name in the conversion's own folder: the one that all runs know goes with the first of
    them that ends."""
    from services import submit

    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    await asyncio.to_thread(outputs.deliver, packed, folder / packed.name)
    return await submit.local_source(folder / packed.name, None)


def _private(settings: Settings, folder: Path, options: Options) -> Settings:
    """With a broker and a storage in `folder`, for this conversion alone."""
    return settings.model_copy(
        update={
            "data_dir": folder, "nats_url": None, "nats_port": -1, "storage": "local", "pool": _pool(options),
            "metrics_port": None,  # a worker's of this host
        }
    )  # fmt: skip


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
