"""An id is used once; and where the bucket holds what an earlier life of a key left, nobody stumbles over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services import delete, operations, submit
from services.collector import Collector
from services.context import Context
from services.janitor import Janitor
from services.states import States
from stereospot import errors, records, subjects
from stereospot.bus import Conflict, Delivery, Write
from stereospot.completion import Completion
from stereospot.messages import DeleteWork, SourceRef, Trigger
from stereospot.options import Options
from stereospot.outcome import Ack, Return
from tests.support import eventually
from tests.system.gateway import CLIP, Served
from tests.system.rig import a_job, collecting, rig
from tests.system.test_collector import say, say_total, segment, state_of


async def end(context: Context, job_id: str) -> None:
    """Delete a job to the last of it."""
    await operations.delete(context.bus, job_id)
    delivery = Delivery("", DeleteWork(job_id=job_id).body())
    assert isinstance(await delete.handle(context, delivery), Return)
    again = replace(delivery, attempt=2)
    assert isinstance(await delete.handle(context, again), Return), "handed over at once it is too early to be the last"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delete, "SETTLED_SECONDS", 0.0)
        assert await delete.handle(context, again) == Ack()


async def leave_markers(context: Context, job_id: str) -> None:
    """What a purge leaves of a set and of its trigger."""
    state = context.bus.bucket(subjects.STATE)
    for key in (subjects.state_key(job_id, 1), subjects.trigger_key(job_id, 1)):
        await state.put(key, b"{}")
        await state.purge(key)


async def is_complete(context: Context, job_id: str) -> bool:
    state = await state_of(context, job_id)
    trigger = await context.bus.bucket(subjects.STATE).get(subjects.trigger_key(job_id, 1))
    return state is not None and state.is_complete and trigger is not None


# ---- what a purge leaves ---------------------------------------------------------------------------------
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_purged_set_and_its_trigger_are_written_anew(tmp_path: Path, at_once: bool) -> None:
    async with rig(tmp_path) as context:
        await leave_markers(context, "J1")
        await records.create_job(context.bus, a_job())
        collector = Collector(context)

        async def told() -> None:
            for index in range(2):
                await say(context, segment(index))
            await say_total(context, 2)

        if at_once:
            await told()  # one batch: the set begins complete
        async with collecting(collector):
            if not at_once:
                await told()
            await eventually(lambda: is_complete(context, "J1"), what="the set and its trigger")
        assert collector.states.conflicts == 0


async def test_a_set_that_came_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the commit another collector may begin the set."""
    async with rig(tmp_path) as context:
        await leave_markers(context, "J1")
        mine, other = States(context.bus), States(context.bus)
        commit = context.bus.commit

        async def late(writes: list[Write]) -> tuple[int, ...]:
            monkeypatch.setattr(context.bus, "commit", commit)
            await other.change("J1", 1, lambda state: state.with_done_set(0b10, None), create=_yes)
            return await commit(writes)

        monkeypatch.setattr(context.bus, "commit", late)

        def complete(state: Completion) -> Completion:
            return state.with_total(2, (0,), 1, "cpu", False).with_done_set(0b11, None)

        stored = await mine.change("J1", 1, complete, create=_yes)
        assert stored is not None
        assert (mine.conflicts, stored.done) == (1, 0b11)
        assert await is_complete(context, "J1")


async def _yes() -> bool:
    return True


async def test_a_set_that_is_never_as_it_was_read_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context:
        for job_id in ("J1", "J2"):
            await records.create_job(context.bus, a_job(job_id))
        commit = States._commit  # pyright: ignore[reportPrivateUsage]
        holds = True

        async def contended(states: States, key: str, *rest: Any) -> int:
            if holds and key == subjects.state_key("J1", 1):
                raise Conflict("somebody was faster")
            return await commit(states, key, *rest)

        monkeypatch.setattr(States, "_commit", contended)
        async with collecting(Collector(context, pause_seconds=0.1)):
            for job_id in ("J1", "J2"):
                await say(context, segment(0, job_id=job_id))
                await say_total(context, 1, job_id=job_id)
            await eventually(lambda: is_complete(context, "J2"), what="the other job")
            assert await state_of(context, "J1") is None
            holds = False
            await eventually(lambda: is_complete(context, "J1"), what="the set, once it can be written")


async def test_the_janitor_writes_a_trigger_where_one_was_purged(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await leave_markers(context, "J1")
        await records.create_job(context.bus, a_job())
        whole = Completion(job_id="J1", generation=1, total=2, planned=2, done=0b11, sent=0b11)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), whole)
        assert (await Janitor(context).sweep()).mended == {"trigger": ["J1.1"]}
        entry = await context.bus.bucket(subjects.STATE).get(subjects.trigger_key("J1", 1))
        assert entry is not None
        assert Trigger.model_validate_json(entry.value).total == 2


# ---- ids -------------------------------------------------------------------------------------------------
async def test_a_submission_under_the_id_of_a_deleted_job_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await context.store.put("input/up/source.mp4", CLIP)
        source = SourceRef(key="input/up/source.mp4")
        await submit.create(context, source, Options(), job_id="J1")
        again = Delivery(subjects.work("submit", "J1"), b'{"key": "input/up/source.mp4"}')
        assert await submit.handle(context, again) == Ack(), "the same submission once more"
        await operations.delete(context.bus, "J1")
        for _ in range(2):  # while it is cleared away, and when it is gone
            with pytest.raises(errors.Permanent) as raised:
                await submit.handle(context, again)
            assert raised.value.code == "CONFLICT"
            if await records.get_job(context.bus, "J1") is not None:
                await end(context, "J1")
        assert await records.get_job(context.bus, "J1") is None


async def test_an_upload_whose_job_was_deleted_makes_a_job_of_another_id(gateway: Served) -> None:
    client, context = gateway.client, gateway.context
    stored = (await client.put("/api/v1/uploads?name=a.mp4", content=CLIP)).json()
    body = {"upload": stored["upload"]}
    first = (await client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "first"})).json()["job_id"]
    own = (await client.post("/api/v1/jobs", json=body)).json()["job_id"]
    assert own == stored["upload_id"] != first, "the first job without a key of its own"
    await end(context, own)
    third = await client.post("/api/v1/jobs", json=body)
    assert third.status_code == 201, third.text
    assert third.json()["job_id"] not in (own, first)
    whole = await client.post(f"/api/v1/jobs/{first}/whole", json={})
    assert whole.json()["job_id"] not in (own, first, third.json()["job_id"])

    await end(context, first)
    repeated = await client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "first"})
    assert (repeated.status_code, repeated.json()["code"]) == (409, "CONFLICT"), "that request was done"


async def test_samples_that_went_with_their_time_are_made_under_another_id(gateway: Served) -> None:
    client, context = gateway.client, gateway.context
    stored = (await client.put("/api/v1/uploads?name=a.mp4", content=CLIP)).json()

    async def asked(**headers: str) -> str:
        answer = await client.post("/api/v1/samples", json={"upload": stored["upload"]}, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["job_id"]

    first = await asked()
    # The upload stays: a film of it does.
    assert (await client.post("/api/v1/jobs", json={"upload": stored["upload"]})).status_code == 201
    await end(context, first)
    second = await asked()
    assert second == f"{first}-2"
    assert await asked() == second, "asked for twice they are one job"
    await operations.cancel(context.bus, second)
    assert await asked() == f"{first}-3"

    await operations.cancel(context.bus, f"{first}-3")
    key = {"Idempotency-Key": "again"}
    once = await asked(**key)
    await operations.cancel(context.bus, once)
    assert await asked(**key) == once, "the same request finds what it made"


async def test_the_id_of_a_deleted_job_stays_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        assert not await records.is_taken(context.bus, "J1")
        await records.create_job(context.bus, a_job())
        assert await records.is_taken(context.bus, "J1")
        await records.delete_job(context.bus, "J1")
        assert await records.is_taken(context.bus, "J1")
        assert not await records.is_taken(context.bus, ">"), "no subject of several"
        with pytest.raises(errors.Permanent) as raised:
            await records.create_job(context.bus, a_job())
        assert raised.value.code == "CONFLICT"
