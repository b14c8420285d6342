"""Objects that come in pieces: one behaviour, every store."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from stereospot import errors
from stereospot.settings import Settings
from stereospot.storage import ObjectStore, open_store
from stereospot.storage.base import Partial
from stereospot.storage.s3_partial import part_bytes
from tests.storage.conftest import s3_settings
from tests.storage.faulty import faulty
from tests.storage.seaweed import Seaweed

KEY = "input/U1/source.mp4"
SCRATCH = "uploads/U1/"
MIB = 1 << 20
DATA = random.Random(3).randbytes(13 * MIB + 77)


async def pieces(data: bytes, size: int = 65_536, fail: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
    if fail:
        raise EOFError("the sender has gone")


@pytest.mark.parametrize("step", [MIB // 2 + 1, 5 * MIB, 7 * MIB, len(DATA)])
async def test_pieces_become_the_object(store: ObjectStore, settings: Settings, step: int) -> None:
    handle = await store.begin(KEY, SCRATCH)
    offset = 0
    while offset < len(DATA):
        # Another process each time: nothing is left in memory.
        other = open_store(settings)
        partial = other.partial(KEY, SCRATCH, handle, len(DATA))
        assert (await partial.progress()).size == offset
        assert await other.head(KEY) is None
        assert [info.key async for info in other.list("input/")] == []
        assert await partial.append(offset, pieces(DATA[offset : offset + step])) == min(offset + step, len(DATA))
        offset = min(offset + step, len(DATA))
        await other.close()
    partial = store.partial(KEY, SCRATCH, handle, len(DATA))
    for _ in range(2):
        await partial.finish()
    found = await partial.progress()
    assert (found.size, found.finished) == (len(DATA), True)
    assert await store.get(KEY) == DATA
    await store.delete_prefix(SCRATCH)
    assert [info.key async for info in store.list("")] == [KEY]


async def test_bytes_at_a_wrong_place_are_refused(store: ObjectStore) -> None:
    handle = await store.begin(KEY, SCRATCH)
    partial = store.partial(KEY, SCRATCH, handle, 1000)
    assert await partial.append(0, pieces(b"a" * 400)) == 400
    for offset in (0, 399, 401):
        with pytest.raises(errors.Permanent) as caught:
            await partial.append(offset, pieces(b"b"))
        assert (caught.value.code, caught.value.details["offset"]) == ("CONFLICT", 400)
    with pytest.raises(errors.Permanent) as caught:
        await partial.finish()
    assert caught.value.code == "UPLOAD_INCOMPLETE"
    assert (await partial.progress()).size == 400


async def test_what_breaks_off_leaves_a_true_offset(store: ObjectStore) -> None:
    handle = await store.begin(KEY, SCRATCH)
    partial = store.partial(KEY, SCRATCH, handle, len(DATA))
    with pytest.raises(EOFError):
        await partial.append(0, pieces(DATA[: 11 * MIB], fail=True))
    offset = (await partial.progress()).size
    assert 10 * MIB <= offset <= 11 * MIB
    await partial.append(offset, pieces(DATA[offset:]))
    await partial.finish()
    assert await store.get(KEY) == DATA


async def test_discard_leaves_nothing(store: ObjectStore) -> None:
    for finished in (False, True):
        handle = await store.begin(KEY, SCRATCH)
        partial = store.partial(KEY, SCRATCH, handle, 6 * MIB)
        await partial.append(0, pieces(DATA[: (6 if finished else 5) * MIB + (0 if finished else 9)]))
        if finished:
            await partial.finish()
        for _ in range(2):
            await partial.discard()
        assert [info.key async for info in store.list("")] == []
        with pytest.raises(errors.Permanent) as caught:
            await partial.progress()
        assert caught.value.code == "SOURCE_MISSING"


async def test_sweep_knows_what_still_grows(store: ObjectStore) -> None:
    for number in (1, 2):
        key, scratch = f"input/U{number}/source.mp4", f"uploads/U{number}/"
        handle = await store.begin(key, scratch)
        await store.partial(key, scratch, handle, 1000).append(0, pieces(b"a" * 10))
    assert await store.sweep(3600) == 0
    await store.sweep(0, keep=frozenset({"input/U1/source.mp4"}))
    handle = await store.begin("input/U3/source.mp4", "uploads/U3/")
    assert (await store.partial("input/U3/source.mp4", "uploads/U3/", handle, 10).progress()).size == 0


def test_parts_are_within_the_protocols_limits() -> None:
    for size in (1, 5 * MIB, 50 << 30, 400 << 30, 5 << 40):
        step = part_bytes(size)
        assert step >= 5 * MIB
        assert step % MIB == 0
        assert -(-size // step) <= 10_000


async def test_a_kept_multipart_upload_goes_on(s3_server: Seaweed, tmp_path: Path) -> None:
    store = open_store(s3_settings(s3_server, tmp_path))
    handles = [await store.begin(f"input/U{number}/source.mp4", f"uploads/U{number}/") for number in (1, 2)]
    assert await store.sweep(0, keep=frozenset({"input/U1/source.mp4"})) == 1
    kept = store.partial("input/U1/source.mp4", "uploads/U1/", handles[0], 10)
    assert await kept.append(0, pieces(b"0123456789")) == 10
    gone = store.partial("input/U2/source.mp4", "uploads/U2/", handles[1], 10)
    with pytest.raises(errors.Permanent):
        await gone.append(0, pieces(b"0123456789"))
    await store.close()


@asynccontextmanager
async def in_parts(server: Seaweed, folder: Path) -> AsyncGenerator[tuple[Partial, list[bytes]]]:
    """The object before it is sent straight to the store, and what its parts hold: what was sent is it in the end."""
    store = open_store(s3_settings(server, folder))
    handle = await store.begin(KEY, SCRATCH)
    partial = store.partial(KEY, SCRATCH, handle, len(DATA))
    step = partial.part_bytes
    assert step is not None
    yield partial, [DATA[start : start + step] for start in range(0, len(DATA), step)]
    await partial.finish()
    assert await store.get(KEY) == DATA
    await store.close()


async def test_clients_put_parts_straight_to_the_store(s3_server: Seaweed, tmp_path: Path) -> None:
    async with in_parts(s3_server, tmp_path) as (partial, parts):
        async with httpx.AsyncClient(trust_env=False) as client:
            for number in (3, 1, 2, 2):  # one of them was sent again: the answer to it may have got lost
                signed = await partial.presign(number)
                assert signed is not None
                assert (await client.put(signed.url, content=parts[number - 1])).status_code == 200
                assert (await partial.parts())[number] == len(parts[number - 1])
            last = await partial.presign(3)
            assert last is not None
            forged = last.url.replace("partNumber=3", "partNumber=1")
            assert (await client.put(forged, content=b"x")).status_code == 403
        for number in (0, 4):
            with pytest.raises(errors.Permanent):
                await partial.presign(number)


async def test_parts_with_their_sums_are_stored_as_they_were_sent_or_not_at_all(
    s3_server: Seaweed, tmp_path: Path
) -> None:
    async with in_parts(s3_server, tmp_path) as (partial, parts), httpx.AsyncClient(trust_env=False) as client:
        assert len(parts) == 3
        for number, piece in enumerate(parts, 1):
            signed = await partial.presign(number, sha256=hashlib.sha256(piece).digest())
            assert signed is not None
            damaged = piece[:-1] + bytes([piece[-1] ^ 1])
            refused = await client.put(signed.url, content=damaged, headers=signed.headers)
            assert (refused.status_code, "BadDigest" in refused.text) == (400, True)
            assert number not in await partial.parts()
            assert (await client.put(signed.url, content=piece)).status_code == 403, "the sum is signed"
            assert (await client.put(signed.url, content=piece, headers=signed.headers)).status_code == 200


async def test_a_completion_that_went_unheard_is_one(s3_server: Seaweed, tmp_path: Path) -> None:
    async with faulty(s3_server.endpoint) as proxy:
        store = open_store(s3_settings(s3_server, tmp_path, s3_endpoint=proxy.endpoint))
        handle = await store.begin(KEY, SCRATCH)
        partial = store.partial(KEY, SCRATCH, handle, len(DATA))
        proxy.inject("503", "PUT", "partNumber=1")
        proxy.inject("drop", "GET", "uploadId=")
        await partial.append(0, pieces(DATA))
        proxy.inject("unheard", "POST", "uploadId=")
        await partial.finish()
        assert await store.get(KEY) == DATA
        await store.close()


async def test_a_remainder_whose_download_breaks_off_is_the_store_s_trouble(s3_server: Seaweed, tmp_path: Path) -> None:
    async with faulty(s3_server.endpoint) as proxy:
        store = open_store(s3_settings(s3_server, tmp_path, s3_endpoint=proxy.endpoint))
        partial = store.partial(KEY, SCRATCH, await store.begin(KEY, SCRATCH), len(DATA))
        await partial.append(0, pieces(DATA[:MIB]))
        proxy.inject("cut", "GET", "rest-")
        with pytest.raises(errors.Transient) as caught:
            await partial.append(MIB, pieces(DATA[MIB:]))
        assert caught.value.code == "STORAGE_UNAVAILABLE"
        await partial.append(MIB, pieces(DATA[MIB:]))
        await partial.finish()
        assert await store.get(KEY) == DATA
        await store.close()
