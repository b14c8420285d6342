"""The gateway over a real broker: who may ask, jobs and their life, uploads, problems, the older routes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.access import Access, access_key, entry_url
from stereospot import keys, records
from stereospot.jobs import Job, Phase, advance
from stereospot.messages import Failure, Film
from tests.support import Nats, eventually, nats_server
from tests.system.gateway import Served, served


@pytest.fixture
def server() -> Iterator[Nats]:
    with nats_server() as running:
        yield running


@pytest.fixture
async def gateway(server: Nats, tmp_path: Path) -> AsyncGenerator[Served]:
    async with served(server, tmp_path / "data", roots=(tmp_path / "films",)) as running:
        yield running


CLIP = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"
"""Begins as an mp4 does, and is no more of a film than a gateway needs."""


async def upload(gateway: Served, data: bytes = CLIP, name: str = "Holiday.mp4") -> dict[str, Any]:
    answer = await gateway.client.post("/upload", files={"file": (name, data, "video/mp4")})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def move(gateway: Served, job_id: str, *phases: Phase, **changes: Any) -> Job:
    """Take a job through phases, as the services would."""
    job = None
    for number, phase in enumerate(phases, 1):
        last = changes if number == len(phases) else {}

        def step(job: Job, phase: Phase = phase, last: dict[str, Any] = last) -> Job:
            return advance(job, phase, at=job.updated_at + 1, **last)

        job = await records.change_job(gateway.context.bus, job_id, step)
    assert job is not None
    return job


FILM: dict[str, Any] = {
    "sha256": "0" * 64, "size_bytes": 1000, "frames": 24, "duration_seconds": 1.0, "container": "mp4",
    "file_name": "Holiday.3D.HSBS.LR.mp4",
}  # fmt: skip


# ---- health ----------------------------------------------------------------------------------------------
async def test_health(gateway: Served) -> None:
    assert (await gateway.client.get("/livez")).text == "ok\n"
    ready = await gateway.client.get("/readyz")
    assert ready.json() == {"ready": True, "checks": {"broker": "ok", "index": "ok", "store": "ok", "gateway": "ok"}}
    await asyncio.to_thread(gateway.server.kill)
    assert await eventually(lambda: _status(gateway, "/readyz", 503), what="not ready")
    gateway.server.restart()
    assert await eventually(lambda: _status(gateway, "/readyz", 200), seconds=20, what="ready again")


async def _status(gateway: Served, path: str, wanted: int) -> bool:
    return (await gateway.client.get(path)).status_code == wanted


async def test_metrics_have_bounded_labels(gateway: Served) -> None:
    await asyncio.gather(*(gateway.client.get(f"/api/v1/jobs/none{number}") for number in range(20)))
    await asyncio.gather(*(gateway.client.get(f"/nowhere/{number}") for number in range(20)))
    text = (await gateway.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("stereospot_http_requests_total")]
    assert any('route="/api/v1/jobs/{job_id}"' in line and line.endswith(" 20.0") for line in lines), lines
    assert len(lines) < 10
    assert 'stereospot_jobs{phase="completed"} 0.0' in text


# ---- who may ask -----------------------------------------------------------------------------------------
WHO: tuple[tuple[str, str, dict[str, str], int], ...] = (
    ("GET", "/livez", {}, 200),
    ("GET", "/livez", {"Host": "localhost:1234"}, 200),
    ("GET", "/livez", {"Host": "[::1]:80"}, 200),
    ("GET", "/livez", {"Host": "evil.example"}, 403),
    ("GET", "/livez", {"Host": "127.0.0.1.nip.io"}, 403),
    ("GET", "/livez", {"Host": "localhost@evil.example"}, 403),
    ("GET", "/livez", {"Host": ""}, 403),
    ("GET", "/jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ("GET", "/jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ("GET", "/jobs", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ("POST", "/api/v1/jobs", {"Origin": "https://evil.example"}, 403),
    ("POST", "/api/v1/jobs", {"Origin": "null"}, 403),
    ("POST", "/api/v1/jobs", {"Origin": "http://localhost:1"}, 403),
    ("POST", "/api/v1/jobs", {"Sec-Fetch-Site": "same-site"}, 403),
    ("POST", "/api/v1/jobs", {"Sec-Fetch-Site": "same-origin"}, 400),
    ("DELETE", "/api/v1/jobs/x", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
)


async def test_who_may_ask(gateway: Served) -> None:
    for method, path, headers, status in WHO:
        body = b"{}" if method == "POST" else None
        answer = await gateway.client.request(method, path, headers=headers, content=body)
        assert answer.status_code == status, (method, path, headers, answer.text)
        if status == 403:
            assert answer.json()["code"] == "FORBIDDEN_ORIGIN"


async def test_own_origin_may_post(gateway: Served) -> None:
    answer = await gateway.client.post("/api/v1/jobs", headers={"Origin": gateway.url}, json={})
    assert answer.json()["code"] == "INVALID_REQUEST"


async def test_every_answer_has_the_headers(gateway: Served) -> None:
    for path in ("/livez", "/nowhere", "/jobs", "/api/v1/jobs", "/api/v1/errors"):
        answer = await gateway.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.headers["x-request-id"]) >= 8
    named = await gateway.client.get("/nowhere", headers={"X-Request-Id": "abcdefgh-1"})
    assert named.headers["x-request-id"] == "abcdefgh-1"
    assert named.json()["request_id"] == "abcdefgh-1"


async def test_only_this_machine_needs_no_key(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, allowed_hosts=("films.example",)) as gateway:
        key = access_key(gateway.context.settings)
        away = {"Host": "films.example"}
        get = gateway.client.get
        assert (await get("/jobs")).status_code == 200
        for path in ("/livez", "/readyz", "/static/style.css"):
            assert (await get(path, headers=away)).status_code == 200
        for path in ("/", "/jobs", "/metrics", "/api/v1/jobs", "/nowhere"):
            refused = await get(path, headers=away)
            assert (refused.status_code, refused.json()["code"]) == (401, "KEY_REQUIRED"), path
        assert (await get("/v/forged.0.x/1/master.m3u8", headers=away)).status_code == 404
        wrong = await get("/jobs", headers=away | {"Authorization": f"Bearer {key[:-1]}"})
        assert wrong.status_code == 401
        assert (await get("/jobs", headers=away | {"Authorization": f"Bearer {key}"})).status_code == 200
        entered = await get(f"/jobs?status=failed&key={key}", headers=away)
        assert (entered.status_code, entered.headers["location"]) == (303, "/jobs?status=failed")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        gateway.client.cookies.clear()
        assert (await get("/jobs", headers=away | {"Cookie": cookie.partition(";")[0]})).status_code == 200
        elsewhere = Access(gateway.context.settings).entered("//evil.example/", f"key={key}".encode())
        assert elsewhere is not None
        assert elsewhere[0] == "/evil.example/"
        asked = await get("/", headers=away | {"Accept": "text/html"})
        assert "<form" in asked.text
        assert entry_url(gateway.context.settings) == "http://127.0.0.1:8666/"
        everywhere = httpx.URL(entry_url(gateway.context.settings.model_copy(update={"host": "0.0.0.0"})))
        assert everywhere.params["key"] == key
        assert everywhere.host not in ("0.0.0.0", "")


async def test_a_server_on_all_addresses_is_opened_by_the_address_it_prints(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        printed = httpx.URL(entry_url(gateway.context.settings))
        named = {"Host": f"{printed.host}:{printed.port}"}
        entered = await gateway.client.get(printed.raw_path.decode(), headers=named)
        assert entered.status_code == 303, entered.text
        gateway.client.cookies.clear()
        for name, status in (("10.1.2.3", 401), ("[fd00::1]:99", 401), ("evil.example", 403), ("1.2.3.4.nip.io", 403)):
            assert (await gateway.client.get("/jobs", headers={"Host": name})).status_code == status, name


# ---- problems --------------------------------------------------------------------------------------------
PROBLEMS: tuple[tuple[str, str, Any, int, str], ...] = (
    ("GET", "/nowhere", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/nowhere", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/openapi.json/nowhere", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/jobs/none", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/jobs/..%2f..%2fetc", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/jobs?limit=0", None, 400, "INVALID_REQUEST"),
    ("GET", "/api/v1/jobs?cursor=!!", None, 400, "INVALID_REQUEST"),
    ("GET", "/api/v1/jobs?status=purple", None, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {}, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {"upload": "../../etc/passwd"}, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {"upload": "input/none/source.mp4"}, 404, "SOURCE_MISSING"),
    ("POST", "/api/v1/jobs", {"path": "/etc/passwd"}, 404, "SOURCE_MISSING"),
    ("POST", "/api/v1/jobs", {"url": "https://example.org/film.mp4"}, 501, "NOT_AVAILABLE"),
    ("POST", "/api/v1/jobs", {"upload": "input/a/source.mp4", "options": {"crf": 99}}, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {"surprise": 1}, 400, "INVALID_REQUEST"),
    ("PATCH", "/api/v1/jobs/none", {"title": "x"}, 404, "NOT_FOUND"),
    ("POST", "/api/v1/jobs/none/cancel", None, 404, "NOT_FOUND"),
    ("PUT", "/api/v1/jobs", None, 405, "INVALID_REQUEST"),
    ("GET", "/api/v1/dead-letters/none", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/errors/NONE", None, 404, "NOT_FOUND"),
)


async def test_problems(gateway: Served) -> None:
    for method, path, body, status, code in PROBLEMS:
        answer = await gateway.client.request(method, path, json=body)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"].startswith("application/problem+json")
        problem = answer.json()
        assert (problem["code"], problem["status"]) == (code, status), (method, path)
        assert {"type", "title", "detail", "instance", "advice", "retryable", "request_id"} <= problem.keys()
        kind = await gateway.client.get(problem["type"])
        assert kind.json()["code"] == code


async def test_the_catalogue(gateway: Served) -> None:
    entries = (await gateway.client.get("/api/v1/errors")).json()["errors"]
    assert len(entries) > 40
    assert all(entry["advice"] for entry in entries)


async def test_openapi(gateway: Served) -> None:
    schema = (await gateway.client.get("/api/v1/openapi.json")).json()
    assert schema["info"]["title"] == "StereoSpot"
    assert "/api/v1/jobs/{job_id}" in schema["paths"]
    assert all(path.startswith("/api/v1") or path == "/jobs/{job_id}/events" for path in schema["paths"])


# ---- uploads ---------------------------------------------------------------------------------------------
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


async def test_a_path_under_a_root(gateway: Served, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(CLIP)
    (folder / "b.mp4").symlink_to("/etc/hostname")
    answer = await gateway.client.post("/api/v1/jobs", json={"path": str(folder / "a.mp4")})
    assert answer.status_code == 201
    assert "path" not in answer.json()["source"], "paths of the server are nobody's business"
    escaped = await gateway.client.post("/api/v1/jobs", json={"path": str(folder / "b.mp4")})
    assert escaped.json()["code"] == "SOURCE_MISSING"


# ---- jobs ------------------------------------------------------------------------------------------------
async def test_idempotency(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads", content=CLIP)).json()
    body = {"upload": stored["upload"]}
    headers = {"Idempotency-Key": "one"}
    answers = [await gateway.client.post("/api/v1/jobs", json=body, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert answers[1].headers["idempotency-replayed"] == "true"
    other = await gateway.client.post("/api/v1/jobs", json={**body, "title": "other"}, headers=headers)
    assert other.json()["code"] == "CONFLICT"


async def test_a_job_may_ask_for_a_pool_by_its_label(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads", content=CLIP)).json()
    body = {"upload": stored["upload"]}
    nowhere = await gateway.client.post("/api/v1/jobs", json={**body, "pool": "nowhere"})
    assert (nowhere.status_code, nowhere.json()["code"]) == (422, "INVALID_OPTIONS")
    made = await gateway.client.post("/api/v1/jobs", json={**body, "pool": "gpu"})
    assert (made.status_code, made.json()["pool"]) == (201, "gpu")


async def test_etags(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    answer = await gateway.client.get(path)
    etag = answer.headers["etag"]
    assert etag == f'"{answer.json()["revision"]}"'
    assert (await gateway.client.get(path, headers={"If-None-Match": etag})).status_code == 304
    changed = await gateway.client.patch(path, json={"title": "New"}, headers={"If-Match": etag})
    assert changed.json()["title"] == "New"
    stale = await gateway.client.patch(path, json={"title": "Newer"}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "PRECONDITION_FAILED")
    assert (await gateway.client.get(path, headers={"If-None-Match": etag})).status_code == 200
    head = await gateway.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == changed.headers["etag"]


async def test_prefer_wait(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    etag = (await gateway.client.get(path)).headers["etag"]
    headers = {"If-None-Match": etag, "Prefer": "wait=20"}
    waiting = asyncio.create_task(gateway.client.get(path, headers=headers))
    await asyncio.sleep(0)
    await move(gateway, job_id, Phase.PLANNING)
    answer = await asyncio.wait_for(waiting, 10)
    assert answer.json()["phase"] == "planning"
    assert answer.headers["preference-applied"] == "wait=20"
    none = await gateway.client.get(path, headers={"If-None-Match": answer.headers["etag"], "Prefer": "wait=0"})
    assert none.status_code == 304


async def test_cancel_retry_delete(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    refused = await gateway.client.post(f"{path}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    cancelled = await gateway.client.post(f"{path}/cancel")
    assert (cancelled.json()["phase"], cancelled.json()["status"]) == ("cancelled", "failed")
    retried = await gateway.client.post(f"{path}/retry")
    assert (retried.json()["phase"], retried.json()["attempt"]) == ("planning", 2)
    assert (await gateway.client.delete(path)).status_code == 204
    assert (await gateway.client.get(path)).status_code == 404

    async def unlisted() -> bool:
        return (await gateway.client.get("/api/v1/jobs")).json()["jobs"] == []

    await eventually(unlisted, what="the list without the job")


async def test_lists_filters_and_pages(gateway: Served) -> None:
    ids = [(await upload(gateway, name=f"film {number}.mp4"))["job_id"] for number in range(7)]
    await move(gateway, ids[0], Phase.PLANNING)
    await move(gateway, ids[1], Phase.FAILED, failure=Failure(code="NO_FRAMES", sentence="s", advice="a"))
    film = Film(key=keys.film(ids[2], 1, "mp4"), **FILM)
    await move(gateway, ids[2], Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)

    async def counted() -> bool:
        body = (await gateway.client.get("/api/v1/jobs")).json()
        return body["counts"] == {"queued": 4, "processing": 1, "completed": 1, "failed": 1}

    await eventually(counted, what="the counts")
    seen: list[str] = []
    cursor = ""
    while True:
        body = (await gateway.client.get(f"/api/v1/jobs?limit=3{cursor}")).json()
        seen += [job["job_id"] for job in body["jobs"]]
        if body["next"] is None:
            break
        cursor = f"&cursor={body['next']}"
    assert seen == ids[::-1]

    async def listed(query: str) -> list[str]:
        return [job["job_id"] for job in (await gateway.client.get(f"/api/v1/jobs?{query}")).json()["jobs"]]

    assert await listed("status=failed") == [ids[1]]
    assert await listed("status=completed") == [ids[2]]
    assert await listed("status=active") == [ids[6], ids[5], ids[4], ids[3], ids[0]]
    assert await listed("q=FILM%203") == [ids[3]]
    assert await listed("q=%25") == []
    failed = (await gateway.client.get("/api/v1/jobs?status=failed")).json()["jobs"][0]
    assert failed["error"]["code"] == "NO_FRAMES"


async def test_a_restarted_gateway_knows_all_jobs(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path) as first:
        ids = {(await upload(first))["job_id"] for _ in range(20)}
        secret = (tmp_path / "gateway.secret").read_bytes()
    async with served(server, tmp_path) as second:
        found = (await second.client.get("/api/v1/jobs")).json()["jobs"]
        assert {job["job_id"] for job in found} == ids
        assert (tmp_path / "gateway.secret").read_bytes() == secret
        assert (tmp_path / "gateway.secret").stat().st_mode & 0o777 == 0o600


# ---- events ----------------------------------------------------------------------------------------------
async def _events(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line:
            if "data" in found:
                yield found
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


async def test_a_jobs_events(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    async with gateway.client.stream("GET", f"/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = _events(response)
        first = await anext(stream)
        body = json.loads(first["data"])
        assert (body["progress_percent"], body["stage_label"]) == (5, "Waiting")
        await move(gateway, job_id, Phase.PLANNING)
        second = await anext(stream)
        assert json.loads(second["data"])["progress_percent"] == 15
        assert second["id"] != first["id"]
    async with gateway.client.stream(
        "GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": second["id"]}
    ) as response:
        stream = _events(response)
        await move(gateway, job_id, Phase.FAILED, failure=Failure(code="NO_FRAMES", sentence="s", advice="a"))
        third = await anext(stream)
        assert json.loads(third["data"])["stage_label"] == "Failed", "what was seen is not sent again"
        assert (await anext(stream))["event"] == "end"
    assert (await gateway.client.get("/jobs/none/events")).status_code == 404


async def test_events_of_all_jobs_survive_a_broker_restart(gateway: Served) -> None:
    async with gateway.client.stream("GET", "/api/v1/events") as response:
        stream = _events(response)
        assert (await anext(stream))["event"] == "open"
        await asyncio.to_thread(gateway.server.kill)
        gateway.server.restart()
        job_id = (await upload(gateway))["job_id"]
        async with asyncio.timeout(20):
            async for item in stream:
                if item["event"] == "job":
                    assert json.loads(item["data"])["job_id"] == job_id
                    break


# ---- the older routes ------------------------------------------------------------------------------------
async def test_the_older_routes(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    film_key = keys.film(job_id, 1, "mp4")
    await gateway.context.store.put(film_key, bytes(range(256)) * 4)
    film = Film(key=film_key, **FILM)
    early = await gateway.client.get(f"/jobs/{job_id}/play")
    assert early.status_code == 400
    await move(gateway, job_id, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)
    table: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/jobs", {"files": {"file": ("b.mp4", CLIP)}, "data": {"mode": "anaglyph"}}, 303),
        ("POST", "/jobs/from-url", {"data": {"mode": "sbs", "source_url": "https://youtu.be/x"}}, 501),
        ("GET", "/jobs", {}, 200),
        ("GET", f"/jobs/{job_id}", {}, 200),
        ("PATCH", f"/jobs/{job_id}", {"json": {"title": "New", "source_file_size_bytes": 5}}, 204),
        ("GET", f"/jobs/{job_id}/play", {}, 302),
        ("GET", "/playlist.m3u", {}, 200),
        ("GET", f"/playlist/{job_id}.m3u", {}, 200),
        ("GET", "/playlist/none.m3u", {}, 404),
        ("GET", f"/launch/{job_id}", {}, 200),
        ("POST", "/upload", {"files": {"file": ("c.mp4", CLIP)}}, 200),
        ("POST", "/upload-url", {"json": {"url": "https://example.org/a.mp4"}}, 501),
        ("GET", "/stats", {}, 200),
        ("GET", "/queue", {}, 200),
        ("GET", "/dlq", {}, 200),
        ("POST", "/dlq/none/retry", {}, 404),
        ("POST", "/stream_sessions", {"json": {"mode": "sbs"}}, 501),
        ("POST", "/stream_sessions/s1/end", {}, 501),
        ("GET", "/stream/s1/playlist.m3u8", {}, 501),
        ("GET", "/api/vapid-public-key", {}, 501),
        ("POST", "/api/push-subscriptions", {"json": {}}, 501),
        ("GET", "/setup/windows", {}, 501),
        ("POST", f"/jobs/{job_id}/delete", {}, 303),
        ("GET", f"/jobs/{job_id}", {}, 404),
    ]
    for method, path, arguments, status in table:
        answer = await gateway.client.request(method, path, **arguments)
        assert answer.status_code == status, (method, path, answer.text)
        if status == 501:
            assert answer.json()["code"] == "NOT_AVAILABLE"


async def test_playlists_and_play_lead_to_the_film(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    data = random.Random(5).randbytes(1_200_000)
    film_key = keys.film(job_id, 1, "mp4")
    await gateway.context.store.put(film_key, data)
    values: dict[str, Any] = FILM | {"size_bytes": len(data)}
    film = Film(key=film_key, **values)
    await move(gateway, job_id, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)
    lines = (await gateway.client.get(f"/playlist/{job_id}.m3u")).text.splitlines()
    assert lines[:2] == ["#EXTM3U", "#EXTINF:1,Holiday"]
    played = await gateway.client.get(f"/jobs/{job_id}/play", follow_redirects=True)
    assert played.content == data
    assert str(played.url) == lines[2]
    assert "Holiday.3D.HSBS.LR.mp4" in played.headers["content-disposition"]
    part = await gateway.client.get(lines[2], headers={"Range": "bytes=1000000-1000009"})
    assert (part.status_code, part.content) == (206, data[1_000_000:1_000_010])
    assert part.headers["content-range"] == "bytes 1000000-1000009/1200000"
    head = await gateway.client.head(lines[2])
    assert (head.headers["content-length"], head.content) == ("1200000", b"")
    listed = (await gateway.client.get(f"/api/v1/jobs/{job_id}/outputs")).json()["outputs"]
    assert [item["file_name"] for item in listed] == ["Holiday.3D.HSBS.LR.mp4"]
    href = listed[0]["href"]
    whole = await gateway.client.get(href)
    assert whole.content == data
    etag = whole.headers["etag"]
    table: list[tuple[str, dict[str, str], int, bytes]] = [
        ("HEAD", {}, 200, b""),
        ("GET", {"Range": "bytes=5-9"}, 206, data[5:10]),
        ("GET", {"Range": "bytes=5-9", "If-Range": etag}, 206, data[5:10]),
        ("GET", {"Range": "bytes=5-9", "If-Range": '"other"'}, 200, data),
        ("GET", {"If-None-Match": etag}, 304, b""),
    ]
    for method, headers, status, body in table:
        answer = await gateway.client.request(method, href, headers=headers)
        assert (answer.status_code, answer.content) == (status, body), (method, headers)
    beyond = await gateway.client.get(href, headers={"Range": "bytes=1200000-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert beyond.headers["content-range"] == "bytes */1200000"
    assert (await gateway.client.get(f"/api/v1/jobs/{job_id}/outputs/other.mp4")).json()["code"] == "NOT_FOUND"
    forged = lines[2].replace(job_id, "other")
    assert (await gateway.client.get(forged)).status_code == 404


async def test_numbers(gateway: Served) -> None:
    await upload(gateway)

    async def stats() -> dict[str, Any]:
        return (await gateway.client.get("/stats")).json()

    async def one() -> bool:
        return (await stats())["total_jobs"] == 1

    await eventually(one, what="one job")
    body = await stats()
    assert body["queue_depth"] == 1
    assert body["jobs_by_status"] == {"queued": 1, "processing": 0, "completed": 0, "failed": 0}
    assert body.keys() >= {"dlq_depth", "processing_rate_per_minute"}
    queue = (await gateway.client.get("/queue")).json()
    assert queue.keys() == {"stream_length", "consumer_groups", "pending_messages"}
