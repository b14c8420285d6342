"""Who reads which input: several jobs may share one, and it stays as long as any of them has a record.

A job's own input lies under its id. A job that reads another's (samples, the same film with other settings, an upload
with depth in it) leaves a mark beside it before it is recorded, and takes it away when it is deleted.
"""

from __future__ import annotations

import time

from stereospot import errors, keys, records
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.storage.base import ObjectStore

FRESH_SECONDS = 300.0
"""A mark is left before its job is recorded, which takes moments: one so young counts without a record, too. Where that
job never came to be the janitor removes the input a day later."""


def foreign(job: Job) -> list[str]:
    """The keys of the marks that a job leaves beside inputs that are not its own."""
    read = [source.key for source in (job.source, job.depth) if source is not None and source.key is not None]
    parsed = [keys.parse_source(key) for key in read]
    return [
        keys.input_use(item.job_id, job.job_id) for item in parsed if item is not None and item.job_id != job.job_id
    ]


async def is_used(bus: Bus, store: ObjectStore, input_id: str) -> bool:
    """Whether a job other than the one with this id reads the input: one with a record, or about to have one, or whose
    record was lost."""
    async for item in store.list(f"{keys.input_prefix(input_id)}used-by/"):
        mark = keys.parse_input_use(item.key)
        if mark is None:
            continue
        try:
            found = await records.get_job(bus, mark[1])
        except errors.Misconfigured:
            return True  # also a record of a newer version is one
        is_coming = found is None and item.modified > time.time() - FRESH_SECONDS
        if is_coming or (found is not None and found[0].phase is not Phase.DELETED):
            return True
        if found is None and await is_lost(bus, store, mark[1]):
            return True
    return False


async def is_lost(bus: Bus, store: ObjectStore, job_id: str) -> bool:
    """Whether a job was never deleted and has objects, but no record: the broker's store was lost, or is an older one.

    A deleted job leaves a marker in place of its record.
    """
    if await records.is_taken(bus, job_id):
        return False
    async for _ in store.list(keys.job_prefix(job_id)):
        return True
    return False
