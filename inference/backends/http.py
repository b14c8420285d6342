"""Backend `http`: a segment converted by a server that speaks `POST /invocations`.

    range packed ──POST──> server ──answer──> unpacked

Two ways to carry the video: `inline` in the request and the answer (nothing shared but the URL), or `storage`, where
both sides use one object store and only URIs travel: what the plain contract of the seed system knows. A server of our
own gets the plan and the padding; a foreign one (`dialect="plain"`) gets the bare range and `mode`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import aiohttp

from inference.backends import deposit, handover
from inference.backends.handover import Packed
from inference.contract import Converted, Frames
from stereospot import errors
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.settings import Settings
from stereospot.storage import ObjectStore, open_store
from stereospot.storage.files import translated

CONNECT_SECONDS = 10.0
LARGEST_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is and how it is spoken to.

    timeout_seconds: for the whole exchange, waiting for a free slot included; token: sent as a bearer token.
    """

    url: str
    token: str | None = None
    timeout_seconds: float = 1200.0
    transport: Literal["inline", "storage"] = "inline"
    dialect: Literal["stereospot", "plain"] = "stereospot"


class HttpBackend:
    """Thread-safe; each conversion opens its own connection and leaves nothing behind."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limits: Limits | None = None,
        open_store: Callable[[], ObjectStore] | None = None,
        scratch: Path | None = None,
    ) -> None:
        """scratch: where answers are kept for a moment; None: the system's folder for temporary files."""
        if endpoint.transport == "storage" and open_store is None:
            raise errors.error("INVALID_OPTIONS", "The transport `storage` needs an object store.")
        self.endpoint = endpoint
        self._limits = limits or Limits()
        self._open_store = open_store
        self._scratch = scratch

    def convert(
        self,
        *,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        stop: threading.Event | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Converted:
        """Convert one segment; blocking. Raises REMOTE_FAILED, REMOTE_INVALID, what the decoder raises, CANCELLED.

        STORAGE_FULL and STORAGE_UNAVAILABLE where there is no room for the answer here: no failure of the endpoint.
        """
        plain = self.endpoint.dialect == "plain"
        if plain:
            deposit.mode(plan.stereo.layout)
        padding = (0, 0) if plain else handover.padding(plan, segment)
        with deposit.temporary_folder(self._scratch) as folder:
            return handover.converted(
                decoder, plan, segment, self._exchange, folder=folder, padding=padding, limits=self._limits,
                free=plain, stop=stop, on_frame=on_frame,
            )  # fmt: skip

    def close(self) -> None:
        """Nothing is kept."""

    def _exchange(self, packed: Packed, target: Path, stop: threading.Event | None) -> dict[str, Any]:
        by_storage = self.endpoint.transport == "storage"
        work = self._by_storage(packed, target) if by_storage else self._inline(packed, target)
        return asyncio.run(deposit.stoppable(work, stop, seconds=self.endpoint.timeout_seconds))

    async def _inline(self, packed: Packed, target: Path) -> dict[str, Any]:
        body = packed.handover.model_dump_json().encode() + b"\n" + packed.video
        headers = {"Content-Type": handover.WIRE_TYPE, "Accept": handover.WIRE_TYPE}
        async with self._answered(body, headers) as answer:
            with translated(target.name):
                return await _save(answer, target, deposit.largest_answer(packed))

    async def _by_storage(self, packed: Packed, target: Path) -> dict[str, Any]:
        assert self._open_store is not None
        async with deposit.deposited(self._open_store(), packed, dialect=self.endpoint.dialect) as given:
            async with self._answered(given.request, {"Content-Type": "application/json"}) as answer:
                told = deposit.parse_answer(await _read(answer, LARGEST_LINE_BYTES))
            await given.fetch(target)
            return told

    @contextlib.asynccontextmanager
    async def _answered(self, body: bytes, headers: dict[str, str]) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The 200 answer to one POST; waits out 429 as the server asks."""
        if self.endpoint.token:
            headers = {**headers, "Authorization": f"Bearer {self.endpoint.token}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        url = self.endpoint.url.rstrip("/") + "/invocations"
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.post(
                        url, data=io.BytesIO(body), headers=headers, allow_redirects=False
                    ) as answer:
                        if answer.status == 200:
                            yield answer
                            return
                        pause = _pause(answer)
                        detail = await _problem(answer)
                except (aiohttp.ClientError, OSError) as failure:
                    raise _failed(failure) from failure
                if pause is None:
                    raise errors.error("REMOTE_FAILED", detail, status=answer.status)
                await asyncio.sleep(pause)


async def _save(answer: aiohttp.ClientResponse, target: Path, limit: int) -> dict[str, Any]:
    """The line of JSON, and the rest of the body into a file of at most `limit` bytes."""
    if answer.content_type != handover.WIRE_TYPE:
        raise errors.error("REMOTE_INVALID", f"The answer is {answer.content_type}, not {handover.WIRE_TYPE}.")
    head = b""
    size = 0
    told: dict[str, Any] | None = None
    with target.open("wb") as file:
        async for block in _blocks(answer):
            data = block
            if told is None:
                head += block
                line, found, data = head.partition(b"\n")
                if not found:
                    if len(head) > LARGEST_LINE_BYTES:
                        raise errors.error("REMOTE_INVALID", "The answer does not begin with a line of JSON.")
                    continue
                told = deposit.parse_answer(line)
            size += len(data)
            if size > limit:
                raise errors.error("REMOTE_INVALID", f"The answer has more than {limit} bytes.")
            file.write(data)
    if told is None:
        raise errors.error("REMOTE_INVALID", "The answer is empty.")
    return told


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, at most so many bytes of it: one read gives no more than has come so far."""
    found = b""
    while block := await answer.content.read(most - len(found)):
        found += block
    return found


async def _blocks(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """The body; what fails is the connection here, so that it is not taken for a failure of our own disk."""
    try:
        async for block in answer.content.iter_chunked(1 << 18):
            yield block
    except (aiohttp.ClientError, OSError) as failure:
        raise _failed(failure) from failure


def _failed(failure: Exception) -> errors.StereoSpotError:
    return errors.error("REMOTE_FAILED", f"{type(failure).__name__}: {failure}")


def _pause(answer: aiohttp.ClientResponse) -> float | None:
    """Seconds to wait before the same request again, None for a failure."""
    if answer.status != 429:
        return None
    try:
        return min(max(float(answer.headers.get("Retry-After", "1")), 0.05), 30.0)
    except ValueError:
        return 1.0


async def _problem(answer: aiohttp.ClientResponse) -> str:
    """What the server says of its failure."""
    text = (await _read(answer, 4096)).decode(errors="replace")
    try:
        parsed: object = json.loads(text)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        found = cast(dict[str, Any], parsed)
        text = " ".join(str(found[name]) for name in ("code", "error") if name in found)
    return f"HTTP {answer.status}: {text[:500]}"


def load(*, engine: str = "", model: str | None = None) -> HttpBackend:
    """The backend that the settings describe; raises ENGINE_UNAVAILABLE without an address."""
    del engine, model
    values = Settings()
    if values.inference_url is None:
        raise errors.error("ENGINE_UNAVAILABLE", "The backend http needs STEREOSPOT_INFERENCE_URL.")
    endpoint = Endpoint(
        values.inference_url,
        token=values.inference_token.get_secret_value() if values.inference_token else None,
        timeout_seconds=values.inference_timeout_seconds,
        transport=values.inference_transport,
        dialect=values.inference_dialect,
    )
    return HttpBackend(
        endpoint, limits=Limits.of(values), open_store=lambda: open_store(values), scratch=values.data_dir / "scratch"
    )
