"""Messages of a shape that nothing of ours has, and changes that cannot be made: each costs itself, and no service."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from services import dead_letters, ghosts, ledger
from services.collector import Collector
from services.context import Context
from services.janitor import TROUBLES, Findings, Janitor
from services.states import States
from stereospot import errors, records, subjects
from stereospot.bus import Delivery, Refused
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.letters import dead_letter, find
from stereospot.messages import Failure, PlanWork, SegmentTask, Trigger
from tests.support import eventually
from tests.system.rig import a_job, collecting, rig

PART = {"job_id": "J1", "generation": 1, "pool": "cpu", "first": 0, "count": 2}
TOTAL = {"job_id": "J1", "generation": 1, "pool": "cpu", "total": 2, "parts": [0], "audio": False}


def done(what: object) -> str:
    return f"{subjects.PREFIX}.done.J1.1.{what}"


async def told(context: Context, index: int) -> None:
    """A segment that is as it should be."""
    await context.bus.publish(done(index), json.dumps({"init_sha256": "a" * 64}).encode())


async def all_taken(context: Context) -> bool:
    return (await context.bus.stream_info(subjects.DONE))["state"]["messages"] == 0


async def state_of(context: Context) -> Completion:
    found = await records.get_state(context.bus, "J1", 1)
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("what", "body"),
    [
        (0, b"[" * 100_000),
        (0, bytes(300_000)),
        (0, b"x" * 1_040_000),
        (0, json.dumps({"init_sha256": 5}).encode()),
        (0, json.dumps({"init_sha256": "../" * 9}).encode()),
        (0, json.dumps({"job_id": "x" * 600_000, "init_sha256": 5}).encode()),
        ("part", json.dumps(PART | {"spans": "!!"}).encode()),
        ("part", json.dumps(PART | {"spans": "gA=="}).encode()),  # ends in the middle of a number
        ("part", json.dumps(PART | {"first": -5}).encode()),
        ("part", json.dumps(PART | {"pool": "a pool"}).encode()),
        ("total", json.dumps(TOTAL | {"spans": {"0": "!!"}}).encode()),
        ("total", json.dumps(TOTAL | {"spans": {"0": ""}}).encode()),
        ("total", json.dumps(TOTAL | {"parts": [-1]}).encode()),
    ],
    ids=[
        "nested", "zeros", "long", "number", "no-hash", "long-id", "no-base64", "half-a-number", "negative", "no-pool",
        "no-base64-of-a-part", "no-spans-of-a-part", "negative-part",
    ],
)  # fmt: skip
async def test_what_is_no_completion_ends_no_collector(tmp_path: Path, what: object, body: bytes) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        async with collecting(Collector(context)):
            await context.bus.publish(done(what), body)
            await told(context, 1)
            await eventually(lambda: all_taken(context), what="all gone")
        (letter,) = await dead_letters.letters(context.bus)
        assert letter.failure.code == "INVALID_REQUEST"
        assert body.decode().startswith(letter.original)
        assert letter.cut == (letter.original != body.decode())
        state = await state_of(context)
        assert (state.done, state.init, state.planned) == (0b10, "a" * 64, 0)


async def test_a_letter_that_holds_a_part_of_its_message_is_known_again_and_cannot_be_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        given = Delivery(done(0), bytes(300_000), headers={"Big": "x" * 600_000}, stream=subjects.DONE)
        letter = dead_letter(given, Failure.of(errors.error("INVALID_REQUEST")), worker_id="w", at=1.0)
        await context.bus.publish(subjects.dead(letter.kind, letter.dead_id), letter)
        assert letter.cut
        assert await find(context.bus, given) == letter
        with pytest.raises(errors.Permanent, match="too long"):
            await dead_letters.retry(context.bus, letter.dead_id)
        assert await dead_letters.drop(context.bus, letter.dead_id)


def test_a_letter_has_room_for_a_reason_that_quotes_its_message() -> None:
    said = "\x01" * 600_000
    failure = Failure.of(errors.error("INVALID_REQUEST", said, given=said), segment_index=7)
    given = Delivery(done(0), bytes(300_000), headers={"Big": "x" * 60_000}, stream=subjects.DONE)
    letter = dead_letter(given, failure, worker_id="w", at=1.0)
    assert len(letter.body()) < 1_000_000
    assert (letter.failure.code, letter.failure.segment_index) == ("INVALID_REQUEST", 7)
    assert letter.failure.detail
    assert said.startswith(letter.failure.detail)


async def test_what_the_broker_refuses_buries_no_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is gone for a while, say; only what a change itself raises counts against its message."""
    commit = States._commit  # pyright: ignore[reportPrivateUsage]
    apply, tried = Completion.with_done_set, 0

    async def refuse(self: States, *given: Any) -> int:
        if tried <= 8:
            raise Refused(404, 10059, "stream not found")
        return await commit(self, *given)

    def fail_once(self: Completion, members: int, init: str | None) -> Completion:
        nonlocal tried
        tried += 1
        if tried == 9:
            raise ZeroDivisionError("oops")
        return apply(self, members, init)

    monkeypatch.setattr(States, "_commit", refuse)
    monkeypatch.setattr(Completion, "with_done_set", fail_once)
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        await told(context, 0)
        async with collecting(Collector(context, pause_seconds=0.001)):
            await eventually(lambda: all_taken(context), what="stored in the end")
        assert await dead_letters.letters(context.bus) == []
        assert (await state_of(context)).done == 1


async def test_a_letter_that_the_broker_does_not_take_ends_no_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context:
        publish = context.bus.publish

        async def no_letters(subject: str, *given: Any, **values: Any) -> int:
            if ".dead." in subject:
                raise errors.error("INVALID_REQUEST", "too large")
            return await publish(subject, *given, **values)

        monkeypatch.setattr(context.bus, "publish", no_letters)
        await records.create_job(context.bus, a_job())
        async with collecting(Collector(context)):
            await context.bus.publish(done(0), b"[]")
            await told(context, 1)
            await eventually(lambda: all_taken(context), what="all gone")
        assert (await state_of(context)).done == 0b10


async def test_a_change_that_cannot_be_made_costs_its_message_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Completion.with_done_set

    def refuse(self: Completion, members: int, init: str | None) -> Completion:
        if members & 0b100:
            raise ZeroDivisionError("oops")
        return real(self, members, init)

    monkeypatch.setattr(Completion, "with_done_set", refuse)
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        for index in range(4):
            await told(context, index)
        async with collecting(Collector(context, pause_seconds=0.01)):
            await eventually(lambda: all_taken(context), what="all gone")
        assert (await state_of(context)).done == 0b1011
        (letter,) = await dead_letters.letters(context.bus)
        assert (letter.subject, letter.failure.code) == (done(2), "INTERNAL")
        assert "ZeroDivisionError" in letter.failure.detail


@pytest.mark.parametrize(
    "subject", ["work.delete", "work.plan", "convert.cpu.now.J1.1.abc", "convert.x", "convert.a.b.J1.1.99999999999"]
)
async def test_a_subject_of_another_shape_stops_no_sweep(tmp_path: Path, subject: str) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        state = Completion(job_id="J1", generation=1, total=3, planned=3, done=0b001, sent=0b111)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=1, part=0)
        await context.bus.publish(subjects.convert("cpu", "normal", "J1", 1, 1), task)
        await context.bus.publish(f"{subjects.PREFIX}.{subject}", b'{"job_id":"J1"}')
        assert (await Janitor(context).sweep()).mended == {"segments": ["J1.1: [2]"]}


async def test_a_trigger_that_is_none_is_written_anew_and_stops_no_sweep(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        state = context.bus.bucket(subjects.STATE)
        for job_id, total in (("J1", 1), ("J2", 3)):
            await records.create_job(context.bus, a_job(job_id))
            found = Completion(job_id=job_id, generation=1, total=total, planned=total, done=1, sent=(1 << total) - 1)
            await state.put(subjects.state_key(job_id, 1), found)
        await state.put(subjects.trigger_key("J1", 1), b"{}")
        assert (await Janitor(context).sweep()).mended == {"trigger": ["J1.1"], "segments": ["J2.1: [1, 2]"]}
        entry = await state.get(subjects.trigger_key("J1", 1))
        assert entry is not None
        assert Trigger.model_validate_json(entry.value).attempt == 1


async def test_jobs_that_cannot_be_looked_at_keep_no_other_from_being_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = [f"A{number}" for number in range(TROUBLES + 1)]
    mend = Janitor._mend  # pyright: ignore[reportPrivateUsage]

    async def stumble(self: Janitor, findings: Findings, job_id: str, before: float) -> None:
        if job_id in odd:
            raise IndexError("list index out of range")
        await mend(self, findings, job_id, before)

    monkeypatch.setattr(Janitor, "_mend", stumble)
    async with rig(tmp_path) as context:
        for job_id in (*odd, "B"):
            await records.create_job(context.bus, a_job(job_id, phase=Phase.CREATED))
        janitor = Janitor(context)
        found = [(await janitor.sweep()).mended for _ in range(2)]
        assert found == [{}, {"plan": ["B"]}]


async def test_a_sweep_that_fails_for_no_known_reason_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []

    async def sweep(_: Janitor) -> Findings:
        sweeps.append(1)
        raise IndexError("list index out of range")

    monkeypatch.setattr(Janitor, "sweep", sweep)
    async with rig(tmp_path) as context:
        task = asyncio.create_task(Janitor(context, every_seconds=0.01).run())
        try:
            await eventually(lambda: len(sweeps) > 2)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_letter_of_another_message_speaks_for_none(tmp_path: Path) -> None:
    """A queue that was made anew counts from one again, and letters outlive it."""
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        sequence = await context.bus.publish(
            subjects.convert("cpu", "normal", "J1", 1, 0),
            SegmentTask(job_id="J1", generation=1, attempt=1, index=0, part=0),
        )
        plan = await context.bus.publish(subjects.work("plan", "J1"), PlanWork(job_id="J1", generation=1))
        for old in (
            Delivery(subjects.convert("cpu", "normal", "old", 1, 7), b"{}", stream="CONVERT", stream_sequence=sequence),
            Delivery(subjects.work("plan", "old"), b"{}", stream=subjects.WORK, stream_sequence=plan),
        ):
            letter = dead_letter(old, Failure.of(errors.error("CORRUPT_INPUT")), worker_id="w", at=1.0)
            await context.bus.publish(subjects.dead(letter.kind, letter.dead_id), letter)
        advisory = {"stream": subjects.CONVERT, "stream_seq": sequence, "deliveries": 6}
        await dead_letters.handle(context, Delivery("$JS", json.dumps(advisory).encode()))
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert found[0].phase is Phase.FAILED
        assert found[0].failure is not None
        assert found[0].failure.code == "ATTEMPTS_EXHAUSTED"

        stored = await context.bus.get(subjects.WORK, plan)
        assert stored is not None
        ghost = ghosts.Ghost(subjects.WORK, plan, stored.subject, stored.data)
        assert await ghosts.lay(context.bus, ghost) == "offered once more"
        assert await ledger.subjects_in(context.bus, subjects.WORK, ">") == {stored.subject: 1}
