"""An object that comes in pieces, as a multipart upload of S3 and a remainder beside it.

    bytes ─> part 1 … part n (5 MiB each, or more)  +  <scratch>/rest-<n>  ── complete ──>  the key

The store's own list of parts IS the state. A part is at least 5 MiB, so what is left behind the last whole one is kept
as an object whose name says how many parts it follows: the moment part n + 1 exists, `rest-<n>` counts no more,
whatever dies in between. Parts are cut at fixed places, so two writers of the same bytes write the same parts.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp
from botocore.exceptions import ClientError

from stereospot import errors, history
from stereospot.storage import multipart
from stereospot.storage.base import Progress, Signed
from stereospot.storage.multipart import Part

SUM = "x-amz-checksum-sha256"
SMALLEST_PART_BYTES = 5 << 20
MOST_PARTS = 10_000
_NO_UPLOAD = frozenset({"NoSuchUpload", "404", "NoSuchKey"})


def part_bytes(size: int) -> int:
    """How long the parts of an object of `size` bytes are: as short as the protocol lets them be, in whole MiB."""
    return max(SMALLEST_PART_BYTES, -(-size // (MOST_PARTS << 20)) << 20)


@dataclass(frozen=True, slots=True)
class Names:
    """Where things lie, with the store's prefix: the bucket, the object, and the folder for the remainder."""

    bucket: str
    object: str
    scratch: str

    @property
    def target(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.object}


@dataclass(frozen=True, slots=True)
class _Present:
    """The parts that follow one another from 1 on, and when bytes last came."""

    parts: list[Part]
    modified: float

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Opened = Callable[[str], AbstractAsyncContextManager[Any]]
"""The connected client, whose errors become errors of the catalogue; takes the key for their details."""


class S3Partial:
    """A `Partial` in one multipart upload."""

    def __init__(self, key: str, names: Names, opened: Opened, upload_id: str, size: int) -> None:
        self.key = key
        self._names = names
        self._opened = opened
        self._upload_id = upload_id
        self._size = size
        self.part_bytes: int | None = part_bytes(size)
        self._step = part_bytes(size)

    # ---- what is there ----------------------------------------------------------------------------------
    async def progress(self) -> Progress:
        async with self._opened(self.key) as client:
            present = await self._present(client)
            if present is None:
                found = await self._head(client, self._names.object)
                if found is None:
                    raise errors.error("SOURCE_MISSING", f"There is no {self.key}.", key=self.key)
                return Progress(found[0], found[1], finished=True)
            rest = await self._head(client, self._rest(len(present.parts)))
            size, modified = rest or (0, 0.0)
            return Progress(present.size + size, max(present.modified, modified))

    async def parts(self) -> dict[int, int]:
        async with self._opened(self.key) as client:
            listed, _ = await self._listed(client) or ([], 0.0)
            return {part.number: part.size for part in listed}

    async def _listed(self, client: Any) -> tuple[list[Part], float] | None:
        """All parts by number, and when the last one came (or the upload began); None for no such upload."""
        found: dict[int, tuple[float, Part]] = {}
        modified = 0.0
        try:
            pages = client.get_paginator("list_parts").paginate(**self._names.target, UploadId=self._upload_id)
            async for page in pages:
                for item in page.get("Parts", ()):
                    part, at = Part(item["PartNumber"], item["Size"], item["ETag"]), item["LastModified"].timestamp()
                    # SeaweedFS lists a part that was sent again twice; the later one counts.
                    if part.number not in found or at >= found[part.number][0]:
                        found[part.number] = at, part
                    modified = max(modified, at)
        except ClientError as error:
            if multipart.code_of(error) in _NO_UPLOAD:
                return None
            raise
        return sorted(part for _, part in found.values()), modified

    async def _present(self, client: Any) -> _Present | None:
        listed = await self._listed(client)
        if listed is None:
            return None
        found, modified = listed
        row = [part for number, part in enumerate(found, 1) if part.number == number]
        return _Present(row, modified)

    async def _head(self, client: Any, name: str) -> tuple[int, float] | None:
        try:
            answer = await client.head_object(Bucket=self._names.bucket, Key=name)
        except ClientError as error:
            if multipart.code_of(error) in _NO_UPLOAD:
                return None
            raise
        return answer["ContentLength"], answer["LastModified"].timestamp()

    def _rest(self, parts: int) -> str:
        return f"{self._names.scratch}rest-{parts:05d}"

    # ---- bytes ------------------------------------------------------------------------------------------
    async def append(self, offset: int, data: AsyncIterable[bytes]) -> int:
        async with self._opened(self.key) as client:
            present = await self._present(client)
            if present is None:
                raise errors.error("CONFLICT", "The upload is finished or gone.")
            number = begun = len(present.parts)
            waiting = bytearray(await self._read_rest(client, begun))
            kept = len(waiting)
            done = present.size
            if done + kept != offset:
                raise errors.error("CONFLICT", f"The upload is at {done + kept}, not at {offset}.", offset=done + kept)
            async for block in data:
                waiting += block
                while len(waiting) >= self._step:
                    number += 1
                    await self._send(client, number, bytes(memoryview(waiting)[: self._step]))
                    del waiting[: self._step]
                    done += self._step
            if waiting and done + len(waiting) == self._size:
                number += 1
                await self._send(client, number, bytes(waiting))
            elif waiting and (number, len(waiting)) != (begun, kept):
                await client.put_object(Bucket=self._names.bucket, Key=self._rest(number), Body=bytes(waiting))
            if kept and number > begun:
                await client.delete_object(Bucket=self._names.bucket, Key=self._rest(begun))
            return done + len(waiting)

    async def _read_rest(self, client: Any, parts: int) -> bytes:
        try:
            answer = await client.get_object(Bucket=self._names.bucket, Key=self._rest(parts))
            async with answer["Body"] as body:
                return await body.read()
        except ClientError as error:
            if multipart.code_of(error) in _NO_UPLOAD:
                return b""
            raise
        except aiohttp.ClientError as error:  # the answer broke off: botocore passes on what its transport says
            raise errors.error("STORAGE_UNAVAILABLE", f"Reading broke off: {error}.", key=self.key) from error

    async def _send(self, client: Any, number: int, data: bytes) -> None:
        await client.upload_part(**self._names.target, UploadId=self._upload_id, PartNumber=number, Body=data)

    # ---- the end ----------------------------------------------------------------------------------------
    async def finish(self) -> None:
        async with self._opened(self.key) as client:
            present = await self._present(client)
            if present is not None:
                if present.size != self._size:
                    raise errors.error("UPLOAD_INCOMPLETE", f"{present.size} of {self._size} bytes are there.")
                upload = multipart.Upload(client, self._names.target, self._upload_id)
                try:
                    await client.complete_multipart_upload(**upload.completion(present.parts))
                except ClientError as error:
                    # A repeated completion finds no upload where the first one went through unheard.
                    if multipart.code_of(error) not in _NO_UPLOAD:
                        raise
            found = await self._head(client, self._names.object)
            if found is None:
                raise errors.error("SOURCE_MISSING", f"There is no {self.key}.", key=self.key)
            if found[0] != self._size:
                detail = f"The store holds {found[0]} instead of {self._size} bytes."
                raise errors.error("STORAGE_UNAVAILABLE", detail, key=self.key)
        history.record("put", key=self.key)

    async def discard(self) -> None:
        async with self._opened(self.key) as client:
            try:
                await client.abort_multipart_upload(**self._names.target, UploadId=self._upload_id)
            except ClientError as error:
                if multipart.code_of(error) not in _NO_UPLOAD:
                    raise
            await client.delete_object(**self._names.target)
            listed = await client.list_objects_v2(Bucket=self._names.bucket, Prefix=f"{self._names.scratch}rest-")
            for item in listed.get("Contents", ()):
                await client.delete_object(Bucket=self._names.bucket, Key=item["Key"])

    async def presign(self, number: int, *, sha256: bytes | None = None, seconds: int = 3600) -> Signed | None:
        last = -(-self._size // self._step)
        if not 1 <= number <= last:
            raise errors.error("INVALID_REQUEST", f"The parts are 1 to {last}.")
        length = self._step if number < last else self._size - (last - 1) * self._step
        values = {**self._names.target, "UploadId": self._upload_id, "PartNumber": number, "ContentLength": length}
        headers: dict[str, str] = {}
        if sha256 is not None:
            values["ChecksumSHA256"] = headers[SUM] = base64.b64encode(sha256).decode()
        async with self._opened(self.key) as client:
            url = await client.generate_presigned_url("upload_part", Params=values, ExpiresIn=seconds)
        return Signed(url, headers)
