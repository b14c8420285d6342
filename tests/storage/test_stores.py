"""What every `ObjectStore` promises, asked of each of them: files, and a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stereospot import errors
from stereospot.storage import ObjectStore
from stereospot.storage.multipart import PART_BYTES

KEY = "jobs/j1/1/segments/00000.m4s"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def collected(stream: AsyncIterator[bytes]) -> bytes:
    blocks = [block async for block in stream]
    assert all(0 < len(block) <= 1 << 20 for block in blocks)
    return b"".join(blocks)


async def names(store: ObjectStore, prefix: str) -> list[str]:
    return [info.key async for info in store.list(prefix)]


async def test_round_trip(store: ObjectStore) -> None:
    assert await store.put(KEY, b"abc") is True
    assert await store.get(KEY) == b"abc"
    info = await store.head(KEY)
    assert info is not None
    assert (info.key, info.size) == (KEY, 3)
    assert info.etag
    assert '"' not in info.etag


async def test_history_hears_of_what_is_stored_and_only_of_that(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    def record(kind: str, *, key: str) -> None:
        told.append((kind, key))

    monkeypatch.setattr("stereospot.history.record", record)
    await store.put(KEY, b"abc")
    assert await store.put(KEY, b"abc", if_absent=True) is False
    (tmp_path / "film").write_bytes(b"x")
    await store.put_file("jobs/j1/1/final.mp4", tmp_path / "film")
    assert set(told) == {("put", KEY), ("put", "jobs/j1/1/final.mp4")}


async def test_nothing_there(store: ObjectStore) -> None:
    assert await store.get(KEY) is None
    assert await store.head(KEY) is None
    assert await names(store, "") == []
    await store.delete(KEY)
    assert await store.delete_prefix("jobs/j1/") == 0
    with pytest.raises(errors.Permanent, match="There is no") as caught:
        await store.read(KEY, 0, 1)
    assert caught.value.code == "SOURCE_MISSING"
    with pytest.raises(errors.Permanent):
        await collected(store.stream(KEY))
    with pytest.raises(errors.Permanent):
        await store.copy(KEY, "jobs/j1/final.mp4")
    with pytest.raises(errors.Permanent):
        await store.put_file(KEY, Path("/nowhere/film.mp4"))


async def test_a_folder_is_not_an_object(store: ObjectStore) -> None:
    await store.put(KEY, b"abc")
    assert await store.get("jobs/j1") is None
    assert await store.head("jobs/j1/1") is None


@pytest.mark.parametrize("size", [0, 1, 1 << 20, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 77])
async def test_streamed_sizes(store: ObjectStore, size: int) -> None:
    data = random.Random(size).randbytes(size)
    cuts = [data[at : at + 1_300_001] for at in range(0, size, 1_300_001)]
    assert await store.put(KEY, pieces(*cuts)) is True
    assert hashlib.sha256(await collected(store.stream(KEY))).digest() == hashlib.sha256(data).digest()
    assert await store.get(KEY) == data


async def test_large_bytes(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(2 * PART_BYTES + 5)
    await store.put(KEY, data)
    assert await store.get(KEY) == data


async def test_ranges(store: ObjectStore) -> None:
    data = random.Random(2).randbytes(3_000_000)
    await store.put(KEY, data)
    assert await store.read(KEY, 0, 10) == data[:10]
    assert await store.read(KEY, 1_234_567, 1_500_000) == data[1_234_567:2_734_567]
    assert await store.read(KEY, len(data) - 5, 100) == data[-5:]
    assert await store.read(KEY, len(data), 100) == b""
    assert await store.read(KEY, len(data) + 50, 100) == b""
    assert await store.read(KEY, 7, 0) == b""
    assert await collected(store.stream(KEY, 5)) == data[5:]
    assert await collected(store.stream(KEY, 5, 1_100_000)) == data[5:1_100_000]


async def test_an_abandoned_stream_leaves_the_store_usable(store: ObjectStore) -> None:
    await store.put(KEY, bytes(3 << 20))
    stream = store.stream(KEY)
    assert len(await anext(stream)) > 0
    await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
    assert await store.read(KEY, 0, 4) == bytes(4)


async def test_a_put_replaces(store: ObjectStore) -> None:
    await store.put(KEY, b"one")
    first = await store.head(KEY)
    await store.put(KEY, b"other")
    second = await store.head(KEY)
    assert first is not None
    assert second is not None
    assert first.etag != second.etag
    assert await store.get(KEY) == b"other"


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
async def test_if_absent_keeps_what_is_there(store: ObjectStore, size: int) -> None:
    assert await store.put(KEY, pieces(b"a" * size), if_absent=True) is True
    assert await store.put(KEY, pieces(b"b" * size), if_absent=True) is False
    assert await store.read(KEY, 0, 1) == b"a"


async def test_if_absent_has_one_winner(store: ObjectStore) -> None:
    bodies = [bytes([number]) * 1000 for number in range(8)]
    stored = await asyncio.gather(*(store.put(KEY, body, if_absent=True) for body in bodies))
    assert sum(stored) == 1
    assert await store.get(KEY) == bodies[stored.index(True)]


@pytest.mark.parametrize("size", [100, 2 * PART_BYTES])
async def test_a_stream_that_raises_stores_nothing(store: ObjectStore, size: int) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(size)
        yield bytes(size)
        raise RuntimeError("the client went away")

    with pytest.raises(RuntimeError, match="went away"):
        await store.put(KEY, broken())
    assert await store.head(KEY) is None
    assert await store.sweep(-60) == 0


@pytest.mark.parametrize("size", [100, 2 * PART_BYTES])
async def test_a_cancelled_put_stores_nothing(store: ObjectStore, size: int) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(size)
        yield bytes(size)
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put(KEY, endless()))
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.head(KEY) is None
    assert await store.sweep(-60) == 0


@pytest.mark.parametrize("size", [5, PART_BYTES + 5])
async def test_put_file(store: ObjectStore, tmp_path: Path, size: int) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(size))
    await store.put_file("input/j1/source.mp4", path)
    assert path.exists()
    path.write_bytes(b"changed afterwards")
    info = await store.head("input/j1/source.mp4")
    assert info is not None
    assert info.size == size
    await store.put_file("input/j2/source.mp4", path, move=True)
    assert not path.exists()
    assert await store.get("input/j2/source.mp4") == b"changed afterwards"


async def test_copy(store: ObjectStore) -> None:
    await store.put("jobs/j1/1/final.mp4", b"film one")
    await store.put("jobs/j1/2/final.mp4", b"film two")
    alias = "jobs/j1/final.mp4"
    await store.copy("jobs/j1/1/final.mp4", alias)
    await store.copy("jobs/j1/1/final.mp4", alias)
    assert await store.get(alias) == b"film one"
    await store.copy("jobs/j1/2/final.mp4", alias)
    assert await store.get(alias) == b"film two"
    await store.delete("jobs/j1/2/final.mp4")
    assert await store.get(alias) == b"film two"
    assert await store.get("jobs/j1/1/final.mp4") == b"film one"


async def test_lists_by_key(store: ObjectStore) -> None:
    keys = ["jobs/j10/plan.json", "jobs/j1/1/plan.json", "jobs/j1/1/plan/000000.json", "input/j1/source.mp4"]
    for key in keys:
        await store.put(key, key.encode())
    assert await names(store, "") == sorted(keys)
    assert await names(store, "jobs/j1") == ["jobs/j1/1/plan.json", "jobs/j1/1/plan/000000.json", "jobs/j10/plan.json"]
    assert await names(store, "jobs/j1/") == ["jobs/j1/1/plan.json", "jobs/j1/1/plan/000000.json"]
    assert await names(store, "jobs/j2/") == []
    assert [info.size async for info in store.list("input/")] == [len("input/j1/source.mp4")]


async def test_delete_prefix_takes_one_job_only(store: ObjectStore) -> None:
    for key in ("jobs/j1/1/a", "jobs/j1/1/b/c", "jobs/j10/1/a"):
        await store.put(key, b"x")
    assert await store.delete_prefix("jobs/j1/") == 2
    assert await names(store, "") == ["jobs/j10/1/a"]
    with pytest.raises(ValueError, match="prefix"):
        await store.delete_prefix("jobs/j1")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".put-1", "a/.put-2", "a\\b", "a b"]
)
async def test_only_keys(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        await store.put(key, b"")
    with pytest.raises(ValueError, match="storage key"):
        await store.get(key)
    with pytest.raises(ValueError, match="storage key"):
        await store.delete(key)


async def test_free_bytes(store: ObjectStore) -> None:
    free = await store.free_bytes()
    assert free is None or free > 0
    assert (free is None) == (store.local_path(KEY) is None)


async def test_forty_at_a_time(store: ObjectStore) -> None:
    async def one(number: int) -> None:
        key = f"jobs/j{number}/1/segments/{number:05d}.m4s"
        data = random.Random(number).randbytes(200_000)
        await store.put(key, data)
        assert await store.get(key) == data

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(one(number))
    assert len(await names(store, "jobs/")) == 40
