"""Jobs under concurrent change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import pytest

from services import operations
from stereospot import errors, jobs, records, subjects
from stereospot.bus import Bus, Conflict
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import SourceRef


def a_job(job_id: str = "a") -> Job:
    now = time.time()
    return Job(job_id=job_id, created_at=now, updated_at=now, source=SourceRef(key=f"input/{job_id}/source.mp4"))


async def test_create_read_list(bus: Bus) -> None:
    first, second = a_job("a"), a_job("b")
    revision = await records.create_job(bus, first)
    await records.create_job(bus, second)
    assert await records.get_job(bus, "a") == (first, revision)
    assert await records.get_job(bus, "nobody") is None
    assert await records.get_job(bus, "not a token") is None
    await bus.bucket(subjects.JOBS).put("broken", b"{")
    assert [job.job_id for job, _ in await records.list_jobs(bus)] == ["a", "b"]


async def test_creating_again_is_fine_for_the_same_record_only(bus: Bus) -> None:
    job = a_job()
    revision = await records.create_job(bus, job)
    assert await records.create_job(bus, job) == revision
    with pytest.raises(Conflict):
        await records.create_job(bus, job.model_copy(update={"title": "other"}))


async def test_forty_writers_lose_no_change(bus: Bus) -> None:
    await records.create_job(bus, a_job())

    async def warn(index: int) -> None:
        await records.change_job(bus, "a", lambda job: job.with_warning("TEST", str(index)))

    await asyncio.gather(*(warn(index) for index in range(40)))
    found = await records.get_job(bus, "a")
    assert found is not None
    assert {notice.text for notice in found[0].warnings} == {str(index) for index in range(40)}


async def test_a_full_bucket_can_be_emptied(bus: Bus) -> None:
    stream = subjects.kv_stream(subjects.JOBS)
    config = (await bus.stream_info(stream))["config"]
    await bus.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 20_000})
    count = 0

    async def fill() -> None:
        nonlocal count
        while True:
            job = jobs.advance(a_job(f"J{count}"), Phase.PLANNING, at=time.time())
            await records.create_job(bus, job.with_warning("TEST", 100 * "x"))
            count += 1

    with pytest.raises(errors.StereoSpotError) as caught:
        await fill()
    assert caught.value.code == "STORAGE_FULL"
    assert count > 3
    for number in range(count):
        await operations.delete(bus, f"J{number}")
        await records.delete_job(bus, f"J{number}")
    await records.create_job(bus, a_job("new"))


async def test_a_film_that_is_planned_anew_is_no_longer_called_cut(bus: Bus) -> None:
    job = jobs.advance(a_job(), Phase.PLANNING, at=time.time())
    await records.create_job(bus, job.with_warning("SOURCE_CUT", "95 of 96 frames decode").with_warning("TEST", ""))
    assert await operations.replan(bus, "a", 1, "a segment had other frames")
    found = await records.get_job(bus, "a")
    assert found is not None
    assert [notice.code for notice in found[0].warnings] == ["TEST", "PTS_SYNTHESISED"]


async def test_only_one_of_many_makes_a_transition(bus: Bus) -> None:
    await records.create_job(bus, a_job())
    outcomes = await asyncio.gather(
        *(
            records.change_job(bus, "a", lambda job: jobs.advance(job, Phase.CANCELLED, at=time.time()))
            for _ in range(10)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 1
    refused = [outcome for outcome in outcomes if isinstance(outcome, errors.StereoSpotError)]
    assert {problem.code for problem in refused} == {"CONFLICT"}
    assert len(refused) == 9


async def test_nothing_to_change_writes_nothing(bus: Bus) -> None:
    revision = await records.create_job(bus, a_job())
    await records.change_job(bus, "a", lambda job: None)
    await records.change_job(bus, "a", lambda job: job)
    found = await records.get_job(bus, "a")
    assert found is not None
    assert found[1] == revision


async def test_if_match(bus: Bus) -> None:
    revision = await records.create_job(bus, a_job())

    def retitle(job: Job) -> Job:
        return job.model_copy(update={"title": job.title + "!"})

    await records.change_job(bus, "a", retitle, expected_revision=revision)
    with pytest.raises(errors.Permanent) as raised:
        await records.change_job(bus, "a", retitle, expected_revision=revision)
    assert raised.value.code == "PRECONDITION_FAILED"
    with pytest.raises(errors.Permanent) as raised:
        await records.change_job(bus, "b", retitle)
    assert raised.value.code == "NOT_FOUND"


# ---- answers that get lost ---------------------------------------------------------------------------------
def lose_answers(bus: Bus, *, after: Callable[[], Awaitable[object]] | None = None, takes: bool = True) -> list[str]:
    """Have the next write of the job `a` go without an answer; `after` runs behind it. `takes`: whether it is written.

    Returns what was lost, so that a test can see that it was.
    """
    ask = bus.ask
    lost: list[str] = []

    async def losing(subject: str, *arguments: Any, **options: Any) -> Any:
        if subject != "$KV.jobs.a" or lost:
            return await ask(subject, *arguments, **options)
        lost.append(subject)
        if takes:
            await ask(subject, *arguments, **options)
        if after is not None:
            await after()
        raise nats.errors.TimeoutError

    bus.ask = losing  # type: ignore[method-assign]
    return lost


async def plan(bus: Bus) -> None:
    """What a planner does to a job that waits for it."""
    await records.change_job(bus, "a", lambda job: jobs.advance(job, Phase.PLANNING, at=time.time()))


async def test_a_change_whose_answer_got_lost_is_made_although_somebody_wrote_on_top(bus: Bus) -> None:
    """The write lands, its answer does not, a service moves the job on: the one who wrote must not hear of a 412."""
    revision = await records.create_job(bus, a_job())
    lost = lose_answers(bus, after=lambda: plan(bus))
    job = await operations.edit(bus, "a", revision, title="New")
    assert lost
    assert (job.title, job.phase) == ("New", Phase.PLANNING)
    assert await records.get_job(bus, "a") == (job, revision + 2), "written once"


async def test_a_step_whose_answer_got_lost_is_not_made_twice(bus: Bus) -> None:
    """Without If-Match, too: a retry that was heard is no conflict with what came of it."""
    await records.create_job(bus, a_job())
    revision = await _cancelled(bus)

    async def convert() -> None:
        await records.change_job(bus, "a", lambda job: jobs.advance(job, Phase.CONVERTING, at=time.time()))

    lost = lose_answers(bus, after=convert)
    job = await operations.retry(bus, "a")
    assert lost
    assert (job.phase, job.attempt) == (Phase.CONVERTING, 2)
    assert await records.get_job(bus, "a") == (job, revision + 2)


async def _cancelled(bus: Bus) -> int:
    await operations.cancel(bus, "a")
    found = await records.get_job(bus, "a")
    assert found is not None
    return found[1]


async def test_a_change_that_did_not_land_is_not_taken_for_made(bus: Bus) -> None:
    """The same silence, but the broker never took the write: who wrote meanwhile was first."""
    revision = await records.create_job(bus, a_job())
    lost = lose_answers(bus, after=lambda: plan(bus), takes=False)
    with pytest.raises(errors.Permanent) as raised:
        await operations.edit(bus, "a", revision, title="New")
    assert lost
    assert raised.value.code == "PRECONDITION_FAILED"
    found = await records.get_job(bus, "a")
    assert found is not None
    assert found[0].title == ""


async def test_a_write_that_nobody_waited_for_any_longer_is_looked_at_once_more(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patience ends without an answer: the record says whether it was written."""
    revision = await records.create_job(bus, a_job())
    publish = bus.publish

    async def impatient(subject: str, body: Any, **options: Any) -> int:
        if not subject.startswith("$KV.jobs."):
            return await publish(subject, body, **options)
        if takes:
            await publish(subject, body, **options)
        raise errors.error("BROKER_UNAVAILABLE", "TimeoutError")

    monkeypatch.setattr(bus, "publish", impatient)
    takes = True
    assert (await operations.edit(bus, "a", revision, title="New")).title == "New"
    takes = False
    with pytest.raises(errors.Transient) as raised:
        await operations.edit(bus, "a", revision + 1, title="Newer")
    assert raised.value.code == "BROKER_UNAVAILABLE"


async def test_a_deleted_job_is_not_found(bus: Bus) -> None:
    await records.create_job(bus, a_job())
    await records.delete_job(bus, "a")
    assert await records.get_job(bus, "a") is None
    assert await records.list_jobs(bus) == []


async def test_state_is_read_with_its_revision(bus: Bus) -> None:
    assert await records.get_state(bus, "a", 1) is None
    state = Completion(job_id="a", generation=1, total=3, done=0b101)
    revision = await bus.bucket(subjects.STATE).create(subjects.state_key("a", 1), state)
    assert await records.get_state(bus, "a", 1) == (state, revision)
