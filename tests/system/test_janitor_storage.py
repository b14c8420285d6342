"""The janitor's sweep of storage where a part of it fails: a right that is missing, a store that is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.janitor import Findings, Janitor
from stereospot import errors, keys, records
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
