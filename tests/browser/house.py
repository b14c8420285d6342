"""A whole daemon whose converter goes only as far as a test lets it: what is played while it converts is then known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services import daemon
from services.context import Context
from stereospot import keys, records
from stereospot.settings import Settings

WHOLE = 10**9


@dataclass
class House:
    """The converter stores no segment that is not `allowed`; it waits with the segment in its hands."""

    context: Context
    allowed: Container[int] = range(WHOLE)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def allow(self, segments: int = WHOLE) -> None:
        """Let the first so many be stored."""
        await self.allow_only(range(segments))

    async def allow_only(self, segments: Container[int]) -> None:
        async with self.changed:
            self.allowed = segments
            self.changed.notify_all()

    async def turn(self, index: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: index in self.allowed)

    async def finished(self, job_id: str) -> bool:
        """Whether the job is at its end, which is to be a film."""
        found = await records.get_job(self.context.bus, job_id)
        assert found is not None
        assert found[0].is_active or found[0].film, found[0].failure
        return not found[0].is_active


@asynccontextmanager
async def opened(settings: Settings, services: frozenset[str] = daemon.ALL) -> AsyncGenerator[House]:
    """A daemon with these services, one segment at a time."""
    settings = settings.model_copy(update={"port": 0, "nats_port": 0, "slots": 1})
    async with daemon.running(settings, services) as context:
        house = House(context)
        put = context.store.put

        async def held(key: str, data: Any, *, if_absent: bool = False) -> bool:
            segment = keys.parse_segment(key)
            if segment is not None:
                await house.turn(segment.index)
            return await put(key, data, if_absent=if_absent)

        context.store.put = held
        try:
            yield house
        finally:
            await house.allow()
