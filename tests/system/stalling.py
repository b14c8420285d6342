"""`python -m tests.system.stalling WORDS…`: `stereospot WORDS…` with an encoder that never gives its last pictures.

It spins as x265 was seen to do, in a thread that nothing can end; after a second of that it counts as stalled.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from services import cli, encoding
from stereospot.media import cmaf

encoding.STALLED_SECONDS = 1.0
encoding.LOOK_SECONDS = 0.1


class Stalling:
    """A codec context whose flush does not come back."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def encode(self, frame: Any) -> Any:
        if frame is None:
            threading.Event().wait()
        return self._context.encode(frame)


_open = cmaf._open  # pyright: ignore[reportPrivateUsage]


def _stalling(spec: Any) -> tuple[Any, bytes]:
    context, init = _open(spec)
    return Stalling(context), init


cmaf._open = _stalling  # pyright: ignore[reportPrivateUsage]

if __name__ == "__main__":
    sys.exit(cli.main())
