"""Everything that jailed tasks of this package import, even lazily: inside, there is no file system to import from.

A task's module belongs into this list; a task that is not on it fails with a PermissionError at its first import.
"""

from __future__ import annotations

import importlib
import pkgutil

import av

MODULES = (
    "encodings.idna",
    "stereospot.media.inspect",
    "stereospot.media.scanning",
    "stereospot.media.ordering",
    "stereospot.media.frames",
    "stereospot.media.keyframes",
    "stereospot.media.film_child",
    "stereospot.media.audio_child",
    "stereospot.media.subtitle_child",
    "stereospot.media.storyboard",
)
_SKIPPED = ("av.__main__", "av.datasets")

for _name in (*MODULES, *(module.name for module in pkgutil.walk_packages(av.__path__, "av."))):
    if _name not in _SKIPPED:
        importlib.import_module(_name)
