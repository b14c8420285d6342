"""How operator commands reach a StereoSpot that runs: its broker and its storage, without starting anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from services.context import Context
from stereospot import errors
from stereospot.bus import Bus
from stereospot.settings import Settings


def resolve(settings: Settings) -> Settings:
    """Settings that name a broker: the given one, or the embedded one of this data folder with its token."""
    if settings.nats_url is not None:
        return settings
    token = settings.data_dir / "broker" / "token"
    if not token.exists():
        raise errors.error("BROKER_UNAVAILABLE", f"Nothing was ever started in {settings.data_dir}.")
    return settings.with_own_broker(f"nats://127.0.0.1:{settings.nats_port}", token.read_text().strip())


@asynccontextmanager
async def reach(settings: Settings, *, seconds: float = 5.0) -> AsyncGenerator[Context]:
    """A context on the running broker; raises BROKER_UNAVAILABLE when none answers within `seconds`."""
    from stereospot.storage import open_store

    found = resolve(settings)
    bus = await Bus.connect(found, name="cli", connect_seconds=seconds)
    store = open_store(found)
    try:
        yield Context(found, bus, store)
    finally:
        await store.close()
        await bus.drain()
