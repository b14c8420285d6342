"""Is there room for what is about to be made? Asked before work starts, so a full disk pauses it and harms nothing.

STORAGE_FULL is transient: the work goes on by itself once there is room. A film that does not fit is given back
meanwhile, so that smaller ones pass it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

from services import operations
from services.watch import is_wanted
from stereospot import errors, keys, log
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.media.model import Plan, SourceInfo
from stereospot.messages import Failure
from stereospot.outcome import Return
from stereospot.storage.base import ObjectStore

_log = log.get("space")

RESERVE_BYTES = 64 << 20
"""What is left free in any case: the broker's store often lies on the same disk."""

REST_SECONDS = 30.0
"""How long a film that does not fit rests before it is looked at again."""

BITS_PER_PIXEL = 0.12
"""Of a film at CRF 20; measured films lie between 0.03 and 0.15."""

LOSSLESS_BITS_PER_PIXEL = 3.0


def film_bytes(info: SourceInfo, crf: int) -> int:
    """A cautious estimate of the film's size: pictures by area and quality, and the source's size for all else."""
    video = info.video
    seconds = info.duration_seconds or 0.0
    pixels = video.width * video.height * float(video.average_rate or 25) * seconds
    bits = LOSSLESS_BITS_PER_PIXEL if crf == 0 else BITS_PER_PIXEL * 2 ** ((20 - crf) / 6)
    return int(pixels * bits / 8) + min(info.size_bytes, 1 << 30)


async def check_store(store: ObjectStore, needed: int) -> None:
    """Raise STORAGE_FULL if the store knows that it has less than `needed` bytes free."""
    free = await store.free_bytes()
    if free is not None and free < needed + RESERVE_BYTES:
        raise errors.error("STORAGE_FULL", f"{needed >> 20} MiB are needed, {free >> 20} MiB are free.")


async def make_room(store: ObjectStore, job: Job, needed: int) -> None:
    """`check_store` for a film that is begun anew: what is left of its earlier generations goes first, if need be.

    Their segments and sound are nobody's any more, and would hold as much room as the new ones need. A film that was
    made of them stays until the new one is there.
    """
    try:
        await check_store(store, needed)
        return
    except errors.Transient as error:
        if error.code != "STORAGE_FULL" or job.generation == 1:
            raise
    removed = 0
    for generation in range(1, job.generation):
        for prefix in (keys.segments_prefix(job.job_id, generation), keys.audio_prefix(job.job_id, generation)):
            removed += await store.delete_prefix(prefix)
    _log.info("made room", action="mend", job_id=job.job_id, generation=job.generation, objects=removed)
    await check_store(store, needed)


async def check_folder(folder: Path, needed: int) -> None:
    """The same for a folder of this machine, which is made if it is not there."""

    def measure() -> int:
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free

    free = await asyncio.to_thread(measure)
    if free < needed + RESERVE_BYTES:
        raise errors.error("STORAGE_FULL", f"{needed >> 20} MiB of scratch are needed, {free >> 20} MiB are free.")


async def rest(bus: Bus, job: Job, error: errors.StereoSpotError, phases: Collection[Phase]) -> Return:
    """Say on a job in one of these phases that it waits for room, and give its message back: others need the slot."""
    failure = Failure.of(error)

    def wanted(found: Job) -> bool:
        return is_wanted(found, job.generation, phases, job.attempt)

    await operations.explain_wait(bus, job.job_id, failure, wanted, said="This job waits, others go on:")
    return Return(REST_SECONDS, reason=str(error), failure=failure)


def plan_bytes(plan: Plan) -> int:
    """What a whole job needs in the store: its fragments, and the film made from them."""
    return 2 * film_bytes(plan.source, plan.encode.crf)
