"""Who waits for whom: a clip behind a film, a seek and a sample in the middle of it. Stub workers, a real broker.

What is counted is segments and not seconds: those of the film that are begun after somebody else asked for something
and before that is begun. A machine that is busy makes the segments longer and their number no larger.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services import daemon, operations
from services.context import Context
from stereospot.messages import SegmentEvent
from stereospot.options import Options
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_planned_job, announce_total, begun, rig

SLOTS = 2
STUB = Options(backend="stub", preset="ultrafast")


@asynccontextmanager
async def at_work_on_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Context]:
    """A pool of two slots in the middle of a long film of the user before us; its queue is full."""
    monkeypatch.setenv("STEREOSPOT_STUB_SECONDS", "0.6")
    async with rig(tmp_path, pool="stub", slots=SLOTS) as context:
        job, _, segments = await a_planned_job(
            context, films.path("h264_mp4"), job_id="film", frames=1, options=STUB
        )  # fmt: skip
        assert len(segments) > 60
        async with daemon.running(context.settings, {"collector", "converter"}):
            await announce_total(context, job, len(segments))

            async def busy() -> bool:
                return len(await begun(context)) > SLOTS

            await eventually(busy, seconds=30, what="the film at work")
            yield context


async def waited(context: Context, before: int, job_id: str, index: int) -> int:
    """Segments of others that were begun after the first `before` of all and before this one."""

    async def place() -> list[SegmentEvent]:
        found = await begun(context)
        return found if any((item.job_id, item.index) == (job_id, index) for item in found[before:]) else []

    found = (await eventually(place, seconds=30, what=f"{job_id} {index} begun"))[before:]
    return next(number for number, item in enumerate(found) if (item.job_id, item.index) == (job_id, index))


async def test_a_clip_behind_a_long_film_waits_for_one_segment_a_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_work_on_a_film(tmp_path, monkeypatch) as context:
        job, _, segments = await a_planned_job(context, films.path("h264_mp4"), job_id="clip", options=STUB)
        before = len(await begun(context))
        await announce_total(context, job, len(segments))
        assert await waited(context, before, "clip", 0) <= SLOTS + 1, "what was queued, and what was just being taken"
        # From then on they take turns: of what is begun until the clip's last segment, at most as much is the film's.
        last = len(segments) - 1
        assert await waited(context, before, "clip", last) <= (SLOTS + 1) + 2 * last + SLOTS


async def test_a_seek_is_served_within_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_work_on_a_film(tmp_path, monkeypatch) as context:
        before = len(await begun(context))
        await operations.seek(context.bus, "film", 50)
        assert await waited(context, before, "film", 50) <= SLOTS, "at most what each slot had taken already"


async def test_a_sample_is_served_within_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_work_on_a_film(tmp_path, monkeypatch) as context:
        options = STUB.model_copy(update={"samples": (0.0,)})
        job, _, segments = await a_planned_job(context, films.path("h264_mp4"), job_id="sample", options=options)
        before = len(await begun(context))
        await announce_total(context, job, len(segments))
        assert await waited(context, before, "sample", 0) <= SLOTS, "at most what each slot had taken already"
