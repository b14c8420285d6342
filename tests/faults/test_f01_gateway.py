"""F1 of the gateway: kill -9 at each of its points, from the announcement of an upload to the answer to `POST /jobs`.

The sender does what the guide says: it repeats what was not answered, with the same `Idempotency-Key`, and asks where
an upload stands before it goes on. What it was told holds, and however often it asked there is one job.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from stereospot import records
from tests.broker.shipped import free_port
from tests.faults import points
from tests.faults.fleet import PIPELINE, Fleet, Service, fleet, stretched
from tests.faults.table import Tell
from tests.media import sources as films
from tests.support import eventually

FAULT = "F1 kill -9 of the gateway"

PIECES = 2

PASSES = {
    "intake.appended": PIECES,
    "bus.before_publish": 2, "bus.after_publish": 2,
    "bucket.before_write": 5, "bucket.after_write": 5,
}  # fmt: skip
"""How often a point is passed on the way: the work and the event of a job; two keys, their answers, and the record."""

QUICK = {"intake.noted:1"}
"""All of the film is stored, and nobody has made a job of it. The others run with `slow`."""

CASES = [
    pytest.param(f"{point}:{number}", marks=() if f"{point}:{number}" in QUICK else pytest.mark.slow)
    for point in points.of("gateway")
    for number in range(1, PASSES.get(point, 1) + 1)
]

TUS = {"Tus-Resumable": "1.0.0"}


@dataclass(slots=True)
class Sender:
    """A client with patience; `ports` of the gateways that there are and were."""

    made: Fleet
    ports: list[int] = field(default_factory=list[int])
    answers: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    async def start(self, point: str | None = None) -> Service:
        """A gateway, on a port of its own, that answers."""
        port = free_port()
        service = await self.made.start("gateway", point=point, port=port)
        async with httpx.AsyncClient(trust_env=False) as client:

            async def ready() -> bool:
                assert service.is_alive or point is not None, service.said()
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                except httpx.TransportError:
                    return not service.is_alive

            await eventually(ready, seconds=stretched(40), every=0.05, what="the gateway")
        self.ports.append(port)
        return service

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer of the gateway that there is, repeated while there is none."""
        async with asyncio.timeout(stretched(60)), httpx.AsyncClient(timeout=30, trust_env=False) as client:
            while True:
                try:
                    answer = await client.request(method, f"http://127.0.0.1:{self.ports[-1]}{path}", **request)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                self.answers.append((f"{method} {path}", answer.status_code))
                return answer

    async def upload(self, data: bytes) -> str:
        """Announce and send a film in pieces; its id."""
        length = {"Upload-Length": str(len(data)), "Idempotency-Key": "the upload", **TUS}
        answer = await self.ask("POST", "/api/v1/uploads", headers=length)
        assert answer.status_code == 201, answer.text
        place = answer.headers["location"]
        while (offset := await self.offset(place)) < len(data):
            piece = data[offset : offset + -(-len(data) // PIECES)]
            headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            answer = await self.ask("PATCH", place, headers=headers, content=piece)
            assert answer.status_code in (204, 409), answer.text
            if answer.status_code == 204:
                assert await self.offset(place) >= offset + len(piece), "what was told is there"
        return place.rpartition("/")[2]

    async def offset(self, place: str) -> int:
        answer = await self.ask("HEAD", place, headers=TUS)
        assert answer.status_code == 200
        return int(answer.headers["upload-offset"])

    async def job(self, upload_id: str) -> str:
        """Make a job of it, twice, as senders do that were not sure; its id."""
        options = {"backend": "stub", "preset": "ultrafast", "segment_seconds": 0.5}
        body = {"upload": upload_id, "options": options}
        ids: set[str] = set()
        for _ in range(2):
            answer = await self.ask("POST", "/api/v1/jobs", json=body, headers={"Idempotency-Key": "the job"})
            assert answer.is_success, answer.text
            ids.add(answer.json()["job_id"])
        (job_id,) = ids
        return job_id


@pytest.mark.parametrize("point", CASES)
async def test_a_sender_gets_one_job_whenever_the_gateway_dies(tmp_path: Path, tell: Tell, point: str) -> None:
    data = films.path("h264_mp4_silent").read_bytes()
    async with fleet(tmp_path, start=PIPELINE) as made:
        sender = Sender(made)
        victim = await sender.start(point)
        died = 0.0

        async def replace() -> None:
            nonlocal died
            await made.died(victim)
            died = time.monotonic()
            await sender.start()

        async with asyncio.TaskGroup() as group:
            group.create_task(replace())
            job_id = await sender.job(await sender.upload(data))
        made.accepted.append(job_id)
        await made.ended(job_id)
        found = [job.job_id for job, _ in await records.list_jobs(made.bus)]
        verdict = await made.verdict()
        twice = verdict.duplicated + len(found) - 1
        recovery = time.monotonic() - died
        tell(FAULT, jobs=1, lost=verdict.lost, duplicated=twice, extra=verdict.extra, recovery=recovery)
        assert verdict.violations == (), verdict
        assert found == [job_id]
        assert (await made.context.store.get(f"input/{job_id}/source.mp4")) in (data, None)
