"""The build hook: hls.js comes into a build checked, or the build does without and says so; it is never committed.

Real builds by hatchling of a tree with the project's own build files, and an npm that hands out what a test packed.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from services.gateway import assets

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("stereospot", "services", "streams_config", "inference")
VENDOR = Path("services/gateway/static/vendor")


def constants() -> dict[str, object]:
    """What the hook pins, without importing it: its base class is there for builds only."""
    found: dict[str, object] = {}
    for node in ast.parse((ROOT / "hatch_build.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            expression = ast.Expression(node.value)
            found[node.targets[0].id] = eval(compile(expression, "hatch_build.py", "eval"), {}, found)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The project's build files around packages that are all but empty."""
    root = tmp_path / "project"
    for name in PACKAGES:
        (root / name).mkdir(parents=True)
        shutil.copy(ROOT / name / "__init__.py", root / name)
    (root / VENDOR).mkdir(parents=True)
    shutil.copy(ROOT / VENDOR / ".gitignore", root / VENDOR)
    (root / VENDOR.parent / "style.css").write_text("/* ours */")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    return root


def tarball(script: bytes) -> bytes:
    """A package as npm packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in (("package/dist/hls.min.mjs", script), ("package/LICENSE", b"Apache-2.0")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def npm(folder: Path, packed: bytes) -> Path:
    """A folder for PATH with an npm that packs these bytes, whatever it is asked for."""
    folder.mkdir()
    (folder / "packed.tgz").write_bytes(packed)
    program = folder / "npm"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "target = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        "shutil.copy(pathlib.Path(__file__).with_name('packed.tgz'), target / 'hls.js.tgz')\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def build(root: Path, path: Path) -> tuple[str, dict[str, bytes]]:
    """What a build says, and the files of its wheel below `static`."""
    pytest.importorskip("hatchling", reason="the package hatchling is in the dev group")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root.parent / "out")]
    environment = os.environ | {"PATH": str(path)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (wheel,) = (root.parent / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        below = f"{VENDOR.parent.as_posix()}/"
        names = [name for name in archive.namelist() if below in name and not name.endswith(".gitignore")]
        return said, {name.removeprefix(below): archive.read(name) for name in names}


def test_what_was_checked_is_in_the_build(tree: Path, tmp_path: Path) -> None:
    packed = tarball(b"export default 1;")
    hook = tree / "hatch_build.py"
    pinned = str(constants()["INTEGRITY"])
    mine = base64.b64encode(hashlib.sha512(packed).digest()).decode()
    hook.write_text(hook.read_text().replace(pinned, mine))
    said, found = build(tree, npm(tmp_path / "bin", packed))
    assert found[assets.HLS] == b"export default 1;", "what git ignores is in it all the same"
    assert len([name for name in found if name.startswith("vendor/")]) == 2
    assert "is not in this build" not in said


def test_other_bytes_than_were_pinned_are_refused(tree: Path, tmp_path: Path) -> None:
    said, found = build(tree, npm(tmp_path / "bin", tarball(b"steal(document.cookie);")))
    assert set(found) == {"style.css"}
    assert "is not in this build (its sha512 is " in said
    assert [path.name for path in (tree / VENDOR).iterdir()] == [".gitignore"]


def test_without_npm_the_build_goes_on_and_says_what_it_lacks(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    said, found = build(tree, tmp_path / "bin")
    assert set(found) == {"style.css"}
    assert "is not in this build (there is no npm): pages use the browser's own HLS player" in " ".join(said.split())


def test_pages_ask_for_what_the_hook_puts_there() -> None:
    members = constants()["MEMBERS"]
    assert isinstance(members, dict)
    assert assets.HLS in {f"vendor/{name}" for name in members.values()}  # pyright: ignore[reportUnknownVariableType]


def test_nothing_of_others_is_committed() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    git = ["git", "-C", str(ROOT)]
    listed = subprocess.run([*git, "ls-files", str(VENDOR)], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == [str(VENDOR / ".gitignore")]
    ignored = subprocess.run([*git, "check-ignore", "-q", str(VENDOR.parent / assets.HLS)], check=False)
    assert ignored.returncode == 0
