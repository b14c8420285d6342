"""Objects in an S3 bucket: what a fleet uses, with AWS or any store that speaks the same protocol.

A PUT and the completion of a multipart upload are atomic there, so there is no temporary key and no copy. Small bodies
go up in one PUT, longer streams in parts, two at a time; what fails is aborted. botocore's `standard` retry mode
repeats a request on 5xx, SlowDown, broken connections and the `200` that carries an error, with full jitter; a download
that breaks in the middle goes on where it broke. After each upload the stored size is compared with what was sent.

Checksums are sent `when_required` only: the trailers that newer SDKs add by default are refused by several stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from stereospot import errors, history, keys
from stereospot.storage import multipart
from stereospot.storage.base import ObjectInfo
from stereospot.storage.multipart import PART_BYTES, Part, Upload
from stereospot.storage.s3_partial import Names, S3Partial

CHUNK_BYTES = 1 << 20
COPY_LIMIT_BYTES = 5 << 30
"""The largest object that one copy request may copy."""

READ_ATTEMPTS = 5

_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchBucket"})
_EXISTS = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_UNKNOWN_CONDITION = frozenset({"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "UnsupportedHeader"})
_FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLarge"})


class S3Store:
    """An `ObjectStore` in `bucket` below `prefix`; the bucket is made when it does not exist.

    `endpoint` None is AWS; with an endpoint the bucket goes into the path. Keys None means the usual AWS chain.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str | None = None,
        region: str = "us-east-1",
        access_key: str | None = None,
        secret_key: str | None = None,
        prefix: str = "",
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 60.0,
        attempts: int = 5,
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._session = aioboto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key)
        self._arguments: dict[str, Any] = {
            "service_name": "s3",
            "endpoint_url": endpoint,
            "region_name": region,
            "config": AioConfig(
                connect_timeout=connect_timeout_seconds,
                read_timeout=read_timeout_seconds,
                max_pool_connections=64,
                retries={"mode": "standard", "max_attempts": attempts},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"} if endpoint else None,
                signature_version="s3v4",
            ),
        }
        self._stack = contextlib.AsyncExitStack()
        self._lock = asyncio.Lock()
        self._client: Any = None
        self._conditions = True

    # ---- writing ----------------------------------------------------------------------------------------
    async def put(self, key: str, data: bytes | AsyncIterable[bytes], *, if_absent: bool = False) -> bool:
        stored = await self._put(key, data, if_absent)
        if stored:
            history.record("put", key=key)
        return stored

    async def _put(self, key: str, data: bytes | AsyncIterable[bytes], if_absent: bool) -> bool:
        """In one request, or in parts when it is large."""
        if if_absent and await self.head(key) is not None:
            return False
        if isinstance(data, bytes) and len(data) <= PART_BYTES:
            return await self._put_one(key, data, if_absent)
        parts = multipart.cut(data)
        try:
            first = await anext(parts, b"")
            second = await anext(parts, None) if len(first) == PART_BYTES else None
            if second is None:
                return await self._put_one(key, first, if_absent)
            return await self._put_parts(key, multipart.chained(first, second, parts), if_absent)
        finally:
            await parts.aclose()

    async def put_file(self, key: str, path: Path, *, move: bool = False) -> None:
        try:
            await self.put(key, multipart.read(path))
            if move:
                # Days later it may have been taken for what a dead process left.
                await asyncio.to_thread(path.unlink, missing_ok=True)
        except FileNotFoundError as error:
            raise errors.error("SOURCE_MISSING", f"There is no {path.name}.", key=key) from error

    async def copy(self, source: str, target: str) -> None:
        info = await self.head(source)
        if info is None:
            raise errors.error("SOURCE_MISSING", f"There is no {source}.", key=source)
        origin = {"Bucket": self.bucket, "Key": self._name(source)}
        async with self._translated(source) as client:
            if info.size <= COPY_LIMIT_BYTES:
                await client.copy_object(Bucket=self.bucket, Key=self._name(target), CopySource=origin)
            else:
                await multipart.copy(client, origin, {"Bucket": self.bucket, "Key": self._name(target)}, info.size)
        await self._verify(target, info.size)

    async def begin(self, key: str, scratch: str) -> str:
        async with self._translated(key) as client:
            answer = await client.create_multipart_upload(Bucket=self.bucket, Key=self._name(key))
            return str(answer["UploadId"])

    def partial(self, key: str, scratch: str, handle: str, size: int) -> S3Partial:
        if not keys.is_key(f"{scratch}x"):
            raise ValueError(f"not a folder's prefix: {scratch!r}")
        names = Names(self.bucket, self._name(key), self.prefix + scratch)
        return S3Partial(key, names, self._translated, handle, size)

    async def delete(self, key: str) -> None:
        async with self._translated(key) as client:
            await client.delete_object(Bucket=self.bucket, Key=self._name(key))

    async def delete_prefix(self, prefix: str) -> int:
        if not prefix.endswith("/"):
            raise ValueError(f"not a folder's prefix: {prefix!r}")
        count = 0
        batch: list[dict[str, str]] = []

        async def flush() -> None:
            async with self._translated(prefix) as client:
                answer = await client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
            if failed := answer.get("Errors"):
                raise errors.error("STORAGE_UNAVAILABLE", f"{len(failed)} objects were not deleted.", key=prefix)

        async for info in self.list(prefix):
            batch.append({"Key": self._name(info.key)})
            count += 1
            if len(batch) == 1000:
                await flush()
                batch.clear()
        if batch:
            await flush()
        return count

    async def sweep(self, older_than_seconds: float, *, keep: frozenset[str] = frozenset()) -> int:
        count = 0
        kept = {self._name(key) for key in keep}
        limit = time.time() - older_than_seconds
        async with self._translated("") as client:
            paginator = client.get_paginator("list_multipart_uploads")
            for top in keys.TOPS:  # the bucket may have others' uploads in it
                async for page in paginator.paginate(Bucket=self.bucket, Prefix=f"{self.prefix}{top}/"):
                    for upload in page.get("Uploads", ()):
                        if upload["Initiated"].timestamp() > limit or upload["Key"] in kept:
                            continue
                        count += await multipart.abort_old(
                            client, self.bucket, upload["Key"], upload["UploadId"], limit
                        )
        return count

    # ---- reading ----------------------------------------------------------------------------------------
    async def get(self, key: str) -> bytes | None:
        try:
            return b"".join([block async for block in self.stream(key)])
        except errors.Permanent:
            return None

    async def read(self, key: str, offset: int, length: int) -> bytes:
        return b"".join([block async for block in self.stream(key, offset, offset + length)])

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        name = self._name(key)
        failures = 0
        while end is None or start < end:
            wanted = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
            try:
                async with self._translated(key, missing=True) as client:
                    arguments = {} if (start, end) == (0, None) else {"Range": wanted}
                    answer = await client.get_object(Bucket=self.bucket, Key=name, **arguments)
                    expected: int = answer["ContentLength"]
                    body = answer["Body"]
            except _RangeBeyondEnd:
                return
            try:
                while expected > 0:
                    try:
                        block: bytes = await body.read(min(CHUNK_BYTES, expected))
                        if not block:
                            raise ConnectionResetError("the answer ended early")
                    except Exception as error:
                        # Whatever broke the transfer: the next request goes on behind the last good byte.
                        failures += 1
                        if failures >= READ_ATTEMPTS:
                            raise errors.error(
                                "STORAGE_UNAVAILABLE", f"Reading broke off: {error}.", key=key
                            ) from error
                        break
                    failures = 0
                    expected -= len(block)
                    start += len(block)
                    yield block
            finally:
                body.close()
            if expected == 0:
                return
            await asyncio.sleep(random.uniform(0, 0.1 * 2**failures))

    async def head(self, key: str) -> ObjectInfo | None:
        async with self._translated(key) as client:
            try:
                answer = await client.head_object(Bucket=self.bucket, Key=self._name(key))
            except ClientError as error:
                if multipart.code_of(error) in _MISSING:
                    return None
                raise
        modified = answer["LastModified"].timestamp()
        return ObjectInfo(key, answer["ContentLength"], modified, answer["ETag"].strip('"'))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        found: list[ObjectInfo] = []
        async with self._translated(prefix) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            async for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self.prefix)
                    if keys.is_key(key):
                        etag = item["ETag"].strip('"')
                        found.append(ObjectInfo(key, item["Size"], item["LastModified"].timestamp(), etag))
        # AWS lists by key; stores with real folders put `plan/0` before `plan.json`.
        found.sort(key=lambda info: info.key)
        for info in found:
            yield info

    async def free_bytes(self) -> int | None:
        return None

    def local_path(self, key: str) -> Path | None:
        return None

    async def close(self) -> None:
        async with self._lock:
            self._client = None
            await self._stack.aclose()

    # ---- inside -----------------------------------------------------------------------------------------
    def _name(self, key: str) -> str:
        if not keys.is_key(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self.prefix + key

    async def _connected(self) -> Any:
        async with self._lock:
            if self._client is None:
                async with contextlib.AsyncExitStack() as stack:
                    opening: Any = self._session.client(**self._arguments)
                    client = await stack.enter_async_context(opening)
                    try:
                        await client.head_bucket(Bucket=self.bucket)
                    except ClientError as error:
                        if multipart.code_of(error) not in _MISSING:
                            raise
                        await self._make_bucket(client)
                    self._stack = stack.pop_all()  # not before: each call opens one while the store is away
                self._client = client
            return self._client

    async def _make_bucket(self, client: Any) -> None:
        region = self._arguments["region_name"]
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            await client.create_bucket(Bucket=self.bucket, **place)
        except ClientError as error:
            if multipart.code_of(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    @contextlib.asynccontextmanager
    async def _translated(self, key: str, *, missing: bool = False) -> AsyncGenerator[Any]:
        """The connected client; what it raises becomes an error of the catalogue."""
        try:
            yield await self._connected()
        except ClientError as error:
            code = multipart.code_of(error)
            if missing and code in _MISSING:
                raise errors.error("SOURCE_MISSING", f"There is no {key}.", key=key) from error
            if missing and code in ("InvalidRange", "416"):
                raise _RangeBeyondEnd from error
            name = "STORAGE_FULL" if code in _FULL else "STORAGE_UNAVAILABLE"
            raise errors.error(name, f"The store answers {code}.", key=key) from error
        except (BotoCoreError, TimeoutError) as error:
            raise errors.error("STORAGE_UNAVAILABLE", f"{error}.", key=key) from error

    async def _put_one(self, key: str, data: bytes, if_absent: bool) -> bool:
        async with self._translated(key) as client:
            arguments = {"Bucket": self.bucket, "Key": self._name(key), "Body": data}
            if not await self._conditional(client.put_object, arguments, if_absent):
                return False
        await self._verify(key, len(data))
        return True

    async def _conditional(self, call: Any, arguments: Mapping[str, Any], if_absent: bool) -> bool:
        """Make a call with `If-None-Match: *` where wanted; a store that does not know it is asked only once."""
        if if_absent and self._conditions:
            try:
                await call(**arguments, IfNoneMatch="*")
                return True
            except ClientError as error:
                if multipart.code_of(error) in _EXISTS:
                    return False
                if multipart.code_of(error) not in _UNKNOWN_CONDITION:
                    raise
                self._conditions = False
        await call(**arguments)
        return True

    async def _put_parts(self, key: str, parts: AsyncIterator[bytes], if_absent: bool) -> bool:
        async with self._translated(key) as client:
            upload = await Upload.begin(client, {"Bucket": self.bucket, "Key": self._name(key)})
            try:
                sent = await upload.send(parts)
                stored = await self._complete(upload, key, sent, if_absent)
            except BaseException:
                await asyncio.shield(upload.abort())
                raise
            if not stored:
                await upload.abort()
                return False
        await self._verify(key, sum(part.size for part in sent))
        return True

    async def _complete(self, upload: Upload, key: str, sent: Sequence[Part], if_absent: bool) -> bool:
        call = upload.client.complete_multipart_upload
        try:
            return await self._conditional(call, upload.completion(sent), if_absent)
        except ClientError as error:
            # A repeated completion finds no upload where the first one went through unheard.
            found = await self.head(key) if multipart.code_of(error) == "NoSuchUpload" else None
            if found is None or found.size != sum(part.size for part in sent):
                raise
            return True

    async def _verify(self, key: str, size: int) -> None:
        info = await self.head(key)
        if info is None or info.size != size:
            found = "nothing" if info is None else f"{info.size} bytes"
            raise errors.error("STORAGE_UNAVAILABLE", f"The store holds {found} instead of {size} bytes.", key=key)


class _RangeBeyondEnd(Exception):
    """A range that starts at or behind the end of an object: no bytes, as in a file."""
