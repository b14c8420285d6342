"""Blocking work that runs an encoder, and the end of waiting for one that never comes back.

An encoder is a library's call: nothing can end it but the end of the process. Seen once: x265, asked for its last
pictures on a loaded machine, span for ever. A worker that went on renewing such a segment would hold it for good.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from services.watch import Threads
from stereospot import errors
from stereospot.media import cmaf

P = ParamSpec("P")
T = TypeVar("T")

STALLED_SECONDS = 600.0
"""Longer than any encoder takes for a picture, or for the last ones that it holds."""

LOOK_SECONDS = 2.0


async def run(threads: Threads, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread; raises ENCODER_STALLED when that thread has been in one call of an encoder for
    `STALLED_SECONDS`. The thread is lost then, and the process has to end."""
    thread: list[int] = []

    def call() -> T:
        thread.append(threading.get_ident())
        return function(*args, **kwargs)

    running = asyncio.ensure_future(threads.run(call))
    try:
        while not (await asyncio.wait({running}, timeout=LOOK_SECONDS))[0]:
            seconds = cmaf.call_seconds(thread[0]) if thread else 0.0
            if seconds > STALLED_SECONDS:
                raise errors.error("ENCODER_STALLED", f"It has been at one call for {seconds:.0f} s.")
        return running.result()
    finally:
        running.cancel()
