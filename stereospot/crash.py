"""Named points at which a process can be made to die, so that tests can kill it between any two steps.

`STEREOSPOT_CRASHPOINT=name[:n]` makes the process kill itself with SIGKILL at its n-th pass of that point (default the
first). Without the variable a point costs one attribute test. Several may be given, separated by commas. Modules
declare their points at import, so that the fault matrix can list them all; a test holds declarations against calls.
"""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "VARIABLE", "declare", "parse", "point"]

VARIABLE = "STEREOSPOT_CRASHPOINT"

POINTS: set[str] = set()
"""Every declared point of the modules that are imported, as `module.moment`."""


def declare(*names: str) -> None:
    """Register points; a module does so once, at its top level."""
    POINTS.update(names)


def parse(text: str) -> dict[str, int]:
    """`a,b:3` as {"a": 1, "b": 3}: how many passes each armed point has left."""
    armed: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = item.partition(":")
        armed[name] = int(count) if count else 1
    return armed


_armed = parse(os.environ.get(VARIABLE, ""))


def point(name: str) -> None:
    """Die here if this point is armed and this is the pass it is armed for."""
    if not _armed or name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
