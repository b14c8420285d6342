"""An inference server of our own in this process, on a free port, and an endpoint that answers what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import uvicorn

from inference import depth
from inference.backends.http import Endpoint, HttpBackend
from inference.contract import Converted, Frames
from inference.convert import convert_segment
from inference.invocation import Workshop
from inference.server import Options, Server
from stereospot.media.cmaf import Fragment
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.storage.base import ObjectStore
from tests.support import wait_until
from tests.unit import clips

LIMITS = Limits(sandbox="off")
COUNT, WIDTH, HEIGHT = 40, 160, 90


def convert(decoder: Frames, plan: Plan, segment: Segment, stop: threading.Event | None) -> Converted:
    """What the server of these tests does: the real conversion."""
    engine = depth.load(plan.stereo.engine)
    return convert_segment(decoder=decoder, plan=plan, segment=segment, engine=engine, stop=stop)


def copy(source: Path, target: Path, options: object, stop: object) -> None:
    """A whole-file conversion that changes nothing."""
    target.write_bytes(source.read_bytes())


def decoded(fragment: Fragment) -> list[np.ndarray]:
    with av.open(io.BytesIO(fragment.init + fragment.media), "r") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


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
