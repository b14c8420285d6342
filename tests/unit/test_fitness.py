"""What a worker gives back without another look, and for how long."""

from __future__ import annotations

from services.fitness import FULL_SECONDS, Fitness
from stereospot import errors
from stereospot.messages import Failure

WORK = ("J1", 1, 1)
SMALL = Failure.of(errors.error("OUT_OF_MEMORY"))
MISSING = Failure.of(errors.error("MODEL_MISSING"))


def test_what_is_missing_stays_missing_until_the_job_is_retried() -> None:
    fitness = Fitness()
    assert fitness.refusal(WORK) is None
    fitness.lacks(WORK, MISSING, 10.0)
    found = fitness.refusal(WORK, now=1e9)
    assert found is not None
    assert (found.failure, found.delay_seconds) == (MISSING, 10.0)
    assert fitness.refusal(("J1", 1, 2), now=1e9) is None


def test_a_worker_that_is_too_small_rests_twice_as_long_each_time() -> None:
    fitness = Fitness()
    now = 100.0
    for rest in (FULL_SECONDS, 2 * FULL_SECONDS, 4 * FULL_SECONDS):
        assert fitness.is_too_small(WORK, SMALL, 3.0, now=now) == rest
        assert fitness.refusal(WORK, now=now + rest - 0.1) is not None
        now += rest
        assert fitness.refusal(WORK, now=now) is None, "it tries again"
    assert now - 100.0 <= 60, "a fleet of such workers has had its four tries within a minute"
