"""Decoders that are kept between segments, when several segments ask at the same moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services import decoders
from stereospot.outcome import Ack
from tests.media import sources as films
from tests.system.rig import a_planned_job, rig
from tests.system.test_converter import converter, task


async def test_segments_that_ask_at_once_after_a_rest_each_get_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context, converter(context, slots=2) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        assert await asyncio.gather(*(made.handle(task(index)) for index in (0, 1))) == [Ack()] * 2
        assert made.decoders_opened == 2
        monkeypatch.setattr(decoders, "IDLE_SECONDS", 0.0)
        # Both decoders are due to be closed, and both segments find that out.
        assert await asyncio.gather(*(made.handle(task(index)) for index in (2, 3))) == [Ack()] * 2
        assert made.decoders_opened == 4
