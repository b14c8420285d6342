"""Work that waits for a broker or a storage that is away: in its slot, then at rest, and not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stereospot import errors
from stereospot.bus import Bus, Delivery
from stereospot.messages import Failure, PlanWork
from stereospot.outcome import Ack, Outcome, Return
from stereospot.tries import Tries
from tests.broker.acting import empty, letters, plan_actor, running, submit
from tests.support import eventually


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


async def test_one_object_that_cannot_be_read_takes_no_slot_from_others(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once it has waited for long, given back, and from then on whenever it comes; never a try."""
    monkeypatch.setattr("stereospot.actor.TELL_SECONDS", 0.1)
    seen: list[tuple[str, int]] = []
    told: list[str] = []
    healthy = False

    async def handle(delivery: Delivery) -> Outcome:
        job_id = delivery.parse(PlanWork).job_id
        seen.append((job_id, delivery.attempt))
        if job_id == "a" and not healthy:
            raise errors.error("STORAGE_UNAVAILABLE", "Input/output error.")
        return Ack()

    async def on_wait(delivery: Delivery, failure: Failure) -> None:
        told.append(failure.code)

    waiting = plan_actor(
        bus, handle, slots=1, max_attempts=2, backoff_seconds=0.01, backoff_cap_seconds=0.02, rest_seconds=0.05,
        on_wait=on_wait,
    )  # fmt: skip
    async with running(waiting):
        await submit(bus, "a", "b")
        await eventually(lambda: ("b", 1) in seen, what="the other one")
        first = seen.index(("b", 1))
        await eventually(lambda: len(told) >= 4, what="it comes again, and again")
        assert len(seen) - first < 8, "it is given back at once when it comes again"
        healthy = True
        await eventually(empty(bus))
    assert {attempt for _, attempt in seen} == {1}
    assert set(told) == {"STORAGE_UNAVAILABLE"}
    assert await letters(bus) == []


@pytest.mark.parametrize("handed_over", [False, True], ids=["at the end of long work", "given back before"])
async def test_a_moment_without_storage_is_waited_for_in_the_slot(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, handed_over: bool
) -> None:
    monkeypatch.setattr("stereospot.actor.TELL_SECONDS", 30.0 if handed_over else 0.1)
    seen: list[int] = []
    told: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.excused)
        if handed_over and len(seen) == 1:
            return Return(0.01, reason="this worker stops")
        if not handed_over:
            await asyncio.sleep(0.2)  # at work, for longer than a message waits untold
        if len(seen) == 1 + handed_over:
            raise errors.error("STORAGE_UNAVAILABLE")
        return Ack()

    async def on_wait(delivery: Delivery, failure: Failure) -> None:
        told.append(failure.code)

    async with running(plan_actor(bus, handle, backoff_seconds=0.01, rest_seconds=0.05, on_wait=on_wait)):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == ([0, 1, 1] if handed_over else [0, 0])
    assert told == []


async def test_where_a_rest_would_count_as_a_try_work_waits_in_its_slot(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights of an older version know no bucket for the note."""
    monkeypatch.setattr("stereospot.actor.TELL_SECONDS", 0.0)
    seen: list[int] = []

    async def forbidden(*_: Any, **__: Any) -> bool:
        return False

    async def handle(delivery: Delivery) -> Outcome:
        seen.append(delivery.attempt)
        if len(seen) < 8:
            raise errors.error("STORAGE_UNAVAILABLE")
        return Ack()

    monkeypatch.setattr(Tries, "excuse", forbidden)
    waiting = plan_actor(bus, handle, max_attempts=2, backoff_seconds=0.01, backoff_cap_seconds=0.02, rest_seconds=0.05)
    async with running(waiting):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert seen == [1] * 8
    assert await letters(bus) == []


async def test_a_storage_that_stays_away_for_longer_than_the_patience_counts_as_a_try(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stereospot.actor.TELL_SECONDS", 0.0)
    seen: list[tuple[int, int]] = []

    async def handle(delivery: Delivery) -> Outcome:
        seen.append((delivery.attempt, delivery.excused))
        raise errors.error("STORAGE_UNAVAILABLE", "Input/output error.")

    waiting = plan_actor(bus, handle, max_attempts=2, backoff_seconds=0.01, patience_seconds=0.3, rest_seconds=0.05)
    async with running(waiting):
        await submit(bus, "a")
        await eventually(empty(bus))
    assert {attempt for attempt, _ in seen} == {1, 2}
    assert max(excused for _, excused in seen) >= 2
    (letter,) = await letters(bus)
    assert letter.failure.details["cause"]["code"] == "STORAGE_UNAVAILABLE"


async def test_a_restart_does_not_begin_the_wait_anew(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker gives the message back once and ends; together they wait no longer than one would."""
    monkeypatch.setattr("stereospot.actor.TELL_SECONDS", 0.0)
    seen: list[float] = []

    async def handle(delivery: Delivery) -> Outcome:
        assert delivery.attempt == 1
        seen.append(delivery.waited_seconds)
        raise errors.error("STORAGE_UNAVAILABLE", "Input/output error.")

    async def is_over() -> bool:
        return bool(await letters(bus))

    await submit(bus, "a")
    for number in range(1, 12):
        worker = plan_actor(bus, handle, slots=1, max_attempts=1, patience_seconds=0.7, rest_seconds=0.1)
        async with running(worker):
            await eventually(lambda number=number: len(seen) >= number, what="its turn")
        if await is_over():
            break
    assert await is_over(), f"waited for {seen[-1]} s"
    assert len(seen) > 2, "it rested, and was tried again"
    assert seen == sorted(seen)
    (letter,) = await letters(bus)
    assert letter.failure.details["cause"]["code"] == "STORAGE_UNAVAILABLE"


async def test_a_wait_is_that_of_one_attempt_and_outlives_a_stop(bus: Bus) -> None:
    tries = Tries(bus)
    given = Delivery("s", b"", stream="WORK", stream_sequence=1)
    await tries.excuse(given, waited_seconds=61.5)
    await tries.excuse(replace(given, attempt=2))  # a worker that stops has not looked at it
    again = await tries.counted(replace(given, attempt=3))
    assert (again.attempt, again.excused, again.waited_seconds) == (1, 2, 61.5)
    second = await tries.counted(replace(given, attempt=4))
    assert (second.attempt, second.waited_seconds) == (2, 0.0)
    await tries.excuse(again, waited_seconds=0.0)
    assert (await tries.counted(replace(given, attempt=4))).waited_seconds == 0.0, "given back for something else"
