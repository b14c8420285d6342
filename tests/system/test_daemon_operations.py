"""What surrounds the pipeline, on a real broker: submitting, operating, deleting, dead letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services import daemon, dead_letters, delete, operations, submit
from services.context import Context
from services.janitor import Janitor
from stereospot import errors, jobs, keys, records, subjects
from stereospot.bus import Bus, Delivery
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import DeadLetter, DeleteWork, PlanWork, SegmentTask, SourceRef
from stereospot.options import Options
from stereospot.outcome import Ack
from stereospot.tries import Tries
from tests.support import eventually
from tests.system.rig import a_job, rig


async def phase_of(context: Context, job_id: str) -> Phase | None:
    found = await records.get_job(context.bus, job_id)
    return found[0].phase if found else None


async def job_in(context: Context, job_id: str, phase: Phase, *, seconds: float = 10.0) -> Job:
    """The job, once it is in this phase."""

    async def read() -> list[Job]:
        found = await records.get_job(context.bus, job_id)
        return [found[0]] if found and found[0].phase is phase else []

    (job,) = await eventually(read, seconds=seconds, what=f"{job_id} {phase}")
    return job


async def messages(context: Context, stream: str) -> int:
    return (await context.bus.stream_info(stream))["state"]["messages"]


# ---- submitting ------------------------------------------------------------------------------------------
def test_ids_sort_by_time_and_are_tokens() -> None:
    ids = [submit.new_id(at) for at in (0.0, 1.5, 1_800_000_000.0, 1_800_000_000.001)]
    assert ids == sorted(ids)
    assert all(len(item) == 26 and subjects.is_token(item) for item in ids)
    assert len({submit.new_id(5.0) for _ in range(100)}) == 100


async def test_a_job_is_created_once_for_one_id(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        source = SourceRef(key="input/a/source.mp4", name="A.mp4")
        first = await submit.create(context, source, Options(backend="stub"), job_id="J1")
        again = await submit.create(context, source, Options(crf=1), job_id="J1")
        assert again == first
        assert (first.phase, first.pool, first.title) == (Phase.CREATED, "stub", "A.mp4")
        assert await messages(context, subjects.WORK) == 1


async def test_anyone_who_speaks_nats_can_submit(tmp_path: Path) -> None:
    root = tmp_path / "films"
    root.mkdir()
    (root / "a.mp4").write_bytes(b"x" * 100)
    (tmp_path / "outside.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    async with rig(tmp_path, roots=(root,)) as context:
        await context.store.put("input/up/source.mkv", b"y")

        async def send(name: str, body: object) -> None:
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            await context.bus.nc.publish(f"stereospot.work.submit.{name}", text)

        async with daemon.running(context.settings, {"submit"}):
            await send("good", {"path": str(root / "a.mp4"), "options": {"layout": "full-sbs"}, "priority": 7})
            await send("stored", {"key": "input/up/source.mkv", "title": "Up", "pool": "gpu"})
            refused = {
                "outside": ({"path": str(tmp_path / "outside.mp4")}, "SOURCE_MISSING"),
                "linked": ({"path": str(root / "link.mp4")}, "SOURCE_MISSING"),
                "twice": ({"path": "a", "key": "input/up/source.mkv"}, "INVALID_REQUEST"),
                "nokey": ({"key": "jobs/a/final.mp4"}, "INVALID_REQUEST"),
                "gone": ({"key": "input/none/source.mp4"}, "SOURCE_MISSING"),
                "url": ({"url": "https://example.org/a.mp4"}, "NOT_AVAILABLE"),
                "text": (b"not json", "INVALID_REQUEST"),
                "nopool": ({"key": "input/up/source.mkv", "pool": "nobody"}, "INVALID_OPTIONS"),
                "option": ({"path": str(root / "a.mp4"), "options": {"crf": 99}}, "INVALID_REQUEST"),
            }
            for name, (body, _) in refused.items():
                await send(name, body)

            async def letters() -> list[DeadLetter]:
                found = await dead_letters.letters(context.bus)
                return found if len(found) == len(refused) else []

            found = {item.subject.rsplit(".", 1)[-1]: item for item in await eventually(letters, what="the refusals")}
            good = await job_in(context, "good", Phase.CREATED)
        assert {name: item.failure.code for name, item in found.items()} == {
            name: code for name, (_, code) in refused.items()
        }
        assert (good.options.layout, good.priority, good.source.size_bytes) == ("full-sbs", 7, 100)
        stored = await job_in(context, "stored", Phase.CREATED)
        assert (stored.title, stored.source.key, stored.pool) == ("Up", "input/up/source.mkv", "gpu")


async def test_work_for_the_missing_ingest_service_is_answered_and_does_not_wait(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, jobs.advance(a_job(phase=Phase.CREATED), Phase.INGESTING, at=1.0))
        async with daemon.running(context.settings, {"submit"}):
            await context.bus.publish(subjects.work("ingest", "J1"), b'{"job_id": "J1"}')
            failed = await job_in(context, "J1", Phase.FAILED)
            await eventually(lambda: _no_work(context), what="the message gone")
        assert failed.failure is not None
        assert failed.failure.code == "NOT_AVAILABLE"
        (letter,) = await dead_letters.letters(context.bus)
        assert (letter.kind, letter.job_id) == ("work-ingest", "J1")


async def _no_work(context: Context) -> bool:
    return await messages(context, subjects.WORK) == 0


# ---- operations ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("phase", [Phase.CREATED, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING])
async def test_an_active_job_is_cancelled_retried_and_changed(tmp_path: Path, phase: Phase) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job(phase=phase))
        assert (await operations.cancel(context.bus, "J1")).phase is Phase.CANCELLED
        assert (await operations.cancel(context.bus, "J1")).phase is Phase.CANCELLED
        retried = await operations.retry(context.bus, "J1")
        assert (retried.phase, retried.generation, retried.attempt) == (Phase.PLANNING, 1, 2)
        changed = await operations.change(context.bus, "J1", options=Options(crf=30))
        assert (changed.phase, changed.generation, changed.attempt) == (Phase.PLANNING, 2, 1)
        assert await operations.change(context.bus, "J1", options=Options(crf=30)) == changed
        with pytest.raises(errors.Permanent, match="planning"):
            await operations.retry(context.bus, "J1")
        work = await context.bus.last(subjects.WORK, subjects.work("plan", "J1"))
        assert work is not None
        assert PlanWork.model_validate_json(work.data).generation == 2


async def test_a_job_is_replanned_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        assert await operations.replan(context.bus, "J1", 1, "times go back")
        assert await operations.replan(context.bus, "J1", 1, "times go back"), "a repeated call changes nothing"
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        job = found[0]
        assert (job.generation, job.redecoded, [item.code for item in job.warnings]) == (2, True, ["PTS_SYNTHESISED"])
        assert not await operations.replan(context.bus, "J1", 2, "again"), "the second time is a failure"


async def test_an_active_job_is_resumed_by_one_message_for_its_plan(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        job = a_job(phase=Phase.PLANNING)
        await operations.resume(context.bus, a_job())
        assert await messages(context, subjects.WORK) == 0, "what is converting is planned"
        await operations.publish_plan(context.bus, job)
        await operations.resume(context.bus, job)
        assert await messages(context, subjects.WORK) == 1, "it is asked for"
        later = jobs.renew(job, at=2.0, note="replan", redecoded=True)
        for _ in range(2):
            await operations.resume(context.bus, later)
        assert await messages(context, subjects.WORK) == 2
        work = await context.bus.last(subjects.WORK, subjects.work("plan", "J1"))
        assert work is not None
        wanted = PlanWork(job_id="J1", generation=2, redecode=True)
        assert PlanWork.model_validate_json(work.data) == wanted


async def test_a_failure_of_an_old_generation_or_attempt_is_nobodys(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, jobs.renew(a_job(), at=2.0, note="changed"))
        failure = dead_letters.Failure.of(errors.error("CORRUPT_INPUT"))
        assert not await operations.fail(context.bus, "J1", 1, failure)
        assert not await operations.fail(context.bus, "J1", 2, failure, attempt=2)
        assert not await operations.fail(context.bus, "nobody", 1, failure)
        assert await operations.fail(context.bus, "J1", 2, failure, attempt=1)
        assert await phase_of(context, "J1") is Phase.FAILED


@pytest.mark.parametrize("attempts", [1, 4])
async def test_delete_removes_everything_and_the_record_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    monkeypatch.setattr(delete, "SETTLE_SECONDS", 0.5)
    monkeypatch.setattr(delete, "SETTLED_SECONDS", 0.3)
    async with rig(tmp_path, max_attempts=attempts) as context:
        await records.create_job(context.bus, a_job())
        await records.create_job(context.bus, a_job("J10"))
        for key in ("input/J1/source.mp4", keys.segment("J1", 1, 0), keys.film_alias("J1"), keys.segment("J10", 1, 0)):
            await context.store.put(key, b"x")
        state = context.bus.bucket(subjects.STATE)
        for job_id in ("J1", "J10"):
            await state.put(subjects.state_key(job_id, 1), Completion(job_id=job_id, generation=1))
        async with daemon.running(context.settings, {"delete"}):
            await operations.delete(context.bus, "J1")
            await eventually(lambda: _gone(context, keys.segment("J1", 1, 0)), what="the first sweep")
            assert await phase_of(context, "J1") is Phase.DELETED, "the record goes last"
            late = keys.segment("J1", 1, 7)
            await context.store.put(late, b"a worker that had not noticed")
            await eventually(lambda: _no_record(context, "J1"), what="the second sweep")
            assert await _gone(context, late)
        assert not [item async for item in context.store.list("input/J1/")]
        assert await state.keys("state") == ["state.J10.1"]
        assert await context.store.head(keys.segment("J10", 1, 0)) is not None


async def test_an_input_that_a_job_is_about_to_read_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The film of samples is converted whole while they are deleted: its mark is there, its record not yet."""
    monkeypatch.setattr(delete, "SETTLED_SECONDS", 0.0)
    source = SourceRef(key="input/J1/source.mp4", name="A.mp4")
    async with rig(tmp_path) as context:
        await context.store.put("input/J1/source.mp4", b"x")
        await records.create_job(context.bus, a_job())
        create = records.create_job

        async def overtaken(bus: Bus, job: Job) -> int:
            await operations.delete(context.bus, "J1")
            given = Delivery(subject="s", data=DeleteWork(job_id="J1").body(), attempt=2)
            assert await delete.handle(context, given) == Ack()
            assert await _no_record(context, "J1")
            return await create(bus, job)

        monkeypatch.setattr(records, "create_job", overtaken)
        await submit.create(context, source, Options(backend="stub"), job_id="J2")
        assert not await _gone(context, "input/J1/source.mp4")

        # Once that is deleted, too, nobody reads it.
        await operations.delete(context.bus, "J2")
        assert (
            await delete.handle(context, Delivery(subject="s", data=DeleteWork(job_id="J2").body(), attempt=2)) == Ack()
        )
        await Janitor(context, stale_seconds=-1).sweep_storage()
        assert await _gone(context, "input/J1/source.mp4")


async def _gone(context: Context, key: str) -> bool:
    return await context.store.head(key) is None


async def _no_record(context: Context, job_id: str) -> bool:
    return await records.get_job(context.bus, job_id) is None


# ---- dead letters ----------------------------------------------------------------------------------------
async def test_a_message_that_kills_every_worker_is_buried_and_fails_its_job(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=4, part=0)
        sequence = await context.bus.publish(subjects.convert("cpu", "normal", "J1", 1, 4), task)
        advisory = {
            "stream": subjects.CONVERT,
            "consumer": "convert-cpu-normal",
            "stream_seq": sequence,
            "deliveries": 6,
        }
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{subjects.CONVERT}.convert-cpu-normal"
        async with daemon.running(context.settings, {"dead-letters"}):
            for _ in range(2):
                await context.bus.nc.publish(subject, json.dumps(advisory).encode())
            job = await job_in(context, "J1", Phase.FAILED)
            await eventually(lambda: _empty(context, subjects.ADVISORY), what="both advisories handled")
        assert job.failure is not None
        assert (job.failure.code, job.failure.segment_index, job.failure.attempts) == ("ATTEMPTS_EXHAUSTED", 4, 6)
        assert await messages(context, subjects.CONVERT) == 0, "it is out of the queue"
        (letter,) = await dead_letters.letters(context.bus)
        assert (letter.kind, letter.job_id, letter.attempts) == ("convert", "J1", 6)

        retried = await dead_letters.retry(context.bus, letter.dead_id)
        assert retried == letter
        assert await phase_of(context, "J1") is Phase.PLANNING, "a retry goes on with the job"
        assert await dead_letters.letters(context.bus) == []
        with pytest.raises(errors.Permanent, match="no dead letter"):
            await dead_letters.retry(context.bus, letter.dead_id)


@pytest.mark.parametrize("excused", [3, 1])
async def test_a_message_that_was_given_back_too_often_starts_anew_unless_it_was_tried_enough(
    tmp_path: Path, excused: int
) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=4, part=0)
        subject = subjects.convert("cpu", "normal", "J1", 1, 4)
        sequence = await context.bus.publish(subject, task)
        given = Delivery(subject=subject, data=task.body(), stream=subjects.CONVERT, stream_sequence=sequence)
        for _ in range(excused):
            await Tries(context.bus).excuse(given)
        advisory = {
            "type": "io.nats.jetstream.advisory.v1.max_deliver",
            "stream": subjects.CONVERT,
            "stream_seq": sequence,
            "deliveries": 6,
        }
        outcome = await dead_letters.handle(context, Delivery(subject="$JS", data=json.dumps(advisory).encode()))
        found = await context.bus.last(subjects.CONVERT, subject)
        if excused == 3:
            assert outcome == Ack("offered again")
            assert found is not None
            assert found.sequence > sequence
            assert await messages(context, subjects.CONVERT) == 1
            assert await phase_of(context, "J1") is Phase.CONVERTING
        else:
            assert found is None
            assert await phase_of(context, "J1") is Phase.FAILED


async def _empty(context: Context, stream: str) -> bool:
    info = await context.bus.consumer_info(stream, "dead-letters")
    return info["num_pending"] == 0 and info["num_ack_pending"] == 0
