"""The checker is checked: a whole history keeps every promise, and each way to break one is seen as that promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stereospot import jobs, keys
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import DeadLetter, Failure, Film, JobEvent, SegmentDone, SegmentEvent, Trigger
from tests.faults import promises
from tests.faults.history import (
    Death,
    History,
    JobRevision,
    Object,
    Playlist,
    SegmentRevision,
    StateRevision,
    TriggerRevision,
    WebhookCall,
)
from tests.faults.promises import Violation, check
from tests.system.rig import a_job

INIT = "a" * 64
FILM = Film(
    key=keys.film("J1", 1, "mp4"), sha256="f" * 64, size_bytes=9, frames=48, duration_seconds=2, container="mp4",
    file_name="f.mp4",
)  # fmt: skip
FAILURE = Failure(code="CORRUPT_INPUT", sentence="It is broken.", advice="Mend it.")


def event(sequence: int, at: float, index: int, state: Any, pid: int = 7, **values: Any) -> SegmentRevision:
    body = SegmentEvent(
        job_id="J1", generation=1, index=index, state=state, worker_id=f"host-{pid}-ab", at=at, **values
    )
    return SegmentRevision(sequence, at, body)


def state(sequence: int, at: float, done: int, **values: Any) -> StateRevision:
    given: dict[str, Any] = {"total": 2, "planned": 2, "init": INIT, "sent": 0b11, **values}
    return StateRevision(sequence, at, Completion(job_id="J1", generation=1, done=done, **given))


def trigger(sequence: int, attempt: int = 1) -> TriggerRevision:
    return TriggerRevision(sequence, 4.0, Trigger(job_id="J1", generation=1, total=2, attempt=attempt))


def whole() -> History:
    """Job J1: two segments by worker 7, one trigger, one film, two webhook calls, a playlist that a player followed."""
    made: list[Job] = [a_job(phase=phase) for phase in (Phase.CREATED, Phase.PLANNING, Phase.CONVERTING)]
    made.append(jobs.advance(made[-1], Phase.ASSEMBLING, at=5.0))
    made.append(jobs.advance(made[-1], Phase.COMPLETED, at=6.0, film=FILM, frames=48))
    objects = {FILM.key: Object(9, FILM.sha256), keys.film_alias("J1"): Object(9, FILM.sha256)}
    reports: dict[tuple[str, int, int], SegmentDone] = {}
    lines: list[dict[str, Any]] = []
    for index in range(2):
        objects[keys.segment("J1", 1, index)] = Object(5, f"{index}" * 64)
        objects[keys.segment_report("J1", 1, index)] = Object(4, "e" * 64)
        reports["J1", 1, index] = SegmentDone(
            job_id="J1", generation=1, index=index, frames=24, init_sha256=INIT, size_bytes=5, worker_id="w", seconds=1
        )
        for number, key in enumerate((keys.segment("J1", 1, index), keys.segment_report("J1", 1, index))):
            lines.append({"kind": "put", "at": 2.0 + index + number / 10, "pid": 7, "key": key})
    lines.append(
        {"kind": "publish", "at": 2.5, "pid": 7, "stream": "EVENT", "sequence": 4, "subject": "stereospot.event.x"}
    )
    job_events = tuple(
        (sequence, JobEvent(job_id="J1", generation=1, name=name, at=1.0, phase="p"))
        for sequence, name in ((1, "created"), (6, "completed"))
    )
    return History(
        accepted=frozenset({"J1"}),
        expected={"J1": Phase.COMPLETED},
        jobs=tuple(JobRevision(number, float(number), "J1", job) for number, job in enumerate(made, 1)),
        states=(state(1, 1.5, 0), state(2, 2.5, 0b01), state(3, 4.0, 0b11)),
        triggers=(trigger(4),),
        segments=(
            event(2, 1.6, 0, "running"), event(3, 2.6, 0, "done"), event(4, 2.7, 1, "running"),
            event(5, 3.9, 1, "done"),
        ),
        events=job_events,
        objects=objects,
        reports=reports,
        last_sequences={"EVENT": 6},
        lines=tuple(lines),
        playlists=(
            Playlist("s", ("0",), total=2), Playlist("s", ("0", "1"), ended=True, total=2),
        ),
        endpoints=frozenset({"hook"}),
        calls=(WebhookCall("hook", "J1", 1), WebhookCall("hook", "J1", 1), WebhookCall("hook", "J1", 6)),
    )  # fmt: skip


def _job_at(base: History, phase: Phase, **values: Any) -> History:
    """As if the last revision had been this."""
    last = base.jobs[-1]
    assert last.job is not None
    job = last.job.model_copy(update={"phase": phase, **values})
    return replace(base, jobs=(*base.jobs[:-1], replace(last, job=job)))


def _without(base: History, key: str) -> History:
    return replace(base, objects={name: item for name, item in base.objects.items() if name != key})


def _cancelled(base: History) -> History:
    """A cancel at 3.0 and no completion after it."""
    job = jobs.cancel(a_job(), at=3.0)
    revisions = (*base.jobs[:3], JobRevision(4, 3.0, "J1", job))
    return replace(base, jobs=revisions, expected={"J1": Phase.CANCELLED})


def _letter(failure: Failure) -> DeadLetter:
    return DeadLetter(
        dead_id="d", kind="convert", subject="s", original="", failure=failure, attempts=4, worker_id="w", at=1.0
    )


BROKEN: list[tuple[int, str, Callable[[History], History]]] = [
    (0, "an illegal step", lambda h: replace(h, jobs=(h.jobs[-1], replace(h.jobs[0], sequence=9)))),
    (
        0,
        "an older generation",
        lambda h: replace(h, jobs=(replace(h.jobs[1], job=jobs.renew(a_job(), at=1.0, note="")), *h.jobs[2:])),
    ),
    (1, "a job without a record", lambda h: replace(h, accepted=frozenset({"J1", "J2"}))),
    (1, "a record that vanished", lambda h: replace(h, jobs=(*h.jobs, JobRevision(9, 9.0, "J1", None)))),
    (1, "a job that stays where it is", lambda h: _job_at(h, Phase.ASSEMBLING)),
    (1, "an acknowledged message that is gone", lambda h: replace(h, last_sequences={"EVENT": 3})),
    (2, "a lost bit", lambda h: replace(h, states=(*h.states, state(5, 5.0, 0b10)))),
    (2, "a film without its set", lambda h: replace(h, states=h.states[:2])),
    (2, "a missing fragment", lambda h: _without(h, keys.segment("J1", 1, 1))),
    (
        2,
        "another fragment than reported",
        lambda h: replace(h, objects={**h.objects, keys.segment("J1", 1, 1): Object(6, "x")}),
    ),
    (
        2,
        "another header",
        lambda h: replace(
            h, reports={**h.reports, ("J1", 1, 1): h.reports["J1", 1, 1].model_copy(update={"init_sha256": "b"})}
        ),
    ),
    (2, "a frame too many", lambda h: _job_at(h, Phase.COMPLETED, film=FILM.model_copy(update={"frames": 49}))),
    (3, "two triggers", lambda h: replace(h, triggers=(trigger(4), trigger(5)))),
    (3, "no trigger", lambda h: replace(h, triggers=())),
    (
        3,
        "two recorded films",
        lambda h: replace(
            h, jobs=(*h.jobs, *_job_at(h, Phase.COMPLETED, film=FILM.model_copy(update={"sha256": "0"})).jobs[-1:])
        ),
    ),
    (3, "a film that was overwritten", lambda h: replace(h, objects={**h.objects, FILM.key: Object(9, "0")})),
    (
        3,
        "an alias of something else",
        lambda h: replace(h, objects={**h.objects, keys.film_alias("J1"): Object(9, "0")}),
    ),
    (4, "a segment that nobody took over", lambda h: replace(h, deaths=(Death(7, 3.0),), states=h.states[:2])),
    (
        4,
        "a segment taken over too late",
        lambda h: replace(
            h,
            deaths=(Death(7, 3.0),),
            segments=(*h.segments[:3], event(5, 29.0, 1, "running", 8)),
            states=(*h.states[:2], state(3, 30.0, 0b11)),
        ),
    ),
    (5, "a playlist that names what is not there", lambda h: replace(h, playlists=(Playlist("s", ("0",), ("0",)),))),
    (5, "a playlist that shrinks", lambda h: replace(h, playlists=h.playlists[1::-1])),
    (
        5,
        "a playlist that grows after its end",
        lambda h: replace(h, playlists=(Playlist("s", ("0",), ended=True), Playlist("s", ("0", "1")))),
    ),
    (5, "an end before the end", lambda h: replace(h, playlists=(Playlist("s", ("0",), ended=True, total=2),))),
    (
        5,
        "counted before it was stored",
        lambda h: replace(h, lines=tuple({**line, "at": line["at"] + 10} for line in h.lines)),
    ),
    (6, "computed again", lambda h: replace(h, segments=(*h.segments, event(9, 5.0, 0, "running", 8)))),
    (7, "an event that was not told", lambda h: replace(h, calls=h.calls[:2])),
    (7, "events out of order", lambda h: replace(h, calls=h.calls[::-1])),
    (8, "a good job that failed", lambda h: _job_at(h, Phase.FAILED, failure=FAILURE)),
    (
        9,
        "work on a cancelled job",
        lambda h: replace(_cancelled(h), segments=(*h.segments, event(9, 14.0, 1, "running"))),
    ),
    (
        9,
        "an object of a cancelled job",
        lambda h: replace(
            _cancelled(h), lines=(*h.lines, {"kind": "put", "at": 14.0, "pid": 7, "key": keys.segment("J1", 1, 1)})
        ),
    ),
    (10, "a failure without a reason", lambda h: _job_at(h, Phase.FAILED, failure=None)),
    (10, "an unknown code", lambda h: replace(h, letters=(_letter(FAILURE.model_copy(update={"code": "OOPS"})),))),
    (
        10,
        "no advice",
        lambda h: replace(
            h, segments=(*h.segments[:3], event(5, 3.9, 1, "failed", failure=FAILURE.model_copy(update={"advice": ""})))
        ),
    ),
]


def test_a_whole_history_keeps_every_promise() -> None:
    verdict = check(whole())
    assert verdict.violations == ()
    assert (verdict.jobs, verdict.lost, verdict.duplicated, verdict.extra, verdict.recovery) == (1, 0, 0, 0, None)
    assert str(verdict) == "all promises kept"


@pytest.mark.parametrize(("promise", "what", "seed"), BROKEN, ids=[f"{number} {what}" for number, what, _ in BROKEN])
def test_a_violation_is_seen(promise: int, what: str, seed: Callable[[History], History]) -> None:
    verdict = check(seed(whole()))
    assert promise in verdict.promises(), what
    assert any(isinstance(item, Violation) and item.text for item in verdict.violations)


def test_every_promise_has_a_seeded_violation() -> None:
    assert {promise for promise, _, _ in BROKEN} == set(range(11))


def test_a_cancel_that_was_obeyed_is_no_violation() -> None:
    assert check(_cancelled(whole())).promises() <= {2}


def test_computations_and_recovery_are_counted() -> None:
    base = replace(
        whole(),
        segments=(event(2, 1.6, 0, "running", 3), event(3, 2.4, 0, "running"), *whole().segments[1:]),
        deaths=(Death(3, 2.0),),
    )
    verdict = check(base)
    assert verdict.violations == ()
    assert verdict.extra == promises.extra_computations(base) == 1
    assert verdict.recovery == pytest.approx(0.4)
