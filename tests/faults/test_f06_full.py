"""F6: a full disk under scratch files, under the storage and under the broker: work pauses, and goes on by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from services import daemon, submit
from services.context import Context
from stereospot import records
from stereospot.jobs import Phase
from stereospot.options import Options
from stereospot.settings import Settings
from tests.faults import history, promises
from tests.faults.disk import Disk, small_disk
from tests.faults.fleet import PIPELINE, Fleet, fleet, stretched
from tests.faults.table import Tell
from tests.media import sources as films
from tests.support import eventually

FAULT = "F6 disk full"

MEBIBYTE = 1 << 20


def paused(made: Fleet) -> bool:
    """Whether a service has said that it waits for space."""
    lines = [line for service in made.services for line in service.log.read_text().splitlines()]
    return any('"retry"' in line and ("STORAGE_FULL" in line or "not enough free space" in line) for line in lines)


async def is_resumed(made: Fleet, tell: Tell, disk: Disk) -> None:
    """Full until everybody has noticed, then not: the film is there, and nothing was a failure."""
    await eventually(lambda: paused(made), seconds=stretched(40), what="a service that waits for space")
    job = await made.job("J1")
    assert (job.is_active, job.failure) == (True, None), "paused, not failed"
    disk.clear()
    cleared = time.monotonic()
    await made.ended("J1", seconds=90)
    recovery = time.monotonic() - cleared
    verdict = await made.verdict()
    tell(FAULT, verdict, recovery=recovery)
    assert verdict.violations == (), verdict
    assert not verdict.extra, "what was computed waited for its place"
    assert (await made.job("J1")).attempt == 1


async def test_f6_a_storage_that_is_full(tmp_path: Path, tell: Tell) -> None:
    with small_disk(tmp_path, 160) as disk:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "storage").symlink_to(disk.folder)
        async with fleet(tmp_path, start=PIPELINE, stub_seconds=0.3) as made:
            await made.submit("J1", film="h264_mp4")
            await eventually(lambda: made.events("done"), seconds=stretched(40), what="the first segment")
            disk.fill()
            await is_resumed(made, tell, disk)


@pytest.mark.slow
async def test_f6_scratch_that_is_full(tmp_path: Path, tell: Tell) -> None:
    """The disk on which films are put together; fragments go on being made."""
    with small_disk(tmp_path, 160) as disk:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "scratch").symlink_to(disk.folder)
        disk.fill(leaving=10 * MEBIBYTE)
        async with fleet(tmp_path, start=PIPELINE) as made:
            await made.submit("J1", film="h264_mp4")

            async def waits() -> bool:
                return (await made.job("J1")).phase is Phase.ASSEMBLING

            await eventually(waits, seconds=stretched(60), what="everything converted")
            await is_resumed(made, tell, disk)


@pytest.mark.slow
async def test_f6_a_broker_whose_disk_is_full(tmp_path: Path, tell: Tell) -> None:
    """nats-server is dumb after a write that failed; ours is started again once there is room."""
    with small_disk(tmp_path, 64) as disk:
        data = tmp_path / "data"
        data.mkdir()
        (data / "broker").symlink_to(disk.folder)
        settings = Settings(data_dir=data, nats_port=-1, sandbox="off", pool="stub", slots=1)
        async with daemon.running(settings, PIPELINE) as context:
            await history.keep_everything(context.bus)
            source = await submit.local_source(films.path("h264_mp4"), None)
            options = Options(backend="stub", preset="ultrafast", segment_seconds=0.2)
            log = disk.folder / "server.log"
            before = log.stat().st_size
            await submit.create(context, source, options, job_id="J1", title="J1")
            await eventually(lambda: _has_begun(context), seconds=stretched(40), what="the plan")
            disk.fill()

            def failed() -> bool:
                with log.open("rb") as stream:
                    stream.seek(before)
                    return b"no space left" in stream.read().lower()

            await eventually(failed, seconds=stretched(60), what="a write that failed")
            disk.clear()
            cleared = time.monotonic()
            await eventually(lambda: _ended(context), seconds=stretched(90), what="the film")
            recovery = time.monotonic() - cleared
            found = await history.read(context, accepted=["J1"], expected={"J1": Phase.COMPLETED})
            verdict = promises.check(found)
            tell(FAULT, verdict, recovery=recovery)
            assert verdict.violations == (), verdict


async def _has_begun(context: Context) -> bool:
    found = await records.get_job(context.bus, "J1")
    return found is not None and found[0].segments is not None


async def _ended(context: Context) -> bool:
    found = await records.get_job(context.bus, "J1")
    return found is not None and not found[0].is_active
