"""What a process did, as JSON lines, for the checker of the fault tests; nothing where STEREOSPOT_HISTORY is not set.

`STEREOSPOT_HISTORY=file` appends one line for every acknowledged publish and commit, every stored object and every
settled message. Lines of several processes share the file: each is one write to a descriptor that appends.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Literal

__all__ = ["VARIABLE", "Kind", "record"]

VARIABLE = "STEREOSPOT_HISTORY"

Kind = Literal["publish", "commit", "put", "settle"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)

_path = os.environ.get(VARIABLE)
_descriptor = os.open(_path, _FLAGS, 0o600) if _path else None


def record(kind: Kind, **values: Any) -> None:
    """Append one line: it is called after what it speaks of has been acknowledged."""
    if _descriptor is None:
        return
    line = json.dumps({"kind": kind, "at": time.time(), "pid": os.getpid(), **values})
    os.write(_descriptor, line.encode() + b"\n")
