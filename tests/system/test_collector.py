"""The collector and dispatcher against a real broker: one trigger, two collectors, old generations, mismatches."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import dead_letters, operations
from services.collector import Collector
from services.context import Context
from services.states import trigger_due
from stereospot import completion, jobs, records, schedule, subjects
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.messages import AudioDone, Failure, PartDone, SegmentDone, SegmentTask, TotalDone, Worker
from tests.support import eventually
from tests.system.rig import a_job, collecting, rig

INIT = "a" * 64
OTHER = "b" * 64


def segment(index: int, *, job_id: str = "J1", generation: int = 1, init: str = INIT) -> SegmentDone:
    return SegmentDone(
        job_id=job_id, generation=generation, index=index, frames=24, init_sha256=init, size_bytes=1, worker_id="w",
        seconds=1.0,
    )  # fmt: skip


async def say(context: Context, done: SegmentDone, salt: object = "") -> None:
    subject = subjects.done_segment(done.job_id, done.generation, done.index)
    await context.bus.publish(subject, done, msg_id=f"{subject}.{done.init_sha256}.{salt}")


async def say_total(
    context: Context, total: int, *, job_id: str = "J1", generation: int = 1, attempt: int = 1, pool: str = "cpu"
) -> None:
    subject = subjects.done_plan(job_id, generation, "total")
    body = TotalDone(
        job_id=job_id, generation=generation, attempt=attempt, pool=pool, total=total, parts=(0,), audio=False
    )
    await context.bus.publish(subject, body)


async def state_of(context: Context, job_id: str = "J1", generation: int = 1) -> Completion | None:
    found = await records.get_state(context.bus, job_id, generation)
    return found[0] if found else None


async def triggers(context: Context) -> int:
    """How many triggers were ever written: the bucket keeps one a key, so its stream is read as it grows."""
    return len(await context.bus.bucket(subjects.STATE).keys("trigger."))


async def queued(context: Context) -> list[SegmentTask]:
    info = await context.bus.stream_info(subjects.CONVERT)
    first, last = info["state"]["first_seq"], info["state"]["last_seq"]
    found = [await context.bus.get(subjects.CONVERT, sequence) for sequence in range(max(1, first), last + 1)]
    return [SegmentTask.model_validate_json(item.data) for item in found if item is not None]


async def test_the_last_segment_triggers_once_however_often_it_comes(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        async with context.bus.tail(subjects.kv_stream(subjects.STATE), "$KV.state.trigger.>", start="all") as tail:
            written: list[int] = []

            async def count() -> None:
                async for message in tail:
                    written.append(message.sequence)

            async with collecting(Collector(context)), asyncio.TaskGroup() as group:
                counting = group.create_task(count())
                for index in [2, 0, 1, 1, 2]:
                    await say(context, segment(index), random.random())
                await say_total(context, 3)
                await eventually(lambda: bool(written), what="a trigger")
                for index in range(3):
                    await say(context, segment(index), "late")
                await say_total(context, 3)
                await eventually(lambda: _drained(context), what="everything acknowledged")
                counting.cancel()
            assert len(written) == 1
        state = await state_of(context)
        assert state is not None
        assert (state.done, state.total, state.init) == (0b111, 3, INIT)


async def test_an_earlier_attempt_that_comes_late_does_not_hide_the_present_one(tmp_path: Path) -> None:
    """A total that could not be stored comes again, behind that of the retry, and both are read together."""
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        await say_total(context, 3, attempt=2)
        await say_total(context, 3, attempt=1)
        async with collecting(Collector(context)):
            await eventually(lambda: _drained(context), what="everything acknowledged")
        state = await state_of(context)
        assert state is not None
        assert (state.total, state.attempt) == (3, 2)


async def _drained(context: Context) -> bool:
    return (await context.bus.stream_info(subjects.DONE))["state"]["messages"] == 0


async def test_two_collectors_lose_nothing_and_trigger_once_a_job(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        names = [f"J{number}" for number in range(5)]
        messages = [segment(index, job_id=name) for name in names for index in range(60)]
        random.Random(3).shuffle(messages)
        for name in names:
            await records.create_job(context.bus, a_job(name))
        async with context.bus.tail(subjects.kv_stream(subjects.STATE), "$KV.state.trigger.>", start="all") as tail:
            written: list[str] = []

            async def count() -> None:
                async for message in tail:
                    written.append(message.subject)

            async with asyncio.TaskGroup() as group:
                counting = group.create_task(count())
                async with collecting(Collector(context, batch=8), Collector(context, batch=8)):
                    for position, message in enumerate(messages):
                        await say(context, message)
                        if position % 7 == 0:
                            await say(context, message, "again")
                        if position == 100:
                            for name in names:
                                await say_total(context, 60, job_id=name)
                    await eventually(lambda: _drained(context), what="everything acknowledged")
                counting.cancel()
        assert sorted(written) == [f"$KV.state.trigger.{name}.1" for name in names]
        for name in names:
            state = await state_of(context, name)
            assert state is not None
            assert state.done == (1 << 60) - 1


async def test_results_of_old_generations_and_unknown_jobs_are_dropped(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        renewed = jobs.renew(a_job(), at=2.0, note="changed")
        await records.create_job(context.bus, renewed)
        async with collecting(Collector(context)):
            await say(context, segment(0, generation=1))
            await say(context, segment(0, job_id="nobody"))
            await say(context, segment(0, generation=2))
            await eventually(lambda: _drained(context), what="everything acknowledged")
        assert await state_of(context, generation=1) is None
        assert await state_of(context, "nobody") is None
        state = await state_of(context, generation=2)
        assert state is not None
        assert state.done == 1


async def test_what_is_no_completion_is_buried(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        async with collecting(Collector(context)):
            await context.bus.publish(f"{subjects.PREFIX}.done.J1.1.0", b"[]")
            await context.bus.publish(f"{subjects.PREFIX}.done.J1.1.999999999", segment(0))
            await context.bus.publish(f"{subjects.PREFIX}.done.nonsense", b"{}")
            await say(context, segment(1))
            await eventually(lambda: _drained(context), what="all gone")
        letters = await dead_letters.letters(context.bus)
        assert [item.failure.code for item in letters] == ["INVALID_REQUEST"] * 3
        state = await state_of(context)
        assert state is not None
        assert state.done == 0b10


async def test_dispatch_keeps_the_queue_shallow_and_follows_the_playhead(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        async with collecting(Collector(context)):
            worker = Worker(worker_id="w1", host="h", pid=1, pool="cpu", slots=3, started_at=0, seen_at=0)
            await context.bus.bucket(subjects.WORKERS).put("w1", worker)
            await say_total(context, 40)

            async def depth(count: int) -> bool:
                return len(await queued(context)) == count

            await eventually(lambda: depth(6), what="two segments a slot")
            assert [task.index for task in await queued(context)] == [0, 1, 2, 3, 4, 5]
            await say(context, segment(0))
            await say(context, segment(1))
            await eventually(lambda: depth(8), what="two more for two done")
            await operations.seek(context.bus, "J1", 20)
            await eventually(lambda: depth(12), what="what follows the playhead")
            assert [task.index for task in await queued(context)][-4:] == [20, 21, 22, 23]
            last = await context.bus.last(subjects.CONVERT, subjects.convert("cpu", "now", "J1", 1, 23))
            assert last is not None, "a playhead goes through the lane `now`"
            await operations.cancel(context.bus, "J1")
            await eventually(lambda: depth(0), what="a cancel takes back what was not begun")
            await say(context, segment(2))
            await eventually(lambda: _drained(context))
            assert await queued(context) == []


async def test_a_segment_with_another_header_is_offered_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        async with collecting(Collector(context)):
            await say_total(context, 2)
            await eventually(lambda: _sent(context, 2), what="both sent")
            await say(context, segment(0))
            await say(context, segment(1, init=OTHER))
            tasks = await eventually(lambda: _sent(context, 3), what="the second one sent again")
            assert [task.index for task in tasks] == [0, 1, 1]
            await say(context, segment(1))
            await eventually(lambda: _is_triggered(context), what="the trigger")
        state = await state_of(context)
        assert state is not None
        assert (state.init, state.done) == (INIT, 0b11)


async def _sent(context: Context, count: int) -> list[SegmentTask]:
    found = await queued(context)
    return found if len(found) == count else []


async def _is_triggered(context: Context) -> bool:
    return await triggers(context) == 1


async def test_a_retry_sends_only_what_is_missing_and_triggers_again_when_nothing_is(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        async with collecting(Collector(context)):
            await say_total(context, 2)
            await eventually(lambda: _sent(context, 2), what="both sent")
            await say(context, segment(0))
            failure = Failure(code="INTERNAL", sentence="s", advice="a")
            assert await operations.fail(context.bus, "J1", 1, failure)
            await operations.retry(context.bus, "J1")
            await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.CONVERTING, at=3.0))
            await say_total(context, 2, attempt=2)
            tasks = await eventually(lambda: _sent(context, 1), what="the missing one")
            assert [(task.index, task.attempt) for task in tasks] == [(1, 2)]
            await say(context, segment(1))
            await eventually(lambda: _is_triggered(context), what="the trigger")
            first = await context.bus.bucket(subjects.STATE).get(subjects.trigger_key("J1", 1))

            # The assembly fails; a retry has nothing to convert, and must still end in an assembly.
            assert await operations.fail(context.bus, "J1", 1, failure)
            await operations.retry(context.bus, "J1")
            await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.CONVERTING, at=4.0))
            await say_total(context, 2, attempt=3)

            async def newer() -> bool:
                entry = await context.bus.bucket(subjects.STATE).get(subjects.trigger_key("J1", 1))
                assert first is not None
                assert entry is not None
                return entry.revision > first.revision

            await eventually(newer, what="a trigger of the new attempt")


async def test_sound_and_parts_are_monotone(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job(phase=Phase.PLANNING))
        async with collecting(Collector(context)):
            for ready in (4, 2, 8):
                await context.bus.publish(
                    subjects.done_plan("J1", 1, "audio"), AudioDone(job_id="J1", generation=1, ready=ready)
                )
            for first, count in ((0, 1), (1, 3)):
                part = PartDone(job_id="J1", generation=1, pool="cpu", first=first, count=count)
                await context.bus.publish(subjects.done_plan("J1", 1, "part"), part)
            await eventually(lambda: _sent(context, 2), what="dispatch before the total is known")
            await eventually(lambda: _drained(context))
        state = await state_of(context)
        assert state is not None
        assert (state.audio_ready, state.planned, state.parts, state.total) == (8, 4, (0, 1), None)


async def test_a_job_that_no_worker_can_do_does_not_starve_its_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.view.WAITING_SECONDS", 0.2)
    async with rig(tmp_path) as context, collecting(Collector(context)):
        job = a_job(priority=9).with_warning("ENCODER_MISMATCH", "A worker gave this job back.")
        await records.create_job(context.bus, job)
        await say_total(context, 8)

        async def sent(job_id: str) -> list[SegmentTask]:
            return [item for item in await queued(context) if item.job_id == job_id]

        await eventually(lambda: sent("J1"), what="its first segments in the queue")
        await records.create_job(context.bus, a_job("J2"))
        await say_total(context, 2, job_id="J2")
        await eventually(lambda: sent("J2"), what="the other job's segments")
        assert len(await sent("J1")) == schedule.DEPTH


# ---- pure parts ------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 40)), st.one_of(st.none(), st.integers(1, 30)), st.sampled_from([None, INIT, OTHER]))
def test_a_bitmap_of_results_is_the_results_one_by_one(indices: list[int], total: int | None, init: str | None) -> None:
    for known in (None, INIT):
        start = Completion(job_id="j", generation=1, total=total, planned=total or 0, init=known, sent=0b1011)
        single = start
        for index in indices:
            single = single.with_done(index, init)
        together = start.with_done_set(completion.bitmap_of(indices), init)
        assert (together.done, together.sent) == (single.done, single.sent)
        assert together.init == single.init


@given(st.permutations([*range(6), "total"]), st.data())
def test_any_order_gives_one_trigger(order: list[int | str], data: st.DataObject) -> None:
    state: Completion | None = None
    written = 0
    for item in [*order, *data.draw(st.lists(st.sampled_from(order)))]:
        before = state
        base = before or Completion(job_id="j", generation=1)
        state = (
            base.with_total(6, (0,), 1, "cpu", False) if item == "total" else base.with_done_set(1 << int(item), INIT)
        )
        written += state is not before and trigger_due(before, state)
    assert written == 1
