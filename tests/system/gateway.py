"""A gateway for tests: served by uvicorn on a free port, over a real broker and a real store, with an HTTP client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.context import Context
from services.gateway.app import serve
from services.listener import listen
from stereospot import broker, records
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase, advance
from stereospot.settings import Settings
from stereospot.storage import open_store
from tests.support import Nats, eventually

CLIP = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"
"""Begins as an mp4 does, and is no more of a film than a gateway needs."""

FILM: dict[str, Any] = {
    "sha256": "0" * 64, "size_bytes": 1000, "frames": 24, "duration_seconds": 1.0, "container": "mp4",
    "file_name": "Holiday.3D.HSBS.LR.mp4",
}  # fmt: skip
"""What a completed job's record says of its film, beside the key."""


@dataclass(slots=True)
class Served:
    """A running gateway: `client` asks it as a program does, `context` is what it stands on."""

    context: Context
    client: httpx.AsyncClient
    url: str
    server: Nats


@asynccontextmanager
async def served(
    server: Nats, data_dir: Path, *, port: int = 0, alone: bool = False, **changes: Any
) -> AsyncGenerator[Served]:
    """A gateway that is ready."""
    settings = Settings(nats_url=server.url, data_dir=data_dir, **changes)
    bus = await Bus.connect(settings, name="gateway-test")
    await broker.provision(bus, settings)
    store = open_store(settings)
    context = Context(settings, bus, store, alone=alone)
    stop = asyncio.Event()
    bound = listen("127.0.0.1", port)
    certificate = settings.tls_certificate
    url = f"{'https' if certificate else 'http'}://127.0.0.1:{bound.getsockname()[1]}"
    trust = ssl.create_default_context(cafile=certificate) if certificate else True
    serving = asyncio.create_task(serve(context, stop, bound=bound))
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=trust) as client:

            async def ready() -> bool:
                assert not serving.done(), serving
                try:
                    return (await client.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, what="the gateway")
            yield Served(context, client, url, server)
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await serving
        await bus.drain()
        await store.close()


async def upload(gateway: Served, data: bytes = CLIP, name: str = "Holiday.mp4") -> dict[str, Any]:
    answer = await gateway.client.post("/upload", files={"file": (name, data, "video/mp4")})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def move(gateway: Served, job_id: str, *phases: Phase, **changes: Any) -> Job:
    """Take a job through phases, as the services would."""
    job = None
    for number, phase in enumerate(phases, 1):
        last = changes if number == len(phases) else {}

        def step(job: Job, phase: Phase = phase, last: dict[str, Any] = last) -> Job:
            return advance(job, phase, at=job.updated_at + 1, **last)

        job = await records.change_job(gateway.context.bus, job_id, step)
    assert job is not None
    return job


async def master_of(gateway: Served, job_id: str) -> str:
    """The master playlist's path, once the gateway has heard that there is something to play."""

    async def path() -> str | None:
        job = (await gateway.client.get(f"/api/v1/jobs/{job_id}")).json()
        return job["playback"]["hls"]

    return await eventually(path, what="something to play")  # type: ignore[return-value]
