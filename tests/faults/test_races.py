"""The fourteen races of the seed systems (R1 to R14): each is set up here on purpose, and ends well.

What each was: a completion before the total (R1, R2), a trigger torn from its cause (R3), an assembly at most once
(R4), an event before its record (R5), writes without a condition (R6), a failure declared too early (R7) or never (R8),
results that hang on a row (R9), slots that leak (R10), leases without a heartbeat (R11), dead letters that nobody hears
(R12), readers that take each other's events (R13), and a deployment that lacks a part (R14).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services import daemon, dead_letters, operations, submit
from services.assembler import Assembler
from services.collector import Collector
from services.context import Context
from services.converter import Converter
from services.janitor import Janitor
from services.parts import BUILDERS
from services.planner import Planner
from services.view import View
from stereospot import errors, jobs, keys, records, subjects
from stereospot.actor import Actor
from stereospot.bus import Delivery
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.messages import (
    Film,
    PlanWork,
    SegmentDone,
    SegmentTask,
    SourceRef,
    Trigger,
    Worker,
)
from stereospot.options import Options
from stereospot.outcome import Ack, Outcome, Reject, Retry
from streams_config import provision as provisioner
from tests.faults import history
from tests.faults.fleet import shorten, stretched
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_job, a_planned_job, announce_total, rig

INIT = "a" * 64


@asynccontextmanager
async def collecting(*collectors: Collector) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collector.run()) for collector in collectors]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def acting(actor: Actor) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(actor.run())
        try:
            yield
        finally:
            actor.stop()


async def say(context: Context, index: int, salt: object = "", *, job_id: str = "J1") -> None:
    done = SegmentDone(
        job_id=job_id, generation=1, index=index, frames=24, init_sha256=INIT, size_bytes=1, worker_id="w", seconds=1
    )
    subject = subjects.done_segment(job_id, 1, index)
    await context.bus.publish(subject, done, msg_id=f"{subject}.{salt}")


async def drained(context: Context, stream: str = subjects.DONE) -> bool:
    return (await context.bus.stream_info(stream))["state"]["messages"] == 0


async def triggers(context: Context) -> int:
    """Triggers that were ever written; every revision is kept."""
    return len((await history.read(context)).triggers)


def task(index: int, *, delivered: int = 1) -> Delivery:
    body = SegmentTask(job_id="J1", generation=1, attempt=1, index=index, part=0)
    return Delivery(subject=f"stereospot.convert.cpu.normal.J1.1.{index}", data=body.body(), attempt=delivered)


def trigger_delivery(*, delivered: int = 1) -> Delivery:
    body = Trigger(job_id="J1", generation=1, total=2)
    return Delivery(subject="$KV.state.trigger.J1.1", data=body.body(), attempt=delivered)


# ---- the completion set ----------------------------------------------------------------------------------
async def test_r1_a_segment_that_is_done_before_the_plan_is_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        job = a_job(phase=Phase.PLANNING)
        await records.create_job(context.bus, job)
        async with collecting(Collector(context)):
            await say(context, 0)
            await eventually(lambda: drained(context))
            state = await records.get_state(context.bus, "J1", 1)
            assert state is not None
            assert (state[0].done, state[0].total) == (0b1, None), "counted, though nobody knows of how many"
            await announce_total(context, job, 2)
            await say(context, 1)
            await eventually(lambda: drained(context))
        assert await triggers(context) == 1


async def test_r2_the_total_triggers_when_everything_was_done_before_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        job = a_job(phase=Phase.PLANNING)
        await records.create_job(context.bus, job)
        async with collecting(Collector(context)):
            for index in range(3):
                await say(context, index)
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
            await say(context, 0)
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
            await say(context, 0, job_id="J2")
            await eventually(lambda: drained(context))
        assert await records.list_jobs(context.bus) == before
        assert await records.get_state(context.bus, "J2", 1) is None
        with pytest.raises(errors.Permanent):
            jobs.advance(deleted, Phase.COMPLETED, at=3.0)


# ---- failures --------------------------------------------------------------------------------------------
async def test_r7_a_first_failure_fails_nothing_and_a_later_success_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context:
        await a_planned_job(context, films.path("h264_mp4_silent"), options=Options(backend="stub"), frames=48)
        monkeypatch.setenv("STEREOSPOT_STUB_FAILURES", "1")
        unlucky = Converter(context, worker_id="w1", slots=1)
        outcome = await unlucky.handle(task(0))
        await unlucky.close()
        assert isinstance(outcome, Retry)
        job = await records.get_job(context.bus, "J1")
        assert job is not None
        assert (job[0].phase, job[0].failure) == (Phase.CONVERTING, None)
        monkeypatch.setenv("STEREOSPOT_STUB_FAILURES", "0")
        other = Converter(context, worker_id="w2", slots=1)
        assert await other.handle(task(0, delivered=2)) == Ack()
        await other.close()
        assert await context.store.head(keys.segment("J1", 1, 0)) is not None


async def test_r8_the_last_failure_of_a_segment_fails_its_job_with_the_number(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        made = Converter(context, worker_id="w", slots=1)

        async def handle(delivery: Delivery) -> Outcome:
            raise errors.error("REMOTE_FAILED", "no answer")

        actor = Actor(
            context.bus, subjects.CONVERT, "convert-cpu-normal", handle, name="converter", on_reject=made.reject,
            max_attempts=2, backoff_seconds=0.05,
        )  # fmt: skip
        body = SegmentTask(job_id="J1", generation=1, attempt=1, index=3, part=0)
        await context.bus.publish(subjects.convert("cpu", "normal", "J1", 1, 3), body)
        async with acting(actor):
            await eventually(lambda: drained(context, subjects.CONVERT), what="the segment given up")
        await made.close()
        job = await records.get_job(context.bus, "J1")
        assert job is not None
        assert job[0].phase is Phase.FAILED
        assert job[0].failure is not None
        assert (job[0].failure.segment_index, job[0].failure.code) == (3, "ATTEMPTS_EXHAUSTED")


async def test_r9_a_result_whose_message_got_lost_is_told_again_and_not_computed(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        # The window in which ids are remembered is cut short: the one that died had published nothing.
        config = (await context.bus.stream_info(subjects.DONE))["config"] | {"duplicate_window": 100_000_000}
        await context.bus.api(f"STREAM.UPDATE.{subjects.DONE}", config)
        await a_planned_job(context, films.path("h264_mp4_silent"), options=Options(backend="stub"), frames=48)
        first = Converter(context, worker_id="w1", slots=1)
        assert await first.handle(task(0)) == Ack()
        await first.close()
        await context.bus.purge(subjects.DONE)  # it died before it could say so
        second = Converter(context, worker_id="w2", slots=1)

        async def told() -> bool:
            assert await second.handle(task(0, delivered=2)) == Ack("stored already")
            return not await drained(context)

        await eventually(told, what="the completion, once its id is forgotten")
        assert second.decoders_opened == 0
        await second.close()


async def test_r10_duplicates_and_dead_workers_take_no_slot_away(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("services.view.time.monotonic", lambda: now)
    view = View()
    view.set_job(a_job())
    for name in ("w1", "w2"):
        card = Worker(worker_id=name, host="h", pid=1, pool="cpu", slots=2, started_at=0, seen_at=0)
        view.set_worker(card)
    state = Completion(job_id="J1", generation=1, pool="cpu", planned=8, total=8).with_sent(range(6))
    for index in (0, 0, 0, 1, 1):
        state = state.with_done(index, INIT)
        view.set_state(state)
        view.set_state(state)
    assert (view.in_flight("cpu"), view.slots("cpu")) == (4, 4), "six sent, two done, however often that was said"
    view.set_state(state.with_reoffer((2, 3)))
    assert view.in_flight("cpu") == 2, "what a dead worker held is free again"
    now = 116.0
    assert view.slots("cpu") == 0, "and its slots are gone"


async def test_r11_work_longer_than_its_lease_is_done_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await shorten(context.bus, 0.9)
        begun: list[int] = []

        async def handle(delivery: Delivery) -> Outcome:
            begun.append(delivery.attempt)
            await asyncio.sleep(2.5)
            return Ack()

        def worker(name: str) -> Actor:
            return Actor(context.bus, subjects.WORK, "work-plan", handle, name=name, slots=2, ack_wait=0.9)

        await context.bus.publish(subjects.work("plan", "J1"), PlanWork(job_id="J1", generation=1))
        async with acting(worker("a")), acting(worker("b")):
            await eventually(lambda: drained(context, subjects.WORK), what="the work done")
        assert begun == [1]


async def test_r12_a_dead_letter_fails_its_job_and_every_job_can_be_deleted(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job(phase=Phase.PLANNING))
        planner = Planner(context)

        async def handle(delivery: Delivery) -> Outcome:
            return Reject(dead_letters.Failure.of(errors.error("CORRUPT_INPUT")))

        actor = Actor(context.bus, subjects.WORK, "work-plan", handle, name="planner", on_reject=planner.reject)
        await context.bus.publish(subjects.work("plan", "J1"), PlanWork(job_id="J1", generation=1))
        async with acting(actor):
            await eventually(lambda: drained(context, subjects.WORK), what="the plan given up")
        planner.close()
        job = await records.get_job(context.bus, "J1")
        assert job is not None
        assert job[0].phase is Phase.FAILED
        (letter,) = await dead_letters.letters(context.bus)
        assert letter.failure.code == "CORRUPT_INPUT"
        assert all(Phase.DELETED in after for phase, after in jobs.TRANSITIONS.items() if phase is not Phase.DELETED)
        assert (await operations.delete(context.bus, "J1")).phase is Phase.DELETED


async def test_r13_every_reader_sees_every_event_from_where_its_snapshot_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        await operations.announce(context.bus, a_job(), "planned")
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        at = int((await context.bus.stream_info(subjects.EVENT))["state"]["last_seq"])
        # Something happens between the snapshot and the subscription.
        await operations.announce(context.bus, found[0], "between")
        seen: list[list[str]] = [[], []]

        async def follow(into: list[str]) -> None:
            async with context.bus.tail(subjects.EVENT, "stereospot.event.job.J1.>", start=at + 1) as tail:
                async for message in tail:
                    into.append(message.subject.rsplit(".", 1)[-1])

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(follow(into)) for into in seen]
            await operations.announce(context.bus, found[0], "after")
            await eventually(lambda: all(len(into) == 2 for into in seen), what="both events at both readers")
            for reader in readers:
                reader.cancel()
        assert seen == [["between", "after"]] * 2


async def test_r14_every_consumer_has_a_service_and_up_runs_them_all(tmp_path: Path) -> None:
    """`test_bare_nats.py` has a film made by `stereospot up` as it is shipped."""
    assert frozenset(BUILDERS) == daemon.ALL
    async with (
        rig(tmp_path, pool="cpu") as context,
        daemon.running(context.settings, daemon.ALL - {"gateway", "converter"}, provisioned=False),
    ):
        wanted = {
            (stream, name)
            for stream, name in provisioner.load().consumers
            if name != "work-ingest" and stream not in (subjects.CONVERT, subjects.LIVE)
        }

        async def unread() -> set[tuple[str, str]]:
            infos = {item: await context.bus.consumer_info(*item) for item in wanted}
            return {item for item, info in infos.items() if not info["num_waiting"]}

        async def all_read() -> bool:
            return not await unread()

        await eventually(all_read, seconds=stretched(10), what="somebody at every consumer")
