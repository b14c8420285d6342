"""Still pictures of a job: a poster, and the newest converted frame while it runs.

Made on demand from the first picture of a stored fragment: bytes that our own encoder wrote, so no jail is needed. One
eye of it, at its display aspect, as a small JPEG; kept in memory, since they are cheap to make again.
"""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import av
import numpy as np
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from numpy.typing import NDArray

from services.gateway.playback import GivenPlayer, NotYet, Showing
from services.gateway.state import Gateway
from stereospot import errors, keys
from stereospot.options import Layout

WIDTH = 640
KEPT = 256
DARK = 28.0
"""Mean luma below which a picture says nothing; films begin in black."""

TRIES = 6


class Darkroom:
    """Develops pictures of segments, two at a time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._kept: OrderedDict[tuple[str, int, int], tuple[bytes, float]] = OrderedDict()
        self._slots = asyncio.Semaphore(2)
        self.drawing = asyncio.Lock()
        """Storyboards are drawn one at a time: each takes a core for seconds, and nobody waits for it."""

    async def poster(self, shown: Showing) -> bytes:
        """A picture from the first third that is not black, among what is converted."""
        state = shown.state
        last = state.prefix(0)
        if last == 0:
            raise NotYet
        wanted = min(last - 1, (state.total or last) // 4)
        order = [wanted, *range(wanted + 1, last), *range(wanted - 1, -1, -1)][:TRIES]
        best: tuple[bytes, float] | None = None
        for index in order:
            found = await self._picture(shown, index)
            if best is None or found[1] > best[1]:
                best = found
            if best[1] >= DARK:
                break
        assert best is not None
        return best[0]

    async def frame(self, shown: Showing, index: int) -> bytes:
        if not shown.state.is_done(index):
            raise NotYet
        return (await self._picture(shown, index))[0]

    async def _picture(self, shown: Showing, index: int) -> tuple[bytes, float]:
        job = shown.row.job
        key = (job.job_id, job.generation, index)
        found = self._kept.get(key)
        if found is not None:
            return found
        store = self._gateway.context.store
        init = await store.get(keys.init(job.job_id, job.generation, shown.state.init or ""))
        media = await store.get(keys.segment(job.job_id, job.generation, index))
        if init is None or media is None:
            raise NotYet
        spec = shown.plan.encode
        async with self._slots:
            found = await asyncio.to_thread(develop, init + media, spec.layout, spec.sample_aspect)
        self._kept[key] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


def develop(fragment: bytes, layout: Layout, sample_aspect: Fraction) -> tuple[bytes, float]:
    """(JPEG of one eye of the first picture, its mean luma). Blocking, some 20 ms."""
    with av.open(io.BytesIO(fragment), "r", format="mp4") as container:
        frame = next(container.decode(container.streams.video[0]))
    picture: NDArray[Any] = frame.to_ndarray(format="rgb24")
    eye = _left(picture, layout)
    height, width = eye.shape[:2]
    aspect = width * float(sample_aspect or 1) / height
    if layout is Layout.HALF_SBS and sample_aspect == 1:
        aspect *= 2
    if layout is Layout.HALF_TB and sample_aspect == 1:
        aspect /= 2
    shown_width = min(WIDTH, max(width, int(width * aspect * height / width)))
    shown_height = max(2, round(shown_width / aspect / 2) * 2)
    whole = av.VideoFrame.from_ndarray(np.ascontiguousarray(eye), format="rgb24")
    small = whole.reformat(width=shown_width // 2 * 2, height=shown_height, format="yuvj420p")
    return jpeg(small), float(eye.mean())


def jpeg(frame: av.VideoFrame) -> bytes:
    """A frame in yuvj420p as a JPEG. Blocking."""
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": "3", "qmax": "5"}
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def _left(picture: NDArray[Any], layout: Layout) -> NDArray[Any]:
    height, width = picture.shape[:2]
    match layout:
        case Layout.HALF_SBS | Layout.FULL_SBS | Layout.DEPTH:
            return picture[:, : width // 2]
        case Layout.CROSS_EYED:
            return picture[:, width // 2 :]
        case Layout.HALF_TB | Layout.FULL_TB:
            return picture[: height // 2]
        case _:
            return picture


GivenDarkroom = NamedDependency[Darkroom]


@get("/v/{token:str}/{generation:int}/frame/{index:int}", include_in_schema=False)
async def frame(
    request: Request[Any, Any, Any],
    player: GivenPlayer,
    darkroom: GivenDarkroom,
    token: FromPath[str],
    generation: FromPath[int],
    index: FromPath[int],
) -> Response[bytes]:
    """The first picture of a segment."""
    if not 0 <= index < 10**6:
        raise errors.error("NOT_FOUND", "There is no such segment.")
    shown = await player.showing(token, generation)
    return _jpeg(await darkroom.frame(shown, index), "private, max-age=3600")


def _jpeg(body: bytes, cache: str) -> Response[bytes]:
    return Response(body, media_type="image/jpeg", headers={"Cache-Control": cache})


HANDLERS = (frame,)
