"""kill -9 of the daemon at its crash points, then a start on the same data folder: the film is there, and whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.faults import points
from tests.faults.fleet import stretched
from tests.faults.table import Tell
from tests.media import sources as films

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from services import daemon, follow, submit
from stereospot import log, records, subjects
from stereospot.options import Options
from stereospot.settings import Settings

SERVICES = {"planner", "converter", "collector", "assembler", "audio", "janitor"}

async def main():
    async with daemon.running(Settings(), SERVICES) as context:
        written = []
        async def count():
            async with context.bus.tail("KV_state", "$KV.state.trigger.>", start="all") as tail:
                async for message in tail:
                    written.append(message.sequence)
        counting = asyncio.create_task(count())
        source = await submit.local_source(Path(sys.argv[1]), None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
        await submit.create(context, source, options, job_id="J1", title="crash")
        async for snapshot in follow.follow(context, "J1", every_seconds=0.05):
            job = snapshot.job
        counting.cancel()
        alias = context.store.local_path("jobs/J1/final.mp4")
        for _ in range(200):  # it is written right after the record
            if alias.exists():
                break
            await asyncio.sleep(0.05)
        state = await records.get_state(context.bus, "J1", job.generation)
        events = await context.bus.last_per_subject("EVENT", "stereospot.event.segment.>")
        print(json.dumps({
            "phase": job.phase, "film": job.film and job.film.model_dump(), "failure": job.failure and job.failure.code,
            "path": str(context.store.local_path(job.film.key)) if job.film else None,
            "generation": job.generation, "attempt": job.attempt, "triggers": len(set(written)),
            "done": state[0].count, "segments": job.segments,
            "alias": alias.exists(),
        }), flush=True)

log.configure("warning", "json")
asyncio.run(main())
"""

NOT_PASSED = {"actor.dead_lettered", *points.CURVED}
"""Nothing is rejected on this job's way, and its engine needs no curve."""

POINTS = sorted(name for name in points.declared() - NOT_PASSED if name.split(".")[0] in {
    "planner", "converter", "assembler", "collector", "audio", "dispatcher", "state", "actor", "bus", "bucket",
})  # fmt: skip

QUICK = {
    "planner.part_published", "converter.fragment_stored", "collector.stored", "assembler.film_stored", "bus.in_commit",
}  # fmt: skip
"""Those between two writes that must not come apart; the others run with `slow`."""


def run(folder: Path, *, point: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
    environment["PYTHONDONTWRITEBYTECODE"] = ""  # each start would compile its imports
    environment |= {
        "STEREOSPOT_DATA_DIR": str(folder), "STEREOSPOT_NATS_PORT": "-1", "STEREOSPOT_POOL": "stub",
        "STEREOSPOT_SLOTS": "2",
    }  # fmt: skip
    if point is not None:
        environment["STEREOSPOT_CRASHPOINT"] = point
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(films.path("h264_mp4"))],
        env=environment, capture_output=True, text=True, timeout=stretched(60), check=False,
    )  # fmt: skip


def times(path: str) -> list[Fraction]:
    """Presentation times of all frames, in seconds."""
    with av.open(path, "r") as container:
        frames = list(container.decode(video=0))
    return [frame.pts * frame.time_base for frame in frames if frame.pts is not None and frame.time_base is not None]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "point", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in POINTS]
)
def test_a_job_survives_a_kill_at(tmp_path: Path, tell: Tell, point: str) -> None:
    first = run(tmp_path, point=point)
    assert first.returncode == -9, first.stderr
    fragments = tmp_path / "storage" / "jobs" / "J1" / "1" / "segments"
    vouched = {path: path.with_suffix(".m4s").stat().st_mtime_ns for path in fragments.glob("*.json")}
    began = time.monotonic()
    second = run(tmp_path)
    recovery = time.monotonic() - began
    assert second.returncode == 0, second.stderr
    result = json.loads(second.stdout)
    kept = [path.with_suffix(".m4s").stat().st_mtime_ns == modified for path, modified in vouched.items()]
    tell(
        "F1 kill -9 of the whole daemon", jobs=1, lost=result["phase"] != "completed",
        duplicated=result["triggers"] - 1, extra=kept.count(False), recovery=recovery,
    )  # fmt: skip
    assert result["phase"] == "completed", result
    assert (result["generation"], result["attempt"], result["triggers"]) == (1, 1, 1)
    assert result["done"] == result["segments"]
    assert result["alias"]
    assert times(result["path"]) == times(str(films.path("h264_mp4")))
    assert all(kept), "a finished segment is not computed again"
    assert not list((tmp_path / "scratch").glob("*"))
