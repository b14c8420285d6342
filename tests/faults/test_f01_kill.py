"""F1: kill -9 of one service at each of its crash points, while the others live; its supervisor starts it again.

`points.py` is the table. `tests/system/test_pipeline_crash.py` kills the whole daemon at the same points,
`tests/broker/test_crash.py` a worker of the bus and the actor alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services import dead_letters, operations, submit
from stereospot import records, subjects
from stereospot.jobs import Phase
from stereospot.messages import SegmentTask
from stereospot.options import Options
from stereospot.schedule import PLAYHEAD_RUN
from tests.faults import points
from tests.faults.fleet import PIPELINE, POOL, Fleet, Service, compiled, fleet, stretched
from tests.faults.promises import Verdict
from tests.faults.table import Tell
from tests.media import sources as films
from tests.support import eventually
from tests.system import curved
from tests.system.rig import a_job

FAULT = "F1 kill -9 at a crash point"

QUICK = {("converter", "converter.fragment_stored"), ("collector", "bus.in_commit")}
"""A worker that stored and did not say so; a commit torn in the middle. The others run with `slow`."""


def cases(*services: str) -> list[object]:
    return [
        pytest.param(service, point, marks=() if (service, point) in QUICK else pytest.mark.slow)
        for service in services
        for point in points.of(service)
        if point not in points.CURVED
    ]


async def killed_and_replaced(made: Fleet, victim: Service, start: Callable[[], Awaitable[Service]]) -> float:
    """Wait for the end at the point, start the next one; monotonic time of the death."""
    await made.died(victim)
    died = time.monotonic()
    await start()
    return died


def judged(tell: Tell, verdict: Verdict, died: float) -> None:
    tell(FAULT, verdict, recovery=time.monotonic() - died)
    assert verdict.violations == (), verdict
    assert verdict.extra <= 2, "a worker of one slot holds one segment to store and one to compute"


def test_every_point_is_in_the_matrix() -> None:
    assert points.uncovered() == set()


@pytest.mark.parametrize(("service", "point"), cases(*sorted(PIPELINE)))
async def test_a_job_survives_a_kill_of(tmp_path: Path, tell: Tell, service: str, point: str) -> None:
    async with fleet(tmp_path, start=PIPELINE - {service}) as made:
        victim = await made.start(service, point=point)
        await made.submit("J1", film="h264_mp4" if service == "audio" else "h264_mp4_silent")
        died = await killed_and_replaced(made, victim, lambda: made.start(service))
        await made.ended("J1")
        judged(tell, await made.verdict(), died)


@pytest.mark.slow
@pytest.mark.parametrize(("service", "point"), [*cases("analyse"), *(("collector", point) for point in points.CURVED)])
async def test_a_job_with_a_curve_survives_a_kill_of(tmp_path: Path, tell: Tell, service: str, point: str) -> None:
    """Near and far of the whole film are found ahead of the segments, window by window."""
    engine = ("converter", "analyse")
    rest = PIPELINE - {"converter", "audio", service}
    await asyncio.to_thread(compiled)
    async with fleet(tmp_path, start=rest) as made:

        async def start(*names: str, point: str | None = None) -> Service:
            program = ("tests.system.curved", *names) if set(names) & set(engine) else ()
            return await made.start(*names, point=point, program=program, pool="gpu")

        await start(*(name for name in engine if name != service))
        victim = await start(service, point=point)
        options = Options(engine=curved.NAME, preset="ultrafast", segment_seconds=1.0)
        source = await submit.local_source(curved.film(tmp_path), None)
        await submit.create(made.context, source, options, job_id="J1", title="J1")
        made.accepted.append("J1")
        died = await killed_and_replaced(made, victim, lambda: start(service))
        await made.ended("J1")
        judged(tell, await made.verdict(), died)


@pytest.mark.slow
@pytest.mark.parametrize(("point", "excused"), [("actor.handled", 0), ("actor.settled", 1)])
async def test_a_segment_survives_a_kill_of_who_gives_it_back(
    tmp_path: Path, tell: Tell, point: str, excused: int
) -> None:
    """What was sent for somebody who has jumped on: every segment is converted all the same, and counted once."""
    async with fleet(tmp_path, start=PIPELINE - {"converter", "audio"}) as made:
        source = await submit.local_source(curved.film(tmp_path), None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
        await submit.create(made.context, source, options, job_id="J1", title="J1")
        made.accepted.append("J1")
        for count, playhead in ((1, 12), (2, 6)):
            await operations.seek(made.bus, "J1", playhead)

            async def sent(count: int = count) -> bool:
                lane = await made.bus.consumer_info(subjects.CONVERT, subjects.convert_consumer(POOL, "now"))
                return lane["num_pending"] == count * PLAYHEAD_RUN

            await eventually(sent, seconds=stretched(30), what="segments for who watches")
        victim = await made.start("converter", point=point)

        async def start() -> Service:
            assert await made.events("running", pid=victim.pid) == [], "it converted first"
            assert len(await made.bus.bucket(subjects.TRIES).keys()) == excused, "it died elsewhere"
            return await made.start("converter")

        died = await killed_and_replaced(made, victim, start)
        await made.ended("J1")
        judged(tell, await made.verdict(), died)


@pytest.mark.slow
@pytest.mark.parametrize("point", points.of("submit"))
async def test_a_submission_survives_a_kill_at(tmp_path: Path, tell: Tell, point: str) -> None:
    """`work.submit` is a job from the moment it is acknowledged."""
    path = films.path("h264_mp4_silent")
    async with fleet(tmp_path, start=PIPELINE) as made:
        victim = await made.start("submit", point=point, roots=json.dumps([str(path.parent)]))
        options = {"backend": "stub", "preset": "ultrafast", "segment_seconds": 0.5}
        body = json.dumps({"path": str(path), "options": options}).encode()
        await made.bus.publish(f"{subjects.PREFIX}.work.submit.J1", body)
        made.accepted.append("J1")
        died = await killed_and_replaced(
            made, victim, lambda: made.start("submit", roots=json.dumps([str(path.parent)]))
        )

        async def known() -> bool:
            return await records.get_job(made.bus, "J1") is not None

        await eventually(known, seconds=stretched(30), what="the job")
        await made.ended("J1")
        judged(tell, await made.verdict(), died)


@pytest.mark.slow
@pytest.mark.parametrize("point", points.of("janitor"))
async def test_what_a_janitor_was_mending_survives_a_kill_at(tmp_path: Path, tell: Tell, point: str) -> None:
    """A record whose submitter died before it asked for the plan."""
    async with fleet(tmp_path, start=PIPELINE) as made:
        source = await submit.local_source(films.path("h264_mp4_silent"), None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
        left = a_job(phase=Phase.CREATED).model_copy(update={"source": source, "options": options, "pool": "stub"})
        await records.create_job(made.bus, left)
        made.accepted.append("J1")
        victim = await made.start("janitor", point=point)
        died = await killed_and_replaced(made, victim, lambda: made.start("janitor"))
        await made.ended("J1")
        judged(tell, await made.verdict(), died)


@pytest.mark.slow
@pytest.mark.parametrize("point", points.of("delete"))
async def test_a_delete_survives_a_kill_at(tmp_path: Path, tell: Tell, point: str) -> None:
    async with fleet(tmp_path, start=PIPELINE) as made:
        await made.submit("J1")
        await made.ended("J1")
        await made.at_rest()
        victim = await made.start("delete", point=point)
        await operations.delete(made.bus, "J1")
        died = await killed_and_replaced(made, victim, lambda: made.start("delete"))
        await made.at_rest(60)
        found = await made.history({"J1": Phase.DELETED})
        left = len(found.objects) + (found.last != {"J1": None})
        tell(FAULT, jobs=1, lost=0, duplicated=left, recovery=time.monotonic() - died)
        assert found.last == {"J1": None}
        assert found.objects == {}


@pytest.mark.slow
@pytest.mark.parametrize("point", points.of("dead-letters"))
async def test_a_burial_survives_a_kill_at(tmp_path: Path, tell: Tell, point: str) -> None:
    """The advisory is the net for segments whose workers died too hard to speak."""
    async with fleet(tmp_path) as made:
        await records.create_job(made.bus, a_job())
        task = SegmentTask(job_id="J1", generation=1, attempt=1, index=4, part=0)
        sequence = await made.bus.publish(subjects.convert("stub", "normal", "J1", 1, 4), task)
        victim = await made.start("dead-letters", point=point)
        advisory = {"stream": subjects.CONVERT, "consumer": "x", "stream_seq": sequence, "deliveries": 6}
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{subjects.CONVERT}.x"
        await made.bus.nc.publish(subject, json.dumps(advisory).encode())
        died = await killed_and_replaced(made, victim, lambda: made.start("dead-letters"))

        async def settled() -> bool:
            info = await made.bus.consumer_info(subjects.ADVISORY, "dead-letters")
            return not info["num_pending"] and not info["num_ack_pending"]

        await eventually(settled, seconds=stretched(30), what="the advisory handled")
        letters = await dead_letters.letters(made.bus)
        failed = (await made.job("J1")).phase is Phase.FAILED
        lost = (not letters) + (not failed)
        tell(FAULT, jobs=1, lost=lost, duplicated=max(0, len(letters) - 1), recovery=time.monotonic() - died)
        assert [item.failure.segment_index for item in letters] == [4]
        assert failed
