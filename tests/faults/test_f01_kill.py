"""F1: kill -9 of one service at each of its crash points, while the others live; its supervisor starts it again.

`tests/system/test_pipeline_crash.py` kills the whole daemon at the same points, `tests/broker/test_crash.py` a worker
of the bus and the actor alone.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stereospot import crash
from stereospot.jobs import Phase
from tests.faults.conftest import Tell
from tests.faults.fleet import PIPELINE, fleet

for _name in (
    "planner",
    "converter",
    "assembler",
    "collector",
    "audio",
    "dispatcher",
    "states",
    "delete",
    "dead_letters",
):
    __import__(f"services.{_name}")

_PUBLISH = ("bus.before_publish", "bus.after_publish")
_WRITE = ("bucket.before_write", "bucket.after_write")
_ACTOR = ("actor.fetched", "actor.handled", "actor.settled")
_COMMIT = ("bus.before_commit", "bus.in_commit", "bus.after_commit")

SHARED = {
    "planner": (*_ACTOR, *_PUBLISH, *_WRITE),
    "converter": (*_ACTOR, *_PUBLISH),
    "audio": (*_ACTOR, *_PUBLISH),
    "assembler": (*_ACTOR, *_PUBLISH, *_WRITE),
    "collector": (*_PUBLISH, *_WRITE, *_COMMIT),
}
"""Points of the bus and the actor that each service passes on the way of a job."""

OWN = {
    "planner": ("planner",), "converter": ("converter",), "audio": ("audio",), "assembler": ("assembler",),
    "collector": ("collector", "dispatcher", "state"),
}  # fmt: skip
"""Modules whose points die with a service."""

ELSEWHERE = {
    "actor.dead_lettered": "tests/broker/test_crash.py: no job of the matrix is rejected",
    "delete": "test_a_delete_survives_a_kill_at",
    "dead_letters": "test_a_burial_survives_a_kill_at",
}

QUICK = {("converter", "converter.fragment_stored"), ("collector", "bus.in_commit")}
"""A worker that stored and did not say so; a commit torn in the middle. The others run with `slow`."""


def points(service: str) -> list[str]:
    own = [name for name in sorted(crash.POINTS) if name.split(".")[0] in OWN[service]]
    return [*own, *SHARED[service]]


CASES = [
    pytest.param(service, point, marks=() if (service, point) in QUICK else pytest.mark.slow, id=f"{service}-{point}")
    for service in sorted(OWN)
    for point in points(service)
]


@pytest.mark.parametrize(("service", "point"), CASES)
async def test_a_job_survives_a_kill_of(tmp_path: Path, tell: Tell, service: str, point: str) -> None:
    async with fleet(tmp_path, start=PIPELINE - {service}) as made:
        victim = await made.start(service, point=point)
        await made.submit("J1", film="h264_mp4" if service == "audio" else "h264_mp4_silent")
        await made.died(victim)
        died = time.monotonic()
        await made.start(service)
        await made.ended("J1")
        recovery = time.monotonic() - died
        verdict = await made.verdict()
        tell("F1 kill -9 at a crash point", verdict, recovery=recovery)
        assert verdict.violations == (), verdict
        assert verdict.extra <= 2, "a worker of one slot holds one segment to store and one to compute"


def test_every_point_of_a_job_is_in_the_matrix() -> None:
    covered = {point for service in OWN for point in points(service)}
    left = {name for name in crash.POINTS if name not in covered and name.split(".")[0] not in ELSEWHERE}
    assert left <= set(ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("point", sorted(name for name in crash.POINTS if name.startswith("delete.")))
async def test_a_delete_survives_a_kill_at(tmp_path: Path, tell: Tell, point: str) -> None:
    from services import operations

    async with fleet(tmp_path, start=PIPELINE) as made:
        await made.submit("J1")
        await made.ended("J1")
        await made.at_rest()
        victim = await made.start("delete", point=point)
        await operations.delete(made.bus, "J1")
        await made.died(victim)
        await made.start("delete")
        await made.at_rest(60)
        found = await made.history({"J1": Phase.DELETED})
        assert found.last == {"J1": None}
        assert found.objects == {}


@pytest.mark.slow
@pytest.mark.parametrize("point", sorted(name for name in crash.POINTS if name.startswith("dead_letters.")))
async def test_a_burial_survives_a_kill_at(tmp_path: Path, point: str) -> None:
    import json

    from services import dead_letters
    from stereospot import records, subjects
    from stereospot.messages import SegmentTask
    from tests.support import eventually
    from tests.system.rig import a_job

    async with fleet(tmp_path) as made:
        await records.create_job(made.bus, a_job())
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=4, part=0)
        sequence = await made.bus.publish(subjects.convert("stub", "normal", "J1", 1, 4), task)
        victim = await made.start("dead-letters", point=point)
        advisory = {"stream": subjects.CONVERT, "consumer": "x", "stream_seq": sequence, "deliveries": 6}
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{subjects.CONVERT}.x"
        await made.bus.nc.publish(subject, json.dumps(advisory).encode())
        await made.died(victim)
        await made.start("dead-letters")

        async def settled() -> bool:
            info = await made.bus.consumer_info(subjects.ADVISORY, "dead-letters")
            return not info["num_pending"] and not info["num_ack_pending"]

        await eventually(settled, seconds=30, what="the advisory handled")
        assert [item.failure.segment_index for item in await dead_letters.letters(made.bus)] == [4]
        assert (await made.job("J1")).phase is Phase.FAILED
