"""iw3 in a process of its own, asked for one conversion at a time: the other side of `vs_iw3`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.learned import SIZE

BATCH = 2


class Iw3:
    """The child, and the way to ask it for a conversion."""

    def __init__(self, python: str, checkout: Path, weights: Path, device: str, define_nms: bool) -> None:
        script = Path(__file__).with_name("iw3_child.py")
        command = [python, str(script), str(checkout), str(weights), device] + ["--define-nms"] * define_nms
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the child)
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.version = self._answer()["ready"]
        self.cpu = 0.0

    def convert(self, source: Path, target: Path, *, network: bool, workers: int, batch: int = BATCH) -> float:
        """Seconds of one conversion."""
        assert self._child.stdin is not None
        asked = {
            "source": str(source), "target": str(target), "network": network, "workers": workers, "batch": batch,
            "resolution": SIZE[1],
        }  # fmt: skip
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        told = self._answer()
        self.cpu = told["cpu"]
        return told["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"iw3 ended:\n{self._log.read()[-2000:]}")
        return json.loads(line)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._log.close()
