"""The service as the API and the pages show it: who works, how much there is, what this version can do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import stereospot
from services.gateway import resources, tus
from services.gateway.state import Gateway
from services.gateway.table import VISIBLE
from stereospot.jobs import Phase
from stereospot.messages import Worker
from stereospot.options import ENGINES, Codec, Layout
from stereospot.settings import Settings


async def crew(gateway: Gateway) -> list[dict[str, Any]]:
    """Converters that were heard of in the last seconds, each with the films that it is at."""
    index, now = gateway.index, time.time()
    found: list[dict[str, Any]] = []
    for card in index.workers():
        tasks = index.crew.at_work(card)
        rows = [await index.known(task.job_id) for task in tasks]
        titles = [row.job.title if row is not None else "" for row in rows]
        found.append(resources.worker(card, now, list(zip(tasks, titles, strict=True))))
    return found


async def numbers(gateway: Gateway) -> dict[str, Any]:
    """What `/stats` of the pipeline seed tells, from the index."""
    counts = await gateway.index.counts("all")
    letters = await gateway.context.bus.stream_info("DEAD")
    page = await gateway.index.page((Phase.COMPLETED,), kind="all", limit=200)
    recent = [row for row in page.rows if row.job.updated_at > time.time() - 600]
    queued = resources.public_counts(counts)
    return {
        "queue_depth": queued["queued"] + queued["processing"],
        "dlq_depth": int(letters["state"]["messages"]),
        "total_jobs": sum(counts.get(phase, 0) for phase in VISIBLE),
        "jobs_by_status": queued,
        "processing_rate_per_minute": round(len(recent) / 10, 2),
        "workers": len(gateway.index.workers()),
    }


def abilities(settings: Settings, workers: Sequence[Worker]) -> dict[str, Any]:
    """What a gateway with these settings can do, with these converters behind it. Pure."""
    return {
        "version": stereospot.__version__,
        "layouts": [item.value for item in Layout],
        "codecs": [item.value for item in Codec],
        "engines": list(ENGINES),
        "engines_present": sorted({name for item in workers for name in item.engines}),
        "containers": ["mp4", "mov", "mkv"],
        "max_upload_bytes": settings.max_upload_bytes,
        "max_pixels": settings.max_pixels,
        "max_duration_seconds": settings.max_duration_seconds if math.isfinite(settings.max_duration_seconds) else None,
        "uploads": {
            "tus": {"version": tus.VERSION, "extensions": tus.EXTENSIONS.split(","), "checksums": list(tus.ALGORITHMS)},
            "direct": settings.storage == "s3",
        },
        "inputs": ["upload", *(["path"] if settings.roots else [])],
    }
