"""A plan in storage: the head before the first segment is dispatched, its parts as the scan passes, the total last.

    plan.json ─> plan/000000.json, plan/000001.json, … ─> plan/total.json

All of it is written once a generation, with equal bytes if a crash makes the planner write it again, so readers cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

from stereospot import keys
from stereospot.media.model import ClockReset, Plan, PlanPart, PlanTotal, Segment
from stereospot.storage.base import ObjectStore

ModelT = TypeVar("ModelT", bound=BaseModel)

CACHED = 256
"""Objects that one reader keeps: a head and the parts at work of some dozens of jobs."""


async def write_head(store: ObjectStore, plan: Plan) -> None:
    await store.put(keys.plan(plan.job_id, plan.generation), plan.model_dump_json().encode())


async def write_part(
    store: ObjectStore,
    job_id: str,
    generation: int,
    segments: Sequence[Segment],
    *,
    resets: Sequence[ClockReset] = (),
    read: int | None = None,
) -> PlanPart:
    """Store consecutive segments as one part, named by its first index."""
    part = PlanPart(first=segments[0].index, segments=tuple(segments), resets=tuple(resets), read=read)
    await store.put(keys.plan_part(job_id, generation, part.first), part.model_dump_json().encode())
    return part


async def write_total(store: ObjectStore, job_id: str, generation: int, total: PlanTotal) -> None:
    await store.put(keys.plan_total(job_id, generation), total.model_dump_json().encode())


class Plans:
    """Cached reads of plans; None means "not stored (yet)", and is not remembered."""

    def __init__(self, store: ObjectStore, cached: int = CACHED) -> None:
        self._store = store
        self._cached = cached
        self._known: OrderedDict[str, BaseModel] = OrderedDict()

    async def head(self, job_id: str, generation: int) -> Plan | None:
        return await self._read(keys.plan(job_id, generation), Plan)

    async def part(self, job_id: str, generation: int, first: int) -> PlanPart | None:
        return await self._read(keys.plan_part(job_id, generation, first), PlanPart)

    async def total(self, job_id: str, generation: int) -> PlanTotal | None:
        return await self._read(keys.plan_total(job_id, generation), PlanTotal)

    async def segment(self, job_id: str, generation: int, index: int, part: int) -> Segment | None:
        """Segment `index`, which the part that starts at `part` holds."""
        found = await self.part(job_id, generation, part)
        if found is None or not 0 <= index - found.first < len(found.segments):
            return None
        return found.segments[index - found.first]

    async def segments(self, job_id: str, generation: int, total: PlanTotal) -> list[Segment] | None:
        """All segments of a whole plan, in order; None if one of its parts is missing."""
        result: list[Segment] = []
        for first in total.parts:
            found = await self.part(job_id, generation, first)
            if found is None:
                return None
            result.extend(found.segments)
        return result if len(result) == total.segments else None

    async def _read(self, key: str, model: type[ModelT]) -> ModelT | None:
        known = self._known.get(key)
        if isinstance(known, model):
            self._known.move_to_end(key)
            return known
        body = await self._store.get(key)
        if body is None:
            return None
        value = model.model_validate_json(body)
        self._known[key] = value
        while len(self._known) > self._cached:
            self._known.popitem(last=False)
        return value
