"""Segments that a completion set counts and the storage does not hold: found, and taken out of the set.

    state.<job>.<gen> ─> what it counts, against jobs/<job>/<gen>/segments/ ─> what is missing is counted no more

What is counted no more is dispatched like what was never made. Nothing in storage is touched, so what was only out of
sight (a folder that was not mounted) is found by the converter that gets it, and told once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from services import reports
from services.context import Context
from stereospot import completion, errors, keys, log, records, subjects
from stereospot.bus import Conflict
from stereospot.completion import Completion
from stereospot.messages import SegmentDone
from stereospot.storage.base import ObjectStore

_log = log.get("lost")

TURNS = 16
"""Other writers of the set are the collectors; nobody loses to them more often than a few times."""


async def stored_reports(store: ObjectStore, job_id: str, generation: int) -> dict[int, SegmentDone]:
    """The completion of every segment whose report is stored, and all that this vouches for."""
    sizes: dict[str, int] = {}
    named: list[int] = []
    async for item in store.list(keys.segments_prefix(job_id, generation)):
        sizes[item.key] = item.size
        if place := keys.parse_segment(item.key.removesuffix(".json") + ".m4s"):
            named.append(place.index)
    reading = asyncio.Semaphore(reports.READING)

    async def one(index: int) -> reports.Report | None:
        async with reading:
            return await reports.read(store, job_id, generation, index)

    found = await asyncio.gather(*(one(index) for index in named))
    return {
        index: report.done
        for index, report in zip(named, found, strict=True)
        if report is not None and reports.sizes(report, job_id, generation).items() <= sizes.items()
    }


async def missing(store: ObjectStore, state: Completion, there: Collection[int]) -> list[int]:
    """Segments that have to be made again, ascending, so that all that the set counts is stored.

    there: those of `stored_reports`, read after the set. A header that is gone costs one segment: whoever makes that
    stores the header, too.
    """
    found = [
        index
        for index in completion.bits(state.done)
        if index not in there and await reports.stored(store, state.job_id, state.generation, index) is None
    ]
    if not found and state.done and state.init is not None:
        header = await store.head(keys.init(state.job_id, state.generation, state.init))
        found = [] if header is not None else [next(completion.bits(state.done))]
    return found


async def forget(context: Context, job_id: str, generation: int) -> list[int]:
    """Take out of a set what the storage does not hold; returns what that was. No-op where there is no such set.

    Raises BROKER_UNAVAILABLE where others write the set all the time, and what storage and broker raise.
    """
    bucket = context.bus.bucket(subjects.STATE)
    for _ in range(TURNS):
        # The set first, the storage after it: what is counted was stored before.
        found = await records.get_state(context.bus, job_id, generation)
        if found is None:
            return []
        state, revision = found
        gone = await missing(context.store, state, await stored_reports(context.store, job_id, generation))
        if not gone:
            return []
        mask = completion.bitmap_of(gone)
        left = state.done & ~mask
        # Where nothing is left, nothing holds anybody to the header that it had.
        init = state.init if left else None
        less = state.model_copy(update={"done": left, "sent": state.sent & ~mask, "init": init})
        try:
            await bucket.update(subjects.state_key(job_id, generation), less, revision)
        except Conflict:
            continue
        _log.warning("lost", action="mend", job_id=job_id, generation=generation, segments=gone[:20], count=len(gone))
        return gone
    raise errors.error("BROKER_UNAVAILABLE", f"The set of {job_id} changes faster than it can be mended.")
