"""Records and storage against each other, and either rebuilt from the other: the work of `stereospot doctor`.

    bucket jobs, state  <─ compare ─>  jobs/<job>/<generation>/{plan, segments, final}

Nothing is rebuilt by hand: a result that the set does not count is published once more as the completion it was, what
the set counts and storage does not hold is forgotten, and the job gets one attempt more. Planner, collector, dispatcher
and assembler do the rest in their ordinary way. Only jobs that have not changed for a while are judged.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services import lost, operations, parts, plans, submit
from services.context import Context
from stereospot import completion, errors, jobs, keys, records, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase, Step
from stereospot.media.model import Plan, PlanTotal
from stereospot.messages import Film, SegmentDone, SourceRef
from stereospot.options import Options

SETTLED_SECONDS = 30.0
"""A record that changed within this time belongs to services that are at work."""


@dataclass(slots=True)
class Comparison:
    """One job's record and set against what is stored; `problems` in sentences."""

    job_id: str
    job: Job | None
    state: Completion | None = None
    reports: dict[int, SegmentDone] = field(default_factory=dict[int, SegmentDone])
    lost: list[int] = field(default_factory=list[int])
    uncounted: list[int] = field(default_factory=list[int])
    film_missing: bool = False
    generation: int = 1
    problems: list[str] = field(default_factory=list[str])
    remedy: str = ""
    unreadable: bool = False
    """Its set is of a newer version, which alone can mend it."""


async def compare(context: Context, *, settled_seconds: float = SETTLED_SECONDS) -> list[Comparison]:
    """Every job of which record and storage disagree: of records first, then of objects without a record."""
    found: list[Comparison] = []
    known = {job.job_id: job for job, _ in await records.list_jobs(context.bus)}
    for job in known.values():
        if job.phase is Phase.DELETED or job.updated_at > time.time() - settled_seconds:
            continue
        try:
            item = await _compare(context, job)
        except errors.Misconfigured as error:
            if error.code != "RECORD_UNREADABLE":
                raise
            item = Comparison(job.job_id, job, unreadable=True, problems=[str(error)], remedy=error.advice)
        if item.problems:
            found.append(item)
    async for job_id, generation in _generations(context):
        if job_id not in known and not await records.is_taken(context.bus, job_id):
            item = Comparison(job_id, None, generation=generation)
            item.problems.append("its objects are stored, and it has no record")
            item.remedy = "rebuild the record from its plan"
            found.append(item)
    return found


async def _compare(context: Context, job: Job) -> Comparison:
    item = Comparison(job.job_id, job, generation=job.generation)
    state = await records.get_state(context.bus, job.job_id, job.generation)
    item.state = state[0] if state else None
    if job.phase is Phase.COMPLETED:
        await _compare_film(context, item, job)
        return item
    await _compare_segments(context, item)
    if item.lost:
        item.problems.append(f"{len(item.lost)} segments are counted and not stored, the first is {item.lost[0]}")
    done = await context.bus.stream_info(
        subjects.DONE, subjects_filter=f"{subjects.PREFIX}.done.{job.job_id}.{job.generation}.>"
    )
    waiting = len(done["state"].get("subjects") or {})
    if item.uncounted and not waiting and job.is_active:
        # What was stored and counted while all of this was read is counted by now.
        after = await records.get_state(context.bus, job.job_id, job.generation)
        item.uncounted = _uncounted(item, after[0] if after else None)
        if item.uncounted:
            item.problems.append(f"{len(item.uncounted)} segments are stored and not counted")
    if item.problems:
        item.remedy = "tell the stored segments again, forget the others, one attempt more"
        if job.phase is Phase.CANCELLED:
            item.remedy = "forget the segments that are not stored"
    return item


async def _compare_segments(context: Context, item: Comparison) -> None:
    item.reports = await lost.stored_reports(context.store, item.job_id, item.generation)
    if item.state is not None:
        item.lost = await lost.missing(context.store, item.state, item.reports)
    item.uncounted = _uncounted(item, item.state)


def _uncounted(item: Comparison, state: Completion | None) -> list[int]:
    return sorted(set(item.reports) - set(completion.bits(state.done if state else 0)))


async def _compare_film(context: Context, item: Comparison, job: Job) -> None:
    assert job.film is not None
    stored = await context.store.head(job.film.key)
    if stored is not None and stored.size == job.film.size_bytes:
        return
    item.film_missing = True
    said = "is not stored" if stored is None else f"has {stored.size} bytes, not {job.film.size_bytes}"
    item.problems.append(f"its film {job.film.key} {said}")
    await _compare_segments(context, item)
    item.remedy = "assemble it again" if not item.lost else "convert what is missing and assemble it again"


async def _generations(context: Context) -> AsyncIterator[tuple[str, int]]:
    """(job, newest generation) of every job that has a plan stored."""
    present: tuple[str, int] | None = None
    async for item in context.store.list("jobs/"):
        parts = item.key.split("/")
        if len(parts) != 4 or parts[3] != "plan.json" or not parts[2].isdigit() or not subjects.is_token(parts[1]):
            continue
        if present is not None and present[0] != parts[1]:
            yield present
            present = None
        present = (parts[1], max(int(parts[2]), present[1] if present else 0))
    if present is not None:
        yield present


# ---- mending -----------------------------------------------------------------------------------------------
async def mend(context: Context, item: Comparison) -> str:
    """Bring record and storage together again; returns what was done. Raises what storage and broker raise."""
    if item.job is None:
        return await _rebuild_record(context, item)
    if item.unreadable:
        return f"nothing: {item.remedy}"
    await _tell(context, item)
    if item.lost:
        await lost.forget(context, item.job_id, item.generation)
    if item.job.phase is Phase.CANCELLED:
        return item.remedy  # whoever cancelled it may retry it
    if item.lost or item.film_missing:
        await _once_more(context, item.job)
    else:
        await operations.publish_plan(context.bus, item.job, again=True)
    return item.remedy


async def _tell(context: Context, item: Comparison) -> None:
    """Publish the completions of stored segments that the set does not count; ids are new, the set takes each once."""
    for index in item.uncounted:
        await context.bus.publish(
            subjects.done_segment(item.job_id, item.generation, index), item.reports[index],
            msg_id=f"doctor.{secrets.token_hex(8)}",
        )  # fmt: skip


async def _once_more(context: Context, job: Job) -> None:
    """The same generation, one attempt more, in whatever phase it is; what is stored is kept."""

    def again(found: Job) -> Job | None:
        is_over = found.phase in (Phase.CANCELLED, Phase.DELETED)
        if (found.generation, found.attempt) != (job.generation, job.attempt) or is_over:
            return None
        return jobs.advance(
            found, Phase.PLANNING, at=time.time(), note="doctor", attempt=found.attempt + 1, film=None, failure=None
        )

    changed = await records.change_job(context.bus, job.job_id, again)
    await operations.withdraw(context.bus, job.job_id)
    await operations.publish_plan(context.bus, changed)


async def _rebuild_record(context: Context, item: Comparison) -> str:
    """A record from the plan: completed where the film is stored, else it goes on where storage says."""
    stored = plans.Plans(context.store)
    head = await stored.head(item.job_id, item.generation)
    total = await stored.total(item.job_id, item.generation)
    if head is None:
        return "nothing: its plan cannot be read"
    film = await _stored_film(context, head, total)
    if film is None and not head.source_key:
        return "nothing: it was made from a local file whose path only the record knew; convert that again"
    if film is None and head.depth is not None:
        return "nothing: its depth was given, and only the record knew which; convert that again"
    options, settings = _options(head), context.settings
    now = time.time()
    counted = await records.get_state(context.bus, item.job_id, item.generation)
    attempt = counted[0].attempt if counted is not None else 1  # of another one its set would count for nothing
    job = Job(
        job_id=item.job_id, title=item.job_id, created_at=head.created_at, updated_at=now,
        source=SourceRef(key=head.source_key or None, name=item.job_id), options=options,
        generation=item.generation, attempt=attempt, phase=Phase.CREATED,
        history=(Step(phase=Phase.CREATED, at=head.created_at, generation=item.generation, attempt=attempt),),
        # A label of this deployment's own is not in the plan; the others follow from it.
        pool=submit.pool_of(options, settings) if settings.pool in parts.POOLS else settings.pool,
    )  # fmt: skip
    for phase in (Phase.PLANNING,) if film is None else (Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING):
        job = jobs.advance(job, phase, at=now, note="doctor")
    if film is not None and total is not None:
        job = jobs.advance(
            job, Phase.COMPLETED, at=now, note="doctor", film=film, segments=total.segments, frames=total.frames,
            duration_seconds=film.duration_seconds,
        )  # fmt: skip
    await records.create_job(context.bus, job)
    if film is not None:
        return "its record was rebuilt from plan and film"
    item.reports = await lost.stored_reports(context.store, item.job_id, item.generation)
    item.uncounted = sorted(item.reports)
    await _tell(context, item)
    await operations.publish_plan(context.bus, job, again=True)
    return f"its record was rebuilt from the plan; {len(item.reports)} stored segments are kept"


async def _stored_film(context: Context, head: Plan, total: PlanTotal | None) -> Film | None:
    if total is None:
        return None
    place = (head.job_id, head.generation, head.container)
    prefix = f"{keys.generation_prefix(head.job_id, head.generation)}final"
    films = [item async for item in context.store.list(prefix) if keys.parse_film(item.key) == place]
    if not films:
        return None
    # A repeated assembly has a key of its own; each of them is whole, and the newest is the likeliest to be the one.
    info = max(films, key=lambda item: item.modified)
    key = info.key
    digest = hashlib.sha256()
    async for block in context.store.stream(key):
        digest.update(block)
    seconds = float((total.end_pts - total.first_pts) * head.source.video.time_base)
    return Film(
        key=key, sha256=digest.hexdigest(), size_bytes=info.size, frames=total.frames, duration_seconds=seconds,
        container=head.container, file_name=f"{head.job_id}.{head.container}",
    )  # fmt: skip


def _options(head: Plan) -> Options:
    """What the plan settled, said as options."""
    stereo, encode = head.stereo, head.encode
    return Options.model_validate(
        {
            "engine": stereo.engine, "model": stereo.model, "backend": head.backend, "layout": stereo.layout,
            "divergence": stereo.divergence, "convergence": stereo.convergence, "synthesise": stereo.synthesise,
            "swap_eyes": stereo.swap_eyes, "codec": encode.codec, "crf": encode.crf, "preset": encode.preset,
            "container": head.container,
        }
    )  # fmt: skip
