"""Actors beside a test: run and stopped with it, on the queue of plans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from stereospot import subjects
from stereospot.actor import Actor
from stereospot.bus import Bus, Delivery
from stereospot.messages import DeadLetter, PlanWork
from stereospot.outcome import Outcome

PLAN = "work-plan"


@asynccontextmanager
async def running(*actors: Actor) -> AsyncGenerator[None]:
    """Run actors beside the test; stopped at its end, and their end is waited for."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for actor in actors:
            group.create_task(actor.run())
        try:
            yield
        finally:
            for actor in actors:
                actor.stop()


def plan_actor(bus: Bus, handler: Callable[[Delivery], Awaitable[Outcome]], **options: object) -> Actor:
    defaults: dict[str, object] = {"name": "test", "slots": 2, "ack_wait": 3.0, "backoff_seconds": 0.05}
    return Actor(bus, subjects.WORK, PLAN, handler, **{**defaults, **options})  # type: ignore[arg-type]


async def submit(bus: Bus, *job_ids: str) -> None:
    for job_id in job_ids:
        await bus.publish(subjects.work("plan", job_id), PlanWork(job_id=job_id, generation=1))


async def shorten(bus: Bus, stream: str, consumer: str, **changes: object) -> None:
    """Shorter times than the shipped ones."""
    config = (await bus.consumer_info(stream, consumer))["config"]
    await bus.api(f"CONSUMER.CREATE.{stream}.{consumer}", {"stream_name": stream, "config": {**config, **changes}})


def empty(bus: Bus, stream: str = subjects.WORK) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await bus.stream_info(stream))["state"]["messages"] == 0

    return check


async def letters(bus: Bus) -> list[DeadLetter]:
    stored = await bus.last_per_subject(subjects.DEAD, ">")
    return [DeadLetter.model_validate_json(item.data) for item in stored]


async def waiting_plan(bus: Bus) -> bool:
    return bool((await bus.consumer_info(subjects.WORK, PLAN))["num_waiting"])
