"""Races of the first seed system, R1 to R6: each is set up here on purpose, and ends well.

What each was: a completion before the total (R1, R2), a trigger torn from its cause (R3), an assembly at most once
(R4), an event before its record (R5), writes without a condition (R6). The other eight: `test_races_failures.py`; those
of the second seed: `test_races_pipeline.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from services import dead_letters, operations, submit
from services.assembler import Assembler
from services.collector import Collector
from services.converter import Converter
from services.janitor import Janitor
from services.planner import Planner
from stereospot import errors, jobs, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.messages import (
    Film,
    PlanWork,
    SourceRef,
    Trigger,
)
from stereospot.options import Options
from stereospot.outcome import Ack
from tests.faults import history
from tests.faults.racing import INIT, drained, say, task, trigger_delivery, triggers
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_job, a_planned_job, announce_total, collecting, rig


# ---- the completion set ----------------------------------------------------------------------------------
async def test_r1_a_segment_that_is_done_before_the_plan_is_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        job = a_job(phase=Phase.PLANNING)
        await records.create_job(context.bus, job)
        async with collecting(Collector(context)):
            await say(context.bus, 0)
            await eventually(lambda: drained(context))
            state = await records.get_state(context.bus, "J1", 1)
            assert state is not None
            assert (state[0].done, state[0].total) == (0b1, None), "counted, though nobody knows of how many"
            await announce_total(context, job, 2)
            await say(context.bus, 1)
            await eventually(lambda: drained(context))
        assert await triggers(context) == 1


async def test_r2_the_total_triggers_when_everything_was_done_before_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        job = a_job(phase=Phase.PLANNING)
        await records.create_job(context.bus, job)
        async with collecting(Collector(context)):
            for index in range(3):
                await say(context.bus, index)
            await eventually(lambda: drained(context))
            assert await triggers(context) == 0
            await announce_total(context, job, 3)
            await eventually(lambda: drained(context))
        assert await triggers(context) == 1


async def test_r3_a_commit_that_is_torn_leaves_neither_set_nor_trigger(tmp_path: Path) -> None:
    """The same with a process that dies there: `test_f01_kill.py`, collector at bus.in_commit."""
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        job = a_job()
        await records.create_job(context.bus, job)
        whole = Completion(job_id="J1", generation=1, total=1, planned=1, done=1, sent=1, init=INIT)
        headers = {"Nats-Batch-Id": "torn", "Nats-Batch-Sequence": "1", "Nats-Expected-Last-Subject-Sequence": "0"}
        await context.bus.nc.publish("$KV.state.state.J1.1", whole.body(), headers=headers)
        await context.bus.nc.flush()
        assert await records.get_state(context.bus, "J1", 1) is None
        async with collecting(Collector(context)):
            await say(context.bus, 0)
            await announce_total(context, job, 1)
            await eventually(lambda: drained(context))
        assert await triggers(context) == 1
        state = await records.get_state(context.bus, "J1", 1)
        assert state is not None
        assert state[0].is_complete


# ---- assembly, records -----------------------------------------------------------------------------------
async def test_r4_an_assembly_that_died_is_done_by_the_next_delivery(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await a_planned_job(context, films.path("h264_mp4_silent"), options=Options(backend="stub"), frames=48)
        worker = Converter(context, worker_id="w", slots=1)
        head = await worker._plans.total("J1", 1)  # pyright: ignore[reportPrivateUsage]
        assert head is not None
        for index in range(head.segments):
            assert await worker.handle(task(index)) == Ack()
        await worker.close()
        (found,) = [item.key async for item in context.store.list("jobs/J1/1/init-")]
        body = await context.store.get(found)
        assert body is not None
        everything = (1 << head.segments) - 1
        state = Completion(
            job_id="J1", generation=1, total=head.segments, planned=head.segments, done=everything, sent=everything,
            init=_sha256(body),
        )  # fmt: skip
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        # The first one came as far as the record, and died.
        await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.ASSEMBLING, at=2.0))
        made = Assembler(context)
        try:
            assert await made.handle(trigger_delivery(delivered=2)) == Ack()
            assert await made.handle(trigger_delivery(delivered=3)) == Ack("completed already")
        finally:
            made.close()
        record = await records.get_job(context.bus, "J1")
        assert record is not None
        assert record[0].phase is Phase.COMPLETED


def _sha256(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()


async def test_r5_work_never_comes_before_its_record_and_a_record_without_work_gets_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        planner = Planner(context)
        early = PlanWork(job_id="J1", generation=1)
        outcome = await planner.handle(Delivery(subject="stereospot.work.plan.J1", data=early.body()))
        planner.close()
        assert outcome == Ack("stale"), "of a job that is not there"
        # The submitter died between the record and the work: the same call again, or the janitor, makes it good.
        await records.create_job(context.bus, a_job(phase=Phase.CREATED))
        await submit.create(context, SourceRef(key="input/J1/source.mp4"), Options(), job_id="J1")
        assert (await context.bus.stream_info(subjects.WORK))["state"]["messages"] == 1
        await context.bus.purge(subjects.WORK)
        assert (await Janitor(context).sweep()).mended == {"plan": ["J1"]}
        assert (await context.bus.stream_info(subjects.WORK))["state"]["messages"] == 1


async def test_r6_what_comes_late_changes_no_record(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        film = Film(
            key=keys.film("J1", 1, "mp4"), sha256="0", size_bytes=4, frames=1, duration_seconds=1, container="mp4",
            file_name="f.mp4",
        )  # fmt: skip
        completed = jobs.advance(a_job(phase=Phase.ASSEMBLING), Phase.COMPLETED, at=2.0, film=film)
        deleted = jobs.advance(a_job("J2"), Phase.DELETED, at=2.0)
        await context.store.put(film.key, b"film")
        for job in (completed, deleted):
            await records.create_job(context.bus, job)
        before = await records.list_jobs(context.bus)
        made = Assembler(context)
        failure = dead_letters.Failure.of(errors.error("CORRUPT_INPUT"))
        try:
            for job_id in ("J1", "J2"):
                body = Trigger(job_id=job_id, generation=1, total=2).body()
                await made.handle(Delivery(subject=f"$KV.state.trigger.{job_id}.1", data=body))
                assert not await operations.fail(context.bus, job_id, 1, failure)
        finally:
            made.close()
        async with collecting(Collector(context)):
            await say(context.bus, 0, job_id="J2")
            await eventually(lambda: drained(context))
        assert await records.list_jobs(context.bus) == before
        assert await records.get_state(context.bus, "J2", 1) is None
        with pytest.raises(errors.Permanent):
            jobs.advance(deleted, Phase.COMPLETED, at=3.0)
