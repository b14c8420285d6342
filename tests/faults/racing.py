"""What the tests of races share: services at work around a block, completions as workers say them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from services.context import Context
from stereospot import subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Delivery
from stereospot.messages import (
    SegmentDone,
    SegmentTask,
    Trigger,
)
from tests.faults import history

INIT = "a" * 64


@asynccontextmanager
async def acting(actor: Actor) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(actor.run())
        try:
            yield
        finally:
            actor.stop()


async def say(bus: Bus, index: int, salt: object = "", *, job_id: str = "J1") -> None:
    """A segment of generation 1 is done, as a worker says it."""
    done = SegmentDone(
        job_id=job_id, generation=1, index=index, frames=24, init_sha256=INIT, size_bytes=1, worker_id="w", seconds=1
    )
    subject = subjects.done_segment(job_id, 1, index)
    await bus.publish(subject, done, msg_id=f"{subject}.{salt}")


async def drained(context: Context, stream: str = subjects.DONE) -> bool:
    return (await context.bus.stream_info(stream))["state"]["messages"] == 0


async def triggers(context: Context) -> int:
    """Triggers that were ever written; every revision is kept."""
    return len((await history.read(context)).triggers)


def task(index: int, *, delivered: int = 1) -> Delivery:
    body = SegmentTask(job_id="J1", generation=1, attempt=1, index=index, part=0)
    return Delivery(subject=f"stereospot.convert.cpu.normal.J1.1.{index}", data=body.body(), attempt=delivered)


def trigger_delivery(*, delivered: int = 1) -> Delivery:
    body = Trigger(job_id="J1", generation=1, total=2)
    return Delivery(subject="$KV.state.trigger.J1.1", data=body.body(), attempt=delivered)
