"""The segments of a job over HTTP: the strip, and a cell with what happened to it."""

from __future__ import annotations

import html
import json
from typing import Any

from stereospot import jobs, records
from stereospot.jobs import Job, Phase
from stereospot.messages import Failure
from tests.support import eventually
from tests.system.gateway import Served
from tests.system.showing import Showing


async def test_the_strip(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(1)

    async def strip() -> list[str]:
        body = (await gateway.client.get("/api/v1/jobs/J1/segments")).json()
        return [item["state"] for item in body["segments"]]

    async def converted() -> bool:
        return await strip() == ["waiting", "done", "waiting", "waiting"]

    await eventually(converted, what="the strip")
    body = (await gateway.client.get("/api/v1/jobs/J1/segments")).json()
    assert [item["start_seconds"] for item in body["segments"]] == [0.0, 1.0, 2.0, 4.0]


async def test_a_cell_and_its_log(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    failure = Failure(code="OUT_OF_MEMORY", sentence="s", advice="a")
    await showing.tell(1, "running")
    await showing.tell(1, "retrying", failure=failure)
    await showing.tell(1, "done", worker_id="w2", attempt=2, seconds=1.4, fps=17.1)
    await showing.tell(2, "running", worker_id="w3")
    await showing.convert(1)
    path = "/api/v1/jobs/J1/segments"

    async def strip() -> list[dict[str, Any]]:
        return (await gateway.client.get(path)).json()["segments"]

    async def converted() -> bool:
        return [item["state"] for item in await strip()] == ["waiting", "done", "running", "waiting"]

    await eventually(converted, what="the strip")
    done, running = (await strip())[1:3]
    assert done == done | {"worker_id": "w2", "attempt": 2, "seconds": 1.4, "fps": 17.1}
    assert (running["worker_id"], "seconds" in running) == ("w3", False)
    cell = (await gateway.client.get(f"{path}/1")).json()
    assert [(line["state"], line["worker_id"]) for line in cell["log"]] == [
        ("running", "w1"), ("retrying", "w1"), ("done", "w2"),
    ]  # fmt: skip
    assert cell["log"][1]["error"]["code"] == "OUT_OF_MEMORY"
    assert (await gateway.client.get(f"{path}/0")).json()["log"] == []
    assert (await gateway.client.get(f"{path}/4")).status_code == 404
    # What failed is seen for as long as its job stays so, by a gateway that was not there, too.
    await showing.tell(2, "failed", worker_id="w3", failure=failure)

    def fail(job: Job) -> Job:
        return jobs.advance(job, Phase.FAILED, at=9.0, failure=failure)

    await records.change_job(gateway.context.bus, "J1", fail)
    assert [item["state"] for item in await strip()] == ["waiting", "done", "failed", "waiting"]

    async def snapshot() -> list[str]:
        page = (await gateway.client.get("/jobs/J1", headers={"Accept": "text/html"})).text
        strip = json.loads(html.unescape(page.partition('data-strip="')[2].partition('"')[0]))
        return [cell["state"] for cell in strip["cells"]]

    assert await eventually(snapshot, what="the failed cell") == ["failed"]
    assert (await gateway.client.post("/api/v1/jobs/J1/retry")).status_code == 200
    assert [item["state"] for item in await strip()] == ["waiting", "done", "waiting", "waiting"]
