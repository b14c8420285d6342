"""What both remote backends need: a range in shared storage with the request that names it, and waiting that gives way.

Packed ──> input.mp4 stored ─> {"input_uri", "output_uri", "mode", …} ──> … ──> output.mp4 fetched ─> all removed
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from inference import geometry
from inference.backends.handover import Answer, Packed
from stereospot import errors, keys
from stereospot.media.model import Plan
from stereospot.options import Layout
from stereospot.storage.base import ObjectStore
from stereospot.storage.files import translated

T = TypeVar("T")

POLL_SECONDS = 0.1
SPARE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Deposit:
    """A range in shared storage: the request body that names it, and the way to the answer."""

    store: ObjectStore
    request: bytes
    request_key: str
    output_key: str
    limit_bytes: int

    async def put_request(self) -> str:
        """Store the request beside the range and give its URI, for endpoints that read it there."""
        await self.store.put(self.request_key, self.request)
        return uri(self.store, self.request_key)

    async def fetch(self, target: Path) -> None:
        """Save the answer's video; raises REMOTE_INVALID when there is none, STORAGE_FULL where it has no room."""
        info = await self.store.head(self.output_key)
        if info is None:
            raise errors.error("REMOTE_INVALID", "The endpoint said ok, but stored nothing.")
        if info.size > self.limit_bytes:
            raise errors.error("REMOTE_INVALID", f"The answer has {info.size} bytes, more than the raw pictures.")
        with translated(target.name), target.open("wb") as file:
            async for block in self.store.stream(self.output_key):
                file.write(block)


@contextlib.asynccontextmanager
async def deposited(store: ObjectStore, packed: Packed, *, dialect: str) -> AsyncGenerator[Deposit]:
    """Store the range and name it; what both sides stored is removed afterwards, whatever happened."""
    plan, segment = packed.handover.plan, packed.handover.segment
    exchange = uuid.uuid4().hex[:12]

    def key(name: str) -> str:
        return keys.remote(plan.job_id, plan.generation, segment.index, exchange, name)

    body: dict[str, Any] = {
        "input_uri": uri(store, key("input.mp4")),
        "output_uri": uri(store, key("output.mp4")),
        "mode": mode(plan.stereo.layout) if dialect == "plain" else "sbs",
    }
    if dialect != "plain":
        body["stereospot"] = packed.handover.model_dump(mode="json")
    try:
        await store.put(key("input.mp4"), packed.video)
        yield Deposit(store, json.dumps(body).encode(), key("request.json"), key("output.mp4"), largest_answer(packed))
    finally:
        # Cancelled or failed, the objects go; the janitor finds what a killed process left, by the generation's prefix.
        with contextlib.suppress(errors.StereoSpotError, asyncio.TimeoutError):
            await asyncio.wait_for(store.delete_prefix(key("").rstrip("/") + "/"), 30)
        await store.close()


def uri(store: ObjectStore, key: str) -> str:
    """How another process names an object of this store: `s3://bucket/key`, or the file behind a local key."""
    bucket = getattr(store, "bucket", None)
    if isinstance(bucket, str):
        return f"s3://{bucket}/{getattr(store, 'prefix', '')}{key}"
    root = getattr(store, "root", None)
    if isinstance(root, Path):
        return (root / key).absolute().as_uri()
    raise errors.error("INVALID_OPTIONS", "This store has no URIs that another process could open.")


def mode(layout: Layout) -> Literal["sbs", "anaglyph"]:
    """The plain contract's word for a layout; raises INVALID_OPTIONS where it has none."""
    if layout is Layout.FULL_SBS:
        return "sbs"
    if layout in geometry.ANAGLYPHS:
        return "anaglyph"
    raise errors.error("INVALID_OPTIONS", f"A plain endpoint makes full-sbs or anaglyph, not {layout}.")


def largest_answer(packed: Packed) -> int:
    """Bytes that no lossless answer needs more of: its raw pictures, and something for the container."""
    plan: Plan = packed.handover.plan
    sizes = geometry.plane_sizes(plan.encode.width, plan.encode.height, plan.encode.pixel_format)
    picture = sum(h * w for h, w in sizes) * (2 if plan.encode.pixel_format.endswith("10le") else 1)
    return SPARE_BYTES + picture * packed.handover.segment.frames


def parse_answer(line: bytes) -> dict[str, Any]:
    """The report in an answer's JSON; raises REMOTE_INVALID for anything else than an ok."""
    try:
        answer = Answer.model_validate_json(line)
    except ValidationError as failure:
        raise errors.error("REMOTE_INVALID", f"The answer is not JSON of this contract: {line[:80]!r}") from failure
    if answer.status != "ok":
        raise errors.error("REMOTE_INVALID", f"The answer's status is {answer.status!r}.")
    return answer.report


async def stoppable(work: Awaitable[T], stop: threading.Event | None, *, seconds: float) -> T:
    """Await `work` for at most `seconds`; raises CANCELLED when `stop` is set and REMOTE_FAILED when time is up."""
    task = asyncio.ensure_future(work)
    deadline = time.monotonic() + seconds
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=POLL_SECONDS)
            if done:
                return task.result()
            if stop is not None and stop.is_set():
                raise errors.error("CANCELLED")
            if time.monotonic() > deadline:
                raise errors.error("REMOTE_FAILED", f"No answer within {seconds:.0f} s.")
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


@contextlib.contextmanager
def temporary_folder(scratch: Path | None = None) -> Generator[Path]:
    """A folder of one exchange in `scratch`, removed at its end; the janitor removes what a killed process left.

    Raises STORAGE_FULL where there is no room for it.
    """
    with translated("scratch"):
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="stereospot-remote-", dir=scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
