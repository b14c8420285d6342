"""F2, F3, F4, F10 and F11 of the fault matrix: killed, ended, cut off, frozen and poisoned services, real processes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services import dead_letters
from stereospot import subjects
from stereospot.jobs import Phase
from tests.faults.fleet import FILM, PIPELINE, Fleet, fleet, stretched
from tests.faults.table import Tell
from tests.support import eventually

SLOW = pytest.mark.slow


@asynccontextmanager
async def supervised(made: Fleet, *names: str, program: tuple[str, ...] = (), **settings: Any) -> AsyncGenerator[None]:
    """A service that is started again whenever it dies, as systemd or the daemon does."""

    async def keep() -> None:
        while True:
            service = await made.start(*names, program=program, **settings)
            await service.process.wait()
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep())
        try:
            yield
        finally:
            task.cancel()


# ---- F2 --------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize(("workers", "jobs"), [(2, 25), (8, 200)])
async def test_f2_random_kills(tmp_path: Path, tell: Tell, workers: int, jobs: int) -> None:
    """A process of the fleet, any but the broker, is killed every two seconds until all jobs are done.

    Attempts are not limited: as shipped, what four workers died of is poison, and here they die of something else.
    """
    dice = random.Random(7)
    names = [f"J{number}" for number in range(jobs)]
    async with fleet(tmp_path) as made, asyncio.TaskGroup() as group:

        async def keep(*services: str) -> None:
            while True:
                await (await made.start(*services, max_attempts=1000)).process.wait()

        async def kill_one() -> None:
            while True:
                await asyncio.sleep(2.0)
                alive = [service for service in made.services if service.is_alive]
                with contextlib.suppress(ProcessLookupError):
                    await made.kill(dice.choice(alive))

        keepers = [group.create_task(keep("converter")) for _ in range(workers)]
        keepers += [group.create_task(keep(name)) for name in sorted(PIPELINE - {"converter"})]
        keepers.append(group.create_task(keep("janitor", "dead-letters")))
        await made.submit(*names, segment_seconds=0.2)
        killer = group.create_task(kill_one())
        await made.ended(*names, seconds=750)
        killer.cancel()
        await made.at_rest(60)
        for keeper in keepers:
            keeper.cancel()
        # A segment that comes back has its turn behind those that wait: offered again is not begun again here.
        verdict = await made.verdict(slack_seconds=math.inf)
        tell("F2 random kill -9 every 2 s", verdict)
        print(f"{workers} workers, {jobs} jobs: {len(made.deaths)} killed")
        assert verdict.violations == (), verdict
        assert {(await made.job(name)).segments for name in names} == {20}
        assert len(made.deaths) >= 5


# ---- F3 --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "service", [pytest.param(name, marks=() if name == "converter" else SLOW) for name in sorted(PIPELINE)]
)
async def test_f3_a_service_that_is_asked_to_end_hands_its_work_over(tmp_path: Path, tell: Tell, service: str) -> None:
    """Exit within ten seconds; what it had in hand is taken up at once, not after the ack wait of 60 s."""
    async with fleet(tmp_path, ack_wait=60.0, start=PIPELINE - {service}) as made:
        first = await made.start(service, stub_seconds=8)
        await made.submit("J1", film="h264_mp4" if service == "audio" else FILM)
        if service == "converter":
            await made.at_work(first)
        else:
            await eventually(lambda: _has_begun(made, service), seconds=stretched(30), what="work in its hands")
        second = await made.start(service)
        first.signal(signal.SIGTERM)
        asked = time.monotonic()
        assert await first.ended(stretched(10.0)) == 0, first.said()
        took = time.monotonic() - asked
        await made.ended("J1", seconds=40.0)
        recovery = time.monotonic() - asked
        verdict = await made.verdict()
        tell("F3 SIGTERM under load", verdict, recovery=recovery)
        assert took < stretched(10.0)
        assert recovery < made.ack_wait, "handed over, not waited for"
        assert verdict.violations == (), verdict
        assert second.is_alive


async def _has_begun(made: Fleet, service: str) -> bool:
    """Whether anything of the job has reached this service."""
    if service == "planner":
        return (await made.job("J1")).phase is not Phase.CREATED
    if service == "assembler":
        return (await made.job("J1")).phase in (Phase.ASSEMBLING, Phase.COMPLETED)
    return (await made.job("J1")).segments is not None


# ---- F4 --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("down", [1.0, pytest.param(15.0, marks=SLOW), pytest.param(60.0, marks=SLOW)])
@pytest.mark.timeout(400)
async def test_f4_a_broker_that_was_away(tmp_path: Path, tell: Tell, down: float) -> None:
    """Killed with -9 in the middle of two jobs; everyone reconnects and goes on."""
    async with fleet(tmp_path, ack_wait=5.0, start=PIPELINE, stub_seconds=0.3) as made:
        await made.submit("J1", "J2")
        await made.at_work(made.services[0])
        made.server.kill()
        await asyncio.sleep(down)
        back = time.monotonic()
        made.server.restart()
        await made.ended("J1", "J2", seconds=90.0)
        recovery = time.monotonic() - back
        verdict = await made.verdict()
        tell("F4 broker killed and restarted", verdict, recovery=recovery)
        assert verdict.violations == (), verdict


# ---- F10 -------------------------------------------------------------------------------------------------
async def test_f10_a_worker_that_slept_through_its_lease(tmp_path: Path, tell: Tell) -> None:
    """Frozen in the middle of a segment; another one does it; then the first wakes up and finishes, too late."""
    async with fleet(tmp_path, ack_wait=1.5, start=PIPELINE - {"converter"}) as made:
        sleeper = await made.start("converter", stub_seconds=3)
        await made.submit("J1")
        held = await made.at_work(sleeper)
        sleeper.signal(signal.SIGSTOP)
        await made.start("converter")
        await made.ended("J1")
        before = await made.history()
        sleeper.signal(signal.SIGCONT)
        await eventually(lambda: made.settled(sleeper), seconds=stretched(20), what="the sleeper's own end of it")
        verdict = await made.verdict()
        after = await made.history()
        tell("F10 frozen beyond the lease", verdict)
        assert verdict.violations == (), verdict
        assert after.last == before.last
        assert after.last_states == before.last_states
        assert verdict.extra == 1, f"only {held.index} was computed twice"


@pytest.mark.slow
async def test_f10_an_assembler_that_slept_through_its_lease(tmp_path: Path, tell: Tell) -> None:
    async with fleet(tmp_path, ack_wait=1.5, start=PIPELINE - {"assembler"}) as made:
        sleeper = await made.start("assembler")
        await made.submit("J1", film="h264_mp4")

        async def begun() -> bool:
            return (await made.job("J1")).phase in (Phase.ASSEMBLING, Phase.COMPLETED)

        await eventually(begun, seconds=stretched(60), every=0.005, what="an assembly")
        sleeper.signal(signal.SIGSTOP)
        await made.start("assembler")
        await made.ended("J1")
        recorded = (await made.job("J1")).film
        sleeper.signal(signal.SIGCONT)
        await eventually(lambda: made.settled(sleeper), seconds=stretched(20), what="the sleeper's own end of it")
        verdict = await made.verdict()
        tell("F10 frozen beyond the lease", verdict)
        assert verdict.violations == (), verdict
        assert (await made.job("J1")).film == recorded


# ---- F11 -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempts", "deliveries", "slots"),
    [
        pytest.param(3, 9, 1, id="buried by the next worker"),
        pytest.param(3, 200, 4, id="with others in its process"),
        pytest.param(9, 3, 1, id="by the net", marks=SLOW),
    ],
)
async def test_f11_a_segment_that_kills_its_worker(
    tmp_path: Path, tell: Tell, attempts: int, deliveries: int, slots: int
) -> None:
    """The other job is completed, the pool lives on, and the poison ends as a dead letter with its number."""
    async with fleet(tmp_path, ack_wait=1.0, start=(PIPELINE - {"converter"}) | {"dead-letters"}) as made:
        await _few_deliveries(made, deliveries)
        program = ("tests.faults.poisoned", "2")
        # Slow enough that with more slots than one others are in the process whenever it dies.
        given = {"max_attempts": attempts, "slots": slots, "stub_seconds": 0.5 if slots > 1 else 0.0}
        async with supervised(made, "converter", program=program, **given):
            await made.submit("poison", "good")
            await made.ended("good", "poison", seconds=90.0)
            await made.at_rest()
        verdict = await made.verdict({"poison": Phase.FAILED})
        tell("F11 a segment that kills its worker", verdict)
        assert verdict.violations == (), verdict
        failed = await made.job("poison")
        assert failed.failure is not None
        assert (failed.failure.code, failed.failure.segment_index) == ("ATTEMPTS_EXHAUSTED", 2)
        assert failed.failure.advice
        (letter,) = await dead_letters.letters(made.bus)
        assert (letter.kind, letter.job_id, letter.attempts) == ("convert", "poison", 3)
        dead = [service for service in made.services if service.process.returncode == -signal.SIGSEGV]
        assert len(dead) == 3, "three tries, three workers"


async def _few_deliveries(made: Fleet, times: int) -> None:
    for lane in subjects.LANES:
        name = subjects.convert_consumer("stub", lane)
        config = (await made.bus.consumer_info(subjects.CONVERT, name))["config"] | {"max_deliver": times}
        body = {"stream_name": subjects.CONVERT, "config": config, "action": "update"}
        await made.bus.api(f"CONSUMER.CREATE.{subjects.CONVERT}.{name}", body)
