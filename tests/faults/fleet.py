"""A fleet for the fault matrix: one broker, services in processes of their own, and a verdict at the end.

    nats-server ── `stereospot run …` processes (killed, frozen, restarted by a test) ── read() and check() of the rest

The backend is the stub: pixels do not matter here. Ack waits are short, so that a lease ends within a test's time.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services import submit
from services.context import Context
from stereospot import crash, errors, records, subjects
from stereospot import history as recorder
from stereospot.bus import Bus
from stereospot.jobs import Job, Phase
from stereospot.messages import SegmentEvent
from stereospot.options import Options
from stereospot.settings import Settings
from stereospot.storage import open_store
from streams_config import provision as provisioner
from tests.faults import history, promises
from tests.faults.history import Death, History
from tests.faults.launch import Child, launcher
from tests.faults.promises import Verdict
from tests.media import sources as films
from tests.support import Nats, eventually, nats_server

PIPELINE = frozenset({"planner", "converter", "audio", "collector", "assembler"})
"""Services that a job needs."""

FILM = "h264_mp4_silent"

POOL = "stub"


def stretched(seconds: float) -> float:
    """So many seconds on a quiet machine; on one that others use too they stretch with its load."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@functools.cache
def kernels() -> Path:
    """Where all processes of this test run keep compiled kernels: one compiles them, not each."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    folder = Path(tempfile.mkdtemp(prefix="stereospot-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_WARM = """
from inference import backends
from inference.depth import motion  # what learned engines use besides
from services import engines
from stereospot.settings import Settings
backends.Backends(Settings(), backend="local").warm(engines.default(Settings()))
"""


@functools.cache
def compiled() -> None:
    """Compile them now: else the first recovery of an engine is its compiler's, a minute on a busy machine."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(kernels())}
    subprocess.run([sys.executable, "-c", _WARM], env=environment, check=True)


@dataclass(slots=True)
class Service:
    """One process of the fleet."""

    names: tuple[str, ...]
    process: Child
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 40.0) -> int:
        """Exit status, once it has ended."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@dataclass(slots=True)
class Fleet:
    """The broker, a way to it, and every process that was started."""

    server: Nats
    context: Context
    folder: Path
    ack_wait: float
    services: list[Service] = field(default_factory=list[Service])
    deaths: list[Death] = field(default_factory=list[Death])
    accepted: list[str] = field(default_factory=list[str])

    @property
    def lines(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def bus(self) -> Bus:
        return self.context.bus

    # ---- processes --------------------------------------------------------------------------------------
    async def start(
        self, *names: str, point: str | None = None, program: Sequence[str] = (), **settings: Any
    ) -> Service:
        """`stereospot run NAMES` (or another program of that shape), with a crash point armed if one is given."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
        environment |= {
            "STEREOSPOT_DATA_DIR": str(self.context.settings.data_dir), "STEREOSPOT_NATS_URL": self.server.url,
            "STEREOSPOT_POOL": POOL, "STEREOSPOT_SLOTS": "1", "STEREOSPOT_SANDBOX": "off",
            "STEREOSPOT_ACK_WAIT_SECONDS": str(self.ack_wait), "STEREOSPOT_LOG_FORMAT": "json",
            recorder.VARIABLE: str(self.lines),
        }  # fmt: skip
        environment |= {f"STEREOSPOT_{name.upper()}": str(value) for name, value in settings.items()}
        environment["NUMBA_CACHE_DIR"] = str(kernels())
        if point is not None:
            environment[crash.VARIABLE] = point
        path = self.folder / f"{len(self.services)}-{'-'.join(names)[:40]}.log"
        process = launcher().start(program or ("services.cli", "run", *names), environment, path)
        service = Service(names, process, path)
        self.services.append(service)
        return service

    async def kill(self, service: Service) -> Death:
        """SIGKILL, remembered for the check of what was in its hands."""
        service.signal(signal.SIGKILL)
        death = Death(service.pid, time.time())
        await service.ended()
        self.deaths.append(death)
        return death

    async def died(self, service: Service, seconds: float = 60.0) -> Death:
        """The process killed itself at its crash point."""
        status = await service.ended(stretched(seconds))
        assert status == -signal.SIGKILL, f"the point was not passed: {status}\n{service.said()}"
        death = Death(service.pid, time.time())
        self.deaths.append(death)
        return death

    # ---- jobs -------------------------------------------------------------------------------------------
    async def submit(self, *job_ids: str, film: str = FILM, segment_seconds: float = 0.5, **values: Any) -> None:
        """Jobs for the stub, as any client submits them."""
        source = await submit.local_source(films.path(film), None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=segment_seconds)
        for job_id in job_ids:
            await submit.create(self.context, source, options, job_id=job_id, title=job_id, **values)
            self.accepted.append(job_id)

    async def job(self, job_id: str) -> Job:
        found = await records.get_job(self.bus, job_id)
        assert found is not None
        return found[0]

    async def ended(self, *job_ids: str, seconds: float = 60.0) -> list[Job]:
        """The jobs, once all are at their end."""

        async def all_ended() -> list[Job]:
            try:
                found = [await self.job(job_id) for job_id in job_ids]
            except errors.Transient:  # a broker that is being elected has not answered the one who asks
                return []
            return found if not any(job.is_active for job in found) else []

        try:
            return await eventually(all_ended, seconds=stretched(seconds), every=0.1, what=f"the end of {job_ids}")
        except AssertionError as problem:
            raise AssertionError("\n".join([str(problem), *(item.said() for item in self.services)])) from problem

    async def events(self, state: str, *, pid: int | None = None, job_id: str = "*") -> list[SegmentEvent]:
        """Segment events so far, of one state and perhaps one worker."""
        stored = await self.bus.last_per_subject(subjects.EVENT, f"{subjects.PREFIX}.event.segment.{job_id}.>")
        found = [SegmentEvent.model_validate_json(item.data) for item in stored]
        wanted = [item for item in found if item.state == state]
        return [item for item in wanted if pid is None or f"-{pid}-" in item.worker_id]

    async def at_work(self, service: Service) -> SegmentEvent:
        """The segment that this worker has begun last, once there is one."""
        seconds = stretched(30)
        found = await eventually(lambda: self.events("running", pid=service.pid), seconds=seconds, what="work begun")
        return found[0]

    def settled(self, service: Service) -> int:
        """How many messages this process has settled so far."""
        lines = history.recorded(self.lines)
        return sum(line["kind"] == "settle" and line["pid"] == service.pid for line in lines)

    # ---- the end ----------------------------------------------------------------------------------------
    async def at_rest(self, seconds: float = 30.0) -> None:
        """Every queue is empty and nothing is in anybody's hands."""

        async def rests() -> bool:
            for stream in (subjects.WORK, subjects.CONVERT, subjects.DONE):
                if (await self.bus.stream_info(stream))["state"]["messages"]:
                    return False
            info = await self.bus.consumer_info("KV_state", "assembler")
            return not info["num_ack_pending"] and not info["num_pending"]

        await eventually(rests, seconds=stretched(seconds), every=0.1, what="everything at rest")

    async def history(self, expected: dict[str, Phase] | None = None) -> History:
        """What the run left; every accepted job is expected to be completed unless said otherwise."""
        wanted = dict.fromkeys(self.accepted, Phase.COMPLETED) | (expected or {})
        return await history.read(
            self.context, accepted=self.accepted, expected=wanted, lines=self.lines, deaths=self.deaths
        )

    async def verdict(self, expected: dict[str, Phase] | None = None, *, slack_seconds: float | None = None) -> Verdict:
        """Wait for rest, then check every promise; `slack_seconds` is promise 4's, beyond the ack wait."""
        await self.at_rest()
        found = await self.history(expected)
        slack = stretched(promises.OFFER_SECONDS) if slack_seconds is None else slack_seconds
        return promises.check(found, ack_wait_seconds=self.ack_wait, slack_seconds=slack)


@asynccontextmanager
async def fleet(
    tmp_path: Path,
    *,
    ack_wait: float = 2.0,
    start: Collection[str] = (),
    ours: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncGenerator[Fleet]:
    """A fleet on a broker that syncs every write; all of its processes are killed at the end.

    `settings` are those of the services started here, `ours` those of the test where they differ.
    """
    config = tmp_path / "server.conf"
    config.write_text("jetstream { sync_interval: always }\n")
    with nats_server(tmp_path / "broker", config=config) as server:
        given = Settings(data_dir=tmp_path / "data", nats_url=server.url, sandbox="off", **(ours or {}))
        bus = await Bus.connect(given, name="test")
        await provisioner.provision(bus.nc, pools=(POOL, "gpu"), ack_wait_seconds=ack_wait)
        await shorten(bus, ack_wait)
        await history.keep_everything(bus)
        store = open_store(given)
        made = Fleet(server, Context(given, bus, store), tmp_path, ack_wait)
        try:
            if start:
                await made.start(*sorted(start), **settings)
            yield made
        finally:
            for service in made.services:
                if service.is_alive:
                    service.signal(signal.SIGKILL)
                await service.ended()
            await store.close()
            await bus.drain()


async def shorten(bus: Bus, ack_wait: float) -> None:
    """The same ack wait for every consumer: the shipped ones of planner, collector and assembler are 20 and 30 s."""
    for stream, name in provisioner.load().consumers:
        config = (await bus.consumer_info(stream, name))["config"] | {"ack_wait": int(ack_wait * 1e9)}
        await bus.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config, "action": "update"})
