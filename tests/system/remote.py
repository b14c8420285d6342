"""An inference server of our own in this process, on a free port, an endpoint that answers what a test says, and whole
jobs by either."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from inference import depth
from inference.backends.http import Endpoint, HttpBackend
from inference.contract import Converted, Frames
from inference.convert import convert_segment
from inference.invocation import Workshop
from inference.server import Options, Server
from services import daemon, submit
from services.context import Context
from stereospot import subjects
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.messages import SegmentEvent
from stereospot.options import Options as Choice
from stereospot.storage.base import ObjectStore
from tests.media import sources as films
from tests.support import wait_until
from tests.system.rig import rig
from tests.unit import clips

LIMITS = Limits(sandbox="off")
COUNT, WIDTH, HEIGHT = 40, 160, 90
SERVICES = frozenset({"planner", "collector", "converter", "assembler", "dead-letters"})


def convert(decoder: Frames, plan: Plan, segment: Segment, stop: threading.Event | None) -> Converted:
    """What the server of these tests does: the real conversion."""
    engine = depth.load(plan.stereo.engine)
    return convert_segment(decoder=decoder, plan=plan, segment=segment, engine=engine, stop=stop)


def copy(source: Path, target: Path, options: object, stop: object) -> None:
    """A whole-file conversion that changes nothing."""
    target.write_bytes(source.read_bytes())


def backend(url: str, **values: Any) -> HttpBackend:
    store = values.pop("store", None)
    scratch = values.pop("scratch", None)
    endpoint = Endpoint(url, timeout_seconds=values.pop("timeout_seconds", 60.0), **values)
    return HttpBackend(endpoint, limits=LIMITS, open_store=None if store is None else lambda: store, scratch=scratch)


def locally(pictures: list[tuple[np.ndarray, ...]], plan: Plan, first: int, last: int) -> Converted:
    return convert(clips.Clip(pictures), plan, clips.segment(3, first, last), None)


@contextmanager
def serving(app: Any) -> Generator[str]:
    """Run an ASGI app under uvicorn in a thread; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),))
    thread.start()
    try:
        wait_until(lambda: server.started, what="uvicorn")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@contextmanager
def inference_server(
    *,
    make: Callable[..., Converted] = convert,
    film: Any = copy,
    open_bucket: Callable[[str], ObjectStore] | None = None,
    **options: Any,
) -> Generator[tuple[str, Server]]:
    """The real server around a conversion."""
    server = Server(Workshop(make, film, LIMITS), Options(**options), open_bucket)
    with serving(server) as url:
        yield url, server


class Parrot:
    """An ASGI app that answers every POST with one thing, after reading the request. `hang`: never.

    pause: before the second half of the answer, where there is one.
    """

    def __init__(
        self, status: int, body: bytes, kind: str, *, hang: bool = False, cut: bool = False, pause: float | None = None
    ) -> None:
        self._status, self._body, self._kind = status, body, kind
        self._hang, self._cut, self._pause = hang, cut, pause
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        while (await receive()).get("more_body"):
            pass
        if self._hang:
            with contextlib.suppress(asyncio.CancelledError):
                while (await receive())["type"] != "http.disconnect":
                    pass
            return
        length = len(self._body) + (1000 if self._cut else 0)
        headers = [(b"content-type", self._kind.encode()), (b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        rest = self._body
        if self._pause is not None:
            first, rest = rest[: len(rest) // 2], rest[len(rest) // 2 :]
            await send({"type": "http.response.body", "body": first, "more_body": True})
            await asyncio.sleep(self._pause)
        await send({"type": "http.response.body", "body": rest, "more_body": self._cut})
        if self._cut:
            raise ConnectionResetError("cut")


@asynccontextmanager
async def converting(
    tmp_path: Path, jobs: dict[str, str], *, segment_seconds: float = 1.0, **settings: Any
) -> AsyncGenerator[Context]:
    """Jobs by id and backend, on a daemon that has its broker to itself."""
    async with (
        rig(tmp_path, **settings) as context,
        daemon.running(context.settings, SERVICES, provisioned=False, alone=True),
    ):
        source = await submit.local_source(films.path("h264_mp4_silent"), None)
        for job_id, backend in jobs.items():
            options = Choice(engine="flat", backend=backend, preset="ultrafast", segment_seconds=segment_seconds)  # type: ignore[arg-type]
            await submit.create(context, source, options, job_id=job_id)
        yield context


async def given_back(context: Context) -> dict[str, list[str]]:
    """Codes of what segments were given back for, by `job.segment`."""
    found: dict[str, list[str]] = defaultdict(list)
    info = (await context.bus.stream_info(subjects.EVENT))["state"]
    for sequence in range(max(1, info["first_seq"]), info["last_seq"] + 1):
        stored = await context.bus.get(subjects.EVENT, sequence)
        if stored is None or ".event.segment." not in stored.subject:
            continue
        event = SegmentEvent.model_validate_json(stored.data)
        if event.state == "retrying" and event.failure is not None:
            job_id, _, index = stored.subject.split(".")[-3:]
            found[f"{job_id}.{index}"].append(event.failure.code)
    return found
