"""Multipart uploads and copies of S3: how a long body is cut, sent and given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

PART_BYTES = 8 << 20
"""Also the largest body that goes up in one PUT."""

LATER_PART_BYTES = 32 << 20
"""From part 1,000 on: 10,000 parts, the protocol's limit, then hold 296 GB."""

PARTS_AT_A_TIME = 2
COPY_PART_BYTES = 1 << 30

_BROKEN = (BotoCoreError, ClientError, OSError, asyncio.TimeoutError)


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part that the store has."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload under way; `target` is the bucket and the name. End it by the completion, or by `abort`."""

    client: Any
    target: Mapping[str, str]
    upload_id: str

    @classmethod
    async def begin(cls, client: Any, target: Mapping[str, str]) -> Upload:
        return cls(client, target, (await client.create_multipart_upload(**target))["UploadId"])

    async def send(self, parts: AsyncIterator[bytes]) -> list[Part]:
        """Upload the parts as they come, a few at a time; raises the first cause of a failure."""
        sent: list[Part] = []
        slots = asyncio.Semaphore(PARTS_AT_A_TIME)

        async def one(number: int, data: bytes) -> None:
            try:
                answer = await self.client.upload_part(
                    **self.target, UploadId=self.upload_id, PartNumber=number, Body=data
                )
                sent.append(Part(number, len(data), answer["ETag"]))
            finally:
                slots.release()

        number = 0
        try:
            async with asyncio.TaskGroup() as group:
                async for data in parts:
                    await slots.acquire()
                    number += 1
                    group.create_task(one(number, data))
        except BaseExceptionGroup as failed:
            # The first cause alone: what it is decides whether a retry helps.
            raise failed.exceptions[0] from failed
        return sorted(sent)

    def completion(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The arguments of the call that makes the object appear."""
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        return {**self.target, "UploadId": self.upload_id, "MultipartUpload": {"Parts": listed}}

    async def abort(self) -> None:
        # What cannot be aborted now is found by `sweep`.
        with contextlib.suppress(*_BROKEN):
            await self.client.abort_multipart_upload(**self.target, UploadId=self.upload_id)


async def copy(
    client: Any, origin: Mapping[str, str], target: Mapping[str, str], size: int, *, part_bytes: int = COPY_PART_BYTES
) -> None:
    """Copy an object that is too large for one request, within the store."""
    upload = await Upload.begin(client, target)
    try:
        done: list[Part] = []
        for number, start in enumerate(range(0, size, part_bytes), 1):
            length = min(part_bytes, size - start)
            piece = {"CopySource": origin, "CopySourceRange": f"bytes={start}-{start + length - 1}"}
            answer = await client.upload_part_copy(**target, **piece, UploadId=upload.upload_id, PartNumber=number)
            done.append(Part(number, length, answer["CopyPartResult"]["ETag"]))
        await client.complete_multipart_upload(**upload.completion(done))
    except BaseException:
        await asyncio.shield(upload.abort())
        raise


# ---- bodies ----------------------------------------------------------------------------------------------
async def cut(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in parts of the sizes that an upload takes; only the last one is shorter."""
    waiting = bytearray()
    number = 0
    size = PART_BYTES
    async for piece in _once(data) if isinstance(data, bytes) else data:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(memoryview(waiting)[:size])
            del waiting[:size]
            number += 1
            size = PART_BYTES if number < 1000 else LATER_PART_BYTES
    if waiting:
        yield bytes(waiting)


async def read(path: Path) -> AsyncIterator[bytes]:
    """A file's bytes, read in threads."""
    source = await asyncio.to_thread(path.open, "rb")
    try:
        while block := await asyncio.to_thread(source.read, PART_BYTES):
            yield block
    finally:
        source.close()


async def chained(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for part in rest:
        yield part


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


async def abort_old(client: Any, bucket: str, key: str, upload_id: str, limit: float) -> bool:
    """Abort a multipart upload of which nothing came since `limit`; whether it was one."""
    try:
        # A film on its way over a slow line may have begun days ago.
        if await _newest_part(client, bucket, key, upload_id) > limit:
            return False
        await client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except ClientError as error:
        # It came to its end since it was listed; or its parts are not to be seen, and it may be on its way.
        if code_of(error) not in ("NoSuchUpload", "AccessDenied"):
            raise
        return False
    return True


async def _newest_part(client: Any, bucket: str, key: str, upload_id: str) -> float:
    """When the last part of a multipart upload came, in Unix seconds; 0 where none has."""
    newest = 0.0
    pages = client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload_id)
    async for page in pages:
        newest = max([newest, *(part["LastModified"].timestamp() for part in page.get("Parts", ()))])
    return newest
