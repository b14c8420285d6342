"""A converter that comes late: another worker has stored its segment meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from stereospot import errors, records
from stereospot.jobs import Phase
from stereospot.messages import Failure, SegmentTask
from stereospot.outcome import Ack
from tests.media import sources as films
from tests.system.rig import a_planned_job, rig
from tests.system.test_converter import converter, reported, task


class Gate(asyncio.Semaphore):
    """The slots of a converter, which a test opens; `reached` once a segment waits for one."""

    def __init__(self) -> None:
        super().__init__(0)
        self.reached = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.reached.set()
        return await super().acquire()


async def test_a_segment_that_another_worker_stored_meanwhile_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.converter.LOOK_AGAIN_SECONDS", 0.0)
    async with rig(tmp_path) as context, converter(context) as other, converter(context) as slept:
        await a_planned_job(context, films.path("h264_mp4"))
        gate = Gate()
        monkeypatch.setattr(slept, "_computing", gate)
        async with asyncio.TaskGroup() as group:
            late = group.create_task(slept.handle(task(0)))
            await gate.reached.wait()
            assert await other.handle(task(0)) == Ack()
            gate.release()
        assert late.result() == Ack("stored already")
        assert slept.decoders_opened == 0
        assert {done.index for done in await reported(context)} == {0}


@pytest.mark.parametrize("code", ["DECODE_STALLED", "SEGMENT_MISMATCH", "REMOTE_FAILED"])
async def test_who_fails_at_what_another_worker_stored_meanwhile_fails_no_job(tmp_path: Path, code: str) -> None:
    """As one that was paused for longer than its lease, and then saw its child stand still."""
    async with rig(tmp_path) as context, converter(context) as other, converter(context) as slept:
        await a_planned_job(context, films.path("h264_mp4"))
        assert await other.handle(task(0)) == Ack()
        late, error = task(0, delivered=2), errors.error(code)
        parsed = SegmentTask.model_validate_json(late.data)
        assert await slept.setbacks.failed(late, parsed, error) == Ack("stored already")
        await slept.reject(late, Failure.of(error))
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert (found[0].phase, found[0].generation, found[0].failure) == (Phase.CONVERTING, 1, None)
        assert {done.index for done in await reported(context)} == {0}

        # What nobody has stored fails as ever.
        await slept.reject(task(1), Failure.of(error))
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert found[0].phase is Phase.FAILED
