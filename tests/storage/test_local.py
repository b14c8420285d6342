"""What a local store promises when a writer or the disk dies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stereospot import errors
from stereospot.storage import files
from stereospot.storage.local import TEMPORARY, LocalStore, _Writer  # pyright: ignore[reportPrivateUsage]

KEY = "jobs/j1/1/final.mp4"

WRITER = """
import asyncio, sys
from pathlib import Path
from stereospot.storage.local import LocalStore

async def endless():
    while True:
        yield bytes(1 << 20)
        print("block", flush=True)

asyncio.run(LocalStore(Path(sys.argv[1])).put("jobs/j1/1/final.mp4", endless()))
"""


def _killed_in_the_middle(root: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        for _ in range(3):
            assert child.stdout.readline() == b"block\n"
        child.send_signal(signal.SIGKILL)
        child.wait(10)


def temporaries(root: Path) -> list[Path]:
    return list(root.rglob(f"{TEMPORARY}*"))


async def test_what_was_moved_here_has_been_here_since_then_and_not_since_it_was_made(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    film = tmp_path / "holiday.mkv"
    film.write_bytes(b"film")
    os.utime(film, (0, 0))
    (tmp_path / "input" / "holiday").mkdir(parents=True)
    film.rename(tmp_path / "input" / "holiday" / "source.mkv")
    found = await store.head("input/holiday/source.mkv")
    assert found is not None
    assert time.time() - found.modified < 3600


async def test_a_killed_writer_leaves_no_key_and_sweep_takes_its_rest(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await asyncio.to_thread(_killed_in_the_middle, tmp_path)
    [left] = temporaries(tmp_path)
    assert left.stat().st_size > 0
    assert await store.head(KEY) is None
    assert [info async for info in store.list("")] == []
    assert await store.sweep(3600) == 0
    old = time.time() - 4000
    os.utime(left, (old, old))
    assert await store.sweep(3600) == 1
    assert temporaries(tmp_path) == []


def test_a_full_disk_is_its_own_error(tmp_path: Path) -> None:
    # A file size limit raises EFBIG, not ENOSPC: only a small file system of its own shows the real thing.
    if not _mount_tmpfs(tmp_path):
        pytest.skip("no permission to mount a small file system in a namespace")
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=4m none {tmp_path} && exec "$0" -c "$1" {tmp_path}',
         sys.executable, FILL], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stdout.split() == ["STORAGE_FULL", "0", "True"], result.stderr


FILL = """
import asyncio, sys
from pathlib import Path
from stereospot import errors
from stereospot.storage.local import LocalStore

async def main():
    store = LocalStore(Path(sys.argv[1]))
    try:
        await store.put("jobs/j1/1/final.mp4", bytes(8 << 20))
    except errors.Transient as error:
        print(error.code)
    print(len(list(Path(sys.argv[1]).rglob(".put-*"))))
    print(await store.put("jobs/j1/1/plan.json", b"small"))

asyncio.run(main())
"""


def _mount_tmpfs(folder: Path) -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_the_folder_of_an_object_is_synced_before_put_returns(tmp_path: Path) -> None:
    """fsync of the bytes, then the name, then fsync of the folder: asked of the kernel by strace."""
    writer = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom stereospot.storage.local import LocalStore\n"
        "asyncio.run(LocalStore(Path(sys.argv[1])).put('jobs/j1/plan.json', b'{}'))\n"
    )
    calls = _traced([sys.executable, "-c", writer, str(tmp_path)], tmp_path / "trace")
    if calls is None:
        pytest.skip("strace is not installed")
    kinds = [line.split("(")[0].split()[-1] for line in calls if "fsync" in line or "rename" in line]
    assert kinds[-3:] == ["fsync", "rename", "fsync"]


def _traced(command: list[str], output: Path) -> list[str] | None:
    try:
        traced = ["strace", "-f", "-o", str(output), "-e", "trace=fsync,rename,renameat,renameat2", *command]
        subprocess.run(traced, check=True, timeout=60, capture_output=True)
    except FileNotFoundError:
        return None
    return output.read_text().splitlines()


async def test_a_copy_shares_its_bytes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.put(KEY, b"film")
    await store.copy(KEY, "jobs/j1/final.mp4")
    first, second = store.local_path(KEY), store.local_path("jobs/j1/final.mp4")
    assert first is not None
    assert second is not None
    assert first.samefile(second)


async def test_deleting_drops_empty_folders_but_never_the_root(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "storage")
    await store.put(KEY, b"film")
    await store.put("jobs/j1/1/plan.json", b"{}")
    await store.delete(KEY)
    assert (tmp_path / "storage/jobs/j1/1").is_dir()
    await store.delete("jobs/j1/1/plan.json")
    assert await asyncio.to_thread(os.listdir, tmp_path / "storage") == []


async def test_a_folder_without_permission_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(tmp_path / "file")
    with pytest.raises(errors.Transient) as caught:
        await store.put(KEY, b"film")
    assert caught.value.code == "STORAGE_UNAVAILABLE"


async def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    async def one(number: int) -> None:
        for turn in range(30):
            key = f"jobs/j1/{turn}/{number}"
            await store.put(key, b"x")
            await store.delete(key)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(one(number))
    assert [info async for info in store.list("")] == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
async def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's mark on its film lies in such a folder: whoever takes it for empty deletes the film."""
    store = LocalStore(tmp_path)
    await store.put("input/A/source.mp4", b"film")
    await store.put("input/A/used-by/B", b"")
    scandir = os.scandir

    def broken(path: str | Path) -> object:
        if Path(path).name in ("used-by", "lost+found"):
            raise OSError(code, os.strerror(code), str(path))
        return scandir(path)

    async def listed() -> list[str]:
        return [info.key async for info in store.list("input/")]

    monkeypatch.setattr(os, "scandir", broken)
    for look in (listed, lambda: store.delete_prefix("input/A/"), lambda: store.sweep(0)):
        with pytest.raises(errors.Transient) as caught:
            await look()
        assert caught.value.code == "STORAGE_UNAVAILABLE"
    monkeypatch.setattr(os, "scandir", scandir)
    assert await listed() == ["input/A/source.mp4", "input/A/used-by/B"]
    # What a file system of its own has in its root is none of ours.
    await store.delete("input/A/used-by/B")
    (tmp_path / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", broken)
    assert await store.sweep(0) == 0
    assert await listed() == ["input/A/source.mp4"]


async def test_an_object_that_cannot_be_looked_at_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    await store.put(KEY, b"film")
    looked = Path.stat

    def broken(path: Path, **options: bool) -> os.stat_result:
        if path.name == "final.mp4":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return looked(path, **options)

    monkeypatch.setattr(Path, "stat", broken)
    with pytest.raises(errors.Transient):
        await store.delete_prefix("jobs/")
    with pytest.raises(errors.Transient):
        await store.copy(KEY, "jobs/j1/final.mp4")


@pytest.mark.parametrize(("code", "is_told"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.EIO, True)])
def test_a_share_that_cannot_sync_a_folder_has_the_file_all_the_same(
    code: int, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="error") if is_told else contextlib.nullcontext():
        files.sync_folder_if_possible(tmp_path)


async def test_what_must_not_be_replaced_is_stored_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exFAT, some shares: everything that is stored only if it is absent, such as sound, needs another way there."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    async def blocks(data: bytes) -> AsyncIterator[bytes]:
        yield data

    monkeypatch.setattr(os, "link", refused)
    store = LocalStore(tmp_path)
    for key, data in ((KEY, b"first"), ("jobs/j1/2/final.mp4", blocks(b"first"))):
        assert await store.put(key, data, if_absent=True) is True
        assert await store.put(key, b"second", if_absent=True) is False
        assert await store.get(key) == b"first"
    # Another one was quicker, after this one had looked.
    answers = iter((False, True))
    monkeypatch.setattr(_Writer, "is_taken", lambda _: next(answers))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert await store.put(KEY, b"third", if_absent=True) is False
    assert await store.get(KEY) == b"first"
    assert temporaries(tmp_path) == []
