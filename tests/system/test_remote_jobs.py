"""Jobs whose segments an HTTP endpoint converts, through the whole daemon: well, badly for a while, badly for good.

What each bad answer is called is in `test_http_answers.py`; here is what becomes of the job, and of its neighbours.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from services.context import Context
from stereospot import subjects
from stereospot.jobs import Phase
from tests.system import remote
from tests.system.rig import ended

FRAMES = 96


class Moody:
    """Answers the first requests badly, the others as the server behind it does."""

    def __init__(self, behind: Any, bad: int, body: bytes = b"rubbish") -> None:
        self._behind, self._bad = behind, bad
        self._parrot = remote.Parrot(200, body, "application/json")
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += scope["type"] == "http"
        await (self._parrot if self.requests <= self._bad else self._behind)(scope, receive, send)


def two_jobs(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AbstractAsyncContextManager[Context]:
    """One job for the endpoint, one that is converted here."""
    monkeypatch.setenv("STEREOSPOT_INFERENCE_URL", url)
    return remote.converting(tmp_path, {"FAR": "http", "NEAR": "local"}, **settings)


async def test_a_job_asks_for_the_endpoint_by_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote.inference_server(slots=2) as (url, _):
        async with two_jobs(tmp_path, url, monkeypatch) as context:
            far, near = await ended(context, "FAR"), await ended(context, "NEAR")
        assert (far.phase, near.phase) == (Phase.COMPLETED, Phase.COMPLETED), (far.failure, near.failure)
        assert far.pool == "remote"
        assert far.film is not None
        assert far.film.frames == FRAMES
        assert {"pack", "remote", "unpack"} <= set(far.report["stage_seconds"])
        assert "remote" not in near.report["stage_seconds"]


async def test_a_segment_that_was_answered_badly_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remote.inference_server(slots=2) as (_, server), remote.serving(Moody(server, bad=2)) as url:
        async with two_jobs(tmp_path, url, monkeypatch) as context:
            far, near = await ended(context, "FAR"), await ended(context, "NEAR")
            back = await remote.given_back(context)
        assert (far.phase, near.phase) == (Phase.COMPLETED, Phase.COMPLETED), (far.failure, near.failure)
        assert [code for codes in back.values() for code in codes] == ["REMOTE_INVALID"] * 2


async def test_an_endpoint_that_stays_bad_fails_its_own_job_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remote.serving(remote.Parrot(200, b"{}", "application/json")) as url:
        async with two_jobs(tmp_path, url, monkeypatch, max_attempts=2) as context:
            far, near = await ended(context, "FAR"), await ended(context, "NEAR")
            letters = await context.bus.last_per_subject(subjects.DEAD, "stereospot.dead.convert.>")
    assert near.phase is Phase.COMPLETED, near.failure
    assert far.phase is Phase.FAILED
    assert far.failure is not None
    assert far.failure.code == "ATTEMPTS_EXHAUSTED"
    assert far.failure.details["cause"]["code"] == "REMOTE_INVALID"
    assert far.failure.segment_index is not None
    assert letters


async def test_an_endpoint_that_never_answers_fails_its_own_job_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEREOSPOT_INFERENCE_TIMEOUT_SECONDS", "1")
    with remote.serving(remote.Parrot(200, b"", "text/plain", hang=True)) as url:
        async with two_jobs(tmp_path, url, monkeypatch, max_attempts=1) as context:
            far, near = await ended(context, "FAR"), await ended(context, "NEAR")
    assert near.phase is Phase.COMPLETED, near.failure
    assert far.failure is not None
    assert far.failure.details["cause"]["code"] == "REMOTE_FAILED"
