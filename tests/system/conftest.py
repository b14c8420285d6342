"""A broker of one test, and a gateway over it that is ready."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.storage.conftest import s3_settings
from tests.storage.seaweed import Seaweed, seaweed
from tests.support import Nats, nats_server
from tests.system import remote
from tests.system.gateway import Served, served
from tests.unit import clips


@pytest.fixture
def server() -> Generator[Nats]:
    with nats_server() as running:
        yield running


@pytest.fixture
async def gateway(server: Nats, tmp_path: Path) -> AsyncGenerator[Served]:
    async with served(server, tmp_path / "data", roots=(tmp_path / "films",)) as running:
        yield running


@pytest.fixture(scope="session")
def s3_server() -> Generator[Seaweed]:
    with seaweed() as running:
        yield running


@pytest.fixture(params=["local", "s3"])
def stored_on(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of the store that a gateway writes to."""
    if request.param == "local":
        return {}
    return s3_values(request.getfixturevalue("s3_server"), tmp_path)


def s3_values(server: Seaweed, folder: Path) -> dict[str, Any]:
    settings = s3_settings(server, folder)
    return settings.model_dump(include={name for name in type(settings).model_fields if name.startswith("s3_")}) | {
        "storage": "s3"
    }


@pytest.fixture(scope="session")
def pictures() -> list[tuple[np.ndarray, ...]]:
    """Forty small frames with a cut behind the 17th."""
    return clips.pictures(remote.COUNT, remote.WIDTH, remote.HEIGHT, cuts=(17,))
