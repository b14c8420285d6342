"""Whole jobs whose segments a SageMaker endpoint converts, through the real daemon with S3 storage: an endpoint that is
lost for a while, and one that takes segments and never answers.

What each bad result is called, and the API itself against moto, is in `test_sagemaker_backend.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from services.context import Context
from stereospot.jobs import Phase
from tests.storage.seaweed import Seaweed, seaweed
from tests.system import remote
from tests.system.rig import ended
from tests.system.test_sagemaker_backend import OneBucket, Rig, Silent


@pytest.fixture(scope="module")
def weed() -> Generator[Seaweed]:
    with seaweed() as server:
        yield server


class Lost:
    """An endpoint that is gone for its first requests, as SageMaker says it; then the one behind it."""

    def __init__(self, behind: Any, missing: int) -> None:
        self._behind, self._missing = behind, missing
        body = b'{"Message": "Endpoint stereospot of account 1 not found."}'
        self._parrot = remote.Parrot(400, body, "application/json")
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        await (self._parrot if self.requests <= self._missing else self._behind)(scope, receive, send)


def converting(
    tmp_path: Path, weed: Seaweed, url: str, monkeypatch: pytest.MonkeyPatch
) -> AbstractAsyncContextManager[Context]:
    """A job for the endpoint and one for this machine, on a daemon that stores in the shared bucket."""
    shared: dict[str, Any] = {
        "storage": "s3", "s3_bucket": "tests", "s3_endpoint": weed.endpoint, "s3_access_key": weed.access_key,
        "s3_secret_key": weed.secret_key, "s3_prefix": f"jobs-{uuid.uuid4().hex}", "sagemaker_endpoint": "stereospot",
        "sagemaker_url": url,
    }  # fmt: skip
    for name, value in shared.items():
        monkeypatch.setenv(f"STEREOSPOT_{name.upper()}", value)
    jobs = {"FAR": "sagemaker", "NEAR": "local"}
    return remote.converting(tmp_path, jobs, segment_seconds=2.0, slots=2, max_attempts=3, **shared)


async def left(context: Context) -> list[str]:
    """What hand-overs have left in the bucket."""
    return [item.key async for item in context.store.list("jobs/FAR/") if "/remote/" in item.key]


@pytest.mark.timeout(300)
async def test_an_endpoint_that_is_lost_for_a_while(
    tmp_path: Path, weed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = Rig(weed, "", f"results-{uuid.uuid4().hex}")
    with (
        remote.inference_server(slots=2, open_bucket=behind.bucket) as (server, _),
        remote.serving(Lost(OneBucket(behind, server), missing=2)) as url,
    ):
        async with converting(tmp_path, weed, url, monkeypatch) as context:
            done = {name: await ended(context, name, seconds=240) for name in ("FAR", "NEAR")}
            codes = [code for found in (await remote.given_back(context)).values() for code in found]
            remains = await left(context)
    assert done["NEAR"].phase is Phase.COMPLETED, done["NEAR"].failure
    assert done["FAR"].phase is Phase.COMPLETED, done["FAR"].failure
    assert codes == ["REMOTE_FAILED"] * 2
    assert remains == []


@pytest.mark.timeout(300)
async def test_an_endpoint_that_never_answers_keeps_no_slot(
    tmp_path: Path, weed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many segments as there are slots wait for it; the job beside still gets its turn, and both come to an end."""
    monkeypatch.setenv("STEREOSPOT_INFERENCE_TIMEOUT_SECONDS", "3")
    with remote.serving(Silent()) as url:
        async with converting(tmp_path, weed, url, monkeypatch) as context:
            done = {name: await ended(context, name, seconds=240) for name in ("FAR", "NEAR")}
            remains = await left(context)
    assert done["NEAR"].phase is Phase.COMPLETED, done["NEAR"].failure
    failure = done["FAR"].failure
    assert failure is not None
    assert (failure.code, failure.details["cause"]["code"]) == ("ATTEMPTS_EXHAUSTED", "REMOTE_FAILED")
    assert remains == []
