"""What an encoder's library does to the priority of threads, taken back.

SVT-AV1, where root runs it, makes the thread that opens it a real-time one (FIFO, 99), so its own threads and all that
this thread starts later as well: nothing else gets a core while they work, not even the heartbeats of other workers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

_TASKS = "/proc/self/task"


@contextlib.contextmanager
def ordinary() -> Generator[None]:
    """Around the opening of an encoder: threads that became real-time ones have the caller's scheduling again.

    Nothing happens where nobody but an operator can make them so: without root, off Linux, and where the caller itself
    was started as a real-time thread.
    """
    linux = hasattr(os, "sched_getscheduler") and os.path.isdir(_TASKS)
    before = os.sched_getscheduler(0) if linux and os.geteuid() == 0 else None
    try:
        yield
    finally:
        if before is not None and before not in (os.SCHED_FIFO, os.SCHED_RR):
            for thread in map(int, os.listdir(_TASKS)):
                with contextlib.suppress(ProcessLookupError):
                    if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                        os.sched_setscheduler(thread, before, os.sched_param(0))
