"""`/livez`, `/readyz`, `/metrics`: what supervisors and Prometheus ask."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from litestar import Response, get

from services.gateway.metrics import CONTENT_TYPE
from services.gateway.state import Gateway, Given
from stereospot import errors, subjects
from stereospot.bus import Refused

STORE_CHECK_SECONDS = 10.0
"""How long a passed check of the store is good: probes come every few seconds from several sides."""


@get("/livez", media_type="text/plain", include_in_schema=False)
async def livez() -> str:
    """The loop turns."""
    return "ok\n"


@get("/readyz", include_in_schema=False)
async def readyz(gateway: Given) -> Response[dict[str, Any]]:
    """200 when the broker answers, the index has caught up and the store answers; else 503 with what is missing."""
    broker, store = await asyncio.gather(_broker(gateway), _store(gateway))
    checks = {
        "broker": broker,
        "index": "ok" if gateway.index.ready.is_set() else "reading",
        "store": store,
        "gateway": "stopping" if gateway.stopping.is_set() else "ok",
    }
    ready = all(value == "ok" for value in checks.values())
    headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": "1"})
    return Response({"ready": ready, "checks": checks}, status_code=200 if ready else 503, headers=headers)


@get("/metrics", include_in_schema=False)
async def metrics(gateway: Given) -> Response[bytes]:
    body = gateway.metrics.render(await gateway.index.counts("all"), gateway.index.ready.is_set())
    return Response(body, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


async def _broker(gateway: Gateway) -> str:
    if not gateway.context.bus.is_connected:
        return "not connected"
    try:
        async with asyncio.timeout(2):
            await gateway.context.bus.stream_info(subjects.kv_stream(subjects.JOBS))
    except (TimeoutError, errors.StereoSpotError, Refused) as problem:
        return str(problem) or "no answer"
    return "ok"


async def _store(gateway: Gateway) -> str:
    now = time.monotonic()
    if now < gateway.store_good_until:
        return "ok"
    try:
        async with asyncio.timeout(5):
            await gateway.context.store.head("jobs/readyz/probe")
    except (TimeoutError, errors.StereoSpotError) as problem:
        return str(problem) or "no answer"
    gateway.store_good_until = now + STORE_CHECK_SECONDS
    return "ok"


HANDLERS = (livez, readyz, metrics)
