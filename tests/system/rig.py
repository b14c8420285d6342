"""A broker, a bus and a local store for one test, provisioned as shipped."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from services.context import Context
from stereospot import jobs
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.messages import SourceRef
from stereospot.options import Options
from stereospot.settings import Settings
from stereospot.storage import open_store
from streams_config.provision import provision
from tests.support import nats_server


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
