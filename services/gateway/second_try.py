"""Whether trying a dead letter's work once more can help, as far as it is known here. Pure."""

from __future__ import annotations

import json

from services.dead_letters import JOBLESS
from stereospot import errors
from stereospot.jobs import Job, Phase
from stereospot.messages import DeadLetter

MENDED_OUTSIDE = frozenset(
    {"ATTEMPTS_EXHAUSTED", "ASSEMBLY_FAILED", "VERIFICATION_FAILED", "SOURCE_MISSING", "CANCELLED", "NOT_FOUND"}
)
"""Permanent as they are, these may have had a cause beside the film and what was asked for."""


def why_not(letter: DeadLetter, job: Job | None) -> str | None:
    """Why it cannot help, in a sentence; None where it may. `job` is the letter's, None where there is none."""
    if letter.job_id is not None and letter.kind not in JOBLESS:
        if job is None or job.phase is Phase.DELETED:
            return "Its film was removed."
        if job.phase is Phase.COMPLETED:
            return "Its film is finished."
        if _is_overtaken(letter, job):
            return "Its film was begun once more since."
    # A job that ended goes on as a whole; else the message is sent again, which one of the broker's own cannot be.
    if letter.subject.startswith("$") and (job is None or job.is_active):
        return "There is no message to send again."
    found = errors.CATALOGUE.get(letter.failure.code)
    if found is not None and found.kind == "permanent" and found.code not in MENDED_OUTSIDE:
        return "The same would fail again: its cause lies in the film, or in what was asked for."
    return None


def _is_overtaken(letter: DeadLetter, job: Job) -> bool:
    """Whether the letter is of an earlier generation or attempt."""
    try:
        body = json.loads(letter.original)
    except ValueError:
        return False
    if not isinstance(body, dict):
        return False
    generation, attempt = body.get("generation"), body.get("attempt")  # pyright: ignore[reportUnknownMemberType]
    if isinstance(generation, int) and generation < job.generation:
        return True
    return generation == job.generation and isinstance(attempt, int) and attempt < job.attempt
