"""A film that is referenced where it lies: gone is gone, and a file system that does not answer is waited for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from services import daemon, parts, sources
from stereospot import actor, errors
from stereospot.jobs import Phase
from stereospot.media.source import FileSource
from tests.media import sources as films
from tests.support import eventually
from tests.system.test_planner import current, planning, work


def away(monkeypatch: pytest.MonkeyPatch, path: Path, number: int, *, times: int = 1000) -> list[int]:
    """The file cannot be opened or looked at, so many times; what was tried."""
    tried: list[int] = []
    stat, opened = Path.stat, os.open

    def refuse(name: object) -> None:
        if str(name) == str(path) and len(tried) < times:
            tried.append(number)
            raise OSError(number, os.strerror(number))

    def no_stat(self: Path, **values: Any) -> os.stat_result:
        refuse(self)
        return stat(self, **values)

    def no_open(name: Any, *values: Any, **more: Any) -> int:
        refuse(name)
        return opened(name, *values, **more)

    monkeypatch.setattr(Path, "stat", no_stat)
    monkeypatch.setattr(os, "open", no_open)
    return tried


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, "SOURCE_MISSING"),
        (errno.EACCES, "SOURCE_MISSING"),
        (errno.ESTALE, "STORAGE_UNAVAILABLE"),
        (errno.EIO, "STORAGE_UNAVAILABLE"),
        (errno.EHOSTDOWN, "STORAGE_UNAVAILABLE"),
    ],
)
def test_what_passes_is_told_from_what_stays(
    number: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film")
    known = sources.identify(path)
    away(monkeypatch, path, number)
    for step in (lambda: sources.identify(path), lambda: sources.check(known), lambda: FileSource(path)):
        with pytest.raises(errors.StereoSpotError, match=r"film\.mp4: ") as raised:
            step()
        assert raised.value.code == code


@pytest.mark.parametrize("seconds", [0.0, 60.0])
async def test_a_share_that_is_away_for_long_is_said_on_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(actor, "TELL_SECONDS", seconds)
    monkeypatch.setattr(parts, "REST_SECONDS", 0.1)
    async with planning(tmp_path, "h264_mp4") as (context, _, _job):
        path = films.path("h264_mp4").resolve()
        with monkeypatch.context() as broken:
            tried = away(broken, path, errno.ESTALE)
            async with daemon.running(context.settings, {"planner"}):
                await eventually(lambda: len(tried) >= 2, what="a second look")
                job = await current(context)
                assert job.phase is Phase.PLANNING
                broken.undo()
                said = "This job waits, and goes on by itself: The storage does not answer. "
                assert [item.text.startswith(said) for item in job.warnings] == ([True] if seconds == 0 else [])

                async def is_planned() -> bool:
                    return (await current(context)).phase is Phase.CONVERTING

                await eventually(is_planned, seconds=40, what="the plan, once the share is back")
        assert (await current(context)).warnings == (), "it waits no more"


async def test_a_share_that_is_away_for_a_moment_fails_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with planning(tmp_path, "h264_mp4") as (context, made, job):
        tried = away(monkeypatch, films.path("h264_mp4").resolve(), errno.ESTALE, times=1)
        with pytest.raises(errors.Transient):  # the actor waits, and asks again
            await made.handle(work(job))
        assert tried == [errno.ESTALE]
        await made.handle(work(job))
        assert (await current(context)).phase is Phase.CONVERTING
