"""Event streams: one job, all jobs, and what a slow reader gets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx

from services.gateway.app import create_app
from services.gateway.feed import KEPT, Feed
from stereospot import records, subjects
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.messages import Failure
from tests.support import eventually
from tests.system.gateway import Served, move, served, upload
from tests.system.rig import a_job
from tests.system.showing import Showing
from tests.system.test_newer_records import put


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line:
            if "data" in found:
                yield found
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


async def test_a_jobs_events(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    async with gateway.client.stream("GET", f"/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = _events(response)
        first = await anext(stream)
        body = json.loads(first["data"])
        assert (body["progress_percent"], body["stage_label"]) == (5, "Waiting")
        await move(gateway, job_id, Phase.PLANNING)
        second = await anext(stream)
        assert json.loads(second["data"])["progress_percent"] == 15
        assert second["id"] != first["id"]
    async with gateway.client.stream(
        "GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": second["id"]}
    ) as response:
        stream = _events(response)
        await move(gateway, job_id, Phase.FAILED, failure=Failure(code="NO_FRAMES", sentence="s", advice="a"))
        third = await anext(stream)
        assert json.loads(third["data"])["stage_label"] == "Failed", "what was seen is not sent again"
        assert (await anext(stream))["event"] == "end"
    assert (await gateway.client.get("/jobs/none/events")).status_code == 404


async def test_events_of_all_jobs_survive_a_broker_restart(gateway: Served) -> None:
    async with gateway.client.stream("GET", "/api/v1/events") as response:
        stream = _events(response)
        assert (await anext(stream))["event"] == "open"
        await asyncio.to_thread(gateway.server.kill)
        gateway.server.restart()
        job_id = (await upload(gateway))["job_id"]
        async with asyncio.timeout(20):
            while (item := await anext(stream))["event"] != "job":
                pass
        assert json.loads(item["data"])["job_id"] == job_id


async def test_pages_go_on_beside_a_record_that_cannot_be_read(gateway: Served) -> None:
    async with gateway.client.stream("GET", "/api/v1/events") as response:
        stream = _events(response)
        assert (await anext(stream))["event"] == "open"
        await put(gateway.context, a_job("J1"), phase="muxing")
        state = Completion(job_id="J1", generation=1, total=2, planned=2, done=1, sent=3)
        await gateway.context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        await records.create_job(gateway.context.bus, a_job("J2"))
        async with asyncio.timeout(20):
            told = [item["event"] async for item in until_told(stream, "J2")]
        assert "deleted" not in told
    assert (await gateway.client.get("/api/v1/jobs")).status_code == 200
    assert (await gateway.client.get("/readyz")).status_code == 200


async def until_told(stream: AsyncIterator[dict[str, str]], job_id: str) -> AsyncIterator[dict[str, str]]:
    """Events up to the first one of a job."""
    async for item in stream:
        yield item
        if item["event"] == "job" and json.loads(item["data"])["job_id"] == job_id:
            return
    raise AssertionError(f"the stream ended before it told of {job_id}")


async def test_many_streams_hear_the_same_of_a_change(gateway: Served) -> None:
    async def hear(begun: asyncio.Barrier) -> list[str]:
        async with gateway.client.stream("GET", "/api/v1/events") as response:
            found: list[str] = []
            async for item in _events(response):
                if item["event"] == "open":
                    await begun.wait()
                elif item["event"] == "job":
                    found.append(json.loads(item["data"])["title"])
                    if found[-1] == "The end":
                        return found
        raise AssertionError(found)

    job_id = (await upload(gateway))["job_id"]
    begun = asyncio.Barrier(51)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        streams = [group.create_task(hear(begun)) for _ in range(50)]
        await begun.wait()
        (await gateway.client.patch(f"/api/v1/jobs/{job_id}", json={"title": "The end"})).raise_for_status()
    assert {stream.result()[-1] for stream in streams} == {"The end"}
    metrics = (await gateway.client.get("/metrics")).text
    assert "stereospot_sse_clients " in metrics


async def test_who_is_slow_hears_what_is_kept_and_reads_the_list_for_the_rest(gateway: Served) -> None:
    feed: Feed = create_app(gateway.context).state.feed
    texts = feed.texts()
    assert b"event: open" in await anext(texts)
    feed.publish(b"one")
    assert await anext(texts) == b"one"
    for number in range(KEPT):
        feed.publish(b"%d " % number)
    assert await anext(texts) == b"".join(b"%d " % number for number in range(KEPT)), "all that it missed, in order"
    for _ in range(KEPT + 1):
        feed.publish(b"again")
    assert b"event: open" in await anext(texts), "more was missed than is kept"
    feed.publish(b"new")
    assert await anext(texts) == b"new"
    await texts.aclose()


async def cells(response: httpx.Response) -> list[tuple[int, str, int]]:
    """The strip of a stream's first event."""
    return shown(await anext(_events(response)))


def shown(event: dict[str, str]) -> list[tuple[int, str, int]]:
    """The strip's cells, as an event has them."""
    strip = json.loads(event["data"])["strip"]
    return [(cell["index"], cell["state"], cell["attempt"]) for cell in strip["cells"]]


async def test_a_strip_goes_forward_only(gateway: Served) -> None:
    """Between a worker's "done" and the collector's bit a segment is still at work; and not for ever."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 1))
    await showing.begin()
    async with asyncio.timeout(20), gateway.client.stream("GET", "/jobs/J1/events") as response:
        stream = _events(response)

        async def until(*wanted: tuple[int, str, int]) -> None:
            """Read until the cells are these; the first of them never waits once it was seen."""
            while (found := shown(await anext(stream))) != list(wanted):
                assert not wanted[1:] or wanted[0] in found, found

        await showing.tell(1, "running")
        await until((1, "running", 1))
        await showing.tell(1, "done", seconds=1.0, fps=24.0)
        await showing.tell(2, "running")
        await until((1, "running", 1), (2, "running", 1))
        listed = (await gateway.client.get("/api/v1/jobs/J1/segments")).json()["segments"]
        assert [cell["state"] for cell in listed] == ["waiting", "running", "running"]
        await showing.convert(1)
        await until((2, "running", 1))
        await showing.tell(2, "done")
        await showing.tell(1, "running", worker_id="w0")  # said by one that was overtaken: it is done all the same
        assert (await gateway.client.post("/api/v1/jobs/J1/cancel")).status_code == 200
        await until()
    await showing.tell(0, "running")  # too late
    await showing.tell(2, "failed", attempt=4)

    async def left() -> list[tuple[int, str, int]]:
        async with gateway.client.stream("GET", "/jobs/J1/events") as response:
            return await cells(response)

    assert await eventually(left, what="what was said last") == [(2, "failed", 4)]


async def test_a_gateway_that_begins_learns_of_the_cells_that_are_at_work(gateway: Served) -> None:
    """Of a job that began before it; not what an attempt left behind that is over, nor what is done."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 1, 1, 1))
    await showing.begin()
    await showing.convert(0)
    await showing.tell(0, "running")
    await showing.tell(1, "running")
    await move(gateway, "J1", Phase.FAILED, failure=Failure(code="NO_FRAMES", sentence="s", advice="a"))
    assert (await gateway.client.post("/api/v1/jobs/J1/retry")).status_code == 200
    await showing.tell(2, "running", at=time.time())
    await showing.tell(3, "retrying", attempt=2, at=time.time())
    async with gateway.client.stream("GET", "/jobs/J1/events") as response:
        await anext(_events(response))
    async with served(gateway.server, gateway.context.settings.data_dir) as second:
        async with second.client.stream("GET", "/jobs/J1/events") as response:
            assert await cells(response) == [(2, "running", 1), (3, "retrying", 2)]
        listed = (await second.client.get("/api/v1/jobs/J1/segments")).json()["segments"]
        assert [cell["state"] for cell in listed] == ["done", "waiting", "running", "retrying", "waiting"]
