"""What two steps keep when another writer, or an end, comes between them: nobody's write, and no message, is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services import dead_letters, ghosts, lost, operations
from services.assembler import Assembler
from services.collector import Collector
from services.context import Context
from services.janitor import Janitor
from services.reclaim import reclaim
from stereospot import errors, records, subjects
from stereospot.bus import Bus, Delivery, Puller
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import Failure, PlanWork, SegmentTask, TotalDone, Trigger
from stereospot.tries import Tries
from tests.support import eventually
from tests.system.rig import a_job, collecting, rig

KEY = subjects.state_key("J1", 1)


async def put(context: Context, state: Completion) -> None:
    await context.bus.bucket(subjects.STATE).put(KEY, state)


async def state_of(context: Context) -> Completion:
    found = await records.get_state(context.bus, "J1", 1)
    assert found is not None
    return found[0]


# ---- other writers ---------------------------------------------------------------------------------------
async def test_what_is_counted_while_the_storage_is_looked_at_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    async with rig(tmp_path) as context:
        state = Completion(job_id="J1", generation=1, total=3, planned=3, done=0b001, sent=0b111)
        await put(context, state)

        async def missing(*_: Any) -> list[int]:
            looks.append(1)
            if len(looks) == 1:
                await put(context, state.with_done(1, "a"))  # a collector
            return [0]

        monkeypatch.setattr(lost, "missing", missing)
        assert await lost.forget(context, "J1", 1) == [0]
        assert ((await state_of(context)).done, len(looks)) == (0b010, 2)


async def test_what_is_counted_while_the_janitor_looks_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        state = Completion(job_id="J1", generation=1, total=3, planned=3, done=0b001, sent=0b111)
        await put(context, state)
        read = records.get_job
        reads: list[str] = []

        async def get_job(bus: Bus, job_id: str) -> tuple[Job, int] | None:
            reads.append(job_id)
            if len(reads) == 2:  # the last look before the write
                await put(context, state.with_done(1, "a"))
            return await read(bus, job_id)

        monkeypatch.setattr(records, "get_job", get_job)
        assert (await Janitor(context).sweep()).mended == {}
        assert len(reads) == 2
        assert (await state_of(context)).done == 0b011


async def test_segments_of_an_attempt_that_ended_while_they_were_sent_are_sent_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        collector = Collector(context)
        publish = context.bus.publish
        retried: list[str] = []

        async def published(subject: str, *args: Any, **values: Any) -> int:
            sequence = await publish(subject, *args, **values)
            if subject.split(".")[1] == "convert" and not retried:
                retried.append(subject)
                await records.change_job(context.bus, "J1", lambda job: job.model_copy(update={"attempt": 2}))
                await collector.states.change("J1", 1, lambda state: state.with_attempt(2))
            return sequence

        monkeypatch.setattr(context.bus, "publish", published)

        async def attempts() -> bool:
            found = [await context.bus.get(subjects.CONVERT, sequence) for sequence in range(1, 9)]
            tasks = [SegmentTask.model_validate_json(item.data) for item in found if item is not None]
            return {task.index for task in tasks if task.attempt == 2} == {0, 1}

        async with collecting(collector):
            total = TotalDone(job_id="J1", generation=1, pool="cpu", total=2, parts=(0,), audio=False)
            await publish(subjects.done_plan("J1", 1, "total"), total)
            await eventually(attempts, what="both segments in the second attempt")


# ---- ends between two steps ------------------------------------------------------------------------------
async def test_what_a_killed_daemon_held_comes_at_once_and_with_the_ack_wait_that_it_had(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await context.bus.publish(subjects.work("plan", "J1"), PlanWork(job_id="J1", generation=1))
        killed = Puller(context.bus, subjects.WORK, "work-plan")
        await killed.open()
        assert len(await killed.take(1)) == 1
        await killed.close()
        before = (await context.bus.consumer_info(subjects.WORK, "work-plan"))["config"]
        assert await reclaim(context.bus, "cpu") == 1
        assert (await context.bus.consumer_info(subjects.WORK, "work-plan"))["config"] == before
        following = Puller(context.bus, subjects.WORK, "work-plan")
        await following.open()
        assert await following.wait(5.0, 1), "long before the ack wait is over"
        (received,) = await following.take(1)
        assert received.delivery.attempt == 2
        await received.ack_confirmed()
        await following.close()


async def test_a_message_that_cannot_be_offered_again_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a repair nor the net below dead letters takes a message away before its successor is stored."""
    async with rig(tmp_path) as context:
        bus = context.bus
        await records.create_job(bus, a_job())
        subject = subjects.convert("cpu", "normal", "J1", 1, 4)
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=4, part=0)
        sequence = await bus.publish(subject, task)
        plan = await bus.publish(subjects.work("plan", "J1"), PlanWork(job_id="J1", generation=1))
        given = Delivery(subject, task.body(), stream=subjects.CONVERT, stream_sequence=sequence)
        for _ in range(3):
            await Tries(bus).excuse(given)

        async def away(*_: Any, **__: Any) -> int:
            raise errors.error("BROKER_UNAVAILABLE")

        advisory = {"type": "max_deliver", "stream": subjects.CONVERT, "stream_seq": sequence, "deliveries": 6}
        with monkeypatch.context() as broken:
            broken.setattr(bus, "publish", away)
            with pytest.raises(errors.Transient):
                await dead_letters.handle(context, Delivery("$JS", json.dumps(advisory).encode()))
            found = await bus.get(subjects.WORK, plan)
            assert found is not None
            with pytest.raises(errors.Transient):
                await ghosts.lay(bus, ghosts.Ghost(subjects.WORK, plan, found.subject, found.data))
        assert await bus.get(subjects.CONVERT, sequence) is not None
        assert await bus.get(subjects.WORK, plan) is not None


async def test_a_failed_assembly_forgets_what_was_lost_before_its_job_can_be_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[Phase] = []

    async def forget(context: Context, job_id: str, generation: int) -> list[int]:
        found = await records.get_job(context.bus, job_id)
        assert found is not None
        phases.append(found[0].phase)
        return []

    monkeypatch.setattr(lost, "forget", forget)
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job(phase=Phase.ASSEMBLING))
        made = Assembler(context)
        try:
            trigger = Delivery("s", Trigger(job_id="J1", generation=1, total=4).body())
            await made.reject(trigger, Failure.of(errors.error("ASSEMBLY_FAILED")))
        finally:
            made.close()
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert (phases, found[0].phase) == ([Phase.ASSEMBLING], Phase.FAILED)


async def test_a_failure_whose_teller_died_is_told_by_the_next_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        failure = Failure.of(errors.error("SOURCE_CHANGED"), segment_index=3, attempts=1)

        async def away(*_: Any) -> None:
            raise errors.error("BROKER_UNAVAILABLE")

        with monkeypatch.context() as broken:
            broken.setattr(operations, "withdraw", away)
            with pytest.raises(errors.Transient):
                await operations.fail(context.bus, "J1", 1, failure)
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=4, part=0)
        await context.bus.publish(subjects.convert("cpu", "normal", "J1", 1, 4), task)
        other = failure.model_copy(update={"segment_index": 4})
        assert not await operations.fail(context.bus, "J1", 1, other), "one reason is enough"
        again = failure.model_copy(update={"attempts": 2})
        assert await operations.fail(context.bus, "J1", 1, again)
        assert await context.bus.last(subjects.EVENT, subjects.event_job("J1", "failed")) is not None
        assert await context.bus.last(subjects.CONVERT, ">") is None
