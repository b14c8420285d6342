"""The one loop and its outcomes: ack, retry, return, dead letter; what counts as a try."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from typing import Any

import pytest

from stereospot import errors, subjects
from stereospot.bus import Bus, Delivery, Puller, Refused
from stereospot.letters import dead_letter, find, kind_of
from stereospot.messages import Failure, PlanWork
from stereospot.outcome import Ack, Outcome, Reject, Retry, Return
from stereospot.settings import Settings
from stereospot.tries import Tries
from streams_config.provision import provision
from tests.broker.acting import PLAN, empty, letters, plan_actor, running, shorten, submit
from tests.support import eventually


async def test_acknowledged_work_is_gone_and_never_done_twice(bus: Bus) -> None:
    seen: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.parse(PlanWork).job_id)
        return Ack()

    async with running(plan_actor(bus, handle), plan_actor(bus, handle)):
        await submit(bus, *(f"job{index}" for index in range(40)))
        await eventually(empty(bus))
    assert sorted(seen) == sorted(f"job{index}" for index in range(40))


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


async def test_a_body_of_another_shape_is_buried_with_what_is_wrong(bus: Bus) -> None:
    async def handle(delivery: Delivery) -> Outcome:
        delivery.parse(PlanWork)
        return Ack()

    async with running(plan_actor(bus, handle)):
        for body in (b"{}", b"no JSON"):
            await bus.nc.publish(subjects.work("plan", "a"), body)
        await eventually(empty(bus))
    found = {letter.original: letter.failure for letter in await letters(bus)}
    assert {failure.code for failure in found.values()} == {"INVALID_REQUEST"}
    assert found["{}"].detail.startswith("job_id: ")
    assert "pydantic" not in found["no JSON"].detail


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


async def test_work_whose_record_is_of_a_newer_version_is_given_back(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stereospot.actor.UNREADABLE_SECONDS", 0.05)
    seen: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        if len(seen) < 5:
            raise errors.error("RECORD_UNREADABLE", "J1")
        return Ack()

    async with running(plan_actor(bus, handle, max_attempts=2)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == [1] * 5
    assert await letters(bus) == []


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


async def test_a_broker_that_has_no_room_for_the_note_uses_up_no_attempt(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not tried is kept, with its lease, until the broker can write down that it was none."""
    await shorten(bus, subjects.WORK, PLAN, ack_wait=300_000_000)
    stream = subjects.kv_stream(subjects.TRIES)
    config = (await bus.stream_info(stream))["config"]
    await bus.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 1, "discard": "new"})
    publish, refused, seen = bus.publish, 0, list[tuple[int, bool]]()

    async def impatient(subject: str, body: Any, **values: Any) -> int:
        nonlocal refused
        values["patience_seconds"] = 0.1
        try:
            return await publish(subject, body, **values)
        except errors.StereoSpotError as problem:
            refused += problem.code == "STORAGE_FULL"
            raise

    async def handle(delivery: Delivery) -> Outcome:
        seen.append((delivery.attempt, delivery.is_first))
        return Return(0.01, reason="MODEL_MISSING") if len(seen) == 1 else Ack()

    monkeypatch.setattr(bus, "publish", impatient)
    async with running(plan_actor(bus, handle, max_attempts=2, ack_wait=0.3, backoff_cap_seconds=0.2)):
        await submit(bus, "a")
        await eventually(lambda: refused >= 6, what="the broker has refused the note for several leases")
        assert seen == [(1, True)]
        await bus.api(f"STREAM.UPDATE.{stream}", config)
        await eventually(empty(bus))
    assert seen == [(1, True), (1, False)]
    assert await letters(bus) == []


async def test_notes_of_long_ago_give_way_to_new_ones(bus: Bus) -> None:
    """A bucket that refused them would hold up, or use up the tries of, all that a fleet gives back."""
    stream = subjects.kv_stream(subjects.TRIES)
    config = (await bus.stream_info(stream))["config"]
    await bus.api(f"STREAM.UPDATE.{stream}", {**config, "discard": "new"})
    await provision(bus.nc)
    config = (await bus.stream_info(stream))["config"]
    assert config["discard"] == "old", "as on a server that an older version provisioned"
    await bus.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 4000})
    tries = Tries(bus)
    for sequence in range(1, 61):
        await tries.excuse(Delivery("s", b"", stream=subjects.WORK, stream_sequence=sequence))
    assert [await tries.excused(subjects.WORK, sequence) for sequence in (1, 60)] == [0, 1]


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


async def test_beats_are_as_often_as_a_server_needs_that_waits_less_than_the_worker_was_told(bus: Bus) -> None:
    lease_seconds = 3.0
    await shorten(bus, subjects.WORK, PLAN, ack_wait=int(lease_seconds * 1e9))
    seen: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        await asyncio.sleep(2 * lease_seconds)  # at work, for longer than the server waits
        return Ack()

    async with running(plan_actor(bus, handle, ack_wait=60.0), plan_actor(bus, handle, ack_wait=60.0)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == [1]


async def test_who_died_between_letter_and_word_of_it_leaves_the_true_reason(bus: Bus) -> None:
    await shorten(bus, subjects.WORK, PLAN, ack_wait=300_000_000)
    heard: list[Failure] = []

    async def handle(delivery: Delivery) -> Outcome:
        raise errors.error("OUT_OF_MEMORY", "4 GB wanted")

    async def on_reject(delivery: Delivery, failure: Failure) -> None:
        heard.append(failure)
        if len(heard) == 1:
            raise errors.error("BROKER_UNAVAILABLE")  # as a kill would have it: not settled

    async with running(plan_actor(bus, handle, max_attempts=2, on_reject=on_reject)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert [failure.details["cause"]["code"] for failure in heard] == ["OUT_OF_MEMORY"] * 2
    (letter,) = await letters(bus)
    assert letter.failure == heard[0] == heard[1]


async def test_who_died_after_a_rejection_whose_work_is_history_now_is_heard_all_the_same(bus: Bus) -> None:
    """A job that has failed wants its message no more; what goes with the failure is still to be said."""
    await shorten(bus, subjects.WORK, PLAN, ack_wait=300_000_000)
    handled: list[int] = []
    heard: list[Failure] = []

    async def handle(delivery: Delivery) -> Outcome:
        handled.append(delivery.attempt)
        return Reject(Failure.of(errors.error("CORRUPT_INPUT"))) if len(handled) == 1 else Ack("stale")

    async def on_reject(delivery: Delivery, failure: Failure) -> None:
        heard.append(failure)
        if len(heard) == 1:
            raise errors.error("BROKER_UNAVAILABLE")  # as a kill would have it: not settled

    async with running(plan_actor(bus, handle, on_reject=on_reject)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert handled == [1]
    assert [failure.code for failure in heard] == ["CORRUPT_INPUT"] * 2


async def test_a_letter_of_a_stream_that_was_made_anew_is_another_message_s(bus: Bus) -> None:
    old = Delivery("stereospot.work.plan.old", b"{}", stream=subjects.WORK, stream_sequence=1)
    letter = dead_letter(old, Failure.of(errors.error("CORRUPT_INPUT")), worker_id="w", at=1.0)
    await bus.publish(subjects.dead(letter.kind, letter.dead_id), letter)
    assert await find(bus, old) == letter
    assert await find(bus, dataclasses.replace(old, subject="stereospot.work.plan.new")) is None
    assert await find(bus, dataclasses.replace(old, data=b"[]")) is None
    assert await find(bus, dataclasses.replace(old, stream_sequence=2)) is None
    await bus.publish(subjects.dead(letter.kind, letter.dead_id), b"of another version")
    assert await find(bus, old) is None


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
