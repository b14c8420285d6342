"""Races of the second seed system, P1 to P6: each is set up here on purpose, and ends well.

What each was: two at a time that were one (P1), a slow one that held up the rest (P2), a record read, changed and
written by several (P3), a cancel that left the message where it was (P4), a dead letter that came back as less than it
had been, or again and again (P5), and depth that counted history (P6). Its lost job of a killed worker is F1, the
retries that it never made are R7 and R8.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from services import dead_letters, operations
from services.collector import Collector
from stereospot import errors, records, subjects
from stereospot.actor import Actor
from stereospot.bus import Delivery
from stereospot.jobs import Phase
from stereospot.messages import PlanWork, SegmentTask
from stereospot.outcome import Ack, Outcome
from tests.faults.fleet import PIPELINE, fleet, stretched
from tests.faults.racing import acting, drained, say
from tests.support import eventually
from tests.system.rig import a_job, collecting, rig


async def test_p1_two_slots_are_two_at_a_time(tmp_path: Path) -> None:
    """Neither computing nor decoding holds the loop: both are begun before one is done."""
    async with fleet(tmp_path, start=PIPELINE, slots=2, stub_seconds=1.5) as made:
        await made.submit("J1", "J2")

        async def both() -> bool:
            return len(await made.events("running")) >= 2

        await eventually(both, seconds=stretched(30), what="two begun")
        assert await made.events("done") == []
        await made.ended("J1", "J2")


async def test_p2_a_slow_one_holds_nobody_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        done: list[str] = []
        slow = asyncio.Event()

        async def handle(delivery: Delivery) -> Outcome:
            name = delivery.parse(PlanWork).job_id
            if name == "slow":
                await slow.wait()
            done.append(name)
            return Ack()

        actor = Actor(context.bus, subjects.WORK, "work-plan", handle, name="planner", slots=2)
        for name in ("slow", "a", "b", "c", "d"):
            await context.bus.publish(subjects.work("plan", name), PlanWork(job_id=name, generation=1))
        async with acting(actor):
            await eventually(lambda: sorted(done) == ["a", "b", "c", "d"], what="the others done")
            slow.set()
            await eventually(lambda: drained(context, subjects.WORK), what="everything done")
        assert done[-1] == "slow"


async def test_p3_changes_of_one_record_at_one_moment_are_all_kept(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())

        async def warn(number: int) -> None:
            await records.change_job(context.bus, "J1", lambda job: job.with_warning(f"W{number}", "said"))

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(warn(number))
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert len(found[0].warnings) == 12


async def test_p4_a_cancelled_job_is_withdrawn_and_stays_cancelled(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        for index in range(5):
            body = SegmentTask(job_id="J1", generation=1, attempt=1, index=index, part=0)
            await context.bus.publish(subjects.convert("cpu", "normal", "J1", 1, index), body)
        await operations.cancel(context.bus, "J1")
        await eventually(lambda: drained(context, subjects.CONVERT), what="the queue without it")
        async with collecting(Collector(context)):  # of one that was in a worker's hands
            await say(context.bus, 0)
            await eventually(lambda: drained(context), what="the late completion handled")
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert found[0].phase is Phase.CANCELLED


async def test_p5_a_dead_letter_comes_back_as_it_was_and_ends_again(tmp_path: Path) -> None:
    """With every byte of it; a retry that fails is buried once more, not tried for ever."""
    async with rig(tmp_path) as context:
        seen: list[bytes] = []

        async def handle(delivery: Delivery) -> Outcome:
            seen.append(delivery.data)
            raise errors.error("REMOTE_FAILED", "no answer")

        actor = Actor(
            context.bus, subjects.WORK, "work-submit", handle, name="submit", max_attempts=2, backoff_seconds=0.05
        )
        body = json.dumps({"url": "https://example.org/a.mp4?x=1", "title": "ü", "more": {"kept": [1]}}).encode()
        await context.bus.publish(f"{subjects.PREFIX}.work.submit.J1", body)
        async with acting(actor):
            for turn in (1, 2):

                async def buried(turn: int = turn) -> bool:
                    return len(seen) == 2 * turn and bool(await dead_letters.letters(context.bus))

                await eventually(buried, what="the letter")
                await eventually(lambda: drained(context, subjects.WORK), what="the queue without it")
                (letter,) = await dead_letters.letters(context.bus)
                assert letter.original.encode() == body
                if turn == 1:
                    await dead_letters.retry(context.bus, letter.dead_id)
        assert seen == [body] * 4


async def test_p6_depth_is_what_waits(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:

        async def handle(delivery: Delivery) -> Outcome:
            return Ack()

        async def depth() -> int:
            return (await context.bus.stream_info(subjects.WORK))["state"]["messages"]

        for number in range(6):
            name = f"J{number}"
            await context.bus.publish(subjects.work("plan", name), PlanWork(job_id=name, generation=1))
        assert await depth() == 6
        async with acting(Actor(context.bus, subjects.WORK, "work-plan", handle, name="planner")):
            await eventually(lambda: drained(context, subjects.WORK), what="the work done")
        assert await depth() == 0
