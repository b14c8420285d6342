"""Races of the first seed system, R7 to R14: each is set up here on purpose, and ends well.

What each was: a failure declared too early (R7) or never (R8), results that hang on a row (R9), slots that leak (R10),
leases without a heartbeat (R11), dead letters that nobody hears (R12), readers that take each other's events (R13), and
a deployment that lacks a part (R14).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services import daemon, dead_letters, operations
from services.converter import Converter
from services.parts import BUILDERS
from services.planner import Planner
from services.view import View
from stereospot import errors, jobs, keys, records, subjects
from stereospot.actor import Actor
from stereospot.bus import Delivery
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.messages import (
    PlanWork,
    SegmentTask,
    Worker,
)
from stereospot.options import Options
from stereospot.outcome import Ack, Outcome, Reject, Retry
from streams_config import provision as provisioner
from tests.faults.fleet import shorten, stretched
from tests.faults.racing import INIT, acting, drained, task
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_job, a_planned_job, rig


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
    """The race itself; the heartbeat's own tests, with a shorter lease and with one that the worker knows nothing of,
    are in `tests/broker/test_actor_fetching.py` and `test_actor.py`.
    """
    async with rig(tmp_path) as context:
        lease_seconds = 0.9
        await shorten(context.bus, lease_seconds)
        begun: list[int] = []

        async def handle(delivery: Delivery) -> Outcome:
            begun.append(delivery.attempt)
            await asyncio.sleep(2.5 * lease_seconds)
            return Ack()

        def worker(name: str) -> Actor:
            return Actor(context.bus, subjects.WORK, "work-plan", handle, name=name, slots=2, ack_wait=lease_seconds)

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
