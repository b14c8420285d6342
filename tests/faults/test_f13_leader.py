"""F13 under a whole fleet: three servers as shipped, every service a process, and a leader that dies in a job's middle.

`tests/broker/test_cluster.py` kills the leaders under actors alone, and counts what they do.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from services.context import Context
from stereospot import errors
from stereospot.bus import Bus
from stereospot.settings import Settings
from stereospot.storage import open_store
from streams_config import provision as provisioner
from tests.broker.shipped import servers
from tests.faults import history
from tests.faults.fleet import PIPELINE, POOL, Fleet, shorten, stretched
from tests.faults.table import Tell
from tests.support import Nats, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ACK_WAIT = 3.0


async def provisioned(bus: Bus) -> bool:
    try:
        await provisioner.provision(bus.nc, replicas=3, pools=(POOL,), ack_wait_seconds=ACK_WAIT)
        await shorten(bus, ACK_WAIT)
        await history.keep_everything(bus)
    except (provisioner.Unreachable, errors.StereoSpotError):
        return False  # no meta leader yet, or not all three have met
    return True


@pytest.mark.parametrize("stream", ["KV_state", "CONVERT"])
async def test_f13_the_leader_dies_in_the_middle_of_a_job(tmp_path: Path, tell: Tell, stream: str) -> None:
    with servers("cluster.conf", 3) as nodes:
        url = ",".join(f"nats://stereospot:secret@127.0.0.1:{node.port}" for node in nodes)
        given = Settings(data_dir=tmp_path / "data", nats_url=url, sandbox="off")
        bus = await Bus.connect(given, name="stereospot-test")
        await eventually(lambda: provisioned(bus), seconds=stretched(60), every=0.5, what="three servers")
        store = open_store(given)
        server = Nats(url, tmp_path, nodes[0].process, nodes[0].port)
        made = Fleet(server, Context(given, bus, store), tmp_path, ACK_WAIT)
        try:
            await made.start(*sorted(PIPELINE - {"converter"}))
            worker = await made.start("converter", stub_seconds=0.3)
            await made.submit("J1")
            await made.at_work(worker)
            leader = (await bus.stream_info(stream))["cluster"]["leader"]
            victim = nodes[int(leader.removeprefix("node"))]
            victim.kill()
            killed = time.monotonic()
            await made.ended("J1", seconds=90)
            recovery = time.monotonic() - killed
            verdict = await made.verdict()
            tell(
                "F13 leader of three killed", jobs=1, lost=verdict.lost, duplicated=verdict.duplicated,
                extra=verdict.extra, recovery=recovery,
            )  # fmt: skip
            assert verdict.violations == (), verdict
        finally:
            for service in made.services:
                if service.is_alive:
                    await made.kill(service)
            await store.close()
            await bus.drain()
