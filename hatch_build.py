"""Puts hls.js into the package at build time: fetched with `npm pack`, checked, never committed.

Runs for wheels and for editable installs. Without npm, or without a network, the build goes on: the pages then use the
browser's own HLS player, and say so.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "hls.js"
VERSION = "1.7.4"
INTEGRITY = "3GlxGdPvT2YHvQYOt+yOzT/DEior/qJVNIylHA77kgeoBTdQQqi70GwefNEUmHQeNGyjC8U62+bruqW/Tpm+tg=="
"""sha512 of the tarball, in base64, as the registry publishes it."""

MEMBERS = {
    "package/dist/hls.min.mjs": f"hls-{VERSION}.min.mjs",
    "package/LICENSE": f"hls-{VERSION}.LICENSE.txt",
}
FETCH_SECONDS = 90


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = Path(self.root) / "services" / "gateway" / "static" / "vendor"
        if all((target / name).is_file() for name in MEMBERS.values()):
            return
        try:
            fetch(target)
        except (OSError, ValueError, KeyError, subprocess.SubprocessError, tarfile.TarError) as problem:
            message = f"{PACKAGE} {VERSION} is not in this build ({problem}): pages use the browser's own HLS player"
            self.app.display_warning(message)


def fetch(target: Path) -> None:
    """Fetch the pinned tarball, compare it, and take the two files out of it."""
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("there is no npm")
    with tempfile.TemporaryDirectory(prefix="stereospot-build-") as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", folder]
        subprocess.run(command, check=True, timeout=FETCH_SECONDS, capture_output=True, cwd=folder)
        [tarball] = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            raise ValueError(f"its sha512 is {found}")
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(tarball) as archive:
            for member, name in MEMBERS.items():
                source = archive.extractfile(member)
                if source is None:
                    raise KeyError(member)
                partial = target / f".{name}"
                partial.write_bytes(source.read())
                partial.replace(target / name)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
