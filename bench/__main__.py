"""`python -m bench [NAME…]`: run benchmarks and print Markdown."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import collector, first_frame, main_job, measure, memory, playlists, queue, scale, stages

BENCHES: dict[str, Callable[[], str]] = {
    "b1": main_job.b1,
    "b3": main_job.b3,
    "b4": collector.b4,
    "b5": scale.b5,
    "b6": first_frame.b6,
    "b7": playlists.b7,
    "jobs": queue.through,
    "memory": memory.memory,
    "queue": queue.queue,
    "stages": stages.table,
}

LONG: dict[str, Callable[[], str]] = {"all-jobs": queue.all_through}
"""Half an hour and more; only by name."""


def main() -> None:
    names = sys.argv[1:] or list(BENCHES)
    print(f"{measure.machine()}\n")
    for name in names:
        print((BENCHES | LONG)[name](), flush=True)


main()
