"""Event streams: snapshots of what is, not histories of what was, so that a client that was away misses nothing.

Each event has an id made of the revisions that it shows. A client that reconnects with `Last-Event-ID` gets the present
state at once, unless that is what it saw last. Changes are gathered for a moment, so a client gets at most a few events
a second, and one JSON text serves all clients. A comment every 15 s keeps proxies and dead peers apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from services.gateway.feed import GATHER_SECONDS, RETRY_MILLISECONDS, Feed
from services.gateway.segments import recall
from services.gateway.snapshots import Snapshots, event
from services.gateway.state import Gateway, Given
from stereospot import errors
from stereospot.jobs import Phase

KEEPALIVE_SECONDS = 15.0

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Content-Type": "text/event-stream; charset=utf-8",
}

FINISHED = (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.DELETED)


GivenSnapshots = NamedDependency[Snapshots]
GivenFeed = NamedDependency[Feed]


async def job_stream(gateway: Gateway, snapshots: Snapshots, job_id: str, last_id: str | None) -> AsyncGenerator[bytes]:
    """One job's states until it is finished; as plain `message` events, which older clients listen to."""
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    with gateway.index.watch(job_id) as watch, gateway.metrics.sse_clients.track_inprogress():
        while not gateway.stopping.is_set():
            found = await snapshots.get(job_id)
            if found is None:
                yield b'event: gone\ndata: {"status":"deleted"}\n\n'
                return
            identity, data, row = found
            if identity != last_id:
                last_id = identity
                yield event("message", identity, data)
            if row.job.phase in FINISHED:
                yield b"event: end\ndata: {}\n\n"
                return
            if await watch.wait(KEEPALIVE_SECONDS):
                await asyncio.sleep(GATHER_SECONDS)
            elif not gateway.stopping.is_set():
                yield b": keepalive\n\n"


async def all_stream(gateway: Gateway, feed: Feed) -> AsyncGenerator[bytes]:
    """Every change of every job, and the counts of phases; a client reads the list itself at each `open`."""
    with gateway.metrics.sse_clients.track_inprogress():
        async for text in feed.texts():
            yield text


def _answer(request: Request[Any, Any, Any], body: AsyncGenerator[bytes]) -> Stream:
    return Stream(_empty() if request.scope.get("stereospot_head") else body, headers=HEADERS)


async def _empty() -> AsyncGenerator[bytes]:
    return
    yield b""


@get("/jobs/{job_id:str}/events", media_type="text/event-stream")
async def job_events(
    request: Request[Any, Any, Any], gateway: Given, snapshots: GivenSnapshots, job_id: FromPath[str]
) -> Stream:
    """A job's snapshots as Server-Sent Events, with `progress_percent` and `stage_label`."""
    row = await gateway.index.row(job_id)
    if row is None or row.job.phase is Phase.DELETED:
        raise errors.error("NOT_FOUND", f"There is no job {job_id[:64]}.")
    await recall(gateway, row.job)
    return _answer(request, job_stream(gateway, snapshots, job_id, request.headers.get("last-event-id")))


@get("/api/v1/jobs/{job_id:str}/events", media_type="text/event-stream")
async def job_events_v1(
    request: Request[Any, Any, Any], gateway: Given, snapshots: GivenSnapshots, job_id: FromPath[str]
) -> Stream:
    """The same as `/jobs/{job_id}/events`."""
    return await job_events.fn(request, gateway, snapshots, job_id)


@get("/api/v1/events", media_type="text/event-stream")
async def events(request: Request[Any, Any, Any], gateway: Given, feed: GivenFeed) -> Stream:
    """Snapshots of every job that changes (`job`), of what was deleted (`deleted`), and counts (`counts`)."""
    return _answer(request, all_stream(gateway, feed))


HANDLERS = (job_events, job_events_v1, events)
