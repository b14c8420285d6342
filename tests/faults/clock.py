"""`stereospot run SERVICE…` in a process whose wall clock jumps: `python -m tests.faults.clock FILE SERVICE…`.

FILE holds the seconds by which this process is wrong now; it is read at every look at the clock. That is the clock as
Python code sees it: `time.time`, `time.time_ns`, `datetime.now`. Monotonic clocks go on, as when NTP or somebody
sets them. The broker is another program, with the machine's clock, so each jump is also a disagreement with it.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

_time, _time_ns = time.time, time.time_ns


def install(path: Path) -> None:
    """From now on this process reads its wall clock by the file."""

    def wrong() -> float:
        return float(path.read_text() or 0)

    class Moved(datetime.datetime):
        """As the class it stands for, but for what time it is."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Moved:
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: _time() + wrong()
    time.time_ns = lambda: _time_ns() + int(wrong() * 1e9)
    datetime.datetime = Moved


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    from services import cli

    sys.exit(cli.main(["run", *sys.argv[2:]]))
