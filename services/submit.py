"""A job comes to be: checked, recorded, and its first work published. Gateway, CLI and `work.submit` all end here.

    (source, options) ─> Job in the bucket `jobs` ─> work.plan.<job> ─> event.job.<job>.created

The record comes first and the work second. A caller that brings its own job id may repeat the call after any failure:
an existing record stays as it is, and only work that was never published is published.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from services import inputs, operations, sources
from services.context import Context
from stereospot import errors, keys, log, records, subjects
from stereospot.bus import Conflict, Delivery, Refused
from stereospot.jobs import Job, Phase, Step
from stereospot.messages import Failure, SourceRef, SubmitWork
from stereospot.options import Options
from stereospot.outcome import Ack, Outcome, Reject
from stereospot.settings import GPU_ENGINES, Settings

_log = log.get("submit")

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: no I, L, O, U."""


def new_id(at: float | None = None) -> str:
    """26 characters that sort by time: 48 bits of milliseconds and 80 random bits, as a ULID has them."""
    number = int((time.time() if at is None else at) * 1000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def pool_of(options: Options, settings: Settings) -> str:
    """Which pool of converters a job goes to: by its backend, then by its engine."""
    if options.backend == "stub":
        return "stub"
    if options.backend in ("http", "sagemaker"):
        return "remote"
    return "gpu" if (options.engine or settings.engine) in GPU_ENGINES else "cpu"


async def check_pool(context: Context, pool: str) -> None:
    """Raise INVALID_OPTIONS for a pool that has no queue: its segments would wait for ever."""
    if not subjects.is_token(pool):
        raise errors.error("INVALID_OPTIONS", "A pool is 1 to 64 of A-Z a-z 0-9 _ -.")
    try:
        await context.bus.consumer_info(subjects.CONVERT, subjects.convert_consumer(pool, "normal"))
    except Refused as error:
        raise errors.error(
            "INVALID_OPTIONS", f"There is no pool {pool}: provision it with STEREOSPOT_POOL={pool}."
        ) from error


async def create(
    context: Context,
    source: SourceRef,
    options: Options,
    *,
    job_id: str | None = None,
    title: str = "",
    priority: int = 4,
    owner: str = "",
    passthrough: str = "",
    pool: str | None = None,
    depth: SourceRef | None = None,
) -> Job:
    """Record a job and publish its first work; raises Transient when the broker is away: then call again.

    pool: a label of converters; None: by backend and engine. INVALID_OPTIONS for one that nobody provisioned.
    With a `job_id` that exists already, that job is returned unchanged; CONFLICT for one that was deleted.
    """
    if source.key is None and source.path is None:
        raise errors.error("NOT_AVAILABLE", "URLs are fetched by the ingest service, which this version has not.")
    if job_id is not None and not subjects.is_token(job_id):
        raise errors.error("INVALID_REQUEST", "A job id is 1 to 64 of A-Z a-z 0-9 _ -.")
    if pool is not None:
        await check_pool(context, pool)
    now = time.time()
    job = Job(
        job_id=job_id or new_id(now),
        title=title or source.name,
        created_at=now,
        updated_at=now,
        source=source,
        depth=depth,
        options=options,
        pool=pool or pool_of(options, context.settings),
        priority=priority,
        owner=owner,
        passthrough=passthrough,
        history=(Step(phase=Phase.CREATED, at=now, generation=1, attempt=1),),
    )
    for key in inputs.foreign(job):
        # Before the record: what a job may read is never removed as nobody's.
        await context.store.put(key, b"")
    try:
        await records.create_job(context.bus, job)
    except Conflict:
        found = await records.get_job(context.bus, job.job_id)
        if found is None or found[0].phase is Phase.DELETED:
            raise records.deleted(job.job_id) from None
        job = found[0]
        if job.phase is not Phase.CREATED:
            return job
    await operations.publish_plan(context.bus, job)
    await operations.announce(context.bus, job, "created")
    _log.info("created", action="start", job_id=job.job_id, pool=job.pool)
    return job


async def local_source(path: Path, roots: tuple[Path, ...] | None) -> SourceRef:
    """The reference to a local file; with `roots`, only to one that lies under one of them after all links."""
    return await asyncio.to_thread(_identify, path, roots)


def _identify(path: Path, roots: tuple[Path, ...] | None) -> SourceRef:
    try:
        real = path.expanduser().resolve()
    except (ValueError, RuntimeError) as error:  # a NUL in it, a home of nobody, links that go round
        raise errors.error("INVALID_REQUEST", f"There can be no file at {str(path)[:100]!r}.") from error
    if roots is not None and not any(real.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise errors.error("SOURCE_MISSING", "The path is not under one of the folders of STEREOSPOT_ROOTS.")
    return sources.identify(real)


async def source_of(context: Context, work: SubmitWork) -> SourceRef:
    """Check what was submitted; raises the error that the submitter is to see."""
    given = [value for value in (work.key, work.url, work.path) if value is not None]
    if len(given) != 1:
        raise errors.error("INVALID_REQUEST", "Give exactly one of key, url and path.")
    if work.path is not None:
        return await local_source(Path(work.path), context.settings.roots)
    if work.key is not None:
        if not keys.is_key(work.key) or not work.key.startswith("input/"):
            raise errors.error("INVALID_REQUEST", "A key lies below input/, as input/<name>/source.<extension> does.")
        found = await context.store.head(work.key)
        if found is None:
            raise errors.error("SOURCE_MISSING", work.key)
        if found.size == 0:
            raise errors.error("EMPTY_INPUT", work.key)
        return SourceRef(key=work.key, name=work.title or Path(work.key).name, size_bytes=found.size)
    return SourceRef(url=work.url, name=work.title)


async def depth_of(context: Context, work: SubmitWork) -> SourceRef | None:
    """The same for the depth that was submitted with it, if any."""
    if work.depth_key is None and work.depth_path is None:
        return None
    return await source_of(context, SubmitWork(key=work.depth_key, path=work.depth_path))


async def refuse_ingest(context: Context, delivery: Delivery) -> Outcome:
    """`work.ingest.<job>`: nothing here fetches URLs, and whoever asked learns that at once."""
    failure = Failure.of(
        errors.error("NOT_AVAILABLE", "URLs are fetched by the ingest service, which this version has not.")
    )
    found = await records.get_job(context.bus, delivery.subject.split(".")[3])
    if found is not None and found[0].phase in (Phase.CREATED, Phase.INGESTING):
        await operations.fail(context.bus, found[0].job_id, found[0].generation, failure)
    return Reject(failure)


async def handle(context: Context, delivery: Delivery) -> Outcome:
    """`work.submit.<id>`: anyone who can publish JSON submits a job; the id becomes the job's."""
    if delivery.subject.startswith(subjects.work("ingest", "x").removesuffix("x")):
        return await refuse_ingest(context, delivery)
    job_id = delivery.subject.rsplit(".", 1)[-1]
    work = delivery.parse(SubmitWork)
    source = await source_of(context, work)
    await create(
        context, source, work.options, job_id=job_id, title=work.title, priority=work.priority, pool=work.pool,
        depth=await depth_of(context, work),
    )  # fmt: skip
    return Ack()
