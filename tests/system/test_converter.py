"""The converter on a real broker, a real store and real files: what it stores, repeats, refuses and gives up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services import daemon, operations
from services.context import Context
from services.converter import Converter
from services.reports import Report
from services.setbacks import MISSING_SECONDS
from stereospot import errors, jobs, keys, records, subjects
from stereospot.bus import Bus, Delivery
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import SegmentDone, SegmentEvent, SegmentTask, Worker
from stereospot.options import Options
from stereospot.outcome import Ack, Outcome, Reject, Retry, Return
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_planned_job, announce_total, rig


@asynccontextmanager
async def converter(context: Context, slots: int = 2) -> AsyncGenerator[Converter]:
    made = Converter(context, worker_id="w1", slots=slots)
    try:
        yield made
    finally:
        await made.close()


def task(index: int, *, attempt: int = 1, generation: int = 1, delivered: int = 1) -> Delivery:
    body = SegmentTask(job_id="J1", generation=generation, attempt=attempt, index=index, part=0)
    return Delivery(
        subject=subjects.convert("cpu", "normal", "J1", generation, index), data=body.body(), attempt=delivered,
        stream=subjects.CONVERT, stream_sequence=1,
    )  # fmt: skip


async def reported(context: Context) -> list[SegmentDone]:
    info = await context.bus.stream_info(subjects.DONE)
    state = info["state"]
    found = [
        await context.bus.get(subjects.DONE, number)
        for number in range(max(1, state["first_seq"]), state["last_seq"] + 1)
    ]
    return [SegmentDone.model_validate_json(item.data) for item in found if item is not None]


async def test_a_segment_is_stored_whole_then_reported_and_never_computed_twice(tmp_path: Path) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        _, _, segments = await a_planned_job(context, films.path("h264_mp4"))
        assert await made.handle(task(1)) == Ack()
        (done,) = await reported(context)
        assert (done.index, done.frames, done.worker_id) == (1, segments[1].frames, "w1")
        fragment = await context.store.head(keys.segment("J1", 1, 1))
        init = await context.store.get(keys.init("J1", 1, done.init_sha256))
        assert fragment is not None
        assert init is not None
        assert fragment.size == done.size_bytes
        body = await context.store.get(keys.segment_report("J1", 1, 1))
        assert body is not None
        assert Report.model_validate_json(body).measures["engine"]["name"] == "identity"
        event = await context.bus.last(subjects.EVENT, subjects.event_segment("J1", 1, 1))
        assert event is not None
        assert SegmentEvent.model_validate_json(event.data).state == "done"

        # The same message again, as after a crash between the report and the ack.
        assert await made.handle(task(1, delivered=2)) == Ack("stored already")
        again = await context.store.head(keys.segment("J1", 1, 1))
        assert again is not None
        assert again.modified == fragment.modified


@pytest.mark.parametrize("left", [None, b"torn"])
async def test_a_fragment_that_is_gone_is_made_again_although_its_report_is_there(
    tmp_path: Path, left: bytes | None
) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        key = keys.segment("J1", 1, 0)
        assert await made.handle(task(0)) == Ack()
        first = await context.store.get(key)
        if left is None:
            await context.store.delete(key)
        else:
            await context.store.put(key, left)
        assert await made.handle(task(0, delivered=2)) == Ack()
        assert await context.store.get(key) == first


async def test_consecutive_segments_share_one_decoder(tmp_path: Path) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        for index in range(3):
            assert await made.handle(task(index)) == Ack()
        assert made.decoders_opened == 1


@pytest.mark.parametrize("what", ["generation", "attempt", "phase", "gone"])
async def test_work_that_nobody_wants_is_dropped(tmp_path: Path, what: str) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        if what == "generation":
            await operations.change(context.bus, "J1", options=Options(crf=1))
        elif what == "attempt":
            await operations.cancel(context.bus, "J1")
            await operations.retry(context.bus, "J1")
        elif what == "phase":
            await operations.cancel(context.bus, "J1")
        else:
            await records.delete_job(context.bus, "J1")
        assert await made.handle(task(0)) == Ack("stale")
        assert [item async for item in context.store.list("jobs/J1/1/segments/")] == []


async def test_a_changed_source_fails_the_job_with_the_segment_and_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(films.path("h264_mp4").read_bytes())
    async with rig(tmp_path) as context:
        job, _, segments = await a_planned_job(context, path)
        path.write_bytes(path.read_bytes()[:-1])
        async with daemon.running(context.settings, {"converter", "collector"}):
            await announce_total(context, job, len(segments))

            async def failed() -> bool:
                found = await records.get_job(context.bus, "J1")
                return found is not None and found[0].phase is Phase.FAILED

            await eventually(failed, seconds=30, what="the failed job")
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        failure = found[0].failure
        assert failure is not None
        assert failure.code == "SOURCE_CHANGED"
        assert failure.segment_index is not None
        assert failure.advice
        assert (await context.bus.stream_info(subjects.DEAD))["state"]["messages"] >= 1


async def test_other_frames_than_planned_mean_one_new_plan_and_then_a_failure(tmp_path: Path) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"), promised=3)
        assert await made.handle(task(0)) == Ack("replanned")
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert (found[0].generation, found[0].redecoded, found[0].phase) == (2, True, Phase.PLANNING)
        assert (await context.bus.stream_info(subjects.WORK))["state"]["messages"] == 1

    async with rig(tmp_path / "second") as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"), promised=3)
        await records.change_job(context.bus, "J1", lambda job: job.model_copy(update={"redecoded": True}))
        outcome = await made.handle(task(0))
        assert isinstance(outcome, Reject)
        assert (outcome.failure.code, outcome.failure.segment_index) == ("SEGMENT_MISMATCH", 0)


async def test_a_worker_with_another_header_gives_the_segment_back_and_takes_no_more_of_that_job(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        state = Completion(job_id="J1", generation=1, total=4, planned=4, init="b" * 64)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        for _ in range(2):
            outcome = await made.handle(task(0))
            assert isinstance(outcome, Return)
            assert outcome.reason == "ENCODER_MISMATCH"
        assert made.decoders_opened == 1, "the second refusal costs nothing"
        assert [item async for item in context.store.list("jobs/J1/1/segments/")] == []
        assert await reported(context) == []


async def test_where_nobody_else_can_write_its_header_a_job_is_begun_anew(tmp_path: Path) -> None:
    """The daemon of this host was upgraded, and its encoder with it."""
    async with rig(tmp_path) as context, converter(replace(context, alone=True)) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        state = Completion(job_id="J1", generation=1, total=4, planned=4, init="b" * 64, done=1, sent=7)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        for index in (1, 2):
            subject = subjects.convert("cpu", "normal", "J1", index, 0)
            await context.bus.publish(subject, SegmentTask(job_id="J1", generation=index, attempt=1, index=0, part=0))
        assert await made.handle(task(1)) == Ack("begun anew")
        assert await made.handle(task(2)) == Ack("stale"), "the other slot's is history"
        assert await operations.reencode(context.bus, "J1", 1), "as for who was at work on it"
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert (found[0].generation, found[0].phase, found[0].warnings) == (2, Phase.PLANNING, ())
        assert (await context.bus.stream_info(subjects.WORK))["state"]["messages"] == 1
        queue = await context.bus.stream_info(subjects.CONVERT, subjects_filter=">")
        left = list(queue["state"]["subjects"])
        assert left == [subjects.convert("cpu", "normal", "J1", 2, 0)], "what was sent of the new generation stays"

        # One whose header is another one every time fails, and does not go round for ever.
        for generation in range(2, operations.HEADERS + 1):
            assert await operations.reencode(context.bus, "J1", generation)
        back = {"generation": 1, "phase": Phase.CONVERTING}
        await records.change_job(context.bus, "J1", lambda job: job.model_copy(update=back))
        outcome = await made.handle(task(3))
        assert isinstance(outcome, Reject)
        assert (outcome.failure.code, outcome.failure.segment_index) == ("ENCODER_MISMATCH", 3)


async def test_a_worker_that_lacks_the_engine_gives_the_job_back_and_looks_again_when_it_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUNIF_HOME", str(tmp_path / "none"))
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"), engine="iw3")
        for index in (0, 1):
            outcome = await made.handle(task(index))
            assert isinstance(outcome, Return), "it was not tried"
            assert outcome.delay_seconds == MISSING_SECONDS
            assert outcome.failure is not None
            assert (outcome.failure.code, outcome.failure.segment_index) == ("ENGINE_UNAVAILABLE", index)
        opened = made.decoders_opened
        assert opened <= 1, "the second return costs nothing"
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert [item.code for item in found[0].warnings] == ["ENGINE_UNAVAILABLE"], "the job says why it waits, once"
        assert jobs.without_warnings(found[0]).warnings == ()
        await records.change_job(context.bus, "J1", lambda job: job.model_copy(update={"attempt": 2}))
        assert isinstance(await made.handle(task(0, attempt=2)), Return)
        assert made.decoders_opened == opened + 1

    alone = tmp_path / "alone"
    async with rig(alone) as shared, converter(replace(shared, alone=True)) as made:
        await a_planned_job(shared, films.path("h264_mp4"), engine="iw3")
        outcome = await made.handle(task(0))
        assert isinstance(outcome, Reject)
        assert outcome.failure.code == "ENGINE_UNAVAILABLE"


async def test_a_worker_that_is_too_small_says_so_and_leaves_the_job_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(*_: object) -> None:
        raise errors.error("OUT_OF_MEMORY", "8 GB are wanted")

    monkeypatch.setattr(Converter, "_work", too_small)
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        assert isinstance(await made.handle(task(0)), Retry), "it was a try"
        opened = made.decoders_opened
        for index in (1, 2):
            outcome = await made.handle(task(index))
            assert isinstance(outcome, Return), "left to others"
            assert outcome.reason == "OUT_OF_MEMORY"
        assert made.decoders_opened == opened
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert [item.code for item in found[0].warnings] == ["OUT_OF_MEMORY"]
        assert jobs.without_warnings(found[0]).warnings == ()


@pytest.mark.parametrize("end", [operations.cancel, operations.delete])
async def test_cancelling_and_deleting_stop_a_running_segment_and_its_decoder_within_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Bus, str], Awaitable[Job]]
) -> None:
    monkeypatch.setenv("STEREOSPOT_STUB_SECONDS", "300")
    async with rig(tmp_path) as context, converter(context) as made:
        await a_planned_job(context, films.path("h264_mp4"), options=Options(backend="stub"))

        async def cancel() -> None:
            await eventually(lambda: bool(made.busy), what="the segment at work")
            await end(context.bus, "J1")

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(cancel())
            work = group.create_task(made.handle(task(0)))
        assert work.result() == Ack("cancelled")
        assert time.monotonic() - started < 10
        assert await reported(context) == []


async def test_a_full_store_holds_the_result_until_there_is_room(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        full = True
        puts: list[str] = []
        original = context.store.put

        async def put(key: str, data: bytes, *, if_absent: bool = False) -> bool:
            puts.append(key)
            if full and key.endswith(".m4s"):
                raise errors.error("STORAGE_FULL", "no room")
            return await original(key, data, if_absent=if_absent)

        await a_planned_job(context, films.path("h264_mp4"))
        context.store.put = put  # type: ignore[method-assign]
        async with converter(context) as made:

            async def make_room() -> None:
                nonlocal full
                await eventually(lambda: sum(key.endswith(".m4s") for key in puts) >= 2, what="two tries")
                full = False

            async with asyncio.TaskGroup() as group:
                group.create_task(make_room())
                work = group.create_task(made.handle(task(0)))
            assert work.result() == Ack()
            assert made.decoders_opened == 1, "it was computed once"
        assert await context.store.head(keys.segment("J1", 1, 0)) is not None


@pytest.mark.parametrize("found", ["device lost", "encoder stalled", "too small", "missing"])
async def test_what_waited_for_a_slot_is_not_begun_by_a_worker_that_has_failed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    computed: list[str] = []

    def fails(*_: object) -> None:
        computed.append(found)
        if found == "missing":
            raise errors.error("MODEL_MISSING", "no file")
        if found == "encoder stalled":
            raise errors.error("ENCODER_STALLED")
        raise errors.error("OUT_OF_MEMORY", "the device", **({"device_lost": True} if found == "device lost" else {}))

    monkeypatch.setattr(Converter, "_work", fails)
    async with rig(tmp_path) as context, converter(context, slots=1) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        outcomes = await asyncio.gather(made.handle(task(0)), made.handle(task(1)))
        kinds = {type(outcome) for outcome in outcomes}
        assert kinds == ({Return} if found == "missing" else {Retry, Return})
        assert len(computed) == 1, "the second was not tried"
        assert (made.setbacks.lost is not None) is (found in ("device lost", "encoder stalled"))


async def test_a_broken_message_and_a_second_look(tmp_path: Path) -> None:
    async with rig(tmp_path) as context, converter(context) as made:
        with pytest.raises(errors.Permanent, match="job_id: Field required") as broken:  # the actor rejects it for that
            await made.handle(Delivery(subject="stereospot.convert.cpu.normal.J1.1.0", data=b"{}"))
        assert broken.value.code == "INVALID_REQUEST"
        crashed = errors.error("DECODER_CRASHED", "signal 11")
        parsed = SegmentTask.model_validate_json(task(0).data)
        first: Outcome = await made.setbacks.failed(task(0), parsed, crashed)
        second: Outcome = await made.setbacks.failed(task(0, delivered=2), parsed, crashed)
        assert isinstance(first, Retry)
        assert isinstance(second, Reject)


async def test_a_worker_is_seen_while_it_lives(tmp_path: Path) -> None:
    async with rig(tmp_path, pool="stub", slots=3) as context:
        bucket = context.bus.bucket(subjects.WORKERS)

        async def workers() -> list[Worker]:
            return [Worker.model_validate_json(item.value) for item in await bucket.entries()]

        async with daemon.running(context.settings, {"converter"}):
            (worker,) = await eventually(workers, what="the worker's card")
            assert (worker.pool, worker.slots, worker.busy) == ("stub", 3, ())
            assert "identity" in worker.engines
            assert json.loads(worker.body())["version"]
        assert await workers() == []
