"""Packages of npm that tests load into the browser: pinned, checked against their sha512, never committed."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest

FETCH_SECONDS = 90

PACKAGES = {
    "axe-core": (
        "4.14.1",
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "package/axe.min.js",
    ),
    "iwer": (
        "2.5.0",
        "grq7iMyWo4s2DYnATKLPPoAByhcNuwLjMHHOILrFU9q8EGHIEzHyUuq1mz+9Xqy6+xrYPn3Ho8Z9eymZCE+D6w==",
        "package/build/iwer.min.js",
    ),
}
"""Name: version, sha512 of the tarball as the registry publishes it, and the one file of it that is used."""


@cache
def text(name: str) -> str:
    """The file of package `name`; skips the test where there is no npm or no way to the registry. Blocking."""
    version, integrity, member = PACKAGES[name]
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"there is no npm to fetch {name} with")
    with tempfile.TemporaryDirectory(prefix="stereospot-npm-") as folder:
        command = [npm, "pack", f"{name}@{version}", "--silent", "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(command, check=False, timeout=FETCH_SECONDS, capture_output=True, cwd=folder)
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or not found:
            pytest.skip(f"npm does not fetch {name} {version}")
        digest = base64.b64encode(hashlib.sha512(found[0].read_bytes()).digest()).decode()
        assert digest == integrity, f"{name} {version} is not the package that was reviewed"
        with tarfile.open(found[0]) as archive:
            source = archive.extractfile(member)
            assert source is not None
            return source.read().decode()
