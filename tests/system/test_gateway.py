"""The gateway as a whole: health, metrics, problems, its description and numbers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from services.gateway.app import serve
from services.gateway.feed import Feed
from services.gateway.index import Index
from services.listener import listen
from tests.support import eventually
from tests.system.gateway import Served, upload


async def test_health(gateway: Served) -> None:
    assert (await gateway.client.get("/livez")).text == "ok\n"
    ready = await gateway.client.get("/readyz")
    assert ready.json() == {"ready": True, "checks": {"broker": "ok", "index": "ok", "store": "ok", "gateway": "ok"}}
    await asyncio.to_thread(gateway.server.kill)
    assert await eventually(lambda: _status(gateway, "/readyz", 503), what="not ready")
    gateway.server.restart()
    assert await eventually(lambda: _status(gateway, "/readyz", 200), seconds=20, what="ready again")


async def test_no_answer_before_the_index_is_whole(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, begun, run = asyncio.Event(), asyncio.Event(), Index.run

    async def late(index: Index) -> None:
        begun.set()
        await whole.wait()
        await run(index)

    monkeypatch.setattr(Index, "run", late)
    stop = asyncio.Event()
    bound = listen("127.0.0.1", 0)
    serving = asyncio.create_task(serve(gateway.context, stop, bound=bound))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        asked = asyncio.create_task(client.get("/readyz"))
        await begun.wait()
        answered, _ = await asyncio.wait({asked}, timeout=0.5)
        assert not answered, "the connection waits in the socket's queue"
        whole.set()
        assert (await asked).json()["checks"]["index"] == "ok"
    stop.set()
    await serving


async def test_a_gateway_whose_feed_has_failed_ends(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn only logs what a lifespan fails with; a process that ends is started again."""
    broken = asyncio.Event()

    async def fail(_: Feed) -> None:
        await broken.wait()
        raise ValueError("broken")

    monkeypatch.setattr(Feed, "run", fail)
    bound = listen("127.0.0.1", 0)
    serving = asyncio.create_task(serve(gateway.context, asyncio.Event(), bound=bound))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        assert (await client.get("/readyz")).status_code == 200
    broken.set()
    with pytest.RaisesGroup(ValueError):
        async with asyncio.timeout(20):
            await serving


async def _status(gateway: Served, path: str, wanted: int) -> bool:
    return (await gateway.client.get(path)).status_code == wanted


async def test_metrics_have_bounded_labels(gateway: Served) -> None:
    await asyncio.gather(*(gateway.client.get(f"/api/v1/jobs/none{number}") for number in range(20)))
    await asyncio.gather(*(gateway.client.get(f"/nowhere/{number}") for number in range(20)))
    text = (await gateway.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("stereospot_http_requests_total")]
    assert any('route="/api/v1/jobs/{job_id}"' in line and line.endswith(" 20.0") for line in lines), lines
    assert len(lines) < 10
    assert 'stereospot_jobs{phase="completed"} 0.0' in text


PROBLEMS: tuple[tuple[str, str, Any, int, str], ...] = (
    ("GET", "/nowhere", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/nowhere", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/openapi.json/nowhere", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/jobs/none", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/jobs/..%2f..%2fetc", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/jobs?limit=0", None, 400, "INVALID_REQUEST"),
    ("GET", "/api/v1/jobs?cursor=!!", None, 400, "INVALID_REQUEST"),
    ("GET", "/api/v1/jobs?status=purple", None, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {}, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {"upload": "../../etc/passwd"}, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {"upload": "input/none/source.mp4"}, 404, "SOURCE_MISSING"),
    ("POST", "/api/v1/jobs", {"path": "/etc/passwd"}, 404, "SOURCE_MISSING"),
    ("POST", "/api/v1/jobs", {"url": "https://example.org/film.mp4"}, 501, "NOT_AVAILABLE"),
    ("POST", "/api/v1/jobs", {"upload": "input/a/source.mp4", "options": {"crf": 99}}, 400, "INVALID_REQUEST"),
    ("POST", "/api/v1/jobs", {"surprise": 1}, 400, "INVALID_REQUEST"),
    ("PATCH", "/api/v1/jobs/none", {"title": "x"}, 404, "NOT_FOUND"),
    ("POST", "/api/v1/jobs/none/cancel", None, 404, "NOT_FOUND"),
    ("PUT", "/api/v1/jobs", None, 405, "INVALID_REQUEST"),
    ("GET", "/api/v1/dead-letters/none", None, 404, "NOT_FOUND"),
    ("GET", "/api/v1/errors/NONE", None, 404, "NOT_FOUND"),
)


async def test_problems(gateway: Served) -> None:
    for method, path, body, status, code in PROBLEMS:
        answer = await gateway.client.request(method, path, json=body)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"].startswith("application/problem+json")
        problem = answer.json()
        assert (problem["code"], problem["status"]) == (code, status), (method, path)
        assert {"type", "title", "detail", "instance", "advice", "retryable", "request_id"} <= problem.keys()
        kind = await gateway.client.get(problem["type"])
        assert kind.json()["code"] == code


async def test_the_catalogue(gateway: Served) -> None:
    entries = (await gateway.client.get("/api/v1/errors")).json()["errors"]
    assert len(entries) > 40
    assert all(entry["advice"] for entry in entries)


async def test_openapi(gateway: Served) -> None:
    schema = (await gateway.client.get("/api/v1/openapi.json")).json()
    assert schema["info"]["title"] == "StereoSpot"
    assert "/api/v1/jobs/{job_id}" in schema["paths"]
    roots = {path: set(item) for path, item in schema["paths"].items() if not path.startswith("/api/v1")}
    letters = {"/dlq": {"get"}, "/dlq/{dead_id}": {"delete"}, "/dlq/{dead_id}/retry": {"post"}}
    assert roots == {"/jobs/{job_id}/events": {"get"}, **letters}
    (key,) = [item for item in schema["paths"]["/dlq/{dead_id}/retry"]["post"]["parameters"] if item["in"] == "header"]
    assert key["name"] == "Idempotency-Key"


async def test_numbers(gateway: Served) -> None:
    await upload(gateway)

    async def stats() -> dict[str, Any]:
        return (await gateway.client.get("/stats")).json()

    async def one() -> bool:
        return (await stats())["total_jobs"] == 1

    await eventually(one, what="one job")
    body = await stats()
    assert body["queue_depth"] == 1
    assert body["jobs_by_status"] == {"queued": 1, "processing": 0, "completed": 0, "failed": 0}
    assert body.keys() >= {"dlq_depth", "processing_rate_per_minute"}
    queue = (await gateway.client.get("/queue")).json()
    assert queue.keys() == {"stream_length", "consumer_groups", "pending_messages"}


async def test_options_names_what_the_refusal_of_another_method_names(gateway: Served) -> None:
    described = (await gateway.client.get("/api/v1/openapi.json")).json()["paths"]
    assert len(described) > 30
    for path in [*described, "/", "/jobs", "/jobs/x", "/try/x", "/static/app.js"]:
        asked = re.sub("{[^}]*}", "0", path)
        told = await gateway.client.request("OPTIONS", asked)
        refused = await gateway.client.request("TRACE", asked)
        assert (told.status_code, refused.status_code) == (204, 405), path
        named = set(told.headers["allow"].split(", "))
        assert named == set(refused.headers["allow"].split(", ")), path
        assert named >= {"OPTIONS", *(method.upper() for method in described.get(path, {}))}, path
        assert ("HEAD" in named) == ("GET" in named), path
        assert ((await gateway.client.head(asked)).status_code == 405) == ("HEAD" not in named), path
    assert (await gateway.client.request("OPTIONS", "/api/v1/jobs")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert (await gateway.client.request("OPTIONS", "/nowhere")).status_code == 404
