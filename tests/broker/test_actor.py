"""The one loop: outcomes, attempts, lanes, slots, heartbeats, hand-over, and a broker that goes away."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from stereospot import errors, subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Delivery, Puller, Refused
from stereospot.letters import kind_of
from stereospot.messages import DeadLetter, Failure, PlanWork
from stereospot.outcome import Ack, Outcome, Reject, Retry, Return
from stereospot.settings import Settings
from tests.support import Nats, eventually

PLAN = "work-plan"


@asynccontextmanager
async def running(*actors: Actor) -> AsyncGenerator[None]:
    """Run actors beside the test; stopped at its end, and their end is waited for."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for actor in actors:
            group.create_task(actor.run())
        try:
            yield
        finally:
            for actor in actors:
                actor.stop()


def plan_actor(bus: Bus, handler: Callable[[Delivery], Awaitable[Outcome]], **options: object) -> Actor:
    defaults: dict[str, object] = {"name": "test", "slots": 2, "ack_wait": 3.0, "backoff_seconds": 0.05}
    return Actor(bus, subjects.WORK, PLAN, handler, **{**defaults, **options})  # type: ignore[arg-type]


async def submit(bus: Bus, *job_ids: str) -> None:
    for job_id in job_ids:
        await bus.publish(subjects.work("plan", job_id), PlanWork(job_id=job_id, generation=1))


async def shorten(bus: Bus, stream: str, consumer: str, **changes: object) -> None:
    """Shorter times than the shipped ones."""
    config = (await bus.consumer_info(stream, consumer))["config"]
    await bus.api(f"CONSUMER.CREATE.{stream}.{consumer}", {"stream_name": stream, "config": {**config, **changes}})


def empty(bus: Bus, stream: str = subjects.WORK) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await bus.stream_info(stream))["state"]["messages"] == 0

    return check


async def letters(bus: Bus) -> list[DeadLetter]:
    stored = await bus.last_per_subject(subjects.DEAD, ">")
    return [DeadLetter.model_validate_json(item.data) for item in stored]


async def test_acknowledged_work_is_gone_and_never_done_twice(bus: Bus) -> None:
    seen: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.parse(PlanWork).job_id)
        return Ack()

    async with running(plan_actor(bus, handle), plan_actor(bus, handle)):
        await submit(bus, *(f"job{index}" for index in range(40)))
        await eventually(empty(bus))
    assert sorted(seen) == sorted(f"job{index}" for index in range(40))


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


async def test_retry_comes_back_after_its_delay_and_counts_attempts(bus: Bus) -> None:
    seen: list[tuple[int, float]] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append((delivery.attempt, time.monotonic()))
        return Ack() if delivery.attempt == 3 else Retry(delay_seconds=0.2, reason="not yet")

    async with running(plan_actor(bus, handle)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert all(0.19 <= later[1] - earlier[1] < 1.2 for earlier, later in itertools.pairwise(seen))


async def test_transient_failures_end_as_a_dead_letter_that_keeps_the_cause(bus: Bus) -> None:
    seen: list[int] = []
    rejected: list[Failure] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        raise errors.error("REMOTE_FAILED", "no route")

    async def on_reject(delivery: Delivery, failure: Failure) -> None:
        rejected.append(failure)

    async with running(plan_actor(bus, handle, max_attempts=3, on_reject=on_reject)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == [1, 2, 3]
    (letter,) = await letters(bus)
    assert (letter.kind, letter.job_id, letter.attempts) == ("work-plan", "a", 3)
    assert letter.failure.code == "ATTEMPTS_EXHAUSTED"
    assert letter.failure.details["cause"]["code"] == "REMOTE_FAILED"
    assert "no route" in letter.failure.detail
    assert PlanWork.model_validate_json(letter.original) == PlanWork(job_id="a", generation=1)
    assert [failure.code for failure in rejected] == ["ATTEMPTS_EXHAUSTED"]


@pytest.mark.parametrize("how", ["raised", "returned"])
async def test_permanent_failures_are_buried_at_once(bus: Bus, how: str) -> None:
    problem = errors.error("CORRUPT_INPUT", "bad box")

    async def handle(delivery: Delivery) -> Outcome:
        if how == "raised":
            raise problem
        return Reject(Failure.of(problem, segment_index=7))

    async with running(plan_actor(bus, handle)):
        await submit(bus, "a")
        await eventually(empty(bus))
    (letter,) = await letters(bus)
    assert (letter.failure.code, letter.attempts) == ("CORRUPT_INPUT", 1)
    assert letter.failure.segment_index == (None if how == "raised" else 7)


async def test_the_largest_and_ugliest_message_can_be_buried(bus: Bus) -> None:
    """A dead letter holds the original as JSON text: control characters grow sixfold, and NATS takes 1 MB."""

    async def handle(delivery: Delivery) -> Outcome:
        raise errors.error("INVALID_REQUEST")

    config = (await bus.stream_info(subjects.WORK))["config"]
    async with running(plan_actor(bus, handle)):
        await bus.publish(subjects.work("plan", "a"), bytes(config["max_msg_size"] - 200))
        await eventually(empty(bus))
    assert len(await letters(bus)) == 1
    with pytest.raises(Refused):
        await bus.publish(subjects.work("plan", "a"), bytes(config["max_msg_size"] + 1))
    with pytest.raises(errors.Permanent, match="too large"):
        await bus.publish(subjects.work("plan", "a"), bytes(2**20 + 1))


async def test_an_unnamed_exception_is_retried_and_harms_nobody_else(bus: Bus) -> None:
    seen: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        job_id = delivery.parse(PlanWork).job_id
        if job_id == "bad":
            raise ZeroDivisionError("oops")
        seen.append(job_id)
        return Ack()

    async with running(plan_actor(bus, handle, max_attempts=2)):
        await submit(bus, "bad", "good")
        await eventually(empty(bus))
    assert seen == ["good"]
    (letter,) = await letters(bus)
    assert letter.failure.details["cause"]["code"] == "INTERNAL"
    assert "ZeroDivisionError" in letter.failure.detail


async def test_a_failing_on_reject_loses_nothing(bus: Bus) -> None:
    await shorten(bus, subjects.WORK, PLAN, ack_wait=300_000_000)
    tries: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        raise errors.error("CORRUPT_INPUT")

    async def on_reject(delivery: Delivery, failure: Failure) -> None:
        tries.append(delivery.attempt)
        if len(tries) == 1:
            raise errors.error("BROKER_UNAVAILABLE")

    async with running(plan_actor(bus, handle, on_reject=on_reject)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert tries == [1, 2]
    assert len(await letters(bus)) == 1


async def test_surroundings_that_are_away_use_up_no_attempt(bus: Bus) -> None:
    seen: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        if len(seen) < 6:
            raise errors.error("STORAGE_FULL")
        return Ack()

    async with running(plan_actor(bus, handle, max_attempts=2, backoff_seconds=0.01)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == [1] * 6
    assert await letters(bus) == []


async def test_the_heartbeat_keeps_long_work(bus: Bus) -> None:
    await shorten(bus, subjects.WORK, PLAN, ack_wait=300_000_000)
    seen: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        await asyncio.sleep(1.2)
        return Ack()

    async with running(plan_actor(bus, handle, ack_wait=0.3), plan_actor(bus, handle, ack_wait=0.3)):
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


async def test_goes_on_within_two_seconds_of_a_restart(bus: Bus, server: Nats, settings: Settings) -> None:
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


async def waiting_plan(bus: Bus) -> bool:
    return bool((await bus.consumer_info(subjects.WORK, PLAN))["num_waiting"])


# ---- tries -------------------------------------------------------------------------------------------------
async def test_what_is_given_back_untried_uses_up_no_attempt(bus: Bus, settings: Settings) -> None:
    """One worker cannot do it and says so, many times; the other tries and fails: only its tries count."""
    other = await Bus.connect(settings, name="test-other")
    given_back = 0
    tried: list[int] = []

    async def unfit(delivery: Delivery) -> Outcome:
        nonlocal given_back
        given_back += 1
        return Return(0.01, reason="MODEL_MISSING")

    async def fit(delivery: Delivery) -> Outcome:
        tried.append(delivery.attempt)
        raise errors.error("REMOTE_FAILED", "no route")

    await submit(bus, "a")
    async with running(plan_actor(bus, unfit, max_attempts=2)):
        await eventually(lambda: given_back >= 8)
        assert await letters(bus) == []
    async with running(plan_actor(other, fit, max_attempts=2)):
        await eventually(empty(bus))
    await other.drain()
    assert tried == [1, 2]
    (letter,) = await letters(bus)
    assert (letter.attempts, letter.failure.details["cause"]["code"]) == (2, "REMOTE_FAILED")


async def test_what_killed_every_worker_is_buried_by_the_next_one(bus: Bus) -> None:
    """Deliveries that ended in silence are tries: nobody else gets to try after the last."""
    await shorten(bus, subjects.WORK, PLAN, ack_wait=200_000_000)
    puller = Puller(bus, subjects.WORK, PLAN)
    await puller.open()
    await submit(bus, "a")
    for _ in range(2):
        assert await puller.wait(3.0)
        await puller.take(1)  # and never heard of again
    await puller.release()

    async def handle(delivery: Delivery) -> Outcome:
        raise AssertionError("it was to be buried untried")

    async with running(plan_actor(bus, handle, max_attempts=2)):
        await eventually(empty(bus))
    (letter,) = await letters(bus)
    assert (letter.failure.code, letter.attempts) == ("ATTEMPTS_EXHAUSTED", 2)
    assert letter.failure.details["cause"]["code"] == "WORKER_LOST"


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("stereospot.work.plan.a", "work-plan"),
        ("stereospot.convert.cpu.now.a.1.2", "convert"),
        ("stereospot.done.a.1.2", "done"),
        ("stereospot.live.open.s", "live-open"),
        ("$KV.state.trigger.a.1", "trigger"),
        ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.CONVERT.convert-cpu-now", "advisory"),
    ],
)
def test_the_kind_of_a_dead_letter(subject: str, kind: str) -> None:
    assert kind_of(subject) == kind
