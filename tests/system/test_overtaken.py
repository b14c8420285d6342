"""A second jump does not wait for what the first one left in the lane `now`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference.contract import Converted
from services import overtaken
from services.converter import Converter
from stereospot import records, subjects
from stereospot.bus import Delivery
from stereospot.messages import SegmentTask
from stereospot.options import Options
from stereospot.outcome import Return
from stereospot.schedule import PLAYHEAD_RUN
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_job, a_planned_job, rig
from tests.system.test_converter_slots import at_work

FAR = 40
OLD, NEW = (12, 13), (4, 5, 6)


def sent(
    index: int, lane: subjects.Lane = "now", *, pending: int = 1, excused: int = 0
) -> tuple[Delivery, SegmentTask]:
    task = SegmentTask(job_id="J1", generation=1, attempt=1, index=index, part=0)
    subject = subjects.convert("cpu", lane, "J1", 1, index)
    return Delivery(subject, task.body(), pending=pending, excused=excused), task


def test_only_what_was_left_behind_steps_back_and_only_for_others() -> None:
    watched = a_job(playhead=FAR)
    last = FAR + PLAYHEAD_RUN
    assert [overtaken.step_back(*sent(index), watched) is None for index in (FAR, last - 1)] == [True, True]
    assert all(isinstance(overtaken.step_back(*sent(index), watched), Return) for index in (0, FAR - 1, last))
    assert overtaken.step_back(*sent(0, "normal"), watched) is None, "in its turn"
    assert overtaken.step_back(*sent(0, pending=0), watched) is None, "a worker would have nothing to do"
    assert overtaken.step_back(*sent(0, excused=overtaken.RESTS), watched) is None, "it has rested long enough"
    assert overtaken.step_back(*sent(0), a_job()) is None, "nobody says where they watch"
    samples = a_job(playhead=FAR, options=Options(samples=(1.0,)))
    assert overtaken.step_back(*sent(0), samples) is None


async def test_where_somebody_watches_now_comes_before_where_they_were_and_all_of_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = vars(Converter)["_work"]
    begun: list[int] = []

    def work(self: Converter, lease: Any, head: Any, segment: Any) -> Converted:
        begun.append(segment.index)
        return original(self, lease, head, segment)

    monkeypatch.setattr(Converter, "_work", work)
    monkeypatch.setattr(overtaken, "REST_SECONDS", 0.05)
    path = tmp_path / "source.mp4"
    films.write(films.Film(".mp4", frames=6 * 16), path)
    async with rig(tmp_path, pool="stub", slots=1) as context:
        await a_planned_job(context, path, options=Options(backend="stub"), frames=6)
        for index in (*OLD, *NEW):
            task = SegmentTask(job_id="J1", generation=1, attempt=1, index=index, part=0)
            await context.bus.publish(subjects.convert("stub", "now", "J1", 1, index), task)
        await records.change_job(context.bus, "J1", lambda job: job.model_copy(update={"playhead": NEW[0]}))

        async def done() -> bool:
            return (await context.bus.stream_info(subjects.CONVERT))["state"]["messages"] == 0

        async with at_work(context):
            await eventually(done, seconds=30, what="all of them")
        assert tuple(begun[:2]) == NEW[:2]
        assert sorted(begun) == sorted((*OLD, *NEW))
