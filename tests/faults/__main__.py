"""The whole fault matrix in several test runs side by side, with one table: `python -m tests.faults [pytest options]`.

Most rows wait more than they compute, so three share two cores well. `STEREOSPOT_FAULT_RUNS` says how many.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import shard, table

MATRIX = (
    "tests/faults", "tests/broker/test_crash.py", "tests/broker/test_durability.py", "tests/broker/test_cluster.py",
    "tests/system/test_pipeline_crash.py", "tests/storage/test_s3.py",
)  # fmt: skip


def main(options: list[str]) -> int:
    """Exit status: the worst of the runs'."""
    count = int(os.environ.get("STEREOSPOT_FAULT_RUNS", "3"))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stereospot-faults-") as folder:
        runs: list[subprocess.Popen[bytes]] = []
        for number in range(count):
            place = Path(folder) / str(number)
            environment = os.environ | {
                shard.VARIABLE: f"{number}/{count}", table.VARIABLE: f"{place}.json",
                # Kernels are compiled once, not by each run.
                "NUMBA_CACHE_DIR": f"{folder}/kernels",
            }  # fmt: skip
            command = [
                sys.executable, "-m", "pytest", "-p", "tests.faults.shard", "-m", "", "--timeout=400",
                # A folder of its own: pytest removes what is there from earlier runs.
                f"--basetemp={place}", *MATRIX, *options,
            ]  # fmt: skip
            runs.append(subprocess.Popen(command, env=environment))
        status = max(abs(run.wait()) for run in runs)
        rows: dict[str, table.Row] = {}
        for number in range(count):
            path = Path(folder) / f"{number}.json"
            for fault, values in (json.loads(path.read_text()) if path.exists() else {}).items():
                rows.setdefault(fault, table.Row()).merge(table.Row(**values))
    print("\n".join(["", *table.lines(rows), ""]))
    print(f"{'passed' if not status else 'FAILED'} in {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
