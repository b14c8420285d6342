"""The janitor's sweep of storage where a part of it fails: a right that is missing, a store that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.context import Context
from services.janitor import TROUBLES, Findings, Janitor
from stereospot import errors, jobs, keys, records
from stereospot.jobs import Phase
from stereospot.messages import Film
from stereospot.storage.local import LocalStore
from tests.support import eventually
from tests.system.rig import a_job, rig


async def test_orphans_and_scratch_go_where_unfinished_uploads_may_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denied(*_: Any, **__: Any) -> int:
        raise errors.error("STORAGE_UNAVAILABLE", "The store answers AccessDenied.")

    monkeypatch.setattr(LocalStore, "sweep", denied)
    async with rig(tmp_path) as context:
        left = context.settings.data_dir / "scratch" / "stereospot-remote-x"
        left.mkdir(parents=True)
        await records.create_job(context.bus, a_job("gone"))
        await records.delete_job(context.bus, "gone")
        await context.store.put(keys.segment("gone", 1, 0), b"x")
        found = await Janitor(context, stale_seconds=0.0).sweep_storage()
        assert found.mended == {"temporary": ["1"], "orphan": ["jobs/gone/"]}
        assert not left.exists()


async def test_an_orphan_that_cannot_be_removed_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(tmp_path) as context:
        for job_id in ("A", "B"):
            await records.create_job(context.bus, a_job(job_id))
            await records.delete_job(context.bus, job_id)
            await context.store.put(keys.segment(job_id, 1, 0), b"x")
        break_below(monkeypatch, context, "jobs/A/")
        assert (await Janitor(context, stale_seconds=0.0).sweep_storage()).mended == {"orphan": ["jobs/B/"]}


async def test_orphans_that_cannot_be_removed_end_the_round_and_come_last_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [f"A{number}" for number in range(TROUBLES + 2)]
    async with rig(tmp_path) as context:
        for job_id in (*broken, "B"):
            await records.create_job(context.bus, a_job(job_id))
            await records.delete_job(context.bus, job_id)
            await context.store.put(keys.segment(job_id, 1, 0), b"x")
        tried = break_below(monkeypatch, context, *(f"jobs/{job_id}/" for job_id in broken))
        janitor = Janitor(context, stale_seconds=0.0)
        assert (await janitor.sweep_storage()).mended == {}
        assert len(tried) == TROUBLES
        assert (await janitor.sweep_storage()).mended == {"orphan": ["jobs/B/"]}


def break_below(monkeypatch: pytest.MonkeyPatch, context: Context, *prefixes: str) -> list[str]:
    """What lies there cannot be removed: the disk is broken in that place, or another's. Returns what is tried."""
    remove, tried = context.store.delete_prefix, list[str]()

    async def removed(prefix: str) -> int:
        if prefix.startswith(prefixes):
            tried.append(prefix)
            raise errors.error("STORAGE_UNAVAILABLE", "Input/output error.", key=prefix)
        return await remove(prefix)

    monkeypatch.setattr(context.store, "delete_prefix", removed)
    return tried


async def test_films_whose_fragments_cannot_be_removed_keep_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [f"A{number}" for number in range(TROUBLES + 1)]
    async with rig(tmp_path) as context:
        now = time.time()
        for age, job_id in enumerate(["B", *reversed(broken)], 2):
            film = Film(
                key=keys.film(job_id, 1, "mp4"), sha256="0", size_bytes=4, frames=1, duration_seconds=1,
                container="mp4", file_name="f.mp4", stream_withdrawn_at=now - age * 86400,
            )  # fmt: skip
            for key in (film.key, keys.film_alias(job_id), keys.segment(job_id, 1, 0)):
                await context.store.put(key, b"film")
            whole = a_job(job_id, phase=Phase.ASSEMBLING)
            await records.create_job(context.bus, jobs.advance(whole, Phase.COMPLETED, at=now - 9e5, film=film))
        break_below(monkeypatch, context, *(f"jobs/{job_id}/" for job_id in broken))
        janitor = Janitor(context)
        assert (await janitor.sweep()).expired == {}, "so many fail that it is tried again later"
        assert (await janitor.sweep()).expired == {"fragments": 1}
        assert await context.store.head(keys.segment("B", 1, 0)) is None
        monkeypatch.undo()
        for _ in range(2):
            await janitor.sweep()
        assert [key async for key in fragments(context)] == [], "what failed came again"


async def fragments(context: Context) -> AsyncIterator[str]:
    async for item in context.store.list("jobs/"):
        if "/segments/" in item.key:
            yield item.key


async def test_a_sweep_of_storage_that_fails_is_not_made_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[str] = []

    async def sweep(_: Janitor) -> Findings:
        sweeps.append("records")
        return Findings()

    async def fail(_: Janitor) -> Findings:
        sweeps.append("storage")
        raise errors.error("STORAGE_UNAVAILABLE", "this time")

    monkeypatch.setattr(Janitor, "sweep", sweep)
    monkeypatch.setattr(Janitor, "sweep_storage", fail)
    async with rig(tmp_path) as context:
        task = asyncio.create_task(Janitor(context, every_seconds=0.01).run())
        try:
            await eventually(lambda: sweeps.count("records") >= 5)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert sweeps.count("storage") == 1
