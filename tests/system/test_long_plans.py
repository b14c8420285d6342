"""Plans of very many segments: those that fit go through the broker, the others are refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.plans import Plans
from stereospot import completion, errors, spans, subjects
from stereospot.completion import Completion
from stereospot.messages import TotalDone
from stereospot.outcome import Ack, Reject
from streams_config.provision import load
from tests.system.rig import rig
from tests.system.test_planner import current, planning, work

PART = 48


def the_longest() -> dict[int, str]:
    """Windows of every part of the longest plan that a set holds: three a segment, each moving on by one."""
    ends = [min(first + PART, completion.MAX_SEGMENTS) for first in range(0, completion.MAX_SEGMENTS, PART)]
    return {end - PART: spans.pack((index, index + 2) for index in range(end - PART, end)) for end in ends}


async def test_the_total_of_the_longest_plan_fits_into_the_queue_and_its_set_into_the_bucket(tmp_path: Path) -> None:
    told = TotalDone(
        job_id="J" * 64, generation=1, attempt=1, pool="gpu", total=completion.MAX_SEGMENTS, audio=True,
        parts=tuple(the_longest()), spans=the_longest(),
    )  # fmt: skip
    assert len(told.body()) < load().streams["DONE"]["max_msg_size"]
    state = Completion(job_id="J" * 64, generation=1, total=completion.MAX_SEGMENTS, planned=completion.MAX_SEGMENTS)
    state = state.with_spans(the_longest()).model_copy(update={"sent": (1 << completion.MAX_SEGMENTS) - 1})
    async with rig(tmp_path) as context:
        await context.bus.publish(subjects.done_plan(told.job_id, 1, "total"), told)
        key = subjects.state_key(told.job_id, 1)
        await context.bus.bucket(subjects.STATE).put(key, completion.encode(state))
        entry = await context.bus.bucket(subjects.STATE).get(key)
        assert entry is not None
        assert completion.decode(entry.value) == state


@pytest.mark.parametrize(("seconds", "code"), [(0.2, "INVALID_OPTIONS"), (None, "TOO_LONG")])
async def test_a_plan_that_no_set_could_hold_is_refused(
    seconds: float | None, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "MAX_SEGMENTS", 0 if seconds is None else 5)
    async with planning(tmp_path, "h264_mp4", segment_seconds=seconds) as (context, made, job):
        said = await made.handle(work(job))
        assert isinstance(said, Reject)
        assert said.failure.code == code
        assert await Plans(context.store).total("J1", 1) is None


async def test_a_stored_plan_that_no_set_could_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an older version, which went on with it for ever."""
    async with planning(tmp_path, "h264_mp4", segment_seconds=0.5) as (context, made, job):
        assert await made.handle(work(job)) == Ack()
        monkeypatch.setattr(completion, "MAX_SEGMENTS", 2)
        said = await made.handle(work(await current(context)))
        assert isinstance(said, Reject)
        assert errors.entry(said.failure.code).kind == "permanent"
