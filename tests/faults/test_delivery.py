"""F8, F9 and F14: what a broker that is only "at least once" may do to the services, and what two versions may say."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest

from services import daemon, submit
from services.collector import Collector
from services.context import Context
from stereospot import records, subjects
from stereospot.bus import Bus
from stereospot.jobs import Phase
from stereospot.options import Options
from tests.faults import history, promises
from tests.faults.fleet import PIPELINE, shorten, stretched
from tests.faults.proxy import proxy
from tests.faults.racing import INIT, drained, say
from tests.faults.table import Tell
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_job, announce_total, collecting, rig


# ---- F8 --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("segments", [60, pytest.param(1000, marks=pytest.mark.slow)])
async def test_f8_completions_thrice_shuffled_and_acks_lost(tmp_path: Path, tell: Tell, segments: int) -> None:
    """Every completion is published three times and delivered three times, in disorder; every tenth ack gets lost."""
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        await shorten(context.bus, 0.5)
        job = a_job()
        await records.create_job(context.bus, job)
        url = context.settings.nats_url
        assert url is not None
        async with proxy(url, times=3, lose=0.1, shuffle=True) as between:
            bus = await Bus.connect(context.settings.model_copy(update={"nats_url": between.url}), name="collector")
            order = [index for index in range(segments) for _ in range(3)]
            random.Random(5).shuffle(order)
            async with collecting(Collector(Context(context.settings, bus, context.store), batch=32)):
                for salt, index in enumerate(order):
                    await say(context.bus, index, salt)
                    if salt == segments:
                        await announce_total(context, job, segments)
                await eventually(lambda: drained(context), seconds=stretched(40), what="everything acknowledged")
            await bus.drain()
        assert between.lost > 0
        assert between.repeated > 0
        found = await history.read(context)
        verdict = promises.check(found)
        tell("F8 thrice, shuffled, acks lost", verdict)
        assert len(found.triggers) == 1
        assert found.last_states["J1", 1].is_complete
        assert verdict.violations == (), verdict


@pytest.mark.slow
async def test_f8_a_whole_job_over_a_bad_line(tmp_path: Path, tell: Tell) -> None:
    async with rig(tmp_path, pool="stub", slots=1, ack_wait_seconds=2.0) as context:
        await history.keep_everything(context.bus)
        await shorten(context.bus, 2.0)
        url = context.settings.nats_url
        assert url is not None
        async with proxy(url, times=3, lose=0.1, shuffle=True) as between:
            given = context.settings.model_copy(update={"nats_url": between.url})
            async with daemon.running(given, PIPELINE) as inside:
                source = await submit.local_source(films.path("h264_mp4_silent"), None)
                options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
                await submit.create(inside, source, options, job_id="J1")
                await eventually(lambda: _ended(context, "J1"), seconds=stretched(60), what="the film")
                await eventually(lambda: _rests(context), seconds=stretched(30), what="rest")
        verdict = promises.check(
            await history.read(context, accepted=["J1"], expected={"J1": Phase.COMPLETED}), ack_wait_seconds=2.0
        )
        tell("F8 thrice, shuffled, acks lost", verdict)
        assert between.repeated > 0
        assert verdict.violations == (), verdict


async def _ended(context: Context, job_id: str) -> bool:
    found = await records.get_job(context.bus, job_id)
    return found is not None and not found[0].is_active


async def _rests(context: Context) -> bool:
    left = [(await context.bus.stream_info(name))["state"]["messages"] for name in ("WORK", "CONVERT", "DONE")]
    info = await context.bus.consumer_info("KV_state", "assembler")
    return not any(left) and not info["num_ack_pending"]


# ---- F9 --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("producers", [64, pytest.param(256, marks=pytest.mark.slow)])
async def test_f9_all_producers_finish_one_job_at_once(tmp_path: Path, tell: Tell, producers: int) -> None:
    async with rig(tmp_path) as context:
        await history.keep_everything(context.bus)
        job = a_job()
        await records.create_job(context.bus, job)
        buses = [await Bus.connect(context.settings, name=f"p{number}") for number in range(8)]
        async with collecting(Collector(context), Collector(context)):
            await announce_total(context, job, producers)
            await eventually(lambda: drained(context), what="the total")
            start = asyncio.Event()

            async def produce(index: int) -> None:
                await start.wait()
                await say(buses[index % 8], index)

            async with asyncio.TaskGroup() as group:
                for index in range(producers):
                    group.create_task(produce(index))
                began = time.monotonic()
                start.set()
            await eventually(lambda: drained(context), what="everything acknowledged")
            took = time.monotonic() - began
        for bus in buses:
            await bus.drain()
        found = await history.read(context)
        tell(f"F9 {producers} producers at once", promises.check(found), recovery=took)
        assert len(found.triggers) == 1
        assert found.last_states["J1", 1].is_complete
        assert took < stretched(3.0)


# ---- F14 -------------------------------------------------------------------------------------------------
async def test_f14_messages_of_another_version_are_understood_and_kept(tmp_path: Path) -> None:
    """A newer version adds fields, an older one leaves out those with a default; records keep what they do not know."""
    async with rig(tmp_path) as context:
        newer = a_job().model_copy(update={"schema_version": 2, "shiny": {"level": 9}})
        await records.create_job(context.bus, newer)
        subject = subjects.done_segment("J1", 1, 0)
        older = {"job_id": "J1", "generation": 1, "index": 0, "init_sha256": INIT}
        bodies = (
            (subject, older),
            (subjects.done_segment("J1", 1, 1), older | {"index": 1, "schema_version": 2, "shiny": True}),
            (
                subjects.done_plan("J1", 1, "total"),
                {"job_id": "J1", "generation": 1, "pool": "cpu", "total": 2, "parts": [0], "audio": False, "new": 1},
            ),
        )
        async with collecting(Collector(context)):
            for where, body in bodies:
                await context.bus.publish(where, json.dumps(body).encode())
            await eventually(lambda: drained(context), what="everything understood")
        state = await records.get_state(context.bus, "J1", 1)
        assert state is not None
        assert state[0].is_complete

        changed = await records.change_job(
            context.bus, "J1", lambda job: job.model_copy(update={"title": "changed by this version"})
        )
        entry = await context.bus.bucket(subjects.JOBS).get("J1")
        assert entry is not None
        stored = json.loads(entry.value)
        assert (stored["shiny"], stored["schema_version"]) == ({"level": 9}, 2)
        assert changed.title == stored["title"]


@pytest.mark.slow
async def test_f14_a_job_of_an_older_client_with_a_newer_planner_becomes_a_film(tmp_path: Path, tell: Tell) -> None:
    """`work.submit` as a minimal client writes it, with a field that this version does not know."""
    path = films.path("h264_mp4_silent")
    async with rig(tmp_path, roots=(path.parent,), pool="stub", slots=1) as context:
        await history.keep_everything(context.bus)
        async with daemon.running(context.settings, PIPELINE | {"submit"}):
            options = {"backend": "stub", "preset": "ultrafast", "segment_seconds": 0.5}
            body = {"path": str(path), "options": options, "schema_version": 3, "from_the_future": [1]}
            await context.bus.publish("stereospot.work.submit.J1", json.dumps(body).encode())
            await eventually(lambda: _ended(context, "J1"), seconds=stretched(60), what="the film")
            await eventually(lambda: _rests(context), seconds=stretched(30), what="rest")
        verdict = promises.check(await history.read(context, accepted=["J1"], expected={"J1": Phase.COMPLETED}))
        tell("F14 message schemas mixed", verdict)
        assert verdict.violations == (), verdict
