"""What only S3 does: buckets, and networks and stores that fail in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import ClientError

from stereospot import errors
from stereospot.storage import ObjectStore, multipart, open_store
from stereospot.storage.multipart import PART_BYTES
from stereospot.storage.s3 import READ_ATTEMPTS, S3Store
from tests.storage.conftest import s3_settings
from tests.storage.faulty import Fault, Faulty, faulty
from tests.storage.seaweed import Seaweed

KEY = "jobs/j1/1/final.mp4"
PARTS = 3 * PART_BYTES + 5


@pytest.fixture
async def proxy(s3_server: Seaweed) -> AsyncGenerator[Faulty]:
    async with faulty(s3_server.endpoint) as running:
        yield running


@pytest.fixture
async def store(s3_server: Seaweed, proxy: Faulty, tmp_path: Path) -> AsyncGenerator[ObjectStore]:
    opened = open_store(s3_settings(s3_server, tmp_path, s3_endpoint=proxy.endpoint))
    await opened.head(KEY)
    yield opened
    await opened.close()


async def stream(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 20):
        yield data[at : at + (1 << 20)]


@pytest.mark.parametrize("fault", ["503", "500", "drop", "reset", "torn", "unheard"])
async def test_a_failed_put_is_repeated(store: ObjectStore, proxy: Faulty, fault: Fault) -> None:
    proxy.inject(fault, "PUT ", times=2)
    assert await store.put(KEY, b"film") is True
    assert proxy.plan == []
    assert await store.get(KEY) == b"film"


@pytest.mark.parametrize("fault", ["503", "drop", "reset"])
async def test_a_failed_part_is_repeated(store: ObjectStore, proxy: Faulty, fault: Fault) -> None:
    data = random.Random(1).randbytes(PARTS)
    proxy.inject(fault, "PUT ", "partNumber=2")
    proxy.inject(fault, "PUT ", "partNumber=3")
    assert await store.put(KEY, stream(data)) is True
    assert proxy.plan == []
    assert await store.get(KEY) == data


@pytest.mark.parametrize("fault", ["200-with-error", "unheard", "503"])
async def test_a_completion_that_fails_or_is_not_heard(store: ObjectStore, proxy: Faulty, fault: Fault) -> None:
    data = random.Random(2).randbytes(PARTS)
    proxy.inject(fault, "POST ", "uploadId=")
    assert await store.put(KEY, stream(data)) is True
    assert proxy.plan == []
    assert await store.get(KEY) == data
    assert await store.sweep(-60) == 0


@pytest.mark.parametrize("fault", ["cut", "drop", "503"])
async def test_a_broken_download_goes_on_where_it_broke(store: ObjectStore, proxy: Faulty, fault: Fault) -> None:
    data = random.Random(3).randbytes(2_000_000)
    await store.put(KEY, data)
    proxy.inject(fault, "GET ", times=3)
    assert await store.get(KEY) == data
    assert await store.read(KEY, 100, 1_500_000) == data[100:1_500_100]
    assert proxy.plan == []


async def test_a_store_that_says_nothing_is_asked_again(s3_server: Seaweed, proxy: Faulty) -> None:
    """The shipped patience with silence is 60 s; here it is half a second."""
    opened = S3Store(
        "tests", endpoint=proxy.endpoint, access_key=s3_server.access_key, secret_key=s3_server.secret_key,
        prefix=f"run/{uuid.uuid4().hex}", read_timeout_seconds=0.5,
    )  # fmt: skip
    try:
        for method in ("PUT ", "GET "):
            proxy.inject("stall", method, times=2)
        assert await opened.put(KEY, b"film") is True
        assert await opened.get(KEY) == b"film"
        assert proxy.plan == []
    finally:
        await opened.close()


async def test_a_store_that_stays_away_is_transient(store: ObjectStore, proxy: Faulty) -> None:
    proxy.inject("drop", "", times=50)
    with pytest.raises(errors.Transient) as caught:
        await asyncio.wait_for(store.put(KEY, b"film"), 60)
    assert caught.value.code == "STORAGE_UNAVAILABLE"
    assert len(proxy.plan) > 30, "retries are bounded"


async def test_a_store_without_conditional_puts(store: ObjectStore, proxy: Faulty) -> None:
    proxy.inject("501", "If-None-Match: *", times=20)
    assert await store.put(KEY, b"first", if_absent=True) is True
    assert await store.put(KEY, b"second", if_absent=True) is False
    assert await store.put("jobs/j1/2/final.mp4", b"third", if_absent=True) is True
    assert await store.get(KEY) == b"first"
    left = len(proxy.plan)
    assert left < 20
    assert await store.put("jobs/j1/3/final.mp4", b"fourth", if_absent=True) is True
    assert len(proxy.plan) == left, "it was asked once and remembered"


async def test_a_copy_in_parts(store: ObjectStore) -> None:
    assert isinstance(store, S3Store)
    data = random.Random(4).randbytes(2 * PART_BYTES + 99)
    await store.put(KEY, data)
    client = await store._connected()  # pyright: ignore[reportPrivateUsage]
    origin = {"Bucket": "tests", "Key": store.prefix + KEY}
    target = {"Bucket": "tests", "Key": f"{store.prefix}jobs/j1/final.mp4"}
    await multipart.copy(client, origin, target, len(data), part_bytes=PART_BYTES)
    assert await store.get("jobs/j1/final.mp4") == data


async def test_unfinished_uploads_are_swept(store: ObjectStore) -> None:
    assert isinstance(store, S3Store)
    # The upload of a writer that was killed: begun with the same client, never completed.
    client = await store._connected()  # pyright: ignore[reportPrivateUsage]
    begun = await client.create_multipart_upload(Bucket="tests", Key=store.prefix + KEY)
    await client.upload_part(
        Bucket="tests", Key=store.prefix + KEY, UploadId=begun["UploadId"], PartNumber=1, Body=b"part"
    )
    assert await store.head(KEY) is None
    assert await store.sweep(3600) == 0
    # Somebody else's, in the same bucket.
    other = await client.create_multipart_upload(Bucket="tests", Key=f"{store.prefix}backup/reel-12.mov")
    assert await store.sweep(-60) == 1
    assert await store.sweep(-60) == 0
    name = {"Bucket": "tests", "Key": f"{store.prefix}backup/reel-12.mov", "UploadId": other["UploadId"]}
    await client.upload_part(**name, PartNumber=1, Body=b"part")
    await client.abort_multipart_upload(**name)


async def test_an_upload_that_takes_days_is_left_alone_while_parts_come(store: ObjectStore) -> None:
    assert isinstance(store, S3Store)

    def days_ago(parsed: Any, **_: object) -> None:
        for upload in parsed.get("Uploads", ()):
            upload["Initiated"] -= timedelta(days=2)

    client = await store._connected()  # pyright: ignore[reportPrivateUsage]
    client.meta.events.register("after-call.s3.ListMultipartUploads", days_ago)
    try:
        begun = await client.create_multipart_upload(Bucket="tests", Key=store.prefix + KEY)
        await client.upload_part(
            Bucket="tests", Key=store.prefix + KEY, UploadId=begun["UploadId"], PartNumber=1, Body=b"part"
        )
        assert await store.sweep(3600) == 0
        await client.create_multipart_upload(Bucket="tests", Key=store.prefix + KEY)
        assert await store.sweep(3600) == 1, "of one begun so long ago nothing has come"
        assert await store.sweep(-60) == 1
    finally:
        client.meta.events.unregister("after-call.s3.ListMultipartUploads", days_ago)


async def test_a_film_that_is_removed_from_scratch_on_its_way_has_arrived(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "film.mp4", multipart.read
    path.write_bytes(b"film")

    async def swept(given: Path) -> AsyncIterator[bytes]:
        async for block in read(given):
            await asyncio.to_thread(given.unlink)
            yield block

    monkeypatch.setattr(multipart, "read", swept)
    await store.put_file(KEY, path, move=True)
    assert await store.get(KEY) == b"film"
    monkeypatch.undo()
    with pytest.raises(errors.Permanent, match=r"There is no film\.mp4"):
        await store.put_file(KEY, path, move=True)


@asynccontextmanager
async def heard(store: S3Store, event: str, handler: Callable[..., None]) -> AsyncGenerator[None]:
    """An upload that is begun, and a handler of what the client does meanwhile."""
    client = await store._connected()  # pyright: ignore[reportPrivateUsage]
    await client.create_multipart_upload(Bucket="tests", Key=store.prefix + KEY)
    client.meta.events.register(event, handler)
    try:
        yield
    finally:
        client.meta.events.unregister(event, handler)


async def test_an_upload_that_ends_while_others_are_swept_stops_nothing(store: ObjectStore) -> None:
    assert isinstance(store, S3Store)

    def ended(parsed: Any, **_: object) -> None:
        listed = parsed.get("Uploads", [])
        parsed["Uploads"] = [item | {"UploadId": f"{item['UploadId'][:-1]}{end}"} for item in listed for end in "xy"]
        parsed["Uploads"] += listed

    async with heard(store, "after-call.s3.ListMultipartUploads", ended):
        assert await store.sweep(-60) == 1


async def test_an_upload_whose_parts_may_not_be_seen_is_left_alone(store: ObjectStore) -> None:
    assert isinstance(store, S3Store)

    def denied(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "s3:ListMultipartUploadParts"}}, "ListParts")

    async with heard(store, "before-call.s3.ListParts", denied):
        assert await store.sweep(-60) == 0
    assert await store.sweep(-60) == 1


class Answer:
    """The raw body of an answer that no server gave."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    async def read(self) -> bytes:
        return self._text


async def test_what_goes_to_aws_carries_the_sum_of_its_bytes() -> None:
    """Over TLS, too, where a signature may leave the body out: `when_required` sends no other sum."""
    sent: list[tuple[str, str, bytes]] = []

    def answer(request: Any, **_: object) -> AioAWSResponse:
        assert request.url.startswith("https://"), request.url
        data = request.body.getvalue() if isinstance(request.body, io.BytesIO) else request.body or b""
        sent.append((request.method, request.headers["X-Amz-Content-SHA256"].decode(), data))
        body = "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>"
        size = str(sum(len(data) for method, _, data in sent if method == "PUT"))
        headers = {"ETag": '"e"', "Content-Length": size, "Last-Modified": "Sun, 29 Nov 2026 00:00:00 GMT"}
        return AioAWSResponse(request.url, 200, headers, Answer(body if request.method == "POST" else ""))

    opened = S3Store("tests", access_key="A", secret_key="s")
    opened._session.events.register("before-send.s3", answer)  # pyright: ignore[reportPrivateUsage]
    try:
        for data in (b"film", random.Random(5).randbytes(PARTS)):
            sent.clear()
            assert await opened.put(KEY, stream(data)) is True
            parts = [(sha256, body) for method, sha256, body in sent if method == "PUT"]
            assert [sha256 for sha256, _ in parts] == [hashlib.sha256(body).hexdigest() for _, body in parts]
            assert sum(len(body) for _, body in parts) == len(data)
    finally:
        await opened.close()


async def test_a_missing_bucket_is_made(s3_server: Seaweed, tmp_path: Path) -> None:
    bucket = f"new-{uuid.uuid4().hex[:8]}"
    opened = open_store(s3_settings(s3_server, tmp_path, s3_bucket=bucket, s3_prefix=""))
    try:
        assert await opened.put(KEY, b"film") is True
        assert [info.key async for info in opened.list("jobs/")] == [KEY]
    finally:
        await opened.close()


async def test_wrong_keys_name_the_cause(s3_server: Seaweed, tmp_path: Path) -> None:
    opened = open_store(s3_settings(s3_server, tmp_path, s3_secret_key="wrong"))
    try:
        with pytest.raises(errors.Transient) as caught:
            await opened.get(KEY)
        assert caught.value.code == "STORAGE_UNAVAILABLE"
    finally:
        await opened.close()


async def test_a_store_that_is_away_at_the_start_costs_no_client_for_each_call(
    s3_server: Seaweed, proxy: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = S3Store(
        "tests", endpoint=proxy.endpoint, access_key=s3_server.access_key, secret_key=s3_server.secret_key,
        prefix=f"run/{uuid.uuid4().hex}", attempts=1,
    )  # fmt: skip
    client: Any = opened._session.client  # pyright: ignore[reportPrivateUsage]
    living: list[Any] = []

    @asynccontextmanager
    async def counted(**arguments: Any) -> AsyncGenerator[Any]:
        made: Any
        async with client(**arguments) as made:
            living.append(made)
            try:
                yield made
            finally:
                living.remove(made)

    monkeypatch.setattr(opened._session, "client", counted)  # pyright: ignore[reportPrivateUsage]
    proxy.inject("503", "HEAD ", times=6)
    try:
        for _ in range(3):  # each is asked twice
            with pytest.raises(errors.Transient):
                await opened.head(KEY)
        assert living == []
        assert await opened.head(KEY) is None
        assert len(living) == 1
    finally:
        await opened.close()
    assert living == []


async def test_a_download_that_breaks_often_and_comes_on_is_not_given_up(store: ObjectStore, proxy: Faulty) -> None:
    data = random.Random(6).randbytes(2_500_000)
    await store.put(KEY, data)
    proxy.inject("cut", "GET ", times=READ_ATTEMPTS + 1)
    assert await store.get(KEY) == data
    assert proxy.plan == []
