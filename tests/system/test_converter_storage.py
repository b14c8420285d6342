"""The converter while its storage is away: no attempt is lost, and a worker that is cut off leaves its work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.context import Context
from services.setbacks import CUT_OFF_RESTS, MISSING_SECONDS
from stereospot import errors, jobs, records
from stereospot.media.source import StoredSource
from stereospot.messages import SourceRef
from stereospot.outcome import Ack, Return
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_planned_job, rig
from tests.system.test_converter import converter, task


class Away(StoredSource):
    """A source in a storage that answers only while it is `back`."""

    back = False

    def read_at(self, offset: int, length: int) -> bytes:
        if not Away.back:
            raise errors.error("STORAGE_UNAVAILABLE", "no route to it")
        return super().read_at(offset, length)


def nowhere(_: str) -> None:
    """As of a store whose objects are no files here."""


@asynccontextmanager
async def a_source_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Context]:
    monkeypatch.setattr(Away, "back", False)
    monkeypatch.setattr("services.sources.StoredSource", Away)
    async with rig(tmp_path) as context:
        await a_planned_job(context, films.path("h264_mp4"))
        monkeypatch.setattr(context.store, "local_path", nowhere)
        await context.store.put("input/J1/source.mp4", films.path("h264_mp4").read_bytes())
        source = SourceRef(key="input/J1/source.mp4")
        await records.change_job(context.bus, "J1", lambda job: job.model_copy(update={"source": source}))
        yield context


async def test_a_storage_that_is_away_during_the_read_is_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_source_that_is_away(tmp_path, monkeypatch) as context, converter(context) as made:
        for _ in range(2):
            with pytest.raises(errors.Transient, match="no route"):
                await made.handle(task(0))
        assert made.busy == set()
        assert made.decoders_opened <= 2
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert found[0].warnings == (), "a short outage is nobody's business"
        Away.back = True
        assert await made.handle(task(0)) == Ack(), "the slot is free, the decoder is another one"


async def test_a_worker_that_cannot_reach_the_storage_says_so_and_leaves_the_segment_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.setbacks.CUT_OFF_SECONDS", 0.0)
    async with a_source_that_is_away(tmp_path, monkeypatch) as context:
        async with converter(replace(context, alone=True)) as made:
            with pytest.raises(errors.Transient, match="no route"):
                await made.handle(task(0))
        async with converter(context) as made:
            for excused, rests in ((0, 1), (1, 2), (900, CUT_OFF_RESTS)):
                outcome = await made.handle(replace(task(0), excused=excused))
                assert isinstance(outcome, Return), "it was not tried"
                assert outcome.delay_seconds == rests * MISSING_SECONDS
                assert outcome.reason == "STORAGE_UNAVAILABLE"
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert [item.code for item in found[0].warnings] == ["STORAGE_UNAVAILABLE"]
        assert jobs.without_warnings(found[0]).warnings == ()


@pytest.mark.parametrize(
    ("code", "alone", "leaves"),
    [("STORAGE_UNAVAILABLE", False, True), ("STORAGE_UNAVAILABLE", True, False), ("STORAGE_FULL", False, False)],
)
async def test_a_worker_that_can_read_but_not_store_says_so_and_leaves_the_segment_to_those_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, alone: bool, leaves: bool
) -> None:
    monkeypatch.setattr("services.setbacks.CUT_OFF_SECONDS", 0.0)
    async with rig(tmp_path) as context, converter(replace(context, alone=alone)) as made:
        await a_planned_job(context, films.path("h264_mp4"))
        store = context.store.put

        async def refuse(key: str, data: bytes, *, if_absent: bool = False) -> bool:
            raise errors.error(code, "AccessDenied")

        async def warned() -> list[str]:
            found = await records.get_job(context.bus, "J1")
            assert found is not None
            return [item.code for item in found[0].warnings]

        monkeypatch.setattr(context.store, "put", refuse)
        async with asyncio.TaskGroup() as group:
            work = group.create_task(made.handle(task(0)))
            assert await eventually(warned, seconds=30, what="the reason on the job") == [code]
            if not leaves:
                assert not work.done(), "computed once is enough"
                monkeypatch.setattr(context.store, "put", store)
        outcome = work.result()
        if leaves:
            assert isinstance(outcome, Return), "it was not tried"
            assert (outcome.reason, outcome.delay_seconds) == (code, MISSING_SECONDS)
        else:
            assert outcome == Ack()
            assert made.decoders_opened == 1
