"""F12: wall clocks that jump by an hour, forwards and backwards, in the middle of a job; every process by its own."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.gateway.index import Index
from stereospot import subjects
from stereospot.messages import Worker
from tests.faults import promises
from tests.faults.fleet import PIPELINE, Fleet, Service, fleet, stretched
from tests.faults.table import Tell
from tests.support import eventually
from tests.system.rig import rig

HOUR = 3600.0


class Clocks:
    """One clock for each process, and the processes that go by them."""

    def __init__(self, made: Fleet) -> None:
        self._made = made
        self._files: dict[str, Path] = {}

    async def start(self, name: str, wrong: float = 0.0, **settings: Any) -> Service:
        """A service whose clock is wrong by so many seconds."""
        self._files[name] = self._made.folder / f"{name}.clock"
        self.jump(name, wrong)
        return await self._made.start(name, program=("tests.faults.clock", str(self._files[name]), name), **settings)

    def jump(self, name: str, wrong: float) -> None:
        """From now on its clock is wrong by so much: written whole, it is read at every look."""
        path = self._files[name]
        new = path.with_suffix(".new")
        new.write_text(str(wrong))
        new.replace(path)


def mended(janitor: Service) -> list[str]:
    return [line for line in janitor.log.read_text().splitlines() if json.loads(line).get("action") == "mend"]


@pytest.mark.parametrize("hours", [1, pytest.param(-1, marks=pytest.mark.slow)])
async def test_f12_clocks_that_jump_by_an_hour(tmp_path: Path, tell: Tell, hours: int) -> None:
    """Nothing is lost, computed twice or taken for old; a janitor of either time finds nothing to mend."""
    step = hours * HOUR
    async with fleet(tmp_path) as made:
        clocks = Clocks(made)
        for name in sorted(PIPELINE | {"dead-letters"}):
            await clocks.start(name, stub_seconds=0.4)
        await made.submit("J1", "J2", film="h264_mp4")

        async def done(share: int) -> bool:
            """Whether so many percent of the segments are done."""
            wanted = [(await made.job(name)).segments for name in ("J1", "J2")]
            return None not in wanted and len(await made.events("done")) * 100 >= share * sum(filter(None, wanted))

        seconds = stretched(60)
        await eventually(lambda: done(10), seconds=seconds, what="the first segments")
        # The workers are an hour off, then the others are, then all of them are, in opposite directions.
        clocks.jump("converter", step)
        janitors = [await clocks.start("janitor", step)]
        await eventually(lambda: done(40), seconds=seconds, what="some segments")
        for name in PIPELINE - {"converter"}:
            clocks.jump(name, -step)
        janitors[0].signal(signal.SIGTERM)
        await janitors[0].ended()
        janitors.append(await clocks.start("janitor", -step))
        await eventually(lambda: done(70), seconds=seconds, what="more segments")
        clocks.jump("converter", -step)
        for name in ("collector", "assembler"):
            clocks.jump(name, step)
        await made.ended("J1", "J2")
        await made.at_rest()
        # What processes wrote into their own records of the run carries their own time: of no use to the checker.
        found = replace(await made.history(), lines=())
        verdict = promises.check(found, ack_wait_seconds=made.ack_wait)
        tell("F12 clocks jump by an hour", verdict)
        assert verdict.violations == (), verdict
        assert verdict.extra == 0, "a lease is the server's, not the clock's"
        assert [line for janitor in janitors for line in mended(janitor)] == []
        assert all(service.is_alive for service in made.services if service is not janitors[0])
        job = await made.job("J1")
        assert max(abs(step.at - job.created_at) for step in job.history) > HOUR / 2, "the clocks were wrong"


async def test_f12_a_worker_whose_clock_is_wrong_is_seen(tmp_path: Path) -> None:
    """Its card says an hour ago; what counts is when it was heard."""
    async with rig(tmp_path) as context:
        at = time.time() - HOUR
        card = Worker(worker_id="w", host="h", pid=1, pool="cpu", slots=1, started_at=at, seen_at=at)
        await context.bus.bucket(subjects.WORKERS).put("w", card)
        index = Index(context.bus)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(index.run())
            found = await eventually(index.workers, what="the worker")
            reading.cancel()
        assert [item.worker_id for item in found] == ["w"]
