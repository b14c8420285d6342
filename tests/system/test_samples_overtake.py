"""Samples that are asked for while a film converts, through everything that is real: they come before what is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from nats.aio.msg import Msg

from services import daemon
from stereospot import records, subjects
from stereospot.jobs import Phase
from stereospot.settings import Settings
from tests.support import eventually
from tests.system.rig import begun
from tests.system.showing import film
from tests.system.test_pipeline import PIPELINE, ended

SECONDS = 150
OPTIONS: dict[str, Any] = {"engine": "flat", "preset": "ultrafast", "segment_seconds": 1.0}


async def test_samples_of_a_film_at_work_come_before_the_rest_of_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", nats_port=-1, port=0, slots=1)
    async with daemon.running(settings, PIPELINE | {"gateway"}) as context:
        lanes: dict[str, set[str]] = {}
        sent_at: dict[str, float] = {}

        async def on_task(message: Msg) -> None:
            _, _, _, lane, job_id, *_ = message.subject.split(".")
            lanes.setdefault(job_id, set()).add(lane)
            sent_at.setdefault(job_id, time.time())

        await context.bus.nc.subscribe(f"{subjects.PREFIX}.convert.>", cb=on_task)
        url = f"http://127.0.0.1:{context.settings.port}"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            stored = (await client.put("/api/v1/uploads?name=long.mp4", content=film(SECONDS))).json()
            made = await client.post("/api/v1/jobs", json={"upload": stored["upload"], "options": OPTIONS})
            whole = made.json()["job_id"]

            async def at_work() -> bool:
                return len(await begun(context)) >= 3

            await eventually(at_work, seconds=60, what="the film at work")
            asked = await client.post("/api/v1/samples", json={"job_id": whole})
            assert asked.status_code == 201, asked.text
        job = await ended(context, asked.json()["job_id"])
        assert job.phase is Phase.COMPLETED, job.failure
        found = await records.get_job(context.bus, whole)
        assert found is not None
        assert found[0].phase is Phase.CONVERTING, "the film had enough left to be overtaken"
        order = await begun(context)
        last = max(number for number, event in enumerate(order) if event.job_id == job.job_id)
        between = [event for event in order[:last] if event.job_id == whole and event.at > sent_at[job.job_id]]
        print(f"{len(order)} begun, {job.segments} of them samples; of the film in between: {len(between)}")
        assert lanes == {whole: {"normal"}, job.job_id: {"now"}}
        assert len(between) <= 1, "what the one slot had taken already"
