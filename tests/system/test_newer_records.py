"""Records of a newer version: what this one does not know of them is kept; an unreadable one harms only itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services import operations
from services.collector import Collector
from services.context import Context
from services.intake import Upload, sweep
from services.janitor import Janitor
from services.planner import Planner
from stereospot import errors, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import PlanWork, SegmentTask
from tests.support import eventually
from tests.system.gateway import CLIP, Served
from tests.system.rig import a_job, collecting, rig
from tests.system.test_collector import say, say_total, segment, state_of
from tests.system.test_converter import converter, task


async def put(context: Context, job: Job, *, options: object = None, phase: str | None = None) -> None:
    """The record as a version with another option, or another phase, writes it."""
    body = json.loads(job.body())
    body["options"] |= options or {}
    body["phase"] = phase or body["phase"]
    await context.bus.bucket(subjects.JOBS).put(job.job_id, json.dumps(body).encode())


async def is_complete(context: Context, job_id: str) -> bool:
    state = await state_of(context, job_id)
    return state is not None and state.is_complete


async def test_a_change_keeps_an_option_that_this_version_has_not(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await put(context, a_job(), options={"sharpness": 0.5})
        await records.change_job(context.bus, "J1", lambda job: job.model_copy(update={"title": "Film"}))
        entry = await context.bus.bucket(subjects.JOBS).get("J1")
        assert entry is not None
        body = json.loads(entry.value)
        assert (body["title"], body["options"]["sharpness"]) == ("Film", 0.5)


async def test_no_film_is_planned_without_an_option_that_was_asked_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await put(context, a_job(phase=Phase.CREATED), options={"sharpness": 0.5})
        planner = Planner(context)
        try:
            with pytest.raises(errors.Misconfigured, match="does not know the options sharpness") as raised:
                await planner.handle(Delivery("", PlanWork(job_id="J1", generation=1, attempt=1).body()))
            assert raised.value.code == "RECORD_UNREADABLE"
        finally:
            planner.close()


async def test_a_record_that_was_unreadable_for_a_while_costs_the_worker_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        delivery = task(0)
        for _ in range(2):
            with pytest.raises(errors.Misconfigured):
                await made.setbacks.failed(delivery, delivery.parse(SegmentTask), errors.error("RECORD_UNREADABLE"))


async def test_a_record_that_cannot_be_read_has_a_name(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await put(context, a_job(), phase="muxing")
        with pytest.raises(errors.Misconfigured, match="J1: phase: Input should be") as raised:
            await records.get_job(context.bus, "J1")
        assert raised.value.code == "RECORD_UNREADABLE"


async def test_the_collector_goes_on_beside_a_record_that_it_cannot_read(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await put(context, a_job("J1"), phase="muxing")
        await put(context, a_job("J2"), options={"sharpness": 0.5})
        async with collecting(Collector(context, pause_seconds=0.05)):
            for job_id in ("J1", "J2"):
                await say(context, segment(0, job_id=job_id))
                await say_total(context, 1, job_id=job_id)
            await eventually(lambda: is_complete(context, "J2"), what="the job with one option more")
            assert await state_of(context, "J1") is None
            await put(context, a_job("J1"))
            await eventually(lambda: is_complete(context, "J1"), what="the other, once it can be read")


async def test_the_janitor_goes_on_beside_a_record_that_it_cannot_read(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await put(context, a_job("J1", phase=Phase.PLANNING), phase="muxing")
        await put(context, a_job("J2", phase=Phase.PLANNING), options={"sharpness": 0.5})
        for key in ("input/U1/source.mp4", keys.input_use("U1", "J1"), "input/U2/source.mp4", keys.segment("J1", 1, 0)):
            await context.store.put(key, b"x")
        janitor = Janitor(context, stale_seconds=-1)
        assert (await janitor.sweep()).mended == {"plan": ["J2"]}
        assert (await janitor.sweep_storage()).mended == {"orphan": ["input/U2/"]}, "what the other may read stays"


async def put_set(context: Context, job_id: str) -> None:
    """The completion set of a job as a version that counts in another way writes it."""
    body = json.loads(Completion(job_id=job_id, generation=1).body()) | {"done": {"runs": [[0, 4]]}}
    await context.bus.bucket(subjects.STATE).put(subjects.state_key(job_id, 1), json.dumps(body).encode())


async def test_a_completion_set_that_cannot_be_read_holds_up_no_other_job(tmp_path: Path) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        for job_id in ("J1", "J2"):
            await records.create_job(context.bus, a_job(job_id))
        await put_set(context, "J1")
        with pytest.raises(errors.Misconfigured, match="done: Value error") as raised:
            await made.handle(task(0))
        assert raised.value.code == "RECORD_UNREADABLE", "given back, not failed"
        async with collecting(Collector(context, pause_seconds=0.05)):
            for job_id in ("J1", "J2"):
                await say(context, segment(0, job_id=job_id))
                await say_total(context, 1, job_id=job_id)
            await eventually(lambda: is_complete(context, "J2"), what="the other job")
            assert (await Janitor(context).sweep()).mended == {}
            await context.bus.bucket(subjects.STATE).purge(subjects.state_key("J1", 1))
            await eventually(lambda: is_complete(context, "J1"), what="this one, once it is rebuilt")


async def test_a_set_that_becomes_unreadable_at_work_stops_no_other_job(tmp_path: Path) -> None:
    """Another collector, of a newer version, has counted on; this one has the job in view, and somebody seeks in it."""
    async with rig(tmp_path) as context, collecting(Collector(context, pause_seconds=0.05)):
        await records.create_job(context.bus, a_job("J1"))
        await say_total(context, 40, job_id="J1")
        await eventually(lambda: is_known(context, "J1"), what="the set")
        await put_set(context, "J1")
        await operations.seek(context.bus, "J1", 30)
        await records.create_job(context.bus, a_job("J2"))
        await say_total(context, 2, job_id="J2")

        async def is_sent() -> bool:
            found = await state_of(context, "J2")
            return found is not None and found.sent == 0b11

        await eventually(is_sent, what="the other job's segments sent")


async def is_known(context: Context, job_id: str) -> bool:
    return await state_of(context, job_id) is not None


async def test_the_pages_are_there_beside_a_set_that_cannot_be_read(gateway: Served) -> None:
    for job_id in ("J1", "J2"):
        await records.create_job(gateway.context.bus, a_job(job_id))
    await put_set(gateway.context, "J1")
    two = Completion(job_id="J2", generation=1, total=2, planned=2, done=1, sent=3)
    await gateway.context.bus.bucket(subjects.STATE).put(subjects.state_key("J2", 1), two)

    async def progress() -> int:
        return (await gateway.client.get("/api/v1/jobs/J2")).json()["progress"]["segments"]["done"]

    await eventually(lambda: progress(), what="what came after it is read")
    assert (await gateway.client.get("/api/v1/jobs/J1")).status_code == 200
    assert (await gateway.client.get("/api/v1/jobs")).status_code == 200


async def test_a_record_that_became_unreadable_between_two_looks_stops_no_sweep(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        for job_id in ("J1", "J2", "J3"):
            await records.create_job(context.bus, a_job(job_id, phase=Phase.PLANNING))
        janitor = Janitor(context)
        await janitor._ledger.read()  # pyright: ignore[reportPrivateUsage]
        janitor._ledger._read = _nothing  # type: ignore[method-assign] # pyright: ignore[reportPrivateUsage]
        await put(context, a_job("J2"), phase="muxing")
        assert (await janitor.sweep()).mended == {"plan": ["J1", "J3"]}


async def _nothing(*_: object) -> int:
    return 0


async def test_an_upload_of_a_kind_that_is_not_known_here_is_left_to_those_who_know_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        upload = Upload(upload_id="U1", key="input/U1/source.mp4", name="A.mp4", size_bytes=4, created_at=1.0)
        body = json.dumps(json.loads(upload.body()) | {"how": "torrent"}).encode()
        await context.store.put(keys.upload_record("U1"), body)
        assert await sweep(context.store, 3600) == (0, frozenset())
        assert await context.store.get(keys.upload_record("U1")) == body
        assert await sweep(context.store, -1) == (1, frozenset()), "nobody goes on with it any more"
        assert await context.store.get(keys.upload_record("U1")) is None


async def test_an_unknown_option_is_refused_by_the_api_and_shown_where_a_record_has_it(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads", content=CLIP)).json()
    body = {"upload": stored["upload"], "options": {"sharpnes": 1}}
    for path in ("/api/v1/jobs", "/api/v1/samples"):
        answer = await gateway.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert answer.json()["details"]["fields"] == [
            {"key": "options.sharpnes", "message": "Extra inputs are not permitted"}
        ]
    await put(gateway.context, a_job(), options={"sharpness": 0.5})
    assert (await gateway.client.get("/api/v1/jobs/J1")).json()["options"]["sharpness"] == 0.5
    page = await gateway.client.get("/jobs/J1", headers={"Accept": "text/html"})
    assert page.status_code == 200
    await put(gateway.context, a_job(), phase="muxing")
    answer = await gateway.client.get("/api/v1/jobs/J1")
    assert (answer.status_code, answer.json()["code"]) == (503, "RECORD_UNREADABLE")
