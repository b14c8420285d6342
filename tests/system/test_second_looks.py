"""A planner whose child is killed, or stands still: the film is looked at a second time before it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.plans import Plans
from stereospot.jobs import Phase
from stereospot.outcome import Ack, Reject, Retry
from tests.media import striking
from tests.system.test_planner import current, letterboxed, planning, work


@pytest.mark.parametrize("task", ["inspect:child", "scanning:child"])
async def test_a_child_that_was_killed_gets_a_second_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    async with planning(tmp_path, "h264_mp4") as (context, made, job):
        struck = striking.strike(monkeypatch, task, striking.kill)
        first = await made.handle(work(job))
        assert isinstance(first, Retry)
        assert first.failure is not None
        assert (first.failure.code, len(struck)) == ("DECODER_CRASHED", 1)
        assert await made.handle(replace(work(job), attempt=2)) == Ack()
        assert (await current(context)).phase is Phase.CONVERTING


async def test_a_film_that_kills_its_child_each_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with planning(tmp_path, "h264_mp4") as (_, made, job):
        striking.strike(monkeypatch, "inspect:child", striking.kill, times=2)
        assert isinstance(await made.handle(work(job)), Retry)
        second = await made.handle(replace(work(job), attempt=2))
        assert isinstance(second, Reject)
        assert second.failure.code == "DECODER_CRASHED"


async def test_a_probe_that_took_too_long_gets_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with planning(tmp_path, "h264_mp4") as (_, made, job):
        with monkeypatch.context() as patched:
            patched.setattr("stereospot.media.probe.PROBE_SECONDS", 0.5)
            striking.strike(patched, "inspect:child", striking.pause)
            first = await made.handle(work(job))
        assert isinstance(first, Retry)
        assert first.failure is not None
        assert first.failure.code == "PROBE_TIMEOUT"
        assert await made.handle(replace(work(job), attempt=2)) == Ack()


@pytest.mark.parametrize("times", [1, 2])
async def test_bars_that_were_not_seen_are_looked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    film = letterboxed(tmp_path / "film.mp4", 24)
    async with planning(tmp_path, film, engine="cues") as (context, made, job):
        striking.strike(monkeypatch, "keyframes:child", striking.kill, times=times)
        assert isinstance(await made.handle(work(job)), Retry)
        assert await Plans(context.store).head("J1", 1) is None
        assert await made.handle(replace(work(job), attempt=2)) == Ack()
        head = await Plans(context.store).head("J1", 1)
        assert head is not None
        assert head.stereo.bars.top == (24 if times == 1 else 0), "a film goes without bars rather than not at all"
