"""A client of resumable uploads: whole pieces, pieces that break off, and the films they are of."""

from __future__ import annotations

import asyncio
import base64
import random

import httpx

from tests.system.gateway import Served

MIB = 1 << 20


FTYP = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"


TUS = {"Tus-Resumable": "1.0.0"}


BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}


def film(size: int, seed: int = 1) -> bytes:
    """Bytes that begin as an mp4 does."""
    return (FTYP + random.Random(seed).randbytes(size))[:size]


def meta(**values: str) -> dict[str, str]:
    return {
        "Upload-Metadata": ",".join(
            f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items()
        )
    }


async def begin(gateway: Served, size: int, **values: str) -> str:
    headers = TUS | {"Upload-Length": str(size)} | (meta(**values) if values else {})
    answer = await gateway.client.post("/api/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["upload-offset"] == "0"
    return answer.headers["location"]


async def send(gateway: Served, location: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    named = BYTES | {"Upload-Offset": str(offset)} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.client.patch(location, headers=named, content=data)


async def offset_of(gateway: Served, location: str) -> int:
    answer = await gateway.client.head(location, headers=TUS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


async def stored_keys(gateway: Served) -> list[str]:
    return [info.key async for info in gateway.context.store.list("")]


async def broken(url: str, location: str, offset: int, data: bytes, announced: int) -> asyncio.StreamWriter:
    """A PATCH that sends `data` of `announced` bytes and is then silent."""
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
    head = (
        f"PATCH {location} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {announced}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()
    return writer
