"""Uploads in one piece: forms and raw bodies, limits, refusals, what is left of them."""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from stereospot import keys
from tests.support import Nats, eventually
from tests.system.gateway import CLIP, Served, served, upload


async def test_upload_makes_a_job(gateway: Served) -> None:
    data = random.Random(1).randbytes(3_000_000)
    body = await upload(gateway, data, "../My Film (1999).MKV")
    assert body["status"] == "queued"
    assert body["filename"] == "My Film (1999).MKV"
    job = (await gateway.client.get(f"/api/v1/jobs/{body['job_id']}")).json()
    assert job["source"] == {
        "name": "My Film (1999).MKV", "size_bytes": 3_000_000, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"
    }  # fmt: skip
    assert await gateway.context.store.get(keys.source(body["job_id"], "mkv")) == data


async def test_upload_takes_options_as_fields(gateway: Served) -> None:
    fields = {"layout": "full-sbs", "crf": "18", "title": "Another title", "divergence": "1.5"}
    answer = await gateway.client.post("/upload", data=fields, files={"file": ("a.mp4", CLIP)})
    job = (await gateway.client.get(f"/jobs/{answer.json()['job_id']}", headers={"Accept": "application/json"})).json()
    assert job["title"] == "Another title"
    assert (job["options"]["layout"], job["options"]["crf"], job["options"]["divergence"]) == ("full-sbs", 18, 1.5)


REFUSED: tuple[tuple[dict[str, Any], dict[str, str], str], ...] = (
    ({"file": ("a.mp4", b"")}, {}, "EMPTY_INPUT"),
    ({"file": ("a.mp4", b"#EXTM3U\nhttp://127.0.0.1/\n")}, {}, "UNSUPPORTED_CONTAINER"),
    ({"file": ("a.mp4", CLIP)}, {"crf": "many"}, "INVALID_REQUEST"),
    ({"file": ("a.mp4", CLIP)}, {"mode": "odd"}, "INVALID_REQUEST"),
    ({"file": ("a.mp4", CLIP), "other": ("b.mp4", CLIP)}, {}, "INVALID_REQUEST"),
    ({}, {"title": "no film"}, "INVALID_REQUEST"),
)


async def test_a_refused_upload_leaves_nothing(gateway: Served) -> None:
    for files, fields, code in REFUSED:
        answer = await gateway.client.post("/upload", files=files, data=fields)
        assert answer.json()["code"] == code
        assert [info.key async for info in gateway.context.store.list("")] == []
    assert (await gateway.client.get("/api/v1/jobs")).json()["jobs"] == []


async def test_a_large_upload_takes_no_memory(gateway: Served) -> None:
    """256 MiB in a multipart form: the process, which is client and server here, grows by a few blocks."""
    size = 256 << 20
    block = bytes(1 << 20)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="long.mkv"\r\n\r\n'

    async def form() -> AsyncIterator[bytes]:
        yield head
        for _ in range(size >> 20):
            yield block
        yield b"\r\n--b--\r\n"

    await upload(gateway)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await gateway.client.post("/upload", content=form(), headers=headers)
    assert answer.status_code == 200, answer.text
    info = await gateway.context.store.head(keys.source(answer.json()["job_id"], "mkv"))
    assert info is not None
    assert info.size == size
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 48 << 10, f"grew by {grown} KiB"


async def test_a_broken_upload_leaves_nothing(gateway: Served, tmp_path: Path) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(gateway.url).port)
    head = (
        "POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    )
    writer.write(head.encode() + bytes(300_000))
    await writer.drain()
    storage = tmp_path / "data" / "storage"
    await eventually(lambda: list(storage.rglob(".put-*")), what="the upload begins")
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: not list(storage.rglob("*.*")), what="the upload is gone")


async def test_a_body_that_ends_early_is_told(gateway: Served) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + bytes(1000)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await gateway.client.post("/upload", content=body, headers=headers)
    assert answer.json()["code"] == "UPLOAD_INCOMPLETE"
    assert [info.key async for info in gateway.context.store.list("")] == []


async def test_the_limit_holds_with_and_without_an_announced_length(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, max_upload_bytes=100_000) as gateway:

        async def unannounced() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(10_000)

        for content in (bytes(200_000), unannounced()):
            answer = await gateway.client.put("/api/v1/uploads", content=content)
            assert answer.json()["code"] == "TOO_LARGE"
        assert [info.key async for info in gateway.context.store.list("")] == []
        assert (await gateway.client.put("/api/v1/uploads", content=bytes(100_000))).status_code == 201


async def test_raw_upload_then_job(gateway: Served) -> None:
    data = random.Random(2).randbytes(1_500_000)
    sha256 = hashlib.sha256(data).hexdigest()
    stored = await gateway.client.put(f"/api/v1/uploads?name=Film.mov&sha256={sha256}", content=data)
    assert stored.status_code == 201
    assert stored.json()["sha256"] == sha256
    answer = await gateway.client.post(
        "/api/v1/jobs", json={"upload": stored.json()["upload"], "title": "Film", "options": {"layout": "half-tb"}}
    )
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['job_id']}"
    assert job["job_id"] == stored.json()["upload_id"]
    again = (await gateway.client.post("/api/v1/jobs", json={"upload": stored.json()["upload"]})).json()
    assert again["job_id"] != job["job_id"]
    wrong = await gateway.client.put(f"/api/v1/uploads?sha256={'0' * 64}", content=data)
    assert wrong.json()["code"] == "CHECKSUM_MISMATCH"
    stored_keys = [info.key async for info in gateway.context.store.list("input/")]
    assert stored_keys == [stored.json()["upload"], keys.input_use(job["job_id"], again["job_id"])]


async def test_a_body_of_brackets_is_refused(gateway: Served) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"[" * 500_000, b'{"title":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        answer = await gateway.client.post("/api/v1/jobs", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")


async def test_a_path_under_a_root(gateway: Served, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(CLIP)
    (folder / "b.mp4").symlink_to("/etc/hostname")
    answer = await gateway.client.post("/api/v1/jobs", json={"path": str(folder / "a.mp4")})
    assert answer.status_code == 201
    assert "path" not in answer.json()["source"], "paths of the server are nobody's business"
    (folder / "round.mp4").symlink_to("round.mp4")
    for path in ("/x\0y", "~nosuch/x.mp4", str(folder / "round.mp4"), "/" + "x" * 4000):
        for wanted in ({"path": path}, {"path": str(folder / "a.mp4"), "depth_path": path}):
            refused = await gateway.client.post("/api/v1/jobs", json=wanted)
            assert refused.status_code in (400, 404), (path[:20], refused.text)
            assert refused.json()["code"] in ("INVALID_REQUEST", "SOURCE_MISSING")
    escaped = await gateway.client.post("/api/v1/jobs", json={"path": str(folder / "b.mp4")})
    assert escaped.json()["code"] == "SOURCE_MISSING"
