"""A job that failed because the storage lost what was finished: a retry makes that once more, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import daemon, lost, operations, submit
from services.context import Context
from stereospot import keys, records, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.options import Options
from tests.faults.fleet import PIPELINE, stretched
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import rig

COPIED = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
WITH_DEPTH = Options(engine="relief", preset="ultrafast", segment_seconds=0.5, export_depth=True)


async def fragment_gone(context: Context, state: Completion) -> None:
    await context.store.delete(keys.segment("J1", 1, 1))


async def fragment_torn(context: Context, state: Completion) -> None:
    body = await context.store.get(keys.segment("J1", 1, 1))
    assert body is not None
    await context.store.put(keys.segment("J1", 1, 1), body[: len(body) // 2])


async def header_gone(context: Context, state: Completion) -> None:
    assert state.init is not None
    await context.store.delete(keys.init("J1", 1, state.init))


async def submitted(context: Context, options: Options = COPIED) -> None:
    await context.store.put(keys.source("J1", "mp4"), films.path("h264_mp4_silent").read_bytes())
    work = submit.SubmitWork(key=keys.source("J1", "mp4"), options=options)
    await submit.create(context, await submit.source_of(context, work), options, job_id="J1")


async def counted(context: Context) -> Completion:
    """The set once every segment is in it."""

    async def read() -> Completion | None:
        found = await records.get_state(context.bus, "J1", 1)
        return found[0] if found is not None and found[0].is_complete else None

    state = await eventually(read, seconds=stretched(40), what="every segment is counted")
    assert state is not None
    return state


async def ended(context: Context, attempt: int) -> Job:
    async def read() -> Job | None:
        found = await records.get_job(context.bus, "J1")
        return found[0] if found and found[0].attempt == attempt and not found[0].is_active else None

    job = await eventually(read, seconds=stretched(40), what=f"the end of attempt {attempt}")
    assert job is not None
    return job


@pytest.mark.parametrize(("lose", "again"), [(fragment_gone, 1), (fragment_torn, 1), (header_gone, 0)])
async def test_a_retry_makes_what_was_lost_and_nothing_else(tmp_path: Path, lose: object, again: int) -> None:
    async with rig(tmp_path, pool="stub", slots=1) as context:
        async with daemon.running(context.settings, PIPELINE - {"assembler"}):
            await submitted(context)
            state = await counted(context)
        before = {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")}
        await lose(context, state)  # type: ignore[operator]
        async with daemon.running(context.settings, PIPELINE):
            first = await ended(context, 1)
            assert first.phase is Phase.FAILED
            assert first.failure is not None
            assert first.failure.code in ("ASSEMBLY_FAILED", "VERIFICATION_FAILED")
            await operations.retry(context.bus, "J1")
            second = await ended(context, 2)
        assert second.phase is Phase.COMPLETED, second.failure
        assert second.film is not None
        assert second.film.frames == second.frames
        made = {
            item.key
            async for item in context.store.list("jobs/J1/1/segments/")
            if item.key.endswith(".m4s") and before.get(item.key) != item.modified
        }
        assert made == {keys.segment("J1", 1, again)}


async def test_a_retry_makes_depth_that_was_lost(tmp_path: Path) -> None:
    async with rig(tmp_path, slots=1) as context:
        async with daemon.running(context.settings, PIPELINE - {"assembler"}):
            await submitted(context, WITH_DEPTH)
            await counted(context)
        await context.store.delete(keys.segment_depth("J1", 1, 1))
        async with daemon.running(context.settings, PIPELINE):
            assert (await ended(context, 1)).phase is Phase.FAILED
            await operations.retry(context.bus, "J1")
            second = await ended(context, 2)
        assert second.phase is Phase.COMPLETED, second.failure
        assert await context.store.head(keys.depth("J1", 1)) is not None


async def test_what_is_there_is_left_in_the_set(tmp_path: Path) -> None:
    async with rig(tmp_path, pool="stub", slots=1) as context:
        async with daemon.running(context.settings, PIPELINE - {"assembler"}):
            await submitted(context)
            state = await counted(context)
        assert await lost.forget(context, "J1", 1) == []
        found = await records.get_state(context.bus, "J1", 1)
        assert found is not None
        assert found[0] == state
        assert await lost.forget(context, "J1", 2) == [], "no such set"


async def test_a_storage_that_was_away_costs_nothing_when_it_is_back(tmp_path: Path) -> None:
    """All of it seems lost; what is found again is told once more, and not made."""
    async with rig(tmp_path, pool="stub", slots=1) as context:
        async with daemon.running(context.settings, PIPELINE - {"assembler"}):
            await submitted(context)
            state = await counted(context)
        here, away = context.settings.storage_dir / "jobs", tmp_path / "away"
        here.rename(away)
        assert await lost.forget(context, "J1", 1) == list(range(state.count))
        away.rename(here)
        before = {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")}
        await operations.cancel(context.bus, "J1")
        await operations.retry(context.bus, "J1")
        async with daemon.running(context.settings, PIPELINE):
            job = await ended(context, 2)
        assert job.phase is Phase.COMPLETED, job.failure
        assert {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")} == before
        assert await context.bus.last(subjects.DEAD, f"{subjects.PREFIX}.dead.>") is None
