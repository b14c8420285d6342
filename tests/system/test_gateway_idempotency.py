"""`Idempotency-Key`: whatever is asked again because its answer was lost is done once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from typing import Any

import httpx
import pytest

from services import dead_letters, submit
from services.intake import Arrived, Intake
from stereospot import jobs, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Phase
from stereospot.letters import dead_letter
from stereospot.messages import DeadLetter, Failure, PlanWork, SourceRef, Submission
from stereospot.options import Layout, Options
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


async def listed_jobs(gateway: Served) -> set[str]:
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
        return await listed_jobs(gateway) == made | {job_id}

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


FORM = {"Content-Type": "multipart/form-data; boundary=b", **ONE}


def form(film: bytes = CLIP, name: str = "a.mp4", mode: str = "sbs") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="mode"\r\n\r\n{mode}\r\n'
    file = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return (head + file).encode() + film + b"\r\n--b--\r\n"


@pytest.mark.parametrize("path", ["/upload", "/jobs"])
async def test_another_form_of_the_same_length(gateway: Served, path: str) -> None:
    film = CLIP * 9
    assert (await gateway.client.post(path, content=form(film), headers=FORM)).status_code < 400
    (kept,) = [info.key async for info in gateway.context.store.list("input/")]
    others = [form(film[:-1] + b"x"), form(film, "b.mp4"), form(film[:-5], mode="anaglyph")]
    assert {len(other) for other in others} == {len(form(film))}
    for other in others:
        answer = await gateway.client.post(path, content=other, headers=FORM)
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT"), other
    assert await gateway.context.store.get(kept) == film, "and the first film is untouched"
    assert (await gateway.client.post(path, content=form(film), headers=FORM)).status_code < 400


async def test_other_bytes_of_the_same_length(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads?name=a.mp4", content=CLIP + b"a", headers=ONE)).json()
    other = await gateway.client.put("/api/v1/uploads?name=a.mp4", content=CLIP + b"b", headers=ONE)
    assert (other.status_code, other.json()["code"]) == (409, "CONFLICT")
    assert await gateway.context.store.get(stored["upload"]) == CLIP + b"a"


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


# ---- whoever did it died before saying so ----------------------------------------------------------------
async def came(gateway: Served, *what: str) -> None:
    """What a gateway leaves in the bucket that dies while it does what was asked with the key `one`."""
    bucket = gateway.context.bus.bucket(subjects.IDEMPOTENCY)
    asked = hashlib.sha256("\0".join(what).encode()).hexdigest()
    await bucket.create(hashlib.sha256(b"one").hexdigest()[:48], Submission(job_id="J1", request_sha256=asked))


async def failed(gateway: Served) -> jobs.Job:
    """J1, whose work is taken and which failed of it."""
    await submit.create(gateway.context, SourceRef(key="input/J1/source.mp4"), Options(), job_id="J1")
    await gateway.context.bus.purge(subjects.WORK)
    return await move(gateway, "J1", Phase.PLANNING, Phase.FAILED, failure=FAILURE)


async def plans(gateway: Served) -> list[int]:
    """The attempts that are to be planned."""
    bus = gateway.context.bus
    state = (await bus.stream_info(subjects.WORK))["state"]
    found = [await bus.get(subjects.WORK, number) for number in range(state["first_seq"], state["last_seq"] + 1)]
    return [PlanWork.model_validate_json(item.data).attempt for item in found if item is not None]


SBS = Options(layout=Layout.FULL_SBS)
FAILURE = Failure(code="NO_FRAMES", sentence="s", advice="a")


@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}])
async def test_a_retry_that_nobody_published(gateway: Served, headers: dict[str, str]) -> None:
    await failed(gateway)
    await came(gateway, "retry", "J1")
    await records.change_job(gateway.context.bus, "J1", lambda job: jobs.retry(job, at=time.time()))
    assert await plans(gateway) == []
    other = await gateway.client.post("/api/v1/jobs/J1/retry", headers={"Idempotency-Key": "two"})
    assert other.status_code == 409, "who never asked before is told how things are"
    for replayed in (None, "true"):
        again = await gateway.client.post("/api/v1/jobs/J1/retry", headers=ONE | headers)
        assert (again.status_code, again.json()["attempt"]) == (200, 2), again.text
        assert again.headers.get("idempotency-replayed") == replayed
        assert await plans(gateway) == [2]
    other = await gateway.client.post("/api/v1/jobs/J1/retry", headers={"Idempotency-Key": "two"})
    assert other.status_code == 409, "and told the same again"


@pytest.mark.parametrize("path", ["/upload", "/jobs"])
@pytest.mark.parametrize("is_recorded", [True, False])
async def test_a_form_whose_job_nobody_published(gateway: Served, path: str, is_recorded: bool) -> None:
    film = CLIP * 9
    await came(gateway, "form", str(len(form(film))))
    arrived = Arrived(
        upload_id="J1", key="input/J1/source.mp4", name="a.mp4", size_bytes=len(film),
        sha256=hashlib.sha256(film).hexdigest(), at=time.time(),
    )  # fmt: skip
    await gateway.context.store.put(arrived.key, film)
    await Intake(gateway.context).note(arrived)
    if is_recorded:
        now = time.time()
        job = jobs.Job(job_id="J1", created_at=now, updated_at=now, source=arrived.source(), options=SBS)
        await records.create_job(gateway.context.bus, job)
    for _ in range(2):
        again = await gateway.client.post(path, content=form(film), headers=FORM)
        assert "J1" in (again.headers.get("location") or again.json()["job_id"]), again.text
        assert await plans(gateway) == [1]


async def test_a_retry_that_was_published_and_went_on(gateway: Served) -> None:
    await failed(gateway)
    await came(gateway, "retry", "J1")
    await records.change_job(gateway.context.bus, "J1", lambda job: jobs.retry(job, at=time.time()))
    await move(gateway, "J1", Phase.CONVERTING)
    again = await gateway.client.post("/api/v1/jobs/J1/retry", headers=ONE)
    assert (again.status_code, again.json()["phase"]) == (200, "converting"), again.text
    assert await plans(gateway) == [], "it is planned already"


async def test_a_cancel_that_nobody_was_told_of(gateway: Served) -> None:
    await submit.create(gateway.context, SourceRef(key="input/J1/source.mp4"), Options(), job_id="J1")
    await came(gateway, "cancel", "J1")
    await move(gateway, "J1", Phase.CANCELLED)
    again = await gateway.client.post("/api/v1/jobs/J1/cancel", headers=ONE | {"If-Match": '"1"'})
    assert (again.status_code, again.json()["phase"]) == (200, "cancelled"), again.text
    told = await gateway.context.bus.last_per_subject("EVENT", subjects.event_job("J1", "cancelled"))
    assert len(told) == 1


async def letter(gateway: Served) -> DeadLetter:
    """The letter of the plan of which J1 failed."""
    job = await failed(gateway)
    work = PlanWork(job_id="J1", generation=job.generation, attempt=job.attempt)
    source = Delivery(
        subject=subjects.work("plan", "J1"), data=work.body(), attempt=4, stream=subjects.WORK, stream_sequence=7,
        headers={},
    )  # fmt: skip
    made = dead_letter(source, FAILURE, worker_id="w", at=time.time())
    await gateway.context.bus.publish(subjects.dead(made.kind, made.dead_id), made)
    return made


async def test_a_dead_letter_whose_work_is_tried_again(gateway: Served) -> None:
    path = f"/api/v1/dead-letters/{(await letter(gateway)).dead_id}/retry"
    answers = await thrice(gateway, "POST", path)
    assert answers[0].json()["kind"] == "work-plan"
    assert answers[1].json() == answers[2].json() == {"dead_id": answers[0].json()["dead_id"]}
    assert await plans(gateway) == [2]


async def test_dead_letters_of_the_older_pipeline(gateway: Served) -> None:
    first = await letter(gateway)
    (listed,) = (await gateway.client.get("/dlq")).json()["messages"]
    assert (listed["message_id"], listed["job_id"]) == (first.dead_id, "J1")
    answers = await thrice(gateway, "POST", f"/dlq/{first.dead_id}/retry")
    assert [answer.json()["message"] for answer in answers] == ["Job requeued"] * 3
    assert (answers[0].json()["job_id"], await plans(gateway)) == ("J1", [2])
    assert (await gateway.client.get("/dlq")).json() == {"messages": [], "count": 0}


async def test_a_dead_letter_is_dropped(gateway: Served) -> None:
    path = f"/dlq/{(await letter(gateway)).dead_id}"
    assert [(await gateway.client.delete(path)).status_code for _ in range(2)] == [204, 404]
    assert (await gateway.client.get("/dlq")).json()["count"] == 0
    assert await plans(gateway) == [], "and nothing is tried again"


async def test_a_dead_letter_that_was_removed_unanswered(gateway: Served) -> None:
    made = await letter(gateway)
    path = f"/api/v1/dead-letters/{made.dead_id}/retry"
    await came(gateway, "dead letter", made.dead_id)
    await dead_letters.retry(gateway.context.bus, made.dead_id)
    for replayed in (None, "true"):
        again = await gateway.client.post(path, headers=ONE)
        assert (again.status_code, again.json()) == (200, {"dead_id": made.dead_id}), again.text
        assert again.headers.get("idempotency-replayed") == replayed
    for _ in range(2):
        unknown = await gateway.client.post(path, headers={"Idempotency-Key": "two"})
        assert unknown.json()["code"] == "NOT_FOUND", "a letter that was never there for this one never is"
