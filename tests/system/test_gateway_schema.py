"""Schemathesis asks every documented operation what its description allows, and worse; the same examples each time."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from tests.support import Nats, nats_server
from tests.system.described import Description
from tests.system.gateway import served

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

EXCLUDED: list[Any] = [positive_data_acceptance]
"""What a description allows can still name an upload that is not there, or come at a wrong time: that is refused."""
EVERYTHING: Any = list(HealthCheck)
STREAMS = ("/events",)
"""What never ends by itself."""


@schemathesis.serializer("application/offset+octet-stream")
def octets(_: Any, value: Any) -> bytes:
    """Bodies of tus."""
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Nats]:
    with nats_server() as running:
        yield running


def ask_all(
    url: str, description: dict[str, Any], ids: dict[str, str], modes: list[Any], examples: int
) -> dict[str, list[str]]:
    """Every operation with generated cases; returns what was wrong, by operation. Blocking."""
    schema: Any = schemathesis.openapi.from_dict(description)
    told = Description(description)
    wrong: dict[str, list[str]] = {}
    asked: set[str] = set()

    def ask(case: Any) -> None:
        label = str(case.operation.label)
        asked.add(label)
        # Half of what is allowed meets something that is there.
        parameters: dict[str, Any] = case.path_parameters or {}
        for name in parameters.keys() & ids.keys():
            if len(str(parameters[name])) % 2:
                parameters[name] = ids[name]
        answer = case.call(base_url=url, timeout=20)
        path, kind = httpx.URL(str(answer.request.url)).path, (answer.headers.get("content-type") or [""])[0]
        said = told.wrong_with(str(answer.request.method).lower(), path, answer.status_code, kind, answer.content)
        if said:
            wrong.setdefault(label, []).extend(said)
        excluded = list(EXCLUDED)
        if answer.status_code == 501 and answer.json()["code"] == "NOT_AVAILABLE":
            excluded.append(not_a_server_error)  # said by a store that has no such thing
        if answer.status_code == 412 and "tus-version" in answer.headers:
            excluded.append(negative_data_rejection)  # what tus wants for a missing header
        if label == "POST /api/v1/uploads" and "Tus-Resumable" not in answer.request.headers:
            excluded.append(negative_data_rejection)  # without that one, the other headers of tus mean nothing
        try:
            case.validate_response(answer, excluded_checks=excluded)
        except FailureGroup as error:
            wrong.setdefault(label, []).extend(str(item)[:1500] for item in error.exceptions)

    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(STREAMS):
            continue
        for mode in modes:
            with contextlib.suppress(*([Unsatisfiable, SkipTest] if mode is GenerationMode.NEGATIVE else [])):
                # Some have nothing that can be wrong.
                generate(operation.as_strategy(generation_mode=mode), ask, examples)
    assert len(asked) > 25
    assert len(told.seen) > 8, "what is there was met, too"
    return wrong


def generate(strategy: Any, ask: Callable[[Any], None], examples: int) -> None:
    """The same examples each time."""

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=EVERYTHING,
    )  # fmt: skip
    @given(strategy)
    def run(case: Any) -> None:
        ask(case)

    run()


QUICK = [GenerationMode.POSITIVE]
THOROUGH = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.mark.parametrize(
    ("modes", "examples"),
    [(QUICK, 2), pytest.param(THOROUGH, 10, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
    ids=["quick", "thorough"],
)
async def test_every_operation_is_as_described(server: Nats, tmp_path: Path, modes: list[Any], examples: int) -> None:
    async with served(server, tmp_path / "data") as gateway:
        client = gateway.client
        clip = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"
        stored = (await client.put("/api/v1/uploads?name=a.mp4", content=clip)).json()
        job = (await client.post("/api/v1/jobs", json={"upload": stored["upload_id"]})).json()
        other = (await client.put("/api/v1/uploads?name=a.mp4", content=clip)).json()
        ids = {"job_id": job["job_id"], "upload_id": other["upload_id"], "code": "NOT_FOUND"}
        description = (await client.get("/api/v1/openapi.json")).json()
        wrong = await asyncio.to_thread(ask_all, gateway.url, description, ids, modes, examples)
        text = "\n\n".join(f"{label}: {problems[0]}" for label, problems in wrong.items())
        assert not wrong, text
        assert (await client.get("/readyz")).status_code == 200


async def test_the_description_holds_examples(server: Nats, tmp_path: Path) -> None:
    """Of answers see `test_gateway_answers.py`; here are those of requests and of problems."""
    async with served(server, tmp_path / "data") as gateway:
        description: dict[str, Any] = (await gateway.client.get("/api/v1/openapi.json")).json()
    made = description["paths"]["/api/v1/jobs"]["post"]
    assert made["responses"]["201"]["content"]["application/json"]["example"]["title"] == "Holiday"
    problem = description["components"]["responses"]["Problem"]["content"]["application/problem+json"]
    assert problem["example"]["code"] == "NOT_FOUND"
    assert "examples" in str(description["components"]["schemas"]["NewJob"])
    assert httpx.URL(problem["example"]["type"]).path == "/api/v1/errors/NOT_FOUND"
