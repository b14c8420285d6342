"""Following a stream: order, starting points, and no gap when the broker goes away."""

from __future__ import annotations

import asyncio
import time

import pytest

from stereospot import subjects
from stereospot.bus import Bus, Stored, Tail
from tests.support import Nats, eventually


async def send(bus: Bus, *numbers: int, job: str = "a") -> None:
    for number in numbers:
        await bus.publish(subjects.event_segment(job, 1, number), b"%d" % number)


async def read(tail: Tail, count: int, seconds: float = 5.0) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found.append(int((await anext(tail)).data))
    return found


async def test_new_means_from_here_on(bus: Bus) -> None:
    await send(bus, 1, 2)
    async with bus.tail(subjects.EVENT) as tail:
        await send(bus, 3, 4)
        assert await read(tail, 2) == [3, 4]
        assert tail.sequence == 4


@pytest.mark.parametrize("kill", [False, True])
async def test_new_is_a_place_that_a_restart_does_not_move(bus: Bus, server: Nats, kill: bool) -> None:
    await send(bus, 1)
    async with bus.tail(subjects.EVENT) as tail:
        if kill:
            server.kill()
            server.restart()
        await send(bus, 2, 3)
        assert await read(tail, 2) == [2, 3]


async def test_all_and_from_a_sequence(bus: Bus) -> None:
    await send(bus, *range(1, 11))
    async with bus.tail(subjects.EVENT, start="all") as tail:
        assert await read(tail, 10) == list(range(1, 11))
    async with bus.tail(subjects.EVENT, start=7) as tail:
        assert await read(tail, 4) == [7, 8, 9, 10]


async def test_what_is_there_is_read_from_one_sequence_to_another(bus: Bus) -> None:
    await send(bus, *range(1, 11))
    await send(bus, 11, job="b")
    for number in (3, 7, 8):
        await bus.remove(subjects.EVENT, number)

    async def numbers(start: int = 1, end: int | None = None) -> list[int]:
        return [int(item.data) for item in await bus.read(subjects.EVENT, start=start, end=end)]

    assert await numbers() == [1, 2, 4, 5, 6, 9, 10, 11]
    assert await numbers(start=2, end=9) == [2, 4, 5, 6]
    assert await numbers(start=7, end=9) == []
    assert await numbers(start=9, end=400) == [9, 10, 11]
    assert await numbers(start=12) == []
    assert [int(item.data) for item in await bus.read(subjects.EVENT, "stereospot.event.*.b.>")] == [11]


async def test_a_long_stretch_is_read_in_order(bus: Bus) -> None:
    await asyncio.gather(*(send(bus, number) for number in range(600)))
    found = await bus.read(subjects.EVENT, start=10, end=590)
    assert [item.sequence for item in found] == list(range(10, 590))


async def test_a_filter(bus: Bus) -> None:
    await send(bus, 1, job="a")
    await send(bus, 2, job="b")
    await send(bus, 3, job="a")
    async with bus.tail(subjects.EVENT, "stereospot.event.*.a.>", start="all") as tail:
        assert await read(tail, 2) == [1, 3]


async def test_last_of_each_subject_then_the_news(bus: Bus) -> None:
    bucket = bus.bucket(subjects.JOBS)
    for number in range(3):
        await bucket.put("a", b"%d" % number)
    await bucket.put("b", b"10")
    async with bus.tail(bucket.stream, start="last") as tail:
        assert await read(tail, 2) == [2, 10]
        await bucket.put("a", b"3")
        assert await read(tail, 1) == [3]
        await bucket.delete("b")
        gone = await asyncio.wait_for(anext(tail), 2)
        assert (bucket.key_of(gone.subject), gone.is_marker) == ("b", True)


async def test_caught_up_is_told_after_the_reader_has_had_everything(bus: Bus) -> None:
    await send(bus, 1, 2, 3)
    seen: list[int] = []
    async with bus.tail(subjects.EVENT, start="all") as tail, asyncio.TaskGroup() as group:

        async def follow() -> None:
            async for message in tail:
                assert not tail.caught_up.is_set()
                seen.append(int(message.data))

        task = group.create_task(follow())
        await asyncio.wait_for(tail.caught_up.wait(), 2)
        assert seen == [1, 2, 3]
        task.cancel()


async def test_an_empty_stream_is_caught_up_at_once(bus: Bus) -> None:
    async with bus.tail(subjects.EVENT, start="all") as tail, asyncio.TaskGroup() as group:
        task = group.create_task(read(tail, 1))
        await asyncio.wait_for(tail.caught_up.wait(), 2)
        task.cancel()


async def test_no_gap_no_repeat_and_prompt_when_the_broker_is_killed(bus: Bus, server: Nats) -> None:
    seen: list[int] = []
    async with bus.tail(subjects.EVENT, start="all") as tail, asyncio.TaskGroup() as group:

        async def follow() -> None:
            async for message in tail:
                seen.append(int(message.data))

        task = group.create_task(follow())
        await send(bus, *range(50))
        server.kill()
        server.restart()
        back = time.monotonic()
        await send(bus, *range(50, 100))
        await eventually(lambda: len(seen) >= 100, seconds=3)
        assert time.monotonic() - back < 2.5
        task.cancel()
    assert seen == list(range(100))


async def test_a_deleted_consumer_is_made_again(bus: Bus) -> None:
    async with bus.tail(subjects.EVENT, start="all") as tail:
        await send(bus, 1)
        assert await read(tail, 1) == [1]
        names = (await bus.api(f"CONSUMER.NAMES.{subjects.EVENT}"))["consumers"]
        for name in names:
            await bus.api(f"CONSUMER.DELETE.{subjects.EVENT}.{name}")
        await send(bus, 2)
        assert await read(tail, 1, seconds=8) == [2]


async def test_nothing_is_left_on_the_server(bus: Bus) -> None:
    async with bus.tail(subjects.EVENT, start="all"):
        pass
    assert not (await bus.api(f"CONSUMER.NAMES.{subjects.EVENT}"))["consumers"]
    await bus.last_per_subject(subjects.EVENT, ">")
    assert not (await bus.api(f"CONSUMER.NAMES.{subjects.EVENT}"))["consumers"]


async def test_a_large_backlog_comes_whole_and_in_order(bus: Bus) -> None:
    await asyncio.gather(
        *(bus.publish(subjects.event_segment("a", 1, number), b"%d" % number) for number in range(2000))
    )
    async with bus.tail(subjects.EVENT, start="all") as tail:
        found: list[Stored] = []
        async with asyncio.timeout(5):
            while len(found) < 2000:
                found.append(await anext(tail))
    assert [item.sequence for item in found] == list(range(1, 2001))
    newest = await bus.last_per_subject(subjects.EVENT, "stereospot.event.segment.a.>")
    assert len(newest) == 2000
