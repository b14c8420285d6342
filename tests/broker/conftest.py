"""A real server of its own for every test (about 30 ms), with our streams on it, and a bus on that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from stereospot import broker
from stereospot.bus import Bus
from stereospot.settings import Settings
from tests.support import Nats, nats_server


@pytest.fixture
def server() -> Iterator[Nats]:
    with nats_server() as running:
        yield running


@pytest.fixture
def settings(server: Nats) -> Settings:
    return Settings(nats_url=server.url)


@pytest.fixture
async def bare(settings: Settings) -> AsyncIterator[Bus]:
    """A bus on a server that has no streams yet."""
    bus = await Bus.connect(settings, name="test-bare")
    yield bus
    await bus.drain()


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    """A bus on a provisioned server."""
    bus = await Bus.connect(settings, name="test-bus")
    await broker.provision(bus, settings)
    yield bus
    await bus.drain()
