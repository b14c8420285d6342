"""Where "Try again" of a dead letter can help, and what is said where it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.second_try import why_not
from stereospot import errors
from stereospot.jobs import Job, Phase
from stereospot.messages import DeadLetter, Failure, SourceRef


def letter(code: str = "ATTEMPTS_EXHAUSTED", **changes: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "dead_id": "CONVERT-1", "kind": "convert", "subject": "stereospot.convert.cpu.normal.J1.2.0",
        "original": '{"job_id": "J1", "generation": 2, "attempt": 2}', "failure": Failure.of(errors.error(code)),
        "attempts": 4, "worker_id": "w", "job_id": "J1", "at": 1.0,
    }  # fmt: skip
    return DeadLetter(**(values | changes))


def job(phase: Phase, generation: int = 2, attempt: int = 2) -> Job:
    source = SourceRef(key="input/x/source.mp4")
    return Job(
        job_id="J1", phase=phase, generation=generation, attempt=attempt, created_at=1.0, updated_at=1.0, source=source
    )  # fmt: skip


DELETE: dict[str, Any] = {"kind": "work-delete", "subject": "stereospot.work.delete.J1", "original": '{"job_id": "J1"}'}
SUBMIT: dict[str, Any] = {"kind": "work-submit", "subject": "stereospot.work.submit.J1", "original": "no JSON"}
BROKER: dict[str, Any] = {"kind": "state", "subject": "$KV.state.trigger.J1.2", "original": "[]"}
NOBODYS: dict[str, Any] = BROKER | {"job_id": None}

TABLE: list[tuple[DeadLetter, Job | None, str | None]] = [
    (letter(), job(Phase.FAILED), None),
    (letter(), job(Phase.CONVERTING), None),
    (letter("STORAGE_FULL"), job(Phase.FAILED), None),
    (letter("MODEL_MISSING"), job(Phase.FAILED), None),
    (letter("CORRUPT_INPUT"), job(Phase.FAILED), "would fail again"),
    (letter(), None, "removed"),
    (letter(), job(Phase.DELETED), "removed"),
    (letter(), job(Phase.COMPLETED), "finished"),
    (letter(), job(Phase.FAILED, generation=3, attempt=1), "begun once more"),
    (letter(), job(Phase.CONVERTING, attempt=3), "begun once more"),
    (letter(**DELETE), None, None),
    (letter(**DELETE), job(Phase.DELETED), None),
    (letter(**SUBMIT), None, None),
    (letter("INVALID_OPTIONS", **SUBMIT), None, "would fail again"),
    (letter(**BROKER), job(Phase.FAILED), None),
    (letter(**BROKER), job(Phase.ASSEMBLING), "no message"),
    (letter(**NOBODYS), None, "no message"),
]


@pytest.mark.parametrize(("buried", "found", "wanted"), TABLE)
def test_where_another_try_can_help(buried: DeadLetter, found: Job | None, wanted: str | None) -> None:
    said = why_not(buried, found)
    assert said is None if wanted is None else said is not None and wanted in said
