"""Where the films of a test run lie: each is made when it is first asked for, and kept until the run ends."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

Makers = dict[str, tuple[str, Callable[[Path], None]]]
"""By the film's name: its suffix, and what writes it to a path."""

_makers: Makers = {}
_folder: Path | None = None


def shelved(films: Makers) -> Makers:
    """The same films, to be had by `path` from now on."""
    _makers.update(films)
    return films


@functools.cache
def path(name: str) -> Path:
    """The film of that name; made on first use, shared by the session: do not change it."""
    global _folder
    if _folder is None:
        _folder = Path(tempfile.mkdtemp(prefix="stereospot-sources-"))
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    suffix, make = _makers[name]
    target = _folder / f"{name}{suffix}"
    make(target)
    return target
