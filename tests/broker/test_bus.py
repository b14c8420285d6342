"""Publishing, buckets and atomic commits, with the server killed in between."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from typing import Any

import nats.errors
import pytest

from stereospot import broker, errors, subjects
from stereospot.bus import Bus, Conflict, Refused, Write
from stereospot.settings import Settings
from tests.support import Nats, eventually


async def count(bus: Bus, stream: str) -> int:
    return (await bus.stream_info(stream))["state"]["messages"]


async def test_a_message_id_drops_a_repeat(bus: Bus) -> None:
    first = await bus.publish("stereospot.work.plan.a", b"{}", msg_id="plan.a.1.1")
    again = await bus.publish("stereospot.work.plan.a", b"{}", msg_id="plan.a.1.1")
    other = await bus.publish("stereospot.work.plan.a", b"{}", msg_id="plan.a.1.2")
    assert (again, other) == (first, first + 1)
    assert await count(bus, subjects.WORK) == 2


async def test_publish_waits_for_a_server_that_comes_back(bus: Bus, server: Nats) -> None:
    server.kill()
    back = threading.Timer(0.6, server.restart)
    back.start()
    started = time.monotonic()
    await bus.publish("stereospot.work.plan.a", b"{}", msg_id="once")
    took = time.monotonic() - started
    back.join()
    assert 0.4 < took < 2.5
    assert await count(bus, subjects.WORK) == 1


async def test_publish_gives_up_after_its_patience_and_says_so(bus: Bus, server: Nats) -> None:
    server.kill()
    with pytest.raises(errors.Transient) as raised:
        await bus.publish("stereospot.work.plan.a", b"{}", patience_seconds=0.5)
    assert raised.value.code == "BROKER_UNAVAILABLE"
    server.restart()


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_in_a_storm(bus: Bus, server: Nats) -> None:
    acknowledged: list[int] = []

    async def publish(index: int) -> None:
        await bus.publish(subjects.done_segment("storm", 1, index), b"{}", msg_id=f"done.storm.1.{index}")
        acknowledged.append(index)

    async with asyncio.TaskGroup() as group:
        for index in range(300):
            group.create_task(publish(index))
            if index == 150:
                await eventually(lambda: len(acknowledged) >= 50)
                server.kill()
                server.restart()
    stored = await bus.stream_info(subjects.DONE, subjects_filter=">")
    assert stored["state"]["subjects"] == {subjects.done_segment("storm", 1, index): 1 for index in range(300)}


async def test_publish_to_no_stream_is_not_silent(bare: Bus) -> None:
    with pytest.raises(errors.Transient):
        await bare.publish("stereospot.work.plan.a", b"{}", patience_seconds=0.3)


async def test_a_full_stream_says_storage_full(bus: Bus) -> None:
    config = (await bus.stream_info(subjects.WORK))["config"]
    await bus.api("STREAM.UPDATE.WORK", {**config, "max_msgs": 1})
    await bus.publish("stereospot.work.plan.a", b"{}")
    with pytest.raises(errors.Transient) as raised:
        await bus.publish("stereospot.work.plan.a", b"{}", patience_seconds=0.3)
    assert raised.value.code == "STORAGE_FULL"


async def test_connecting_to_nobody_fails_within_its_time() -> None:
    started = time.monotonic()
    with pytest.raises(errors.Transient) as raised:
        await Bus.connect(Settings(nats_url="nats://127.0.0.1:1"), name="test", connect_seconds=0.6)
    assert raised.value.code == "BROKER_UNAVAILABLE"
    assert time.monotonic() - started < 2


async def test_the_server_s_version_is_a_version(bare: Bus) -> None:
    assert re.fullmatch(r"2\.\d+\.\d+(-\S+)?", bare.server_version)


@pytest.mark.parametrize(
    ("text", "parts", "is_old"),
    [
        ("2.12.5", (2, 12, 5), False),
        ("v2.15.1", (2, 15, 1), False),
        ("<nats server v2.15.1>", (2, 15, 1), False),
        ("2.12.5-RC.1+x.9.9.9", (2, 12, 5), False),
        ("2.10.22", (2, 10, 22), True),
        ("<nats server v2.10.22>", (2, 10, 22), True),
        ("1.99.99", (1, 99, 99), True),
        ("unknown", (), True),
    ],
)
def test_a_version_is_read_whatever_stands_around_it(text: str, parts: tuple[int, ...], is_old: bool) -> None:
    assert broker.parse_version(text) == parts
    with pytest.raises(errors.Misconfigured) if is_old else contextlib.nullcontext():
        broker.check_version(text)


async def test_a_connection_that_ends_for_good_is_told(settings: Settings) -> None:
    ended = asyncio.Event()
    bus = await Bus.connect(settings, name="test", on_closed=ended.set)
    await bus.nc.close()
    await asyncio.wait_for(ended.wait(), 2)
    ended.clear()
    bus = await Bus.connect(settings, name="test", on_closed=ended.set)
    await bus.drain()
    assert bus.is_closed
    assert not ended.is_set()


async def test_the_end_of_a_connection_is_not_waited_for_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await Bus.connect(settings, name="test")
    never = asyncio.Event()
    with monkeypatch.context() as stuck:
        stuck.setattr(bus.nc, "drain", never.wait)
        stuck.setattr(bus.nc, "close", never.wait)
        await asyncio.wait_for(bus.drain(0.1), 5)
    await bus.nc.close()


# ---- buckets -----------------------------------------------------------------------------------------------
async def test_compare_and_set(bus: Bus) -> None:
    bucket = bus.bucket(subjects.JOBS)
    assert await bucket.get("a") is None
    revision = await bucket.create("a", b"one")
    with pytest.raises(Conflict):
        await bucket.create("a", b"two")
    newer = await bucket.update("a", b"two", revision)
    with pytest.raises(Conflict):
        await bucket.update("a", b"three", revision)
    entry = await bucket.get("a")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"two", newer)
    assert await bucket.get("a", stale=True) == entry


@pytest.mark.parametrize("value", [b"", b"x"])
async def test_a_deleted_key_is_absent_and_can_be_created_again(bus: Bus, value: bytes) -> None:
    bucket = bus.bucket(subjects.JOBS)
    await bucket.create("a", value)
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == value
    await bucket.delete("a")
    assert await bucket.get("a") is None
    assert await bucket.get("a", stale=True) is None
    assert await bucket.keys() == []
    await bucket.create("a", b"again")
    assert [item.value for item in await bucket.entries()] == [b"again"]
    await bucket.purge("a")
    assert await bucket.get("a") is None


async def test_delete_can_name_the_revision(bus: Bus) -> None:
    bucket = bus.bucket(subjects.JOBS)
    revision = await bucket.create("a", b"1")
    await bucket.update("a", b"2", revision)
    with pytest.raises(Conflict):
        await bucket.delete("a", revision=revision)


async def test_entries_by_prefix_and_beyond_one_batch(bus: Bus) -> None:
    bucket = bus.bucket(subjects.STATE)
    await asyncio.gather(*(bucket.put(f"state.job{index}.1", b"s") for index in range(600)))
    await bucket.put("trigger.job1.1", b"t")
    assert len(await bucket.keys("state")) == 600
    assert await bucket.keys("trigger.") == ["trigger.job1.1"]
    assert await bucket.keys("trigger.job2") == []
    revisions = [entry.revision for entry in await bucket.entries()]
    assert revisions == sorted(revisions)
    assert len(revisions) == 601


async def test_a_lease_expires_and_can_be_taken_again(bus: Bus) -> None:
    bucket = bus.bucket(subjects.WORKERS)
    await bucket.create("w", b"mine", ttl_seconds=1)

    async def gone() -> bool:
        return await bucket.get("w") is None

    await eventually(gone, seconds=3)
    await bucket.create("w", b"yours", ttl_seconds=1)


async def test_an_update_whose_answer_got_lost_knows_its_own_revision(bus: Bus) -> None:
    """The server takes the write, the client times out and repeats it: no conflict with oneself."""
    bucket = bus.bucket(subjects.JOBS)
    revision = await bucket.create("a", b"1")
    request = bus.ask
    lost: list[str] = []

    async def losing(subject: str, *arguments: object, **options: object) -> object:
        answer = await request(subject, *arguments, **options)  # type: ignore[arg-type]
        if subject == "$KV.jobs.a" and not lost:
            lost.append(subject)
            raise nats.errors.TimeoutError
        return answer

    bus.ask = losing  # type: ignore[method-assign]
    newer = await bucket.update("a", b"2", revision)
    assert lost
    entry = await bucket.get("a")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"2", newer)


# ---- commits -----------------------------------------------------------------------------------------------
def writes(value: bytes, state: int, trigger: int) -> list[Write]:
    return [Write("state", "state.j.1", value, state), Write("state", "trigger.j.1", value, trigger)]


async def test_a_commit_writes_all_or_nothing(bus: Bus) -> None:
    bucket = bus.bucket(subjects.STATE)
    assert await bus.commit(writes(b"1", 0, 0)) == (1, 2)
    with pytest.raises(Conflict):
        await bus.commit(writes(b"2", 1, 0))
    assert [entry.value for entry in await bucket.entries()] == [b"1", b"1"]
    assert await bus.commit(writes(b"3", 1, 2)) == (3, 4)
    with pytest.raises(ValueError, match="one bucket"):
        await bus.commit([Write("state", "a", b""), Write("jobs", "a", b"")])


async def test_of_many_committers_one_wins(bus: Bus, settings: Settings) -> None:
    others = [await Bus.connect(settings, name=f"test-{index}") for index in range(4)]
    try:
        outcomes = await asyncio.gather(
            *(others[index % 4].commit(writes(b"%d" % index, 0, 0)) for index in range(24)), return_exceptions=True
        )
    finally:
        for other in others:
            await other.drain()
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 23
    assert await count(bus, "KV_state") == 2


async def test_a_commit_whose_answer_got_lost_is_a_success(bus: Bus) -> None:
    request = bus.ask
    lost: list[str] = []

    async def losing(subject: str, *arguments: object, **options: object) -> object:
        answer = await request(subject, *arguments, **options)  # type: ignore[arg-type]
        if subject == "$KV.state.trigger.j.1" and not lost:
            lost.append(subject)
            raise nats.errors.TimeoutError
        return answer

    bus.ask = losing  # type: ignore[method-assign]
    assert await bus.commit(writes(b"1", 0, 0)) == (1, 2)
    assert await count(bus, "KV_state") == 2


async def test_commits_under_kills_are_never_half_applied(bus: Bus, server: Nats) -> None:
    async def commit(index: int) -> bool:
        pair = [Write("state", f"{name}.j{index}.1", b"x", 0) for name in ("state", "trigger")]
        await bus.commit(pair)
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(commit(index)) for index in range(60)]
        await eventually(lambda: any(task.done() for task in tasks))
        server.kill()
        server.restart()
    bucket = bus.bucket(subjects.STATE)
    assert len(await bucket.keys("state")) == len(await bucket.keys("trigger")) == 60


# ---- administration ----------------------------------------------------------------------------------------
async def test_purge_remove_pause_resume(bus: Bus) -> None:
    for job in ("a", "b"):
        for index in range(3):
            await bus.publish(subjects.convert("cpu", "normal", job, 1, index), b"{}")
    assert await bus.purge(subjects.CONVERT, subjects.convert_filter(job_id="a")) == 3
    assert await bus.remove(subjects.CONVERT, 4) is True
    assert await bus.remove(subjects.CONVERT, 4) is False
    assert await bus.get(subjects.CONVERT, 4) is None
    kept = await bus.last(subjects.CONVERT, subjects.convert("cpu", "normal", "b", 1, 2))
    assert kept is not None
    assert kept.sequence == 6
    await bus.pause(subjects.CONVERT, "convert-cpu-normal", 60)
    assert (await bus.consumer_info(subjects.CONVERT, "convert-cpu-normal"))["paused"] is True
    await bus.resume(subjects.CONVERT, "convert-cpu-normal")
    assert not (await bus.consumer_info(subjects.CONVERT, "convert-cpu-normal")).get("paused")
    with pytest.raises(Refused):
        await bus.stream_info("NOPE")


async def test_core_requests(bus: Bus) -> None:
    async def answer(message: object) -> None:
        await message.respond(b"pong")  # type: ignore[attr-defined]

    await bus.subscribe("stereospot.test.ping", answer)
    assert await bus.request("stereospot.test.ping", b"ping") == b"pong"
    with pytest.raises(errors.Transient):
        await bus.request("stereospot.test.nobody", timeout=0.2)


async def test_a_cancel_that_comes_with_the_answer_is_not_lost(bus: Bus) -> None:
    """Python 3.11's `wait_for` swallows it: a follower that was cancelled went on, and its segment hung for ever."""
    waiting: dict[str, asyncio.Future[Any]] = bus.nc._resp_map  # pyright: ignore[reportPrivateUsage]
    for _ in range(20):
        task = asyncio.create_task(bus.stream_info(subjects.WORK))
        while not waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        (answer,) = waiting.values()
        while not answer.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert (await bus.stream_info(subjects.WORK))["config"]["name"] == subjects.WORK
