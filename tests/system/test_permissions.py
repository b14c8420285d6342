"""The whole pipeline under the rights that are shipped: each service as its own user, and none is refused anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services import daemon, dead_letters, operations, workers
from services.parts import BUILDERS
from stereospot import broker, records, subjects
from stereospot.bus import Bus
from stereospot.jobs import Phase
from tests.broker.shipped import Node, servers, settings_for
from tests.media import sources as films
from tests.support import eventually


@pytest.fixture(scope="module")
def node() -> Iterator[list[Node]]:
    with servers("single.conf", 1) as running:
        yield running


def violations(node: list[Node]) -> list[str]:
    """What the server refused to anyone, in its own words."""
    log = (node[0].config.parent / "server.log").read_text()
    return [line for line in log.splitlines() if "Violation" in line]


def user(services: frozenset[str]) -> str:
    return "worker" if len(services) > 1 else next(iter(services)).replace("-", "_")


APART = tuple(frozenset({service}) for service in sorted(BUILDERS))
ON_A_GPU_HOST = (*(one for one in APART if not one & workers.SERVICES), workers.SERVICES)


@pytest.mark.parametrize("processes", [APART, ON_A_GPU_HOST], ids=["each alone", "a worker"])
async def test_a_job_goes_from_submission_to_film_and_to_deletion(
    processes: tuple[frozenset[str], ...], node: list[Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.delete.SETTLE_SECONDS", 0.5)
    monkeypatch.setattr("services.delete.SETTLED_SECONDS", 0.3)
    job = f"J{len(processes)}"
    shared = {
        "data_dir": tmp_path / "data",
        "sandbox": "off",
        "pool": "stub",
        "roots": (films.path("h264_mp4").parent,),
        "port": 0,
    }
    operator = await Bus.connect(settings_for(node, "stereospot"), name="stereospot-host-1")
    await broker.provision(operator, settings_for(node, "stereospot"))
    submitter = await Bus.connect(settings_for(node, "submitter"), name="submitter-host-1")
    gateway = await Bus.connect(settings_for(node, "gateway"), name="gateway-host-2")
    async with AsyncExitStack() as stack:
        for bus in (operator, submitter, gateway):
            stack.push_async_callback(bus.drain)
        for services in processes:
            settings = settings_for(node, user(services), **shared)
            await stack.enter_async_context(daemon.running(settings, services))

        wanted = {"path": str(films.path("h264_mp4")), "options": {"backend": "stub", "preset": "ultrafast"}}
        await submitter.publish(f"stereospot.work.submit.{job}", json.dumps(wanted).encode())

        async def phase() -> Phase | None:
            found = await records.get_job(operator, job)
            return found[0].phase if found else None

        async def ended() -> bool:
            return await phase() in (Phase.COMPLETED, Phase.FAILED)

        await eventually(ended, seconds=60, what="the end of the job")
        assert await phase() is Phase.COMPLETED

        # What the server says of a message that ran out of deliveries is read, and comes to nothing: it is gone.
        advisory = {"type": "io.nats.jetstream.advisory.v1.max_deliver", "stream": "CONVERT", "stream_seq": 1}
        await operator.publish("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.CONVERT.x", json.dumps(advisory).encode())

        async def read() -> bool:
            info = await operator.consumer_info(subjects.ADVISORY, "dead-letters")
            return info["num_pending"] == 0 and info["num_ack_pending"] == 0

        await eventually(read, what="the advisory settled")
        await operations.delete(gateway, job)

        async def gone() -> bool:
            return await records.get_job(operator, job) is None

        await eventually(gone, seconds=20, what="the record gone")
        assert await dead_letters.letters(operator) == []
    assert violations(node) == []


async def test_a_worker_that_leaves_excuses_what_it_had(node: list[Node]) -> None:
    """The rights for `tries` are there: what a service gives back untried is noted under its own stream only."""
    async with AsyncExitStack() as stack:
        for role, stream in (("converter", "CONVERT"), ("planner", "WORK"), ("assembler", "KV_state")):
            bus = await Bus.connect(settings_for(node, role), name=f"{role}-host-1")
            stack.push_async_callback(bus.drain)
            await bus.bucket(subjects.TRIES).create(subjects.tries_key(stream, 999), b"1")
            assert await bus.bucket(subjects.TRIES).get(subjects.tries_key(stream, 999)) is not None
    assert violations(node) == []
