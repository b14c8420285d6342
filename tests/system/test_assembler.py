"""The assembler's promises: one recorded film whoever comes twice or late, no traces, and a reason for failing."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services import operations, reports, space
from services.assembler import Assembler
from services.context import Context
from services.converter import Converter
from stereospot import errors, jobs, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.media import assemble as joining
from stereospot.messages import Failure, SegmentTask, Trigger
from stereospot.outcome import Ack, Retry, Return
from tests.media import sources as films
from tests.media import striking
from tests.support import eventually
from tests.system.rig import a_planned_job, rig


@asynccontextmanager
async def converted(tmp_path: Path) -> AsyncGenerator[tuple[Context, Assembler]]:
    """A job whose segments are all stored, and an assembler."""
    async with rig(tmp_path) as context:
        _, _, segments = await a_planned_job(context, films.path("h264_mp4"))
        worker = Converter(context, worker_id="w", slots=1)
        for segment in segments:
            body = SegmentTask(job_id="J1", generation=1, attempt=1, index=segment.index, part=0)
            assert await worker.handle(Delivery(subject="s", data=body.body())) == Ack()
        await worker.close()
        (init,) = [item.key async for item in context.store.list("jobs/J1/1/init-")]
        sha256 = hashlib.sha256(await context.store.get(init) or b"").hexdigest()
        everything = (1 << len(segments)) - 1
        state = Completion(
            job_id="J1", generation=1, total=len(segments), planned=len(segments), done=everything, sent=everything,
            init=sha256,
        )  # fmt: skip
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        made = Assembler(context)
        try:
            yield context, made
        finally:
            made.close()


def trigger(*, attempt: int = 1, generation: int = 1, delivered: int = 1) -> Delivery:
    body = Trigger(job_id="J1", generation=generation, total=4, attempt=attempt)
    return Delivery(
        subject=subjects.kv_subject(subjects.STATE, subjects.trigger_key("J1", generation)), data=body.body(),
        attempt=delivered, stream="KV_state", stream_sequence=1,
    )  # fmt: skip


async def current(context: Context) -> Job:
    found = await records.get_job(context.bus, "J1")
    assert found is not None
    return found[0]


async def stored(context: Context) -> list[str]:
    return [item.key async for item in context.store.list("jobs/J1/") if "/final" in item.key]


def scratch(context: Context) -> list[Path]:
    folder = context.settings.data_dir / "scratch"
    return list(folder.iterdir()) if folder.exists() else []


async def test_the_film_is_recorded_with_its_hash_and_a_second_trigger_changes_nothing(tmp_path: Path) -> None:
    async with converted(tmp_path) as (context, made):
        assert await made.handle(trigger()) == Ack()
        job = await current(context)
        assert job.phase is Phase.COMPLETED
        assert job.film is not None
        assert job.film.key == keys.film("J1", 1, "mp4")
        body = await context.store.get(job.film.key)
        assert body is not None
        assert hashlib.sha256(body).hexdigest() == job.film.sha256
        assert job.film.file_name.endswith(".mp4")
        assert await context.store.get(keys.film_alias("J1")) == body

        await context.store.delete(keys.film_alias("J1"))
        assert await made.handle(trigger(delivered=2)) == Ack("completed already")
        assert await current(context) == job
        assert await context.store.get(keys.film_alias("J1")) == body, "the alias is made good"
        assert scratch(context) == []


async def test_a_film_whose_alias_has_no_room_is_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files cannot have two names the alias is a second copy."""
    async with converted(tmp_path) as (context, made):

        async def full(source: str, target: str) -> None:
            raise errors.error("STORAGE_FULL", target)

        monkeypatch.setattr(context.store, "copy", full)
        await context.store.put(keys.film_alias("J1"), b"of an older generation")
        for delivered in (1, 2):
            assert isinstance(await made.handle(trigger(delivered=delivered)), Ack)
        assert (await current(context)).phase is Phase.COMPLETED
        assert await context.bus.last(subjects.EVENT, subjects.event_job("J1", "completed")) is not None
        assert await context.store.get(keys.film_alias("J1")) is None


async def test_one_that_wakes_up_late_cannot_touch_the_recorded_film(tmp_path: Path) -> None:
    async with converted(tmp_path) as (context, made):
        job = await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.ASSEMBLING, at=2.0))
        # The first assembler died or froze; the second delivery makes the film.
        assert await made.handle(trigger(delivered=2)) == Ack()
        recorded = (await current(context)).film
        assert recorded is not None
        assert recorded.key == keys.film_again("J1", 1, 1, recorded.sha256, "mp4")
        assert keys.parse_film(recorded.key) == ("J1", 1, "mp4")

        # Now the first one goes on where it slept: with the record it knew, at the plain key.
        head = await made.plans.head("J1", 1)
        total = await made.plans.total("J1", 1)
        assert head is not None
        assert total is not None
        await made.make(job, head, total, plain=True)
        assert (await current(context)).film == recorded
        body = await context.store.get(recorded.key)
        assert body is not None
        assert hashlib.sha256(body).hexdigest() == recorded.sha256
        assert sorted(await stored(context)) == sorted([recorded.key, keys.film_alias("J1")])
        assert scratch(context) == []


async def test_a_film_that_was_stored_and_not_recorded_goes_when_the_next_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converted(tmp_path) as (context, made):

        async def killed(*_: Any) -> Any:
            raise asyncio.CancelledError

        with monkeypatch.context() as broken:
            broken.setattr(reports, "collect", killed)
            with pytest.raises(asyncio.CancelledError):
                await made.handle(trigger())
        assert await stored(context) == [keys.film("J1", 1, "mp4")]
        assert await made.handle(trigger(delivered=2)) == Ack()
        film = (await current(context)).film
        assert film is not None
        assert sorted(await stored(context)) == sorted([film.key, keys.film_alias("J1")])
        assert await context.store.head(film.key) is not None


async def test_one_that_clears_up_late_leaves_the_film_of_a_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the job as completed; before it comes to an end the film was lost and made again."""
    async with converted(tmp_path) as (context, made):
        assert await made.handle(trigger()) == Ack()
        film = (await current(context)).film
        assert film is not None
        again = film.model_copy(update={"key": keys.film_again("J1", 1, 2, "ab" * 32, "mp4")})
        announce = operations.announce

        async def repaired(*given: Any, **values: Any) -> None:
            await announce(*given, **values)
            await context.store.put(again.key, b"film")
            await records.change_job(
                context.bus, "J1", lambda job: job.model_copy(update={"attempt": 2, "film": again})
            )

        monkeypatch.setattr(operations, "announce", repaired)
        assert await made.handle(trigger(delivered=2)) == Ack("completed already")
        assert await context.store.head(again.key) is not None


async def test_one_that_was_cancelled_and_slept_removes_nothing_that_the_retry_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It made the same film: the retry's may not lie where it clears its own away."""
    async with converted(tmp_path) as (context, made):
        record, slept = Assembler._record, False  # pyright: ignore[reportPrivateUsage]

        async def sleep_before_it_is_known(self: Assembler, *given: Any) -> Job:
            nonlocal slept
            if slept:
                return await record(self, *given)
            slept = True
            await operations.cancel(context.bus, "J1")
            done = await record(self, *given)
            await operations.retry(context.bus, "J1")
            await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.CONVERTING, at=3.0))
            assert await made.handle(trigger(attempt=2)) == Ack()
            return done

        monkeypatch.setattr(Assembler, "_record", sleep_before_it_is_known)
        assert await made.handle(trigger(delivered=2)) == Ack()
        film = (await current(context)).film
        assert film is not None
        assert sorted(await stored(context)) == sorted([film.key, keys.film_alias("J1")])


async def test_of_two_that_both_believe_to_be_first_the_slower_leaves_the_other_s_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transfer is broken off because the job is completed, with a film under the very key that it wrote."""
    async with converted(tmp_path) as (context, slower):
        faster, original, began = Assembler(context), context.store.put_file, False

        async def overtaken(key: str, path: Path, *, move: bool = False) -> None:
            nonlocal began
            if began:
                await original(key, path, move=move)
                return
            began = True
            assert await faster.handle(trigger()) == Ack()
            await asyncio.Event().wait()

        monkeypatch.setattr(context.store, "put_file", overtaken)
        try:
            assert await slower.handle(trigger()) == Ack("cancelled")
        finally:
            faster.close()
        film = (await current(context)).film
        assert film is not None
        assert film.key == keys.film("J1", 1, "mp4")
        assert sorted(await stored(context)) == sorted([film.key, keys.film_alias("J1")])


async def test_a_film_that_was_taken_although_its_transfer_was_broken_off_by_a_cancel_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converted(tmp_path) as (context, made):
        original = context.store.put_file

        async def unheard(key: str, path: Path, *, move: bool = False) -> None:
            await original(key, path, move=move)
            assert await stored(context) == [key]
            await operations.cancel(context.bus, "J1")
            await asyncio.Event().wait()

        monkeypatch.setattr(context.store, "put_file", unheard)
        assert await made.handle(trigger()) == Ack("cancelled")
        assert await stored(context) == []


async def test_an_assembly_removes_what_killed_ones_left_in_scratch_and_not_what_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converted(tmp_path) as (context, first):
        folder = context.settings.data_dir / "scratch"
        folder.mkdir(parents=True)
        others = folder / "stereospot-remote-x.mp4"
        others.write_bytes(b"not a film of ours")
        second, assemble, goes_on = Assembler(context), joining.assemble, threading.Event()
        starts: list[Path] = []

        def slow(*given: Any, **named: Any) -> Any:
            starts.append(given[4])
            assert len(starts) > 1 or goes_on.wait(60)
            return assemble(*given, **named)

        monkeypatch.setattr(joining, "assemble", slow)
        alive = asyncio.create_task(first.handle(trigger()))
        try:
            await eventually(lambda: starts, what="an assembly under way")
            left = starts[0].with_name(f"{starts[0].stem}-left.mp4")
            left.write_bytes(b"half a film")
            assert await second.handle(trigger(delivered=2)) == Ack()
            assert sorted(scratch(context)) == sorted([starts[0], others]), "the one that lives keeps its file"
        finally:
            goes_on.set()
            await alive
            second.close()
        assert scratch(context) == [others]


async def test_a_film_that_does_not_fit_says_so_and_leaves_its_slot_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converted(tmp_path) as (context, made):
        monkeypatch.setattr(space, "RESERVE_BYTES", 1 << 60)
        outcome = await made.handle(trigger())
        assert isinstance(outcome, Return)
        assert outcome.failure is not None
        assert (outcome.failure.code, outcome.delay_seconds) == ("STORAGE_FULL", 30.0)
        waits = await current(context)
        assert (waits.phase, [item.code for item in waits.warnings]) == (Phase.ASSEMBLING, ["STORAGE_FULL"])
        assert scratch(context) == []
        await operations.cancel(context.bus, "J1")
        assert await made.handle(trigger()) == Ack("stale"), "nor does it wait for room when nobody wants it"
        await operations.retry(context.bus, "J1")
        await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.CONVERTING, at=2.0))
        monkeypatch.undo()
        assert await made.handle(trigger(attempt=2)) == Ack()
        done = await current(context)
        assert (done.phase, done.warnings) == (Phase.COMPLETED, ())


async def test_triggers_that_are_history_are_dropped(tmp_path: Path) -> None:
    async with converted(tmp_path) as (context, made):
        assert await made.handle(trigger(generation=2)) == Ack("stale")
        assert await made.handle(Delivery(subject="s", data=b"", headers={"KV-Operation": "PURGE"})) == Ack("marker")
        await operations.cancel(context.bus, "J1")
        assert await made.handle(trigger()) == Ack("stale")
        await operations.retry(context.bus, "J1")
        assert await made.handle(trigger()) == Ack("stale"), "the new attempt has a trigger of its own"
        assert isinstance(await made.handle(trigger(attempt=2)), Retry), "it is still being planned"
        await records.change_job(context.bus, "J1", lambda job: jobs.advance(job, Phase.CONVERTING, at=3.0))
        assert await made.handle(trigger(attempt=2)) == Ack()
        assert (await current(context)).phase is Phase.COMPLETED


async def test_a_fragment_that_is_gone_fails_the_job_with_its_name(tmp_path: Path) -> None:
    async with converted(tmp_path) as (context, made):
        await context.store.delete(keys.segment("J1", 1, 2))
        with pytest.raises(errors.Permanent, match=r"00002\.m4s is gone") as caught:
            await made.handle(trigger())
        await made.reject(trigger(), Failure.of(caught.value))
        job = await current(context)
        assert job.failure is not None
        assert (job.phase, job.failure.code) == (Phase.FAILED, "ASSEMBLY_FAILED")
        assert await stored(context) == []
        assert scratch(context) == []


async def test_a_child_that_was_killed_costs_a_try_and_not_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converted(tmp_path) as (context, made):
        struck = striking.strike(monkeypatch, "film_child:write", striking.kill)
        with pytest.raises(errors.Transient) as caught:
            await made.handle(trigger())
        assert (caught.value.code, len(struck)) == ("WORKER_LOST", 1)
        assert (await current(context)).phase is Phase.ASSEMBLING
        assert scratch(context) == []
        assert await made.handle(trigger(delivered=2)) == Ack()
        assert (await current(context)).phase is Phase.COMPLETED


async def test_cancelling_in_the_middle_leaves_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with converted(tmp_path) as (context, made):
        original = reports.collect

        async def cancel_first(*args: object) -> object:
            await operations.cancel(context.bus, "J1")
            return await original(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(reports, "collect", cancel_first)
        assert await made.handle(trigger()) == Ack()
        assert (await current(context)).phase is Phase.CANCELLED
        assert await stored(context) == []
