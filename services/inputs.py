"""Who reads which input: several jobs may share one, and it stays as long as any of them has a record.

A job's own input lies under its id. A job that reads another's (samples, the same film with other settings, an upload
with depth in it) leaves a mark beside it before it is recorded, and takes it away when it is deleted.
"""

from __future__ import annotations

from stereospot import errors, keys, records
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.storage.base import ObjectStore


def foreign(job: Job) -> list[str]:
    """The keys of the marks that a job leaves beside inputs that are not its own."""
    read = [source.key for source in (job.source, job.depth) if source is not None and source.key is not None]
    parsed = [keys.parse_source(key) for key in read]
    return [
        keys.input_use(item.job_id, job.job_id) for item in parsed if item is not None and item.job_id != job.job_id
    ]


async def is_used(bus: Bus, store: ObjectStore, input_id: str) -> bool:
    """Whether a job with a record, other than the one with this id, reads the input."""
    async for item in store.list(f"{keys.input_prefix(input_id)}used-by/"):
        mark = keys.parse_input_use(item.key)
        try:
            found = await records.get_job(bus, mark[1]) if mark is not None else None
        except errors.Misconfigured:
            return True  # also a record of a newer version is one
        if found is not None and found[0].phase is not Phase.DELETED:
            return True
    return False
