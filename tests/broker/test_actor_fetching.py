"""The one loop and its surroundings: slots, lanes, heartbeats, hand-over at a stop, and a broker that goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from stereospot import errors, subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Delivery
from stereospot.messages import PlanWork
from stereospot.outcome import Ack, Outcome
from stereospot.settings import Settings
from tests.broker.acting import PLAN, empty, plan_actor, running, shorten, submit, waiting_plan
from tests.support import Nats, eventually


async def test_no_more_than_the_slots_at_a_time(bus: Bus) -> None:
    at_once: list[int] = []
    busy = 0
    done = 0

    async def handle(delivery: Delivery) -> Outcome:
        nonlocal busy, done
        busy += 1
        at_once.append(busy)
        await asyncio.sleep(0.02)
        busy -= 1
        done += 1
        return Ack()

    await submit(bus, *(f"job{index}" for index in range(12)))
    async with running(plan_actor(bus, handle, slots=3)):
        await eventually(lambda: done == 12)
    assert max(at_once) == 3


async def test_the_heartbeat_keeps_long_work(bus: Bus) -> None:
    lease_seconds = 0.3
    await shorten(bus, subjects.WORK, PLAN, ack_wait=int(lease_seconds * 1e9))
    seen: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        await asyncio.sleep(4 * lease_seconds)
        return Ack()

    async with running(*(plan_actor(bus, handle, ack_wait=lease_seconds) for _ in range(2))):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == [1]


async def test_what_is_being_worked_on_is_not_begun_again(bus: Bus, server: Nats) -> None:
    """The broker restarts and offers the message anew to the worker that still has it."""
    await shorten(bus, subjects.WORK, PLAN, ack_wait=300_000_000)
    began: list[int] = []
    gate = asyncio.Event()

    async def handle(delivery: Delivery) -> Outcome:
        began.append(delivery.attempt)
        await gate.wait()
        return Ack()

    async with running(plan_actor(bus, handle, slots=3, ack_wait=30.0)):
        await submit(bus, "a")

        async def offered_again() -> bool:
            return bool((await bus.consumer_info(subjects.WORK, PLAN))["num_redelivered"])

        await eventually(offered_again, seconds=5)
        server.kill()
        server.restart()
        await submit(bus, "b")
        await eventually(lambda: len(began) == 2, seconds=5)
        gate.set()
        await eventually(empty(bus))
    assert len(began) == 2


async def test_the_lane_now_comes_first_and_no_slot_takes_two(bus: Bus) -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def handle(delivery: Delivery) -> Outcome:
        order.append(delivery.subject.split(".")[3])
        await gate.wait()
        return Ack()

    lanes = [subjects.convert_consumer("cpu", lane) for lane in subjects.LANES]
    actor = Actor(bus, subjects.CONVERT, lanes, handle, name="test", slots=1, ack_wait=20)
    async with running(actor):
        await bus.publish(subjects.convert("cpu", "normal", "a", 1, 0), b"{}")
        await eventually(lambda: len(order) == 1)
        for index in range(1, 4):
            await bus.publish(subjects.convert("cpu", "normal", "a", 1, index), b"{}")
        for index in range(10, 13):
            await bus.publish(subjects.convert("cpu", "now", "a", 1, index), b"{}")
        assert len(order) == 1
        gate.set()
        await eventually(lambda: len(order) == 7)
    assert order == ["normal", "now", "now", "now", "normal", "normal", "normal"]


async def test_an_idle_worker_begins_at_once_on_either_lane(bus: Bus) -> None:
    began: list[float] = []

    async def handle(delivery: Delivery) -> Outcome:
        began.append(time.monotonic())
        return Ack()

    lanes = [subjects.convert_consumer("cpu", lane) for lane in subjects.LANES]
    async with running(Actor(bus, subjects.CONVERT, lanes, handle, name="test", ack_wait=20)):
        await eventually(lambda: waiting_on(bus, lanes))
        for number, lane in enumerate(["normal", "now", "now", "normal"]):
            sent = time.monotonic()
            await bus.publish(subjects.convert("cpu", lane, "a", 1, number), b"{}")  # type: ignore[arg-type]
            await eventually(lambda seen=number: len(began) > seen, every=0.002)
            assert began[-1] - sent < 0.2


async def waiting_on(bus: Bus, lanes: Sequence[str]) -> bool:
    return all([(await bus.consumer_info(subjects.CONVERT, lane))["num_waiting"] for lane in lanes])


async def test_two_idle_workers_share_two_messages(bus: Bus, settings: Settings) -> None:
    """A message that reaches a busy worker by a late answer is held, not lost; here nobody is busy."""
    other = await Bus.connect(settings, name="test-other")
    done: list[str] = []
    gate = asyncio.Event()

    def handler(name: str) -> Callable[[Delivery], Awaitable[Outcome]]:
        async def handle(delivery: Delivery) -> Outcome:
            done.append(name)
            await gate.wait()
            return Ack()

        return handle

    lanes = [subjects.convert_consumer("cpu", lane) for lane in subjects.LANES]
    first = Actor(bus, subjects.CONVERT, lanes, handler("first"), name="first", ack_wait=20)
    second = Actor(other, subjects.CONVERT, lanes, handler("second"), name="second", ack_wait=20)
    async with running(first, second):
        for index in range(2):
            await bus.publish(subjects.convert("cpu", "normal", "a", 1, index), b"{}")
        await eventually(lambda: len(done) == 2, seconds=3)
        assert sorted(done) == ["first", "second"]
        gate.set()
        await eventually(empty(bus, subjects.CONVERT))
    await other.drain()


async def test_stop_hands_unfinished_work_over_at_once(bus: Bus, settings: Settings) -> None:
    other = await Bus.connect(settings, name="test-other")
    began = asyncio.Event()
    taken: list[tuple[int, float]] = []

    async def never(delivery: Delivery) -> Outcome:
        began.set()
        await asyncio.Event().wait()
        return Ack()

    async def handle(delivery: Delivery) -> Outcome:
        taken.append((delivery.attempt, time.monotonic()))
        return Ack()

    await submit(bus, "a")
    leaving = plan_actor(bus, never, grace_seconds=0.1)
    async with running(leaving):
        await eventually(began.is_set)
        stopped = time.monotonic()
    async with running(plan_actor(other, handle)):
        await eventually(lambda: bool(taken))
    await other.drain()
    assert taken[0][0] == 1, "a stop uses up no try"
    assert taken[0][1] - stopped < 1.0


async def test_stop_lets_short_work_finish(bus: Bus) -> None:
    began = asyncio.Event()
    finished: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        began.set()
        await asyncio.sleep(0.2)
        finished.append(delivery.subject)
        return Ack()

    await submit(bus, "a")
    async with running(plan_actor(bus, handle, grace_seconds=5.0)):
        await eventually(began.is_set)
    assert len(finished) == 1
    assert await empty(bus)()


async def test_cancelling_run_hands_over_too(bus: Bus) -> None:
    began = asyncio.Event()

    async def never(delivery: Delivery) -> Outcome:
        began.set()
        await asyncio.Event().wait()
        return Ack()

    await submit(bus, "a")
    task = asyncio.get_running_loop().create_task(plan_actor(bus, never).run())
    await eventually(began.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    redelivered: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        redelivered.append(delivery.attempt)
        return Ack()

    async with running(plan_actor(bus, handle)):
        await eventually(lambda: bool(redelivered), seconds=2)
    assert redelivered == [1], "a stop uses up no try"


async def test_goes_on_within_two_seconds_of_a_restart(bus: Bus, server: Nats) -> None:
    done: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        done.append(delivery.parse(PlanWork).job_id)
        return Ack()

    async with running(plan_actor(bus, handle)):
        await submit(bus, "before")
        await eventually(lambda: "before" in done)
        server.kill()
        server.restart()
        back = time.monotonic()
        await submit(bus, "after")
        await eventually(lambda: "after" in done)
        assert time.monotonic() - back < 2.0


async def test_nothing_is_lost_when_the_broker_dies_under_load(bus: Bus, server: Nats) -> None:
    await shorten(bus, subjects.WORK, PLAN, ack_wait=1_000_000_000)
    done: set[str] = set()

    async def handle(delivery: Delivery) -> Outcome:
        await asyncio.sleep(0.005)
        done.add(delivery.parse(PlanWork).job_id)
        return Ack()

    names = [f"job{index}" for index in range(120)]
    await submit(bus, *names)
    async with running(plan_actor(bus, handle, slots=8, ack_wait=1.0, max_attempts=None)):
        await eventually(lambda: len(done) > 20)
        server.kill()
        server.restart()
        await eventually(empty(bus), seconds=8)
    assert done == set(names)


async def test_a_consumer_that_is_deleted_and_made_again_is_found(bus: Bus) -> None:
    config = (await bus.consumer_info(subjects.WORK, PLAN))["config"]
    done: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        done.append(delivery.subject)
        return Ack()

    async with running(plan_actor(bus, handle)):
        await submit(bus, "a")
        await eventually(lambda: len(done) == 1)
        await bus.api(f"CONSUMER.DELETE.{subjects.WORK}.{PLAN}")
        await submit(bus, "b")
        await bus.api(f"CONSUMER.CREATE.{subjects.WORK}.{PLAN}", {"stream_name": subjects.WORK, "config": config})
        await eventually(lambda: len(done) == 2, seconds=4)


async def test_a_closed_connection_ends_the_actor(settings: Settings, bus: Bus) -> None:
    other = await Bus.connect(settings, name="test-other")

    async def handle(delivery: Delivery) -> Outcome:
        return Ack()

    task = asyncio.get_running_loop().create_task(plan_actor(other, handle).run())
    await eventually(lambda: waiting_plan(bus))
    await other.nc.close()
    with pytest.raises(errors.Transient) as raised:
        await asyncio.wait_for(task, 3)
    assert raised.value.code == "BROKER_UNAVAILABLE"
