"""What the dispatcher sees: jobs in flight and in waiting, workers and what they cannot do."""

from __future__ import annotations

import pytest

from services.view import WAITING_SECONDS, View
from stereospot import jobs, schedule
from stereospot.completion import Completion
from stereospot.messages import Worker
from tests.system.rig import a_job


def test_the_view_counts_jobs_with_nothing_waiting_as_in_flight() -> None:
    view = View()
    for number in range(3):
        name = f"J{number}"
        view.set_job(a_job(name, created_at=float(number)))
        state = Completion(job_id=name, generation=1, pool="cpu", planned=1, total=1)
        view.set_state(state.with_sent([0]) if number < 2 else state)
    assert view.in_flight("cpu") == 2
    assert view.candidates("cpu") == [], "both places of the pool are taken"
    assert schedule.schedule(view.candidates("cpu"), 1, in_flight=view.in_flight("cpu")) == []
    view.set_state(Completion(job_id="J0", generation=1, pool="cpu", planned=1, total=1, done=1, sent=1))
    chosen = schedule.schedule(view.candidates("cpu"), 1, in_flight=view.in_flight("cpu"))
    assert [item.job_id for item in chosen] == ["J2"]


def test_a_job_that_waits_for_another_worker_takes_no_room_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("services.view.time.monotonic", lambda: now)
    view = View()

    def chosen() -> list[tuple[str, int]]:
        found = schedule.schedule(view.candidates("cpu"), 1, in_flight=view.in_flight("cpu"))
        return [(item.job_id, item.index) for item in found]

    job = a_job("J1", priority=9).with_warning("MODEL_MISSING", "A worker gave this job back.")
    view.set_job(job)
    view.set_job(a_job("J2"))
    stuck = Completion(job_id="J1", generation=1, pool="cpu", planned=9, total=9).with_sent([0, 1])
    view.set_state(stuck)
    view.set_state(Completion(job_id="J2", generation=1, pool="cpu", planned=1, total=1))
    now += WAITING_SECONDS - 1
    view.set_job(job.with_warning("OUT_OF_MEMORY", "A worker gave this job back."))
    assert (view.pools(), view.in_flight("cpu")) == ([], 2), "it may be at work still"
    now += 1
    assert (view.pools(), view.in_flight("cpu")) == (["cpu"], 0)
    assert chosen() == [("J2", 0)], "and gets no more of the queue itself"

    view.set_state(stuck.with_done(0, None))
    assert view.in_flight("cpu") == 1
    assert chosen() == [("J1", 2)], "it goes on"
    now += WAITING_SECONDS
    view.set_state(stuck.with_done(0, None).with_attempt(2))
    assert view.in_flight("cpu") == 0, "one of another attempt is nobody's"
    view.set_job(jobs.without_warnings(job))
    view.set_state(stuck)
    now += WAITING_SECONDS
    assert view.in_flight("cpu") == 2, "nobody gave it back"


def test_a_job_that_a_worker_is_at_work_on_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("services.view.time.monotonic", lambda: now)
    view = View()
    worker = Worker(worker_id="w", host="h", pid=1, pool="cpu", slots=1, started_at=0, seen_at=0, busy=("J1.1.0",))
    stuck = Completion(job_id="J1", generation=1, pool="cpu", planned=9, total=9).with_sent([0, 1])
    job = a_job("J1", priority=9)
    view.set_job(job.with_warning("OUT_OF_MEMORY", "A worker gave this job back."))
    view.set_state(stuck)
    now += WAITING_SECONDS
    view.set_worker(worker)
    assert view.in_flight("cpu") == 2, "a long segment is no reason to let others pass"
    view.set_worker(worker.model_copy(update={"busy": ()}))
    assert view.in_flight("cpu") == 0

    view.set_job(job.with_warning("STORAGE_FULL", "A result waits until it can be stored."))
    now += WAITING_SECONDS
    assert view.in_flight("cpu") == 2, "its result is held, and the slot with it"


def test_a_worker_that_is_silent_has_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("services.view.time.monotonic", lambda: now)
    view = View()
    view.set_worker(Worker(worker_id="w", host="h", pid=1, pool="cpu", slots=4, started_at=0, seen_at=0))
    assert view.slots("cpu") == 4
    now = 116.0
    assert view.slots("cpu") == 0
