"""Faults of a learned engine's pipeline: GPUs that go away, memory that runs out, analysers killed at work.

F1 kills an analyser at each of its crash points (`test_f01_kill.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services import submit
from services.reports import Report
from stereospot import subjects
from stereospot.jobs import Phase
from stereospot.messages import SegmentEvent
from stereospot.options import Options
from tests.faults.fleet import Fleet, Service, fleet, stretched
from tests.support import eventually
from tests.system import curved

OTHERS = ("planner", "collector", "assembler")
OPTIONS = Options(engine="depth-anything", crf=0, preset="ultrafast", segment_seconds=1.0)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curved.film(tmp_path_factory.mktemp("film"))


async def submitted(made: Fleet, film: Path) -> None:
    source = await submit.local_source(film, None)
    await submit.create(made.context, source, OPTIONS, job_id="J1")
    made.accepted.append("J1")


async def worker(made: Fleet, *services: str, **settings: Any) -> Service:
    """A process with these services and the double of a learned engine."""
    return await made.start(*services, program=("tests.system.curved", *services), pool="gpu", **settings)


async def measures(made: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for item in made.context.store.list("jobs/J1/1/segments/"):
        if item.key.endswith(".json"):
            body = await made.context.store.get(item.key)
            assert body is not None
            found.append(Report.model_validate_json(body).measures)
    return found


@pytest.mark.slow
async def test_the_window_of_an_analyser_that_is_killed_is_offered_again(tmp_path: Path, film: Path) -> None:
    """kill -9 in the middle of a window: within its ack wait another takes it, and no converter samples for itself."""
    async with fleet(tmp_path, start=OTHERS) as made:
        await submitted(made, film)
        first = await worker(made, "analyse", curved_seconds=0.2)

        async def at_work() -> bool:
            info = await made.bus.consumer_info(subjects.WORK, "work-analyse")
            return info["num_ack_pending"] == 1 and made.settled(first) > 0

        await eventually(at_work, seconds=stretched(60), every=0.05, what="a window in its hands")
        await made.kill(first)
        await worker(made, "analyse", "converter")
        (job,) = await made.ended("J1", seconds=60)
        assert job.phase is Phase.COMPLETED, job.failure
        assert {item["windows_taken"] for item in await measures(made)} == {0}
        verdict = await made.verdict()
        assert verdict.violations == (), verdict


async def test_a_gpu_that_goes_away_ends_its_worker_and_no_job(tmp_path: Path, film: Path) -> None:
    """The process ends by itself, with what it had in hand given back; the one that is started for it goes on."""
    async with fleet(tmp_path, start=OTHERS, ack_wait=60.0) as made:
        await submitted(made, film)
        await worker(made, "analyse")
        broken = await worker(made, "converter", curved_fault="lost:6")
        assert await broken.ended(stretched(60)) not in (0, -9), broken.said()
        assert "WORKER_LOST" in broken.said()
        await worker(made, "converter")
        # Far below the ack wait: the segment was handed over, not waited for.
        (job,) = await made.ended("J1", seconds=40)
        assert job.phase is Phase.COMPLETED, job.failure
        verdict = await made.verdict()
        assert {item for item in verdict.promises() if item != 4} == set(), verdict


@pytest.mark.slow
async def test_a_gpu_that_goes_away_under_an_analyser(tmp_path: Path, film: Path) -> None:
    async with fleet(tmp_path, start=OTHERS, ack_wait=60.0) as made:
        await submitted(made, film)
        broken = await worker(made, "analyse", curved_fault="lost:2")
        assert await broken.ended(stretched(60)) not in (0, -9), broken.said()
        await worker(made, "analyse", "converter")
        (job,) = await made.ended("J1", seconds=40)
        assert job.phase is Phase.COMPLETED, job.failure


@pytest.mark.slow
async def test_memory_that_runs_out_halves_the_batch_once(tmp_path: Path, film: Path) -> None:
    async with fleet(tmp_path, start=OTHERS) as made:
        await submitted(made, film)
        await worker(made, "analyse")
        await worker(made, "converter", curved_fault="memory:4")
        (job,) = await made.ended("J1", seconds=60)
        assert job.phase is Phase.COMPLETED, job.failure
        assert {item["batch"] for item in await measures(made)} == {4}
        assert not await made.events("retrying")


@pytest.mark.slow
async def test_memory_that_runs_out_again_gives_the_segment_back(tmp_path: Path, film: Path) -> None:
    """To the pool, where a worker with more room takes it; the worker that has none lives on."""
    async with fleet(tmp_path, start=OTHERS) as made:
        await submitted(made, film)
        await worker(made, "analyse")
        small = await worker(made, "converter", curved_fault="memory:3")

        async def given_back() -> SegmentEvent | None:
            stored = await made.bus.last_per_subject(subjects.EVENT, "stereospot.event.segment.J1.>")
            events = [SegmentEvent.model_validate_json(item.data) for item in stored]
            return next((item for item in events if item.state == "retrying"), None)

        event = await eventually(given_back, seconds=stretched(60), every=0.05, what="a segment given back")
        assert event is not None
        assert event.failure is not None
        assert event.failure.code == "OUT_OF_MEMORY"
        await worker(made, "converter", slots=4)
        (job,) = await made.ended("J1", seconds=60)
        assert small.is_alive
        assert job.phase is Phase.COMPLETED, job.failure
