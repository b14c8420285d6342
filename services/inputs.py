"""Who reads which input: several jobs may share one, and it stays as long as any of them has a record.

A job's own input lies under its id. A job that reads another's (samples, the same film with other settings, an upload
with depth in it, what somebody has put below `input/` by hand) leaves a mark beside it before it is recorded, and takes
it away when it is deleted.
"""

from __future__ import annotations

import time

from stereospot import errors, keys, records, subjects
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.storage.base import ObjectStore

FRESH_SECONDS = 300.0
"""A mark is left before its job is recorded, which takes moments: one so young counts without a record, too. Where that
job never came to be the janitor removes the input a day later."""


def foreign(job: Job) -> list[str]:
    """The keys of the marks that a job leaves beside inputs that are not its own.

    Any key below `input/` may be one: a folder is removed as nobody's whatever its files are called. What lies in none
    is never removed.
    """
    read = [source.key for source in (job.source, job.depth) if source is not None and source.key is not None]
    folders = [parts[1] for parts in (key.split("/") for key in read) if parts[0] == "input" and len(parts) > 2]
    return [keys.input_use(folder, job.job_id) for folder in folders if folder != job.job_id]


async def is_used(bus: Bus, store: ObjectStore, input_id: str) -> bool:
    """Whether a job other than the one with this id reads the input: one with a record, or about to have one, or whose
    record was lost."""
    async for item in store.list(f"{keys.input_prefix(input_id)}used-by/"):
        # By its last part alone: a folder that somebody has made may be called what no job can be.
        job_id = item.key.rpartition("/")[2]
        if not subjects.is_token(job_id):
            continue
        try:
            found = await records.get_job(bus, job_id)
        except errors.Misconfigured:
            return True  # also a record of a newer version is one
        is_coming = found is None and item.modified > time.time() - FRESH_SECONDS
        if is_coming or (found is not None and found[0].phase is not Phase.DELETED):
            return True
        if found is None and await is_lost(bus, store, job_id):
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
