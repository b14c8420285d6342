"""F5: the broker dies, and the newest block of a stream is torn: it starts, and what is gone is made good.

What a server that syncs has acknowledged cannot be lost this way; a disk that lied about it is beyond promise 1. What
is asked here is less: the server starts, doctor and janitor find what is missing, and the jobs end.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from services import doctor
from services.janitor import Janitor
from tests.faults.fleet import PIPELINE, Fleet, fleet, stretched
from tests.faults.table import Tell
from tests.support import eventually

FAULT = "F5 newest block torn"


def tear(made: Fleet, stream: str) -> int:
    """Cut the newest message of a dead server's stream in its middle; returns how many bytes went."""
    folder = made.server.store / "jetstream" / "$G" / "streams" / stream / "msgs"
    blocks = sorted(folder.glob("*.blk"), key=lambda path: int(path.stem))
    block = next((path for path in reversed(blocks) if path.stat().st_size), None)
    assert block is not None, f"{stream} is empty"
    size = min(40, block.stat().st_size // 2)
    os.truncate(block, block.stat().st_size - size)
    return size


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["KV_jobs", "KV_state", "CONVERT", "DONE", "EVENT", "WORK"])
async def test_f5_a_torn_block(tmp_path: Path, tell: Tell, stream: str) -> None:
    """One job is done, one is in its middle; all services died with the broker."""
    async with fleet(tmp_path, start=PIPELINE - {"converter", "collector"}) as made:
        worker = await made.start("converter", stub_seconds=0.3)
        collector = await made.start("collector")
        await made.submit("J1", film="h264_mp4")
        await made.ended("J1")
        await made.submit("J2", film="h264_mp4")
        await made.at_work(worker)
        if stream == "DONE":  # a queue that holds something only while nobody reads it
            await made.kill(collector)

        async def holds_something() -> bool:
            return (await made.bus.stream_info(stream))["state"]["messages"] > 0 and bool(
                await made.events("done", job_id="J2")
            )

        if stream != "WORK":  # its blocks hold what was acknowledged long ago
            await eventually(holds_something, seconds=stretched(40), what=f"something in {stream}")
        for service in made.services:
            if service.is_alive:
                await made.kill(service)
        made.server.kill()
        tear(made, stream)
        back = time.monotonic()
        made.server.restart()

        async def answers() -> bool:
            return made.bus.is_connected and bool((await made.bus.stream_info(stream))["config"])

        await eventually(answers, seconds=stretched(30), what="the server, with its streams")
        found = await doctor.examine(made.context, repair=True, settled_seconds=0)
        assert not [item for item in found if item.is_open], found
        await made.start(*sorted(PIPELINE))
        janitor = Janitor(made.context, settled_seconds=0)

        async def is_done() -> bool:
            """As with the janitor of the fleet, which leaves what is younger than half a minute alone."""
            jobs = [await made.job(name) for name in ("J1", "J2")]
            if any(job.is_active for job in jobs):
                await janitor.sweep()
            return not any(job.is_active for job in jobs)

        await eventually(is_done, seconds=stretched(60), every=1.0, what="the end of both jobs")
        recovery = time.monotonic() - back

        # A tear may undo a removal: what was acknowledged lies there again and is nobody's until the next repair.
        async def is_empty() -> bool:
            await doctor.queues(made.context, repair=True)
            with contextlib.suppress(AssertionError):
                await made.at_rest(1.0)
                return True
            return False

        await eventually(is_empty, seconds=stretched(60), every=0.5, what="empty queues after the repair")
        objects = (await made.history()).objects
        films = [(await made.job(name)).film for name in ("J1", "J2")]
        stored = [objects.get(film.key) if film is not None else None for film in films]
        whole = [
            film is not None and item is not None and item.sha256 == film.sha256
            for film, item in zip(films, stored, strict=True)
        ]
        tell(FAULT, jobs=2, lost=whole.count(False), recovery=recovery)
        assert all(whole), films
