"""`Idempotency-Key`: whatever is asked again because its answer was lost is done once."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest

from services import submit
from stereospot.jobs import Phase
from stereospot.messages import Failure, SourceRef
from stereospot.options import Options
from tests.support import eventually
from tests.system.gateway import CLIP, Served, move, upload

ONE = {"Idempotency-Key": "one"}


async def thrice(gateway: Served, method: str, path: str, **values: Any) -> list[httpx.Response]:
    """The same request three times, the last two at once."""
    headers = ONE | values.pop("headers", {})
    first = await gateway.client.request(method, path, headers=headers, **values)
    assert first.status_code < 400, first.text
    assert "idempotency-replayed" not in first.headers
    rest = [gateway.client.request(method, path, headers=headers, **values) for _ in range(2)]
    again = await asyncio.gather(*rest)
    assert [answer.headers.get("idempotency-replayed") for answer in again] == ["true", "true"]
    return [first, *again]


async def jobs(gateway: Served) -> set[str]:
    body = (await gateway.client.get("/api/v1/jobs?kind=all&limit=200")).json()
    return {job["job_id"] for job in body["jobs"]}


async def test_a_job(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads", content=CLIP)).json()
    body = {"upload": stored["upload"]}
    answers = await thrice(gateway, "POST", "/api/v1/jobs", json=body)
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    other = await gateway.client.post("/api/v1/jobs", json={**body, "title": "other"}, headers=ONE)
    assert (other.status_code, other.json()["code"]) == (409, "CONFLICT")
    elsewhere = await gateway.client.post("/api/v1/samples", json=body, headers=ONE)
    assert elsewhere.json()["code"] == "CONFLICT", "a key belongs to one request, wherever it goes"
    for key in ("", "x" * 256):
        refused = await gateway.client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key})
        assert refused.json()["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize("path", ["/api/v1/samples", "/api/v1/jobs/{}/whole"])
async def test_what_is_made_of_a_film_there_is(gateway: Served, path: str) -> None:
    job_id = (await upload(gateway))["job_id"]
    body = {"job_id": job_id} if path.endswith("samples") else {"title": "Again"}
    answers = await thrice(gateway, "POST", path.format(job_id), json=body)
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    made = {answer.json()["job_id"] for answer in answers}
    assert len(made) == 1

    async def listed() -> bool:
        return await jobs(gateway) == made | {job_id}

    await eventually(listed, what="the two jobs")


async def test_an_upload_in_one_piece(gateway: Served) -> None:
    answers = await thrice(gateway, "PUT", "/api/v1/uploads?name=a.mp4", content=CLIP * 50_000)
    assert len({answer.json()["upload_id"] for answer in answers}) == 1
    assert len({answer.json()["sha256"] for answer in answers}) == 1
    assert [info.key async for info in gateway.context.store.list("input/")] == [answers[0].json()["upload"]]


@pytest.mark.parametrize("path", ["/upload", "/jobs"])
async def test_a_form(gateway: Served, path: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b", **ONE}
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    answers = [
        await gateway.client.post(path, content=head + CLIP + b"\r\n--b--\r\n", headers=headers) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200 if path == "/upload" else 303] * 3
    assert len({answer.headers.get("location") or answer.json()["job_id"] for answer in answers}) == 1
    assert len([info async for info in gateway.context.store.list("input/")]) == 1


async def test_a_resumable_upload(gateway: Served) -> None:
    name = base64.b64encode(b"a.mp4").decode()
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000", "Upload-Metadata": f"filename {name}"}
    answers = await thrice(gateway, "POST", "/api/v1/uploads", headers=headers)
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.headers["location"] for answer in answers}) == 1
    octets = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0", "Tus-Resumable": "1.0.0"}
    await gateway.client.patch(answers[0].headers["location"], headers=octets, content=CLIP)
    again = await gateway.client.post("/api/v1/uploads", headers=headers | ONE)
    assert again.headers["upload-offset"] == str(len(CLIP))
    other = await gateway.client.post("/api/v1/uploads", headers=headers | ONE | {"Upload-Length": "2000"})
    assert other.json()["code"] == "CONFLICT"


async def test_a_retry_and_a_cancel(gateway: Served) -> None:
    await submit.create(gateway.context, SourceRef(key="input/J1/source.mp4"), Options(), job_id="J1")
    early = await gateway.client.post("/api/v1/jobs/J1/retry", headers=ONE)
    assert early.status_code == 409, "a refusal is no answer to keep"
    await move(gateway, "J1", Phase.PLANNING)
    await move(gateway, "J1", Phase.FAILED, failure=Failure(code="NO_FRAMES", sentence="s", advice="a"))
    answers = await thrice(gateway, "POST", "/api/v1/jobs/J1/retry")
    assert [(answer.status_code, answer.json()["attempt"]) for answer in answers] == [(200, 2)] * 3
    two = {"Idempotency-Key": "two"}
    for _ in range(2):
        cancelled = await gateway.client.post("/api/v1/jobs/J1/cancel", headers=two)
        assert (cancelled.status_code, cancelled.json()["phase"]) == (200, "cancelled")
