"""Backend `sagemaker`: a segment converted by an asynchronous SageMaker endpoint that runs our inference server.

    range, request stored ─> InvokeEndpointAsync ─> poll for the result's object, or the failure's ─> output fetched

The answer is an object in S3, so a lost connection loses nothing, and a request that nobody waits for any more dies by
its time to live. An endpoint that is gone, throttles or fails is transient: the segment goes back to the pool.
SageMaker cannot cancel an invocation that runs; a cancelled segment's slot here is free at once all the same.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from inference.backends import deposit, handover
from inference.backends.handover import Packed
from inference.contract import Converted, Frames
from stereospot import errors
from stereospot.media.limits import Limits
from stereospot.media.model import Plan, Segment
from stereospot.settings import Settings
from stereospot.storage import ObjectStore, open_store

FIRST_POLL_SECONDS = 0.25
LAST_POLL_SECONDS = 5.0
LONGEST_INVOCATION_SECONDS = 3600
SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS = 60, 21600
"""What SageMaker takes as InvocationTimeoutSeconds and RequestTTLSeconds."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An asynchronous endpoint; `url` only where the API is not AWS's own. Keys None means the usual AWS chain.

    timeout_seconds: for the whole exchange, from the stored range to the fetched answer; attempts: of one API call.
    """

    name: str
    region: str
    url: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    timeout_seconds: float = 1200.0
    attempts: int = 4


class SagemakerBackend:
    """Thread-safe; each conversion has clients of its own and leaves nothing behind.

    open_store: the shared bucket; open_bucket: the store of the bucket that the endpoint writes its results to.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        open_store: Callable[[], ObjectStore],
        open_bucket: Callable[[str], ObjectStore],
        limits: Limits | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._scratch = scratch
        self._open_store = open_store
        self._open_bucket = open_bucket
        self._limits = limits or Limits()

    def convert(
        self,
        *,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        stop: threading.Event | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Converted:
        """Convert one segment; blocking. Raises REMOTE_FAILED, REMOTE_INVALID, what the decoder raises, CANCELLED."""
        with deposit.temporary_folder(self._scratch) as folder:
            return handover.converted(
                decoder, plan, segment, self._exchange, folder=folder, padding=handover.padding(plan, segment),
                limits=self._limits, stop=stop, on_frame=on_frame,
            )  # fmt: skip

    def close(self) -> None:
        """Nothing is kept."""

    def _exchange(self, packed: Packed, target: Path, stop: threading.Event | None) -> dict[str, Any]:
        work = self._invoke(packed, target)
        return asyncio.run(deposit.stoppable(work, stop, seconds=self.endpoint.timeout_seconds))

    async def _invoke(self, packed: Packed, target: Path) -> dict[str, Any]:
        async with deposit.deposited(self._open_store(), packed, dialect="stereospot") as given:
            result, failure = await self._submit(await given.put_request())
            told = await self._result(result, failure)
            await given.fetch(target)
            return told

    async def _submit(self, location: str) -> tuple[str, str | None]:
        """Hand the request in; returns where the result and the failure will be."""
        seconds = int(self.endpoint.timeout_seconds)
        session = aioboto3.Session(
            aws_access_key_id=self.endpoint.access_key, aws_secret_access_key=self.endpoint.secret_key
        )
        config = AioConfig(
            connect_timeout=10, read_timeout=30, retries={"mode": "standard", "max_attempts": self.endpoint.attempts}
        )
        opening: Any = session.client(
            "sagemaker-runtime",
            region_name=self.endpoint.region,
            endpoint_url=self.endpoint.url,
            config=config,
        )
        try:
            async with opening as client:
                answer = await client.invoke_endpoint_async(
                    EndpointName=self.endpoint.name,
                    ContentType="application/json",
                    Accept="application/json",
                    InputLocation=location,
                    RequestTTLSeconds=min(max(seconds, SHORTEST_LIFE_SECONDS), LONGEST_LIFE_SECONDS),
                    InvocationTimeoutSeconds=min(max(seconds, 1), LONGEST_INVOCATION_SECONDS),
                )
        except (BotoCoreError, ClientError, OSError) as failure:
            raise errors.error("REMOTE_FAILED", f"SageMaker endpoint {self.endpoint.name}: {failure}") from failure
        return answer["OutputLocation"], answer.get("FailureLocation")

    async def _result(self, result: str, failure: str | None) -> dict[str, Any]:
        """Wait for either object; raises REMOTE_FAILED with what the failure's says."""
        bucket, key = _located(result)
        other = _located(failure) if failure else None
        stores = {name: self._open_bucket(name) for name in {bucket, other[0] if other else bucket}}
        pause = FIRST_POLL_SECONDS
        try:
            while True:
                found = await stores[bucket].get(key)
                if found is not None:
                    return deposit.parse_answer(found)
                problem = await stores[other[0]].get(other[1]) if other else None
                if problem is not None:
                    raise errors.error("REMOTE_FAILED", problem[:500].decode(errors="replace"))
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LAST_POLL_SECONDS)
        finally:
            for store in stores.values():
                await store.close()


def _located(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI."""
    parts = urlsplit(uri)
    key = unquote(parts.path.lstrip("/"))
    if parts.scheme != "s3" or not parts.netloc or not key:
        raise errors.error("REMOTE_INVALID", f"SageMaker names {uri!r} for its result.")
    return parts.netloc, key


def load(*, engine: str = "", model: str | None = None) -> SagemakerBackend:
    """The backend that the settings describe; raises ENGINE_UNAVAILABLE without an endpoint or without S3."""
    del engine, model
    values = Settings()
    if values.sagemaker_endpoint is None:
        raise errors.error("ENGINE_UNAVAILABLE", "The backend sagemaker needs STEREOSPOT_SAGEMAKER_ENDPOINT.")
    if values.storage != "s3":
        raise errors.error("ENGINE_UNAVAILABLE", "The backend sagemaker needs STEREOSPOT_STORAGE=s3.")
    endpoint = Endpoint(
        values.sagemaker_endpoint,
        values.sagemaker_region,
        url=values.sagemaker_url,
        access_key=values.s3_access_key.get_secret_value() if values.s3_access_key else None,
        secret_key=values.s3_secret_key.get_secret_value() if values.s3_secret_key else None,
        timeout_seconds=values.inference_timeout_seconds,
    )

    def open_bucket(name: str) -> ObjectStore:
        return open_store(values.model_copy(update={"s3_bucket": name, "s3_prefix": ""}))

    return SagemakerBackend(
        endpoint, open_store=lambda: open_store(values), open_bucket=open_bucket, limits=Limits.of(values),
        scratch=values.data_dir / "scratch",
    )  # fmt: skip
