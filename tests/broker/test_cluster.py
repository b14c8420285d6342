"""Three real servers from the shipped configuration; the leader dies in the middle of the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator

import pytest

from stereospot import broker, completion, errors, subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Conflict, Delivery, Write
from stereospot.completion import Completion
from stereospot.messages import SegmentTask, Trigger
from stereospot.outcome import Ack, Outcome
from tests.broker.shipped import Node, servers, settings_for
from tests.faults.table import Tell
from tests.support import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SEGMENTS = 200


@pytest.fixture
def nodes() -> Generator[list[Node]]:
    with servers("cluster.conf", 3) as running:
        yield running


@pytest.fixture
async def bus(nodes: list[Node]) -> AsyncGenerator[Bus]:
    settings = settings_for(nodes, "stereospot", replicas=3)
    bus = await Bus.connect(settings, name="stereospot-test-1")

    async def provisioned() -> bool:
        try:
            await broker.provision(bus, settings)
        except errors.StereoSpotError:
            return False  # no meta leader yet, or not all three have met
        return True

    await eventually(provisioned, seconds=60, every=0.5)
    yield bus
    await bus.drain()


async def leader_of(bus: Bus, stream: str, nodes: list[Node]) -> Node:
    cluster = (await bus.stream_info(stream))["cluster"]
    assert len(cluster["replicas"]) == 2
    return nodes[int(cluster["leader"].removeprefix("node"))]


async def test_who_does_not_speak_of_replicas_leaves_them(bus: Bus, nodes: list[Node]) -> None:
    """A pool that is provisioned later, or `doctor --repair`, does not make three copies one."""
    quiet = settings_for(nodes, "stereospot", pool="studio")
    await broker.provision(bus, quiet)
    assert not (await broker.provision(bus, quiet)).changed
    assert (await bus.stream_info("CONVERT"))["config"]["num_replicas"] == 3


async def complete(bus: Bus, index: int) -> None:
    """Add one bit; whoever completes the set writes the trigger in the same commit."""
    bucket = bus.bucket(subjects.STATE)
    key = subjects.state_key("a", 1)
    while True:
        entry = await bucket.get(key)
        before = completion.decode(entry.value) if entry else Completion(job_id="a", generation=1, total=SEGMENTS)
        after = before.with_done(index, "init")
        if after is before:
            return
        writes = [Write(subjects.STATE, key, completion.encode(after), entry.revision if entry else 0)]
        if after.is_complete:
            trigger = Trigger(job_id="a", generation=1, total=SEGMENTS)
            writes.append(Write(subjects.STATE, subjects.trigger_key("a", 1), trigger.body(), 0))
        try:
            await bus.commit(writes)
        except Conflict:
            await asyncio.sleep(0.002)
            continue
        return


@pytest.mark.parametrize("stream", ["CONVERT", "KV_state", "DONE"])
async def test_a_leader_is_killed_and_nothing_is_lost(bus: Bus, nodes: list[Node], stream: str, tell: Tell) -> None:
    triggers: list[int] = []
    begun: list[int] = []
    victim, killed, recovery = nodes[0], 0.0, 0.0

    async def follow() -> None:
        async with bus.tail("KV_state", "$KV.state.trigger.>", start="all") as tail:
            async for message in tail:
                triggers.append(message.sequence)

    async def convert(delivery: Delivery) -> Outcome:
        task = delivery.parse(SegmentTask)
        begun.append(task.index)
        await asyncio.sleep(0.01)
        subject = subjects.done_segment("a", 1, task.index)
        await bus.publish(subject, b"{}", msg_id=subject)
        return Ack()

    async def collect(delivery: Delivery) -> Outcome:
        done = subjects.parse_done(delivery.subject)
        assert done is not None
        assert isinstance(done.what, int)
        await complete(bus, done.what)
        return Ack()

    lanes = [subjects.convert_consumer("cpu", lane) for lane in subjects.LANES]
    converter = Actor(bus, subjects.CONVERT, lanes, convert, name="converter", slots=4, max_attempts=None)
    collector = Actor(bus, subjects.DONE, "collector", collect, name="collector", slots=4, max_attempts=None)
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        group.create_task(converter.run())
        group.create_task(collector.run())
        for index in range(SEGMENTS):
            task = SegmentTask(job_id="a", generation=1, attempt=1, index=index, part=0)
            subject = subjects.convert("cpu", "normal", "a", 1, index)
            await bus.publish(subject, task, msg_id=subject)
            if index == SEGMENTS // 3:
                victim = await leader_of(bus, stream, nodes)
                victim.kill()
                killed = time.monotonic()
        await eventually(lambda: bool(triggers), seconds=90)
        recovery = time.monotonic() - killed
        victim.restart()
        converter.stop()
        collector.stop()
        follower.cancel()
    entry = await bus.bucket(subjects.STATE).get(subjects.state_key("a", 1))
    assert entry is not None
    count = completion.decode(entry.value).count
    extra = len(begun) - len(set(begun))
    tell(
        "F13 leader of three killed", jobs=1, lost=SEGMENTS - count, duplicated=len(triggers) - 1, extra=extra,
        recovery=recovery,
    )  # fmt: skip
    assert count == SEGMENTS
    info = await bus.stream_info("KV_state", subjects_filter=">")
    assert info["state"]["subjects"] == {"$KV.state.state.a.1": 1, "$KV.state.trigger.a.1": 1}
    assert len(triggers) == 1
