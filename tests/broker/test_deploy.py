"""The shipped server configurations: each service can do its work with its rights, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest

from services import operations
from stereospot import broker, errors, records, subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Delivery, Write
from stereospot.jobs import Job, Phase
from stereospot.messages import Failure, SourceRef
from stereospot.outcome import Ack, Outcome, Reject
from tests.broker.shipped import ROLES, Node, servers, settings_for
from tests.support import eventually


@pytest.fixture(scope="module")
def node() -> Iterator[list[Node]]:
    with servers("single.conf", 1) as running:
        yield running


@asynccontextmanager
async def connected(node: list[Node], role: str) -> AsyncGenerator[Bus]:
    bus = await Bus.connect(settings_for(node, role), name=f"{role}-host-1")
    try:
        yield bus
    finally:
        await bus.drain()


@pytest.fixture
async def operator(node: list[Node]) -> AsyncGenerator[Bus]:
    async with connected(node, "stereospot") as bus:
        await broker.provision(bus, settings_for(node, "stereospot"))
        for stream in ("WORK", "CONVERT", "DONE", "DEAD", "EVENT", "KV_state", "KV_jobs"):
            await bus.purge(stream)
        yield bus


def a_job(job_id: str = "a") -> Job:
    now = time.time()
    return Job(job_id=job_id, created_at=now, updated_at=now, source=SourceRef(key="input/a/source.mp4"))


@pytest.mark.parametrize(
    ("role", "stream", "consumer", "subject", "kind"),
    [
        ("planner", subjects.WORK, "work-plan", "stereospot.work.plan.a", "work-plan"),
        ("audio", subjects.WORK, "work-audio", "stereospot.work.audio.a.1", "work-audio"),
        ("analyse", subjects.WORK, "work-analyse", "stereospot.work.analyse.a.1.-1", "work-analyse"),
        ("converter", subjects.CONVERT, "convert-cpu-now", "stereospot.convert.cpu.now.a.1.0", "convert"),
        ("collector", subjects.DONE, "collector", "stereospot.done.a.1.0", "done"),
        ("assembler", "KV_state", "assembler", "$KV.state.trigger.a.1", "trigger"),
    ],
)
async def test_a_service_fetches_acknowledges_and_buries_what_is_its_own(
    node: list[Node], operator: Bus, role: str, stream: str, consumer: str, subject: str, kind: str
) -> None:
    outcomes: list[Outcome] = [Ack(), Reject(Failure.of(errors.error("CORRUPT_INPUT")))]

    async def handle(delivery: Delivery) -> Outcome:
        return outcomes.pop(0)

    async with connected(node, role) as bus, asyncio.timeout(5), asyncio.TaskGroup() as group:
        actor = Actor(bus, stream, consumer, handler=handle, name=role)
        group.create_task(actor.run())
        await operator.publish(subject, b'{"job_id": "a"}')
        await eventually(lambda: len(outcomes) == 1)  # a bucket keeps one message a subject
        await operator.publish(subject, b'{"job_id": "b"}')

        async def settled() -> bool:
            info = await operator.consumer_info(stream, consumer)
            return not outcomes and info["num_ack_pending"] == 0

        await eventually(settled)
        actor.stop()
    letters = await operator.last_per_subject(subjects.DEAD, f"stereospot.dead.{kind}.>")
    assert len(letters) == 1


@pytest.mark.parametrize("role", ["planner", "audio", "analyse", "converter", "assembler", "janitor", "gateway"])
async def test_services_that_change_jobs_can(node: list[Node], operator: Bus, role: str) -> None:
    await records.create_job(operator, a_job())
    async with connected(node, role) as bus:
        changed = await records.change_job(bus, "a", lambda job: job.model_copy(update={"title": role}))
        assert changed.title == role
        await bus.publish(subjects.event_job("a", "changed"), b"{}", patience_seconds=1)


async def test_the_janitor_deletes_samples_whose_time_is_over(node: list[Node], operator: Bus) -> None:
    await records.create_job(operator, a_job())
    async with connected(node, "janitor") as bus:
        assert (await operations.delete(bus, "a")).phase is Phase.DELETED
    assert await operator.last(subjects.WORK, subjects.work("delete", "a")) is not None


async def test_the_collector_commits_dispatches_and_follows(node: list[Node], operator: Bus) -> None:
    async with connected(node, "collector") as bus:
        pair = [Write("state", f"{kind}.a.1", b"{}", 0) for kind in ("state", "trigger")]
        await bus.commit(pair)
        await bus.publish(subjects.convert("cpu", "now", "a", 1, 0), b"{}", patience_seconds=1)
        await bus.publish(subjects.work("analyse", "a", 1, -1), b"{}", patience_seconds=1)
        for bucket in (subjects.JOBS, subjects.STATE, subjects.WORKERS):
            async with bus.tail(subjects.kv_stream(bucket), start="last"):
                pass


async def test_the_gateway_reads_follows_and_hands_in(node: list[Node], operator: Bus) -> None:
    async with connected(node, "gateway") as bus:
        await bus.publish(subjects.work("plan", "a"), b"{}", patience_seconds=1)
        await bus.bucket(subjects.IDEMPOTENCY).create("k", b"{}")
        await bus.last_per_subject(subjects.DEAD, ">")
        await bus.purge(subjects.CONVERT, subjects.convert_filter(job_id="a"))
        async with bus.tail(subjects.EVENT, "stereospot.event.job.>") as tail:
            await operator.publish(subjects.event_job("a", "created"), b"1")
            assert (await asyncio.wait_for(anext(tail), 2)).data == b"1"


async def test_a_submitter_hands_in_and_listens(node: list[Node], operator: Bus) -> None:
    async with connected(node, "submitter") as bus:
        heard = asyncio.Event()

        async def on_event(message: object) -> None:
            heard.set()

        await bus.subscribe("stereospot.event.job.>", on_event)
        await bus.publish("stereospot.work.submit.a", b"{}", patience_seconds=1)
        await operator.publish(subjects.event_job("a", "created"), b"1")
        await asyncio.wait_for(heard.wait(), 2)


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("converter", "stereospot.work.delete.a"),
        ("converter", "stereospot.convert.cpu.now.a.1.0"),
        ("converter", "$KV.state.trigger.a.1"),
        ("converter", "$KV.keys.a"),
        ("converter", "stereospot.dead.work-plan.a"),
        ("planner", "$KV.state.state.a.1"),
        ("audio", "stereospot.done.a.1.0"),
        ("analyse", "stereospot.done.a.1.0"),
        ("assembler", "stereospot.done.a.1.0"),
        ("submitter", "stereospot.work.plan.a"),
        ("viewer", "stereospot.event.job.a.created"),
        ("gateway", "$KV.state.trigger.a.1"),
    ],
)
async def test_nobody_writes_what_is_not_theirs(node: list[Node], operator: Bus, role: str, subject: str) -> None:
    async with connected(node, role) as bus:
        started = time.monotonic()
        with pytest.raises(errors.Misconfigured) as raised:
            await bus.publish(subject, b"{}")
        assert raised.value.code == "BROKER_FORBIDDEN"
        assert raised.value.detail == subject
        assert time.monotonic() - started < 2
    for stream in ("WORK", "CONVERT", "DONE", "DEAD", "EVENT", "KV_state", "KV_keys"):
        assert (await operator.stream_info(stream))["state"]["messages"] == 0


@pytest.mark.parametrize("role", [role for role in ROLES if role != "stereospot"])
async def test_nobody_but_the_operator_touches_streams(node: list[Node], operator: Bus, role: str) -> None:
    async with connected(node, role) as bus:
        for path in ("STREAM.DELETE.KV_keys", "STREAM.PURGE.WORK", "CONSUMER.DELETE.WORK.work-plan"):
            with pytest.raises(errors.Misconfigured, match=path.split(".")[0]):
                await bus.api(path)
        with pytest.raises(errors.Misconfigured):
            await bus.api("STREAM.UPDATE.EVENT", {"name": "EVENT"})
    assert "KV_keys" in (await operator.api("STREAM.NAMES"))["streams"]


async def test_a_wrong_password_is_refused_and_not_shown(node: list[Node]) -> None:
    settings = settings_for(node, "converter").model_copy(
        update={"nats_url": f"nats://converter:hunter2@127.0.0.1:{node[0].port}"}
    )
    started = time.monotonic()
    with pytest.raises(errors.Misconfigured, match="password") as raised:
        await Bus.connect(settings, name="converter-host-1")
    assert time.monotonic() - started < 2
    assert raised.value.code == "BROKER_FORBIDDEN"
    assert "hunter2" not in str(raised.value)
