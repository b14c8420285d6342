"""The state machine: the table is the only way, and the record survives a trip through JSON of another version."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stereospot import errors, jobs
from stereospot.jobs import Job, Phase
from stereospot.messages import Failure, SourceRef

FAILURE = Failure.of(errors.error("CORRUPT_INPUT", "no moov"))


def job(phase: Phase = Phase.CREATED, **values: object) -> Job:
    base = Job(job_id="J", created_at=1.0, updated_at=1.0, source=SourceRef(key="input/J/source.mp4"))
    return base.model_copy(update={"phase": phase, **values})


@pytest.mark.parametrize("start", list(Phase))
@pytest.mark.parametrize("target", list(Phase))
def test_the_table_is_the_only_way(start: Phase, target: Phase) -> None:
    if target in jobs.TRANSITIONS[start]:
        moved = jobs.advance(job(start), target, at=2.0)
        assert (moved.phase, moved.updated_at, moved.history[-1].phase) == (target, 2.0, target)
    else:
        with pytest.raises(errors.Permanent) as caught:
            jobs.advance(job(start), target, at=2.0)
        assert caught.value.code == "CONFLICT"


def test_every_phase_can_be_left_for_deleted_and_nothing_leaves_deleted() -> None:
    assert all(Phase.DELETED in targets for phase, targets in jobs.TRANSITIONS.items() if phase is not Phase.DELETED)
    assert not jobs.TRANSITIONS[Phase.DELETED]


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.DELETED}))
def test_a_deleted_job_is_smaller_than_it_was(phase: Phase) -> None:
    """A full bucket takes nothing else."""
    before = jobs.advance(job(), Phase.PLANNING, at=2.0).with_warning("TEST", "text")
    before = before.model_copy(update={"phase": phase, "report": {"p99": 1.0}, "engine": {"name": "relief"}})
    after = jobs.delete(before, at=3.0)
    assert after is not None
    assert (after.phase, after.source, after.title) == (Phase.DELETED, before.source, before.title)
    assert len(after.body()) < len(before.body())
    assert jobs.delete(after, at=4.0) is None


@pytest.mark.parametrize("phase", sorted(jobs.ACTIVE))
def test_an_active_job_can_fail_and_be_cancelled_and_then_be_retried(phase: Phase) -> None:
    failed = jobs.fail(job(phase), FAILURE, at=2.0)
    assert failed is not None
    assert failed.failure == FAILURE
    again = jobs.retry(failed, at=3.0)
    assert (again.attempt, again.generation, again.failure) == (2, 1, None)
    cancelled = jobs.cancel(job(phase), at=2.0)
    assert cancelled is not None
    assert jobs.retry(cancelled, at=3.0).phase is Phase.PLANNING


@pytest.mark.parametrize("phase", sorted(set(Phase) - jobs.ACTIVE))
def test_nothing_changes_a_finished_job_by_accident(phase: Phase) -> None:
    assert jobs.fail(job(phase), FAILURE, at=2.0) is None
    assert jobs.cancel(job(phase), at=2.0) is None


def test_a_new_generation_forgets_results_and_old_results_are_not_accepted() -> None:
    done = job(Phase.COMPLETED, segments=9, frames=99)
    renewed = jobs.renew(done, at=2.0, note="options changed")
    assert (renewed.generation, renewed.attempt, renewed.segments, renewed.film) == (2, 1, None, None)
    assert renewed.accepts(2)
    assert not renewed.accepts(1)
    assert not job(Phase.CANCELLED).accepts(1)


@given(st.lists(st.sampled_from(sorted(Phase)), max_size=200))
def test_history_is_bounded_and_never_illegal(targets: list[Phase]) -> None:
    current = job()
    for at, target in enumerate(targets):
        try:
            current = jobs.advance(current, target, at=float(at))
        except errors.Permanent:
            continue
    assert len(current.history) <= 64
    for before, after in zip(current.history, current.history[1:], strict=False):
        assert after.phase in jobs.TRANSITIONS[before.phase]


def test_fields_of_a_newer_version_survive_a_rewrite_by_an_older_one() -> None:
    body = json.loads(job().body())
    body["field_of_2027"] = {"x": 1}
    body["source"]["colour_of_2027"] = "blue"
    again = json.loads(jobs.advance(Job.model_validate(body), Phase.PLANNING, at=2.0).body())
    assert again["field_of_2027"] == {"x": 1}
    assert again["source"]["colour_of_2027"] == "blue"


def test_warnings_are_said_once() -> None:
    twice = job().with_warning("PTS_SYNTHESISED", "…").with_warning("PTS_SYNTHESISED", "…")
    assert len(twice.warnings) == 1


def test_what_came_to_its_end_waits_for_nothing() -> None:
    waiting = job(Phase.CONVERTING).with_warning("STORAGE_UNAVAILABLE", "This job waits, and goes on by itself: …")
    waiting = waiting.with_warning("PTS_SYNTHESISED", "…")
    for ended in (jobs.fail(waiting, FAILURE, at=2.0), jobs.cancel(waiting, at=2.0)):
        assert ended is not None
        assert [item.code for item in ended.warnings] == ["PTS_SYNTHESISED"]


def test_public_states_cover_every_phase() -> None:
    assert set(jobs.PUBLIC_STATE) == set(Phase)
    assert set(jobs.PUBLIC_STATE.values()) == {"queued", "processing", "completed", "failed"}
