"""What a worker has found that it cannot do, so that it gives the rest of that work back without another look.

    its encoder writes another header, its model is missing   for ever: the process would have to be another one
    its memory is too small                                   for a while, and each time for twice as long

Work is (job, generation, attempt): a job that is retried is looked at anew, something may have been installed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from stereospot.messages import Failure

Work = tuple[str, int, int]

FULL_SECONDS = 8.0
"""How long a worker without the memory for a job's segments leaves them to others at first: it fails faster than they
work, and would use up every try. Where no worker is large enough the job has had its tries after a minute."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why work is given back, and how long it rests before it is offered again."""

    failure: Failure
    delay_seconds: float
    until: float | None = None


class Fitness:
    """Of one process; used from its event loop only. Times in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self._refusals: dict[Work, Refusal] = {}
        self._rests: dict[Work, float] = {}

    def lacks(self, work: Work, failure: Failure, delay_seconds: float) -> None:
        """This process cannot do it at all; what it gives back rests for `delay_seconds`."""
        self._refusals[work] = Refusal(failure, delay_seconds)

    def is_too_small(self, work: Work, failure: Failure, delay_seconds: float, *, now: float | None = None) -> float:
        """It has not the memory; returns for how long it leaves the work to others from now on."""
        rest = self._rests.get(work, FULL_SECONDS)
        self._rests[work] = 2 * rest
        self._refusals[work] = Refusal(failure, delay_seconds, (time.monotonic() if now is None else now) + rest)
        return rest

    def refusal(self, work: Work, *, now: float | None = None) -> Refusal | None:
        """Why this work is not to be tried now, if so."""
        found = self._refusals.get(work)
        if found is None or found.until is None:
            return found
        return found if (time.monotonic() if now is None else now) < found.until else None
