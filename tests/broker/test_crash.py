"""kill -9 at every crash point of the bus and the actor: the next process finds everything and repeats nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stereospot import crash, subjects
from stereospot.actor import Actor
from stereospot.bus import Bus
from stereospot.messages import PlanWork
from tests.broker.worker import worker
from tests.faults.fleet import stretched
from tests.support import Nats, eventually

ROOT = Path(__file__).resolve().parents[2]

POINTS = sorted(point for point in crash.POINTS if point.split(".")[0] in ("actor", "bus", "bucket"))


async def shorten(bus: Bus) -> None:
    config = (await bus.consumer_info(subjects.WORK, "work-plan"))["config"]
    body = {"stream_name": subjects.WORK, "config": {**config, "ack_wait": 500_000_000}}
    await bus.api("CONSUMER.CREATE.WORK.work-plan", body)


async def finish(bus: Bus) -> None:
    """Run the worker here until its work is gone."""
    actor: Actor = worker(bus)
    async with asyncio.TaskGroup() as group:
        group.create_task(actor.run())
        await eventually(lambda: gone(bus), seconds=stretched(10), what="the work done")
        actor.stop()


async def gone(bus: Bus) -> bool:
    return (await bus.stream_info(subjects.WORK))["state"]["messages"] == 0


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at(point: str, bus: Bus, server: Nats) -> None:
    await shorten(bus)
    for job_id in ("bad", "good"):
        await bus.publish(subjects.work("plan", job_id), PlanWork(job_id=job_id, generation=1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.broker.worker", server.url,
        cwd=ROOT, env={**os.environ, crash.VARIABLE: point}, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(stretched(20)):
            assert await process.wait() == -signal.SIGKILL, "the point was never passed"
    finally:
        if process.returncode is None:
            process.kill()
    await finish(bus)
    state = await bus.stream_info("KV_state")
    assert state["state"]["messages"] == 2
    assert state["state"]["last_seq"] == 2, "the trigger was written more than once"
    assert (await bus.stream_info(subjects.DONE))["state"]["messages"] == 1
    assert await bus.bucket(subjects.JOBS).keys() == ["good"]
    assert len(await bus.last_per_subject(subjects.DEAD, ">")) == 1


def test_points_that_are_passed_are_declared_and_the_other_way_round() -> None:
    declared: set[str] = set()
    passed: set[str] = set()
    named: list[str] = []
    for package in ("stereospot", "services", "inference"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            passed.update(re.findall(r'crash\.point\(\s*"([^"]+)"', text))
            for call in re.findall(r"^crash\.declare\(([^)]*)\)", text, re.MULTILINE):
                declared.update(re.findall(r'"([^"]+)"', call))
            named += re.findall(r'"([a-z_]+\.[a-z_]+)"', text)
    assert passed <= declared
    assert all(named.count(point) > 1 for point in declared), "declared and never passed"
    assert set(POINTS) <= declared


def test_the_nth_pass_dies() -> None:
    code = "from stereospot.crash import point\nfor turn in range(5): point('x'); print(turn, flush=True)"
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, crash.VARIABLE: "y,x:3"}, stdout=subprocess.PIPE, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert process.stdout == b"0\n1\n"
