"""The converter with its actor on a real queue: how many messages it holds, which it takes ahead, what a stop does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.contract import Converted
from services import parts
from services.ahead import Turn
from services.context import Context
from services.converter import RATES, Converter
from stereospot import errors, subjects
from stereospot.bus import Delivery, Puller
from stereospot.messages import SegmentTask, Worker
from stereospot.options import Options
from stereospot.outcome import Ack
from stereospot.tries import Tries
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_planned_job, rig

LANE = subjects.convert_consumer("stub", "normal")


def delivery(job_id: str, index: int, attempt: int = 1) -> Delivery:
    task = SegmentTask(job_id=job_id, generation=1, attempt=1, index=index, part=0)
    subject = subjects.convert("stub", "normal", job_id, 1, index)
    return Delivery(subject=subject, data=task.body(), attempt=attempt, stream=subjects.CONVERT, stream_sequence=1)


@asynccontextmanager
async def a_queue(tmp_path: Path, slots: int = 1) -> AsyncGenerator[tuple[Context, int]]:
    """A planned job whose segments all wait for a worker of the pool `stub`, and how many they are."""
    async with rig(tmp_path, pool="stub", slots=slots) as context:
        _, _, segments = await a_planned_job(context, films.path("h264_mp4"), options=Options(backend="stub"))
        for segment in segments:
            task = SegmentTask(job_id="J1", generation=1, attempt=1, index=segment.index, part=0)
            await context.bus.publish(subjects.convert("stub", "normal", "J1", 1, segment.index), task)
        yield context, len(segments)


@asynccontextmanager
async def at_work(context: Context) -> AsyncGenerator[parts.Part]:
    """The converter as the daemon runs it."""
    part = parts.BUILDERS["converter"](context, None)
    assert part.stop is not None
    assert part.close is not None
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(part.run())
        try:
            yield part
        finally:
            part.stop()
    await part.close()


async def held(context: Context) -> int:
    """Messages that the worker has and has not settled."""
    return (await context.bus.consumer_info(subjects.CONVERT, LANE))["num_ack_pending"]


async def test_a_worker_that_cannot_write_leaves_the_queue_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    tried: Counter[str] = Counter()
    async with a_queue(tmp_path) as (context, count):
        original = context.store.put

        async def put(key: str, data: bytes, *, if_absent: bool = False) -> bool:
            if full and key.endswith(".m4s"):
                tried[key] += 1
                raise errors.error("STORAGE_FULL", "no room")
            return await original(key, data, if_absent=if_absent)

        monkeypatch.setattr(context.store, "put", put)
        async with at_work(context):
            # The second result waits for longer than a third segment would take.
            await eventually(lambda: len(tried) > 1 and min(tried.values()) > 1, what="two results that wait")
            assert count > 2
            assert (len(tried), await held(context)) == (2, 2)
            full = False

            async def done() -> bool:
                return (await context.bus.stream_info(subjects.CONVERT))["state"]["messages"] == 0

            await eventually(done, what="the rest, once there is room")


async def test_a_stop_hands_back_at_once_what_was_taken_ahead_and_it_is_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = vars(Converter)["_work"]
    begun: list[int] = []

    def work(self: Converter, lease: Any, head: Any, segment: Any) -> Converted:
        begun.append(segment.index)
        if len(begun) > 1:
            assert lease.stop.wait(30), "the stop"
            raise errors.error("CANCELLED")
        return original(self, lease, head, segment)

    monkeypatch.setattr(Converter, "_work", work)
    monkeypatch.setattr(parts, "WORKER_BEAT_SECONDS", 0.1)
    async with a_queue(tmp_path) as (context, count):

        async def one_ahead() -> bool:
            return len(begun) == 2 and await held(context) == 2

        async with at_work(context):
            await eventually(one_ahead, what="a message beyond the one slot")
            bucket = context.bus.bucket(subjects.WORKERS)

            async def card() -> Worker | None:
                cards = [Worker.model_validate_json(item.value) for item in await bucket.entries()]
                return next((item for item in cards if item.busy), None)

            worker = await eventually(card, seconds=15, what="a card of a worker at work")
            assert worker is not None
            assert len(worker.busy) == worker.slots == 1, "what waits for the slot is not at work"
            stopped = time.monotonic()
        puller = Puller(context.bus, subjects.CONVERT, LANE)
        await puller.open()
        given = await puller.take(count)
        while len(given) < count - 1 and await puller.wait(5):
            given += await puller.take(count)
        assert time.monotonic() - stopped < 5, "not only after the lease of 20 s"
        assert len(given) == count - 1, "all but the one that is stored"
        assert [(await Tries(context.bus).counted(item.delivery)).attempt for item in given] == [1] * len(given)
        assert len(begun) == 2, "what was taken ahead was not begun"
        await puller.close()


async def test_the_end_of_a_segment_is_foreseen_from_the_same_film_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[float | None] = []
    original: Any = vars(Turn)["begins"]

    def begins(self: Turn, seconds: float | None) -> None:
        expected.append(seconds)
        original(self, seconds)

    monkeypatch.setattr(Turn, "begins", begins)
    async with rig(tmp_path) as context:
        made = Converter(context, worker_id="w1", slots=1)
        options = Options(backend="stub")
        jobs = [f"J{number}" for number in range(1, RATES + 2)]
        for job_id in jobs:
            await a_planned_job(context, films.path("h264_mp4"), job_id=job_id, options=options)
        for job_id, index in [("J1", 0), ("J1", 1), *((job_id, 0) for job_id in jobs[1:]), ("J1", 2)]:
            assert await made.handle(delivery(job_id, index)) == Ack()
        known = [seconds is not None for seconds in expected]
        assert known == [False, True, *[False] * RATES, False], "a film's first segment, and one of a film long ago"
        await made.close()


async def test_beside_a_segment_that_is_to_be_alone_nothing_is_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await a_planned_job(context, films.path("h264_mp4"), options=Options(backend="stub"))
        made = Converter(context, worker_id="w1", slots=1)
        said: list[int] = []
        made.ahead.on_change = said.append
        for index in (0, 1):
            assert await made.handle(delivery("J1", index, attempt=2)) == Ack()
        assert said == [], "it would only be given back"
        assert await made.handle(delivery("J1", 2)) == Ack()
        assert said[-1] == 0
        assert 1 in said
        await made.close()
