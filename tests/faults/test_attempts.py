"""What is given back untried uses up no attempt: workers that are asked to end, and workers that lack the engine."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from services import dead_letters, submit
from stereospot.options import Options
from tests.faults import history
from tests.faults.fleet import PIPELINE, Fleet, fleet, stretched
from tests.faults.table import Tell
from tests.support import eventually
from tests.system import curved

pytestmark = pytest.mark.slow

ATTEMPTS = 2


def given_back(made: Fleet) -> int:
    """How often the message that was given back most often was."""
    lines = history.recorded(made.lines)
    return max(Counter(line["subject"] for line in lines if line.get("outcome") == "Return").values(), default=0)


async def test_a_rolling_restart_buries_nothing(tmp_path: Path, tell: Tell) -> None:
    """SIGTERM, more often than a message has attempts, at whoever holds the first segment."""
    async with fleet(tmp_path, ack_wait=60.0, start=(PIPELINE - {"converter"}) | {"dead-letters"}) as made:
        await made.submit("J1")
        began = time.monotonic()
        for _ in range(3 * ATTEMPTS):
            worker = await made.start("converter", stub_seconds=60, max_attempts=ATTEMPTS)
            await made.at_work(worker)
            worker.signal(signal.SIGTERM)
            assert await worker.ended(stretched(10.0)) == 0, worker.said()
        await made.start("converter", max_attempts=ATTEMPTS)
        await made.ended("J1")
        verdict = await made.verdict()
        tell("F3 SIGTERM again and again", verdict, recovery=time.monotonic() - began)
        assert verdict.violations == (), verdict
        assert await dead_letters.letters(made.bus) == []


@pytest.mark.timeout(400)
async def test_workers_that_lack_the_engine_bury_nothing(tmp_path: Path, tell: Tell) -> None:
    """They look, give it back and look again later; whoever has the engine finds it with all of its attempts.

    Both live on to the end: neither may get the same message for ever.
    """
    async with fleet(tmp_path, start=("planner", "collector", "assembler", "dead-letters")) as made:
        options = Options(engine=curved.NAME, preset="ultrafast", segment_seconds=1.0)
        source = await submit.local_source(curved.film(tmp_path, seconds=4), None)
        await submit.create(made.context, source, options, job_id="J1", title="J1")
        made.accepted.append("J1")
        # Without torch the real engine cannot be loaded.
        for service in ("analyse", "converter"):
            missing = str(tmp_path / "nothing")
            await made.start(service, pool="gpu", max_attempts=ATTEMPTS, models_dir=missing, device="cuda:7")
        seconds = stretched(90)
        await eventually(lambda: given_back(made) > ATTEMPTS, seconds=seconds, every=0.5, what="enough give-backs")
        job = await made.job("J1")
        assert (job.is_active, job.failure) == (True, None)
        began = time.monotonic()
        program = ("tests.system.curved", "analyse", "converter")
        await made.start("analyse", "converter", program=program, pool="gpu", max_attempts=ATTEMPTS)
        await made.ended("J1", seconds=150)
        verdict = await made.verdict()
        tell("F3 workers that lack the engine", verdict, recovery=time.monotonic() - began)
        assert verdict.violations == (), verdict
        assert await dead_letters.letters(made.bus) == []
