"""The description's promise of answers: every one has a schema and an example, and real answers are as described."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import httpx

from services import operations
from stereospot import errors, jobs, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.letters import dead_letter
from stereospot.messages import Failure, Film, PlanWork, SourceRef, Worker
from stereospot.options import Options
from tests.storage.seaweed import Seaweed
from tests.support import Nats, eventually
from tests.system.conftest import s3_values
from tests.system.described import JSON, PROBLEM, Description, Witness, watch
from tests.system.gateway import CLIP, FILM, Served, served
from tests.system.resumable import BYTES, MIB, begin, film
from tests.system.showing import Showing

DIRECT = {
    "post /api/v1/uploads/direct",
    "get /api/v1/uploads/{upload_id}/parts",
    "post /api/v1/uploads/{upload_id}/parts",
    "post /api/v1/uploads/{upload_id}/complete",
}
"""What only an S3 store has."""

LOST = Failure.of(errors.error("WORKER_LOST", "nobody came back"), segment_index=1, attempts=1)


async def test_every_answer_has_a_schema_and_an_example(gateway: Served) -> None:
    told = Description((await gateway.client.get("/api/v1/openapi.json")).json())
    looked: list[str] = []
    for name, operation in told.operations():
        assert operation.get("description"), f"{name} says what it does"
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}, name
        for status, answer in operation["responses"].items():
            for kind, media in answer.get("content", {}).items():
                if kind == JSON:
                    assert status.startswith("2"), (name, status)
                    assert media["schema"].keys() <= {"$ref", "anyOf"}, f"{name} {status} is a model of ours"
                    examples = [media["example"]]
                elif kind == PROBLEM:
                    examples = [item["value"] for item in media["examples"].values()]
                    assert {str(item["status"]) for item in examples} == {status}, name
                else:
                    continue
                for example in examples:
                    assert told.wrong(media["schema"], example) == [], (name, status)
                looked.append(f"{name} {status}")
    assert len(looked) > 100
    assert len([item for item in looked if item.endswith((" 200", " 201"))]) > 30
    for name, schema in told.found["components"]["schemas"].items():
        assert "properties" not in schema or schema["properties"], f"{name} has members"


def test_the_check_itself_sees_what_is_missing_and_what_is_too_much() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    told = Description({"paths": {}, "components": {"schemas": {"A": schema}}})
    reference = {"$ref": "#/components/schemas/A"}
    assert told.wrong(reference, {"a": 1}) == []
    for value in ({}, {"a": None}, {"a": 1, "b": 2}):
        assert told.wrong(reference, value), value


# ---- a running service -----------------------------------------------------------------------------------
async def uploads(client: httpx.AsyncClient, gateway: Served) -> str:
    """Whole and in pieces; returns the id of a whole one."""
    stored = (await client.put("/api/v1/uploads?name=Holiday.mp4", content=CLIP)).json()
    again = {"Idempotency-Key": "once"}
    for _ in range(2):
        await client.post("/api/v1/uploads?name=Holiday.mp4", content=CLIP, headers=again)
    await client.get(f"/api/v1/uploads/{stored['upload_id']}")
    data = film(MIB)
    location = await begin(gateway, len(data), filename="Holiday.mp4")
    wrong = "sha256 " + base64.b64encode(b"0" * 32).decode()
    for headers in ({"Upload-Checksum": wrong}, {}, {}):
        await client.patch(location, content=data[:1000], headers=BYTES | {"Upload-Offset": "0"} | headers)
    assert (await client.get(location)).json()["offset"] == 1000
    await client.put("/api/v1/uploads", content=b"")
    await client.put("/api/v1/uploads", content=b"this is a text and no film at all\n" * 9)
    await client.put(f"/api/v1/uploads?sha256={'0' * 64}", content=CLIP)
    await client.get("/api/v1/uploads/none")
    return str(stored["upload_id"])


async def jobs_of(client: httpx.AsyncClient, upload_id: str) -> None:
    """A job that is made, changed, cancelled, retried, looked at and deleted."""
    job = (await client.post("/api/v1/jobs", json={"upload": upload_id, "passthrough": "mine"})).json()
    path = f"/api/v1/jobs/{job['job_id']}"
    await client.get(path)
    await client.get("/api/v1/jobs?limit=1&kind=all")
    await client.get("/api/v1/jobs?cursor=nonsense")
    await client.post(f"{path}/seek", json={"seconds": 3})
    await client.patch(path, json={"title": "Holiday, again"})
    await client.patch(path, json={"title": "Late"}, headers={"If-Match": '"1"'})
    await client.post(f"{path}/retry")
    await client.post(f"{path}/cancel", headers={"Idempotency-Key": "cancel"})
    await client.post(f"{path}/retry")
    await client.post(f"{path}/whole", json={})
    await client.post("/api/v1/samples", json={"job_id": job["job_id"]})
    await client.post("/api/v1/samples", json={})
    await client.get(f"{path}/outputs")
    await client.get(f"{path}/segments")
    await client.delete(path)
    await client.get(path)
    await client.post("/api/v1/jobs", json={"upload": "none"})
    await client.post("/api/v1/jobs", json={"url": "https://films.example/a.mp4"})
    await client.post("/api/v1/jobs", json={"upload": upload_id, "pool": "nowhere"})


async def converted(client: httpx.AsyncClient, gateway: Served) -> None:
    """A film that is converted, with a segment that is tried again, until it failed and until it is done."""
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    await showing.tell(0, "done", seconds=1.5, fps=24.0)
    await showing.tell(1, "running")
    await showing.tell(1, "retrying", attempt=2, failure=LOST)
    report = b'{"done":{},"measures":{"fps":24.0}}'
    await gateway.context.store.put(keys.segment_report("J1", 1, 0), report)

    async def shown() -> bool:
        cells = (await client.get("/api/v1/jobs/J1/segments")).json()["segments"]
        return [cell["state"] for cell in cells] == ["done", "retrying", "waiting", "waiting"]

    await eventually(shown, what="the strip")
    for index in range(5):
        await client.get(f"/api/v1/jobs/J1/segments/{index}")
    for wanted in ({"seconds": 3.5}, {}, {"segment_index": 99}):
        await client.post("/api/v1/jobs/J1/seek", json=wanted)
    assert (await client.get("/api/v1/jobs/J1")).json()["playback"]["ready"]
    await operations.fail(gateway.context.bus, "J1", 1, LOST)
    assert (await client.get("/api/v1/jobs/J1")).json()["error"]["code"] == "WORKER_LOST"
    store, done = gateway.context.store, Film(key=keys.film("J1", 1, "mp4"), **FILM)
    await store.put(done.key, b"f" * FILM["size_bytes"])
    await store.put(keys.depth("J1", 1), b"depth")
    await store.put(keys.subtitles("J1", 1, 2, "ass"), b"[Script Info]\n")

    def finish(job: Job) -> Job:
        more = {"engine": {"name": "relief"}, "report": {"folds": 0}, "options": Options(export_depth=True)}
        changed = job.model_copy(update={"phase": Phase.COMPLETED, "film": done, "failure": None, **more})
        return changed.with_warning("PTS_SYNTHESISED", "The times were counted anew.")

    await records.change_job(gateway.context.bus, "J1", finish)
    body = (await client.get("/api/v1/jobs/J1/outputs")).json()
    assert [item["profile"] for item in body["outputs"]] == ["half-sbs", "depth", "subtitles"]
    job = (await client.get("/api/v1/jobs/J1")).json()
    assert all(job[name] for name in ("outputs", "warnings", "history", "engine", "report"))
    for item in body["outputs"]:
        assert (await client.get(item["href"], headers={"Range": "bytes=900000-"})).status_code == 416


async def bury(gateway: Served) -> str:
    """The letter of a job's plan; returns its id."""
    job = Job(job_id="J2", created_at=1.0, updated_at=1.0, source=SourceRef(key=keys.source("J2", "mp4")))
    await records.create_job(gateway.context.bus, jobs.advance(job, Phase.FAILED, at=2.0))
    source = Delivery(
        subject=subjects.work("plan", "J2"), data=PlanWork(job_id="J2", generation=1).body(), attempt=4,
        stream=subjects.WORK, stream_sequence=7, headers={},
    )  # fmt: skip
    made = dead_letter(source, LOST, worker_id="w1", at=time.time())
    await gateway.context.bus.publish(subjects.dead(made.kind, made.dead_id), made)
    return made.dead_id


async def service(client: httpx.AsyncClient, gateway: Served) -> None:
    """Converters, numbers, letters, the catalogue."""
    card = Worker(
        worker_id="w1", host="h", pid=1, pool="cpu", slots=2, busy=("J1.1.1",), engines=("relief",),
        started_at=time.time(), seen_at=time.time(),
    )  # fmt: skip
    await gateway.context.bus.bucket(subjects.WORKERS).put("w1", card)

    async def heard() -> bool:
        return bool((await client.get("/api/v1/workers")).json()["workers"])

    await eventually(heard, what="the worker")
    for name in ("stats", "capabilities", "errors", "errors/NOT_FOUND", "errors/NONE", "dead-letters?limit=0"):
        await client.get(f"/api/v1/{name}")
    dead_id = await bury(gateway)
    path = f"/api/v1/dead-letters/{dead_id}"
    for address in ("/api/v1/dead-letters", path, "/dlq"):
        assert dead_id in (await client.get(address)).text
    for _ in range(2):
        answer = await client.post(f"{path}/retry", headers={"Idempotency-Key": "letter"})
        assert (answer.status_code, answer.json()["dead_id"]) == (200, dead_id)
    await client.delete(path)


def accuse(witness: Witness) -> None:
    """Fail with everything that was not as described."""
    assert not witness.problems, "\n".join(witness.problems)


async def test_answers_are_as_described(gateway: Served) -> None:
    client = gateway.client
    witness = await watch(client)
    upload_id = await uploads(client, gateway)
    await jobs_of(client, upload_id)
    await converted(client, gateway)
    await service(client, gateway)
    assert (await client.post("/dlq/none/retry")).status_code == 404
    assert (await client.post("/api/v1/uploads/direct", json={"size_bytes": 5})).status_code == 501
    accuse(witness)
    described = {
        name
        for name, operation in witness.description.operations()
        if any(JSON in answer.get("content", {}) for answer in operation["responses"].values())
    }
    assert described - witness.description.seen == DIRECT | {"post /dlq/{dead_id}/retry"}, "everything was asked"


async def test_answers_about_parts_are_as_described(server: Nats, s3_server: Seaweed, tmp_path: Path) -> None:
    data = film(6 * MIB)
    async with served(server, tmp_path / "data", **s3_values(s3_server, tmp_path)) as gateway:
        client = gateway.client
        witness = await watch(client)
        begun = await client.post("/api/v1/uploads/direct", json={"name": "Film.mkv", "size_bytes": len(data)})
        location, step = begun.headers["location"], begun.json()["part_bytes"]
        await client.post(f"{location}/complete")
        signed = (await client.post(f"{location}/parts", json={"numbers": [1, 2]})).json()
        async with httpx.AsyncClient(trust_env=False) as away:
            for item in signed["parts"]:
                start = (item["number"] - 1) * step
                assert (await away.put(item["url"], content=data[start : start + step])).status_code == 200
        assert len((await client.get(f"{location}/parts")).json()["parts"]) == 2
        assert (await client.post(f"{location}/complete")).status_code == 200
        await client.post(f"{location}/parts", json={"numbers": [1]})
        accuse(witness)
        assert witness.description.seen == DIRECT
