"""A gateway for tests: served by uvicorn on a free port, over a real broker and a real store, with an HTTP client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.context import Context
from services.gateway.app import serve
from services.listener import listen
from stereospot import broker
from stereospot.bus import Bus
from stereospot.settings import Settings
from stereospot.storage import open_store
from tests.support import Nats, eventually


@dataclass(slots=True)
class Served:
    """A running gateway: `client` asks it as a program does, `context` is what it stands on."""

    context: Context
    client: httpx.AsyncClient
    url: str
    server: Nats


@asynccontextmanager
async def served(server: Nats, data_dir: Path, *, port: int = 0, **changes: Any) -> AsyncGenerator[Served]:
    """A gateway that is ready."""
    settings = Settings(nats_url=server.url, data_dir=data_dir, **changes)
    bus = await Bus.connect(settings, name="gateway-test")
    await broker.provision(bus, settings)
    store = open_store(settings)
    context = Context(settings, bus, store)
    stop = asyncio.Event()
    bound = listen("127.0.0.1", port)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    serving = asyncio.create_task(serve(context, stop, bound=bound))
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:

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
