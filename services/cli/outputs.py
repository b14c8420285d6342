"""Where `convert` puts its film and its depth: looked at before any work, filled at once when all of it is done.

    folder convert/<key>/storage/jobs/… ── link, or copy beside it ──> .NAME.part ── rename ──> NAME

What a killed run has put in its place is still kept in its folder too, so the next run knows it for its own.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from stereospot import errors
from stereospot.storage import files

KEPT = "storage/jobs/*/*/*.m*"
"""Films and depths below a conversion's folder; their fragments lie deeper."""

TAKEN = "exists; --overwrite replaces it."
TAKEN_MEANWHILE = "has come to exist; the film is kept: give another place."


def check(written: Sequence[Path], read: Sequence[Path]) -> None:
    """Raise INVALID_OPTIONS where a film would replace its source, its depth or another output, or cannot be named."""
    for path in (*written, *read):
        try:
            f"{path}{path.resolve()}".encode()
        except UnicodeEncodeError:
            # Neither a record nor a message can hold it.
            raise errors.error("INVALID_OPTIONS", f"{str(path)!a} is no name in UTF-8: rename it.") from None
    for number, path in enumerate(written):
        for other in (*written[:number], *read):
            if _is_one(path, other):
                raise errors.error("INVALID_OPTIONS", f"{path} is also {other}, which would be lost.")


def try_folder(target: Path) -> None:
    """Find out now, and not after days of work, that nothing can be written beside `target`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=target.parent):
            pass
        part = _part(target)
        with contextlib.suppress(FileExistsError):  # of a run that was killed, or is about to end
            part.touch(exist_ok=False)  # a name may be too long with what `deliver` adds
            part.unlink()
    except OSError as error:
        raise unwritable(target, error) from error


def refuse_taken(written: Sequence[Path], kept: Iterable[Path], sentence: str) -> None:
    """Raise CONFLICT for a place where something lies that is none of the `kept` files."""
    kept = list(kept)
    for path in written:
        if path.exists() and not any(_is_same(path, own) for own in kept):
            raise errors.error("CONFLICT", f"{path} {sentence}")


def unwritable(target: Path, error: OSError) -> errors.StereoSpotError:
    return errors.error("OUTPUT_UNWRITABLE", f"{target}: {error.strerror or error}.")


def deliver(film: Path, target: Path) -> None:
    """Put the film at `target` at once and for good: rename where it is one file system, else copy beside it first."""
    part = _part(target)
    # What a killed run has left may be a link to the film: to write into it would be to write into the film.
    part.unlink(missing_ok=True)
    try:
        try:
            os.link(film, part)
        except OSError:
            with film.open("rb") as reader, part.open("xb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
        part.replace(target)
    finally:
        # Also where both names are links to one file already: then a rename does nothing, and says that it did.
        part.unlink(missing_ok=True)
    files.sync_folder_if_possible(target.parent)


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _is_one(path: Path, other: Path) -> bool:
    """Whether both names are of one file, or will be."""
    try:
        return path.samefile(other)
    except OSError:
        return path.resolve() == other.resolve()


def _is_same(path: Path, other: Path) -> bool:
    """Whether both files hold the same bytes; without a look at them where they are one file, or not of one size."""
    try:
        return path.samefile(other) or filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False
