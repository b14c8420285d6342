"""A converter whose decoder is murderous: a segment of the given number takes the whole process with it.

python -m tests.faults.poisoned INDEX: `stereospot run converter`, and SIGSEGV when segment INDEX of job `poison` comes.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from inference.backends.stub import Stub
from services import cli

INDEX = int(sys.argv[1])

_convert = Stub.convert


def convert(self: Stub, *, plan: Any, segment: Any, **values: Any) -> Any:
    """As the stub does, but for one segment."""
    if plan.job_id == "poison" and segment.index == INDEX:
        os.kill(os.getpid(), signal.SIGSEGV)
    return _convert(self, plan=plan, segment=segment, **values)


Stub.convert = convert  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(cli.main(["run", "converter"]))
