"""Resumable uploads over a real broker and real stores: the protocol, broken connections, restarts, kill -9."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import os
import random
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services import intake
from services.gateway import tus
from services.janitor import Janitor
from stereospot import errors, keys
from tests.storage.conftest import s3_settings
from tests.storage.seaweed import Seaweed, seaweed
from tests.support import Nats, eventually, nats_server
from tests.system.gateway import Served, served

MIB = 1 << 20
FTYP = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}


def film(size: int, seed: int = 1) -> bytes:
    """Bytes that begin as an mp4 does."""
    return (FTYP + random.Random(seed).randbytes(size))[:size]


def meta(**values: str) -> dict[str, str]:
    return {
        "Upload-Metadata": ",".join(
            f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items()
        )
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Nats]:
    with nats_server() as running:
        yield running


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Seaweed]:
    with seaweed() as running:
        yield running


@pytest.fixture(params=["local", "s3"])
def stored_on(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of the store that the gateway writes to."""
    if request.param == "local":
        return {}
    return s3_values(request.getfixturevalue("s3_server"), tmp_path)


def s3_values(server: Seaweed, folder: Path) -> dict[str, Any]:
    settings = s3_settings(server, folder)
    return settings.model_dump(include={name for name in type(settings).model_fields if name.startswith("s3_")}) | {
        "storage": "s3"
    }


@pytest.fixture
async def gateway(server: Nats, tmp_path: Path) -> AsyncGenerator[Served]:
    async with served(server, tmp_path / "data") as running:
        yield running


async def begin(gateway: Served, size: int, **values: str) -> str:
    headers = TUS | {"Upload-Length": str(size)} | (meta(**values) if values else {})
    answer = await gateway.client.post("/api/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["upload-offset"] == "0"
    return answer.headers["location"]


async def send(gateway: Served, location: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    named = BYTES | {"Upload-Offset": str(offset)} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.client.patch(location, headers=named, content=data)


async def offset_of(gateway: Served, location: str) -> int:
    answer = await gateway.client.head(location, headers=TUS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


async def stored_keys(gateway: Served) -> list[str]:
    return [info.key async for info in gateway.context.store.list("")]


# ---- the whole way ---------------------------------------------------------------------------------------
async def test_in_pieces_through_restarts_to_a_job(server: Nats, tmp_path: Path, stored_on: dict[str, Any]) -> None:
    data = film(6 * MIB + 12_345)
    sha256 = hashlib.sha256(data).hexdigest()
    cuts = [0, 1000, 5 * MIB + 3, len(data)]
    location = ""
    for start, end in itertools.pairwise(cuts):
        async with served(server, tmp_path / "data", **stored_on) as gateway:
            if not location:
                location = await begin(gateway, len(data), filename="../My film.MP4", sha256=sha256.upper())
            assert await offset_of(gateway, location) == start
            answer = await send(gateway, location, start, data[start:end])
            assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(end))
            assert "upload-expires" in answer.headers
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        assert await offset_of(gateway, location) == len(data)
        resource = (await gateway.client.get(location)).json()
        assert resource == resource | {
            "name": "My film.MP4", "size_bytes": len(data), "offset": len(data), "stored": True, "sha256": sha256,
            "media_type": "video/mp4",
        }  # fmt: skip
        made = await gateway.client.post("/api/v1/jobs", json={"upload": resource["upload_id"], "sha256": sha256})
        assert made.status_code == 201, made.text
        job = made.json()
        assert job["job_id"] == resource["upload_id"]
        assert job["title"] == "My film"
        assert job["source"] == {"name": "My film.MP4", "size_bytes": len(data), "digest": f"sha256:{sha256}"}
        assert await gateway.context.store.get(keys.source(job["job_id"], "mp4")) == data
        refused = await gateway.client.delete(location, headers=TUS)
        assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")


async def test_creation_with_upload(gateway: Served) -> None:
    data = film(300_000)
    headers = BYTES | {"Upload-Length": str(len(data))}
    answer = await gateway.client.post("/api/v1/uploads", headers=headers | meta(filename="a.mkv"), content=data[:1000])
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "1000")
    location = answer.headers["location"]
    assert (await send(gateway, location, 1000, data[1000:])).status_code == 204
    whole = await gateway.client.post("/api/v1/uploads", headers=headers, content=data)
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, str(len(data)))
    made = await gateway.client.post("/api/v1/jobs", json={"upload": whole.headers["location"].rpartition("/")[2]})
    assert made.json()["source"]["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_what_the_server_offers(gateway: Served) -> None:
    answer = await gateway.client.request("OPTIONS", "/api/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,creation-with-upload,termination,checksum,expiration"
    assert answer.headers["tus-max-size"] == str(gateway.context.settings.max_upload_bytes)
    assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")


async def test_refusals(gateway: Served) -> None:
    location = await begin(gateway, 1000)
    create = ("POST", "/api/v1/uploads")
    append = ("PATCH", location)
    at = BYTES | {"Upload-Offset": "0"}
    table: list[tuple[tuple[str, str], dict[str, str], bytes, int, str]] = [
        (create, TUS | {"Upload-Length": "0"}, b"", 422, "EMPTY_INPUT"),
        (create, TUS | {"Upload-Length": str(1 << 50)}, b"", 507, "STORAGE_FULL"),
        (create, TUS | {"Upload-Length": "-1"}, b"", 400, "INVALID_REQUEST"),
        (create, TUS, b"", 400, "INVALID_REQUEST"),
        (create, TUS | {"Upload-Defer-Length": "1"}, b"", 400, "INVALID_REQUEST"),
        (create, TUS | {"Upload-Length": "5", "Upload-Metadata": "filename %%"}, b"", 400, "INVALID_REQUEST"),
        (create, TUS | {"Upload-Length": "5"} | meta(sha256="no"), b"", 400, "INVALID_REQUEST"),
        (create, {"Tus-Resumable": "0.2.2", "Upload-Length": "5"}, b"", 412, "PRECONDITION_FAILED"),
        (append, at | {"Tus-Resumable": "2.0.0"}, b"x", 412, "PRECONDITION_FAILED"),
        (append, at | {"Content-Type": "text/plain"}, b"x", 415, "INVALID_REQUEST"),
        (append, at | {"Upload-Offset": "5"}, b"x", 409, "CONFLICT"),
        (append, at | {"Upload-Offset": "x"}, b"x", 400, "INVALID_REQUEST"),
        (append, at, bytes(1001), 413, "TOO_LARGE"),
        (append, at | {"Upload-Checksum": "crc32 AAAA"}, b"x", 400, "INVALID_REQUEST"),
        (("PATCH", "/api/v1/uploads/none"), at, b"x", 404, "NOT_FOUND"),
        (("PATCH", "/api/v1/uploads/..%2fx"), at, b"x", 404, "NOT_FOUND"),
        (("DELETE", "/api/v1/uploads/none"), TUS, b"", 404, "NOT_FOUND"),
        (("GET", "/api/v1/uploads/none"), {}, b"", 404, "NOT_FOUND"),
    ]
    for (method, path), headers, body, status, code in table:
        answer = await gateway.client.request(method, path, headers=headers, content=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (method, path, headers, answer.text)
        if status == 412:
            assert answer.headers["tus-version"] == "1.0.0"
    assert (await gateway.client.head("/api/v1/uploads/none", headers=TUS)).status_code == 404
    assert await offset_of(gateway, location) == 0
    early = await gateway.client.post("/api/v1/jobs", json={"upload": location.rpartition("/")[2]})
    assert (early.status_code, early.json()["code"]) == (400, "UPLOAD_INCOMPLETE")


# ---- what is checked -------------------------------------------------------------------------------------
async def test_a_piece_with_its_checksum(gateway: Served) -> None:
    data = film(9 * MIB)
    location = await begin(gateway, len(data))
    offset = 0
    for algorithm, size in (("sha1", 1000), ("md5", 70_000), ("sha256", len(data) - 71_000)):
        piece = data[offset : offset + size]
        digest = base64.b64encode(hashlib.new(algorithm, piece).digest()).decode()
        damaged = bytes([piece[0] ^ 1]) + piece[1:]
        wrong = await send(gateway, location, offset, damaged, Upload_Checksum=f"{algorithm} {digest}")
        assert (wrong.status_code, wrong.json()["code"]) == (460, "CHECKSUM_MISMATCH")
        assert await offset_of(gateway, location) == offset
        right = await send(gateway, location, offset, piece, Upload_Checksum=f"{algorithm} {digest}")
        assert right.status_code == 204, right.text
        offset += size
    resource = (await gateway.client.get(location)).json()
    assert resource["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_wrong_whole_is_removed(gateway: Served) -> None:
    data = film(100_000)
    location = await begin(gateway, len(data), sha256="0" * 64)
    answer = await send(gateway, location, 0, data)
    assert (answer.status_code, answer.json()["code"]) == (460, "CHECKSUM_MISMATCH")
    assert await stored_keys(gateway) == []
    location = await begin(gateway, len(data))
    assert (await send(gateway, location, 0, data)).status_code == 204
    job = {"upload": location.rpartition("/")[2], "sha256": "0" * 64}
    assert (await gateway.client.post("/api/v1/jobs", json=job)).json()["code"] == "CHECKSUM_MISMATCH"


async def test_what_is_no_film_is_refused_with_its_first_bytes(gateway: Served) -> None:
    for head in (
        b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"PK\x03\x04\x14\0",
    ):
        location = await begin(gateway, 10_000_000, filename="film.mp4")
        answer = await send(gateway, location, 0, head)
        assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_CONTAINER"), head
        assert (await gateway.client.head(location, headers=TUS)).status_code == 404
        raw = await gateway.client.put("/api/v1/uploads?name=film.mp4", content=head)
        assert raw.json()["code"] == "UNSUPPORTED_CONTAINER"
    assert await stored_keys(gateway) == []
    # The name does not matter, only the bytes.
    location = await begin(gateway, 1000, filename="notes.txt")
    assert (await send(gateway, location, 0, film(1000))).status_code == 204
    assert (await gateway.client.get(location)).json()["media_type"] == "video/mp4"


# ---- connections and processes that die ------------------------------------------------------------------
async def broken(url: str, location: str, offset: int, data: bytes, announced: int) -> asyncio.StreamWriter:
    """A PATCH that sends `data` of `announced` bytes and is then silent."""
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
    head = (
        f"PATCH {location} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {announced}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()
    return writer


async def test_what_came_before_a_broken_connection_counts(
    server: Nats, tmp_path: Path, stored_on: dict[str, Any]
) -> None:
    data = film(2 * MIB)
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        location = await begin(gateway, len(data))
        writer = await broken(gateway.url, location, 0, data[: MIB + 5], len(data))

        async def arrived() -> bool:
            writer.transport.abort()
            return await offset_of(gateway, location) == MIB + 5

        await eventually(arrived, what="all that was sent")
        answer = await send(gateway, location, MIB + 5, data[MIB + 5 :])
        assert answer.status_code == 204
        resource = (await gateway.client.get(location)).json()
        assert resource["sha256"] == hashlib.sha256(data).hexdigest()


async def test_who_comes_back_takes_the_turn_of_a_silent_connection(gateway: Served, tmp_path: Path) -> None:
    data = film(2 * MIB)
    location = await begin(gateway, len(data))
    silent = await broken(gateway.url, location, 0, data[:MIB], len(data))
    part = tmp_path / "data" / "storage" / keys.upload_prefix(location.rpartition("/")[2]) / ".part"
    await eventually(lambda: part.stat().st_size == MIB, what="the first half")
    async with asyncio.timeout(10):
        assert await offset_of(gateway, location) == MIB
        assert (await send(gateway, location, MIB, data[MIB:])).status_code == 204
    silent.close()
    assert (await gateway.client.get(location)).json()["stored"]


async def test_offsets_are_exact_after_kill_9(tmp_path: Path) -> None:
    """The daemon dies with a PATCH in its hands; the next one tells what is on disk, and the whole is right."""
    data = film(3 * MIB)
    environment = os.environ | {"STEREOSPOT_NATS_PORT": "0"}
    command = [sys.executable, "-m", "services.cli", "up", "--json", "--data", str(tmp_path), "--port", "0"]
    location = ""
    for attempt in range(2):
        daemon = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            assert daemon.stdout is not None
            async with asyncio.timeout(60):
                url = str(json.loads(await daemon.stdout.readline())["url"])
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                if attempt == 0:
                    headers = TUS | {"Upload-Length": str(len(data))}
                    location = (await client.post("/api/v1/uploads", headers=headers)).headers["location"]
                    first = await client.patch(location, headers=BYTES | {"Upload-Offset": "0"}, content=data[:1000])
                    assert first.headers["upload-offset"] == "1000"
                    writer = await broken(url, location, 1000, data[1000 : 2 * MIB], len(data) - 1000)
                    part = tmp_path / "storage" / keys.upload_prefix(location.rpartition("/")[2]) / ".part"
                    await eventually(lambda part=part: part.stat().st_size > MIB, what="a second part of it")
                    daemon.kill()
                    writer.close()
                else:
                    offset = int((await client.head(location, headers=TUS)).headers["upload-offset"])
                    assert MIB < offset <= 2 * MIB
                    named = BYTES | {"Upload-Offset": str(offset)}
                    assert (await client.patch(location, headers=named, content=data[offset:])).status_code == 204
                    resource = (await client.get(location)).json()
                    assert resource["sha256"] == hashlib.sha256(data).hexdigest()
        finally:
            if daemon.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    daemon.terminate()
            await daemon.wait()


# ---- straight to the store -------------------------------------------------------------------------------
async def test_parts_straight_to_s3(server: Nats, s3_server: Seaweed, tmp_path: Path) -> None:
    data = film(11 * MIB + 5)
    sha256 = hashlib.sha256(data).hexdigest()
    async with served(server, tmp_path / "data", **s3_values(s3_server, tmp_path)) as gateway:
        client = gateway.client
        wanted = {"name": "Film.mkv", "size_bytes": len(data), "sha256": sha256}
        begun = await client.post("/api/v1/uploads/direct", json=wanted)
        assert begun.status_code == 201, begun.text
        location, body = begun.headers["location"], begun.json()
        assert (body["part_bytes"], body["part_count"]) == (5 * MIB, 3)
        early = await client.post(f"{location}/complete")
        assert early.json()["code"] == "UPLOAD_INCOMPLETE"
        signed = (await client.post(f"{location}/parts", json={"numbers": [1, 2, 3]})).json()["parts"]
        async with httpx.AsyncClient(trust_env=False) as away:
            for item in signed:
                start = (item["number"] - 1) * body["part_bytes"]
                answer = await away.put(item["url"], content=data[start : start + body["part_bytes"]])
                assert answer.status_code == 200
                there = (await client.get(f"{location}/parts")).json()["parts"]
                assert [part["number"] for part in there] == list(range(1, item["number"] + 1))
        for number in ([0], [4], []):
            refused = await client.post(f"{location}/parts", json={"numbers": number})
            assert refused.json()["code"] == "INVALID_REQUEST"
        for _ in range(2):
            done = await client.post(f"{location}/complete")
            assert (done.status_code, done.json()["sha256"]) == (200, sha256), done.text
        made = await client.post("/api/v1/jobs", json={"upload": body["upload_id"]})
        assert made.json()["source"]["digest"] == f"sha256:{sha256}"
        assert await gateway.context.store.get(keys.source(body["upload_id"], "mkv")) == data
        by_patch = await send(gateway, location, 0, data)
        assert by_patch.json()["code"] == "CONFLICT"


async def test_a_local_store_offers_no_direct_uploads(gateway: Served) -> None:
    answer = await gateway.client.post("/api/v1/uploads/direct", json={"size_bytes": 5})
    assert (answer.status_code, answer.json()["code"]) == (501, "NOT_AVAILABLE")


# ---- the end ---------------------------------------------------------------------------------------------
async def test_termination(server: Nats, tmp_path: Path, stored_on: dict[str, Any]) -> None:
    data = film(5 * MIB + 10)
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        for size in (len(data) - 5, len(data)):
            location = await begin(gateway, len(data))
            await send(gateway, location, 0, data[:size])
            assert (await gateway.client.delete(location, headers=TUS)).status_code == 204
            assert (await gateway.client.head(location, headers=TUS)).status_code == 404
            assert await stored_keys(gateway) == []


async def test_expired_uploads_are_removed(server: Nats, tmp_path: Path, stored_on: dict[str, Any]) -> None:
    data = film(5 * MIB + 10)
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        growing = await begin(gateway, len(data))
        await send(gateway, growing, 0, data[:-5])
        finished = await begin(gateway, len(data))
        await send(gateway, finished, 0, data)
        store = gateway.context.store
        assert await intake.sweep(store, 3600) == (0, frozenset({keys.source(growing.rpartition("/")[2], "")}))
        assert await offset_of(gateway, growing) == len(data) - 5
        janitor = Janitor(gateway.context, stale_seconds=0)
        assert (await janitor.sweep_storage()).expired == {"uploads": 2}
        assert (await gateway.client.head(growing, headers=TUS)).status_code == 404
        assert await stored_keys(gateway) == []


def test_metadata() -> None:
    assert tus.metadata("") == {}
    assert tus.metadata("filename w6QubXA0, is_confidential") == {"filename": "ä.mp4", "is_confidential": ""}
    for text in ("filename %%", "filename 4pi", "a YQ==,a YQ==", "filename /w=="):
        with pytest.raises(errors.Permanent):
            tus.metadata(text)


# ---- many at once ----------------------------------------------------------------------------------------
async def test_a_hundred_at_once_with_broken_connections(gateway: Served) -> None:
    """Every fifth connection breaks in the middle, again and again; not one wrong byte."""
    chance = random.Random(11)
    films = [film(200_000 + 1000 * number, seed=number) for number in range(100)]
    breaks = 0

    async def one(data: bytes) -> None:
        nonlocal breaks
        location = await begin(gateway, len(data))
        offset = 0
        while offset < len(data):
            piece = data[offset : offset + 65_536]
            if chance.random() < 0.2:
                breaks += 1
                writer = await broken(
                    gateway.url, location, offset, piece[: chance.randrange(1, len(piece) + 1)], len(data)
                )
                writer.transport.abort()
                offset = await offset_of(gateway, location)
                continue
            answer = await send(gateway, location, offset, piece)
            if answer.status_code == 409:
                # The broken request was read after the question for the offset.
                offset = await offset_of(gateway, location)
                continue
            assert answer.status_code == 204, answer.text
            offset = int(answer.headers["upload-offset"])
        resource = (await gateway.client.get(location)).json()
        assert resource["sha256"] == hashlib.sha256(data).hexdigest()
        assert await gateway.context.store.get(resource["upload"]) == data

    async with asyncio.TaskGroup() as group:
        for data in films:
            group.create_task(one(data))
    assert breaks > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("gibibytes", [1, 10])
async def test_ten_gigabytes_take_no_memory(server: Nats, tmp_path: Path, gibibytes: int) -> None:
    """A gateway in a process of its own takes a sparse file in pieces; its memory stays what it was."""
    size, piece = gibibytes << 30, 1 << 29
    async with served(server, tmp_path / "first"):
        pass  # the broker has its streams
    source = tmp_path / "sparse.mp4"
    with source.open("wb") as file:
        file.write(FTYP)
        file.truncate(size)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
    words = ["run", "gateway", "--nats", server.url, "--data", str(tmp_path / "data"), "--port", str(port)]
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.cli", *words)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, seconds=60, what="the gateway")
            before = resident_kib(daemon.pid)
            headers = TUS | {"Upload-Length": str(size)}
            location = (await client.post("/api/v1/uploads", headers=headers)).headers["location"]
            with source.open("rb") as file:

                async def blocks(count: int) -> AsyncIterator[bytes]:
                    for _ in range(count >> 20):
                        yield file.read(MIB)

                for offset in range(0, size, piece):
                    named = BYTES | {"Upload-Offset": str(offset), "Content-Length": str(piece)}
                    answer = await client.patch(location, headers=named, content=blocks(piece))
                    assert answer.status_code == 204, answer.text
            peak = resident_kib(daemon.pid)
            resource = (await client.get(location)).json()
            assert (resource["stored"], resource["size_bytes"]) == (True, size)
            print(f"peak resident memory: {before} KiB before, {peak} KiB after {gibibytes} GiB")
            assert peak - before < 64 << 10
    finally:
        daemon.terminate()
        await daemon.wait()


def resident_kib(process_id: int) -> int:
    """The most that a process has held in memory, as a Linux kernel tells."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
