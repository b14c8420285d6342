"""A broker, a bus and a local store for one test, provisioned as shipped."""

from __future__ import annotations

import asyncio
import hashlib
import time
from array import array
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import av

from inference import geometry
from services import plans, sources
from services.collector import Collector
from services.context import Context
from stereospot import jobs, records, subjects
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.media import probe
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, EncodeSpec, Plan, PlanTotal, Segment, StereoSpec
from stereospot.media.source import FileSource
from stereospot.messages import SegmentEvent, SourceRef, TotalDone
from stereospot.options import Codec, Options
from stereospot.settings import Settings
from stereospot.storage import open_store
from streams_config.provision import provision
from tests.support import eventually, nats_server


@asynccontextmanager
async def rig(tmp_path: Path, *, provisioned: bool = True, **settings: object) -> AsyncGenerator[Context]:
    """A context over a server of its own."""
    with nats_server() as server:
        given = Settings(data_dir=tmp_path / "data", nats_url=server.url, sandbox="off", **settings)  # type: ignore[arg-type]
        bus = await Bus.connect(given, name="test")
        try:
            if provisioned:
                await provision(bus.nc)
            store = open_store(given)
            yield Context(given, bus, store)
            await store.close()
        finally:
            await bus.drain()


def a_job(job_id: str = "J1", *, phase: Phase = Phase.CONVERTING, created_at: float = 1.0, **values: object) -> Job:
    """A record in a phase, as if it had come there in the ordinary way."""
    source = SourceRef(key=f"input/{job_id}/source.mp4")
    given = {"created_at": created_at, "updated_at": created_at, "source": source, "options": Options(), **values}
    job = Job(job_id=job_id, **given)  # type: ignore[arg-type]
    way = {
        Phase.CREATED: [],
        Phase.PLANNING: [Phase.PLANNING],
        Phase.CONVERTING: [Phase.PLANNING, Phase.CONVERTING],
        Phase.ASSEMBLING: [Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING],
    }[phase]
    for step in way:
        job = jobs.advance(job, step, at=created_at)
    return job


async def a_planned_job(
    context: Context,
    path: Path,
    *,
    job_id: str = "J1",
    engine: str = "identity",
    options: Options | None = None,
    frames: int = 24,
    promised: int = 0,
) -> tuple[Job, Plan, list[Segment]]:
    """A converting job whose plan is stored: cut every `frames` frames, as the decoder gives them.

    promised: so many frames more than there are in the first segment, as a bad index would have it.
    """
    options = options or Options()
    source = sources.identify(path)
    info = probe.probe(FileSource(path), limits=Limits())
    with av.open(str(path)) as container:
        pts = [frame.pts for frame in container.decode(container.streams.video[0]) if frame.pts is not None]
    step = pts[1] - pts[0]
    segments: list[Segment] = []
    for first in range(0, len(pts), frames):
        chunk, rest = pts[first : first + frames], pts[first + frames :]
        after = rest[0] if rest else chunk[-1] + step
        extra = promised if first == 0 else 0
        segments.append(
            Segment(
                index=len(segments), start=chunk[0], end=rest[0] if rest else None, frames=len(chunk) + extra,
                last=chunk[-1], duration=after - chunk[0],
            )
        )  # fmt: skip
    video = info.video
    width, height, aspect = geometry.output_size(info, options.layout, engine=engine)
    head = Plan(
        job_id=job_id, generation=1, source_key="", source=info, container=options.container, target_seconds=2,
        created_at=1.0, backend=options.backend,
        decode=DecodeSpec(
            stream_index=video.stream_index, pixel_format=video.pixel_format, rotation=video.rotation,
            mirrored=video.mirrored, interlaced=video.interlaced,
        ),
        stereo=StereoSpec(engine=engine, layout=options.layout, divergence=1.0, convergence=0.5),
        encode=EncodeSpec(
            codec=Codec.X264, pixel_format=video.pixel_format, width=width, height=height, sample_aspect=aspect,
            time_base=video.time_base, rate=video.average_rate, crf=20, preset="ultrafast", layout=options.layout,
        ),
    )  # fmt: skip
    total = PlanTotal(
        segments=len(segments), frames=len(pts), parts=(0,), first_pts=pts[0], end_pts=pts[-1] + step,
        pts_sha256=hashlib.sha256(array("q", pts).tobytes()).hexdigest(),
    )  # fmt: skip
    await plans.write_head(context.store, head)
    await plans.write_part(context.store, job_id, 1, segments)
    await plans.write_total(context.store, job_id, 1, total)
    job = a_job(job_id, pool="stub" if options.backend == "stub" else "cpu")
    job = job.model_copy(update={"source": source, "options": options, "title": path.stem, "updated_at": time.time()})
    await records.create_job(context.bus, job)
    return job, head, segments


async def announce_total(context: Context, job: Job, total: int, *, attempt: int = 1) -> None:
    """What the planner says last: everything may be dispatched."""
    done = TotalDone(
        job_id=job.job_id, generation=1, attempt=attempt, pool=job.pool, total=total, parts=(0,), audio=False
    )
    await context.bus.publish(subjects.done_plan(job.job_id, 1, "total"), done)


@asynccontextmanager
async def collecting(*collectors: Collector) -> AsyncGenerator[None]:
    """Collectors at work around the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collector.run()) for collector in collectors]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def begun(context: Context) -> list[SegmentEvent]:
    """Every segment that was begun, in order."""
    found: list[SegmentEvent] = []
    async with context.bus.tail(subjects.EVENT, f"{subjects.PREFIX}.event.segment.>", start="all") as tail:
        while tail.pending:
            event = SegmentEvent.model_validate_json((await anext(tail)).data)
            if event.state == "running":
                found.append(event)
    return found


async def ended(context: Context, job_id: str, *, seconds: float = 90) -> Job:
    """The job once it is active no more."""

    async def is_over() -> Job | None:
        found = await records.get_job(context.bus, job_id)
        return found[0] if found is not None and not found[0].is_active else None

    job = await eventually(is_over, seconds=seconds, every=0.1, what=f"the end of {job_id}")
    assert job is not None
    return job
