from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from stereospot.settings import Settings
from stereospot.storage import ObjectStore, open_store
from tests.storage.seaweed import Seaweed, seaweed


@pytest.fixture(scope="session")
def s3_server() -> Generator[Seaweed]:
    with seaweed() as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a store that no other test sees: a folder, or a prefix in the one bucket of the session."""
    if request.param == "local":
        return Settings(data_dir=tmp_path)
    return s3_settings(request.getfixturevalue("s3_server"), tmp_path)


def s3_settings(server: Seaweed, data_dir: Path, **changes: str) -> Settings:
    values = {
        "data_dir": data_dir,
        "storage": "s3",
        "s3_endpoint": server.endpoint,
        "s3_access_key": server.access_key,
        "s3_secret_key": server.secret_key,
        "s3_bucket": "tests",
        "s3_prefix": f"run/{uuid.uuid4().hex}",
    }
    return Settings.model_validate(values | changes)


@pytest.fixture
async def store(settings: Settings) -> AsyncGenerator[ObjectStore]:
    opened = open_store(settings)
    yield opened
    await opened.close()
