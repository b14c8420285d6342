"""A small disk of its own, really full when it is full: ENOSPC comes from the kernel.

It is mounted in a namespace that one process holds, and reached through that process's view of the file system. So
nothing needs root, and nothing is left behind, however the test ends.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_HOLD = 'mount -t tmpfs -o size="$2"m none "$1" && echo mounted && exec cat'


@dataclass(frozen=True, slots=True)
class Disk:
    """`folder` is its root."""

    folder: Path

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def fill(self, *, leaving: int = 0) -> None:
        """Take all space but so many bytes; whatever is freed later is free until the next `fill`."""
        with (self.folder / ".ballast").open("ab") as stream:
            try:
                while (left := self.free - leaving) > 0:
                    os.write(stream.fileno(), bytes(min(left, 1 << 20)))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def clear(self) -> None:
        """Give the space back."""
        (self.folder / ".ballast").unlink()


@contextmanager
def small_disk(below: Path, mebibytes: int) -> Generator[Disk]:
    """A disk of that size; skips the test where namespaces are not allowed."""
    point = below / "disk"
    point.mkdir(parents=True)
    command = ["unshare", "-rm", "sh", "-c", _HOLD, "sh", str(point), str(mebibytes)]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip("no permission to mount a small file system in a namespace")
            yield Disk(Path(f"/proc/{holder.pid}/root{point}"))
        finally:
            holder.kill()
