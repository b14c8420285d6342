"""Event streams: snapshots of what is, not histories of what was, so that a client that was away misses nothing.

Each event has an id made of the revisions that it shows. A client that reconnects with `Last-Event-ID` gets the present
state at once, unless that is what it saw last. Changes are gathered for a moment, so a client gets at most a few events
a second, and one JSON text serves all clients. A comment every 15 s keeps proxies and dead peers apart.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from services.gateway.resources import snapshot
from services.gateway.state import Gateway, Given
from services.gateway.table import Row
from stereospot import errors
from stereospot.jobs import Phase

KEEPALIVE_SECONDS = 15.0
GATHER_SECONDS = 0.2
RETRY_MILLISECONDS = 1000
CACHED = 512

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Content-Type": "text/event-stream; charset=utf-8",
}

FINISHED = (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.DELETED)


class Snapshots:
    """The JSON of each job's present state, made once for all who read it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known: OrderedDict[str, tuple[str, bytes]] = OrderedDict()

    async def get(self, job_id: str) -> tuple[str, bytes, Row] | None:
        """(event id, data, row) of a job that exists."""
        gateway = self._gateway
        row = await gateway.index.row(job_id)
        if row is None:
            return None
        live = gateway.index.live(job_id, row.job.generation)
        # Cells change without a revision: they are few, and only while the job runs.
        cells = "" if live is None else ",".join(f"{c.index}{c.state[1]}{c.attempt}" for c in live.cells.values())
        identity = f"{row.revision}-{live.revision if live else 0}-{hash(cells) & 0xFFFFFF:x}"
        known = self._known.get(job_id)
        if known is None or known[0] != identity:
            body = snapshot(row, live, gateway.token(row))
            known = identity, json.dumps(body, separators=(",", ":")).encode()
            self._known[job_id] = known
            while len(self._known) > CACHED:
                self._known.popitem(last=False)
        return *known, row


GivenSnapshots = NamedDependency[Snapshots]


def event(name: str, identity: str, data: bytes) -> bytes:
    """One event of the wire format; JSON has no line breaks."""
    return f"event: {name}\nid: {identity}\ndata: ".encode() + data + b"\n\n"


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


async def all_stream(gateway: Gateway, snapshots: Snapshots) -> AsyncGenerator[bytes]:
    """Every change of every job, and the counts of phases; a client reads the list itself when the stream (re)opens."""
    yield f"retry: {RETRY_MILLISECONDS}\nevent: open\ndata: {{}}\n\n".encode()
    counted = b""
    with gateway.index.watch() as watch, gateway.metrics.sse_clients.track_inprogress():
        while not gateway.stopping.is_set():
            counts = json.dumps(await gateway.index.counts()).encode()
            if counts != counted:
                counted = counts
                yield event("counts", "c", counts)
            dirty = await watch.wait(KEEPALIVE_SECONDS)
            if not dirty:
                yield b": keepalive\n\n"
                continue
            await asyncio.sleep(GATHER_SECONDS)
            for job_id in dirty:
                found = await snapshots.get(job_id)
                if found is None or found[2].job.phase is Phase.DELETED:
                    yield event("deleted", "d", json.dumps({"job_id": job_id}).encode())
                else:
                    yield event("job", found[0], found[1])


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
    return _answer(request, job_stream(gateway, snapshots, job_id, request.headers.get("last-event-id")))


@get("/api/v1/jobs/{job_id:str}/events", media_type="text/event-stream")
async def job_events_v1(
    request: Request[Any, Any, Any], gateway: Given, snapshots: GivenSnapshots, job_id: FromPath[str]
) -> Stream:
    """The same as `/jobs/{job_id}/events`."""
    return await job_events.fn(request, gateway, snapshots, job_id)


@get("/api/v1/events", media_type="text/event-stream")
async def events(request: Request[Any, Any, Any], gateway: Given, snapshots: GivenSnapshots) -> Stream:
    """Snapshots of every job that changes (`job`), of what was deleted (`deleted`), and counts (`counts`)."""
    return _answer(request, all_stream(gateway, snapshots))


HANDLERS = (job_events, job_events_v1, events)
