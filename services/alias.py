"""`jobs/{job}/final.mp4`: the recorded film under a name that needs no record, for who knows only the id."""

from __future__ import annotations

import contextlib

from services.context import Context
from stereospot import errors, keys
from stereospot.jobs import Job


async def write_alias(context: Context, job: Job) -> None:
    """Make the alias the recorded film, where that is an mp4; a film that is gone by now has none."""
    if job.film is not None and job.film.container == "mp4":
        with contextlib.suppress(errors.Permanent):
            await context.store.copy(job.film.key, keys.film_alias(job.job_id))
