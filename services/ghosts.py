"""Messages of a work queue that their consumer counts as settled and that lie there all the same: nobody gets them.

    queue ── next message below what its consumer has settled ─> Ghost ─> offered once more [, or not wanted], removed

A broker whose newest block was torn, or a backup that is older than its consumers, brings such back; in a running one
there are none, since the acknowledgement is the removal. Whether it was handled cannot be told from outside: it is
offered again under a new id, as everything may be that is delivered at least once, and handlers find what is done. A
submission whose job is there, or was deleted, is only removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stereospot import letters, records, subjects
from stereospot.bus import Bus, Delivery, Refused

QUEUES = (subjects.WORK, subjects.CONVERT, subjects.DONE)

LOOKED_AT = 1000
"""Messages below the highest floor of a queue that are looked at; those of a consumer that lags are among them."""

APART_SECONDS = 1.0
"""Between two looks; a removal follows its acknowledgement within milliseconds."""


@dataclass(frozen=True, slots=True)
class Ghost:
    """One message, and where it lies."""

    stream: str
    sequence: int
    subject: str
    data: bytes


async def find(bus: Bus) -> list[Ghost]:
    """Every ghost of the work queues, oldest first in each.

    Looked for twice: a message whose removal was under way at the first look is gone at the second.
    """
    first = await _look(bus)
    if not first:
        return first
    await asyncio.sleep(APART_SECONDS)
    second = set(await _look(bus))
    return [ghost for ghost in first if ghost in second]


async def _look(bus: Bus) -> list[Ghost]:
    found: list[Ghost] = []
    for stream in QUEUES:
        try:
            found += await _of(bus, stream)
        except Refused:
            continue  # no such stream: that is another check's finding
    return found


async def _of(bus: Bus, stream: str) -> list[Ghost]:
    floors = [(subjects.filters_of(item["config"]), _settled(item)) for item in await bus.consumers(stream)]
    highest = max((floor for _, floor in floors), default=0)
    found: list[Ghost] = []
    sequence = int((await bus.stream_info(stream))["state"]["first_seq"])
    for _ in range(LOOKED_AT):
        item = await bus.after(stream, sequence) if sequence <= highest else None
        if item is None or item.sequence > highest:
            break
        sequence = item.sequence + 1
        taken = (floor for filters, floor in floors if any(subjects.matches(item.subject, one) for one in filters))
        floor = next(taken, 0)
        # Floors were asked for first: what is settled after that is not taken for one.
        if item.sequence <= floor:
            found.append(Ghost(stream, item.sequence, item.subject, item.data))
    return found


async def lay(bus: Bus, ghost: Ghost) -> str:
    """Offer it again where that may matter, then remove it; returns what was done."""
    offered = await _is_wanted(bus, ghost)
    if offered:
        # The id outlives a repair that is cut short: the next one does not offer the same message twice.
        await bus.publish(ghost.subject, ghost.data, msg_id=f"ghost.{ghost.stream}.{ghost.sequence}")
    await bus.remove(ghost.stream, ghost.sequence)
    return "offered once more" if offered else "removed"


async def _is_wanted(bus: Bus, ghost: Ghost) -> bool:
    told = Delivery(ghost.subject, ghost.data, stream=ghost.stream, stream_sequence=ghost.sequence)
    if await letters.find(bus, told) is not None:
        return False  # its letter is what is left of it
    tokens = ghost.subject.split(".")
    if ghost.stream != subjects.WORK or tokens[2] not in ("submit", "ingest"):
        return True
    return not await records.is_taken(bus, tokens[3])


def _settled(consumer: Mapping[str, Any]) -> int:
    """The sequence up to which a consumer gives nothing out any more."""
    where = "ack_floor" if consumer["num_ack_pending"] else "delivered"
    return int(consumer[where]["stream_seq"])
