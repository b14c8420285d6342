"""Uploads whose parts go straight to an S3 store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx

from stereospot import keys
from tests.storage.seaweed import Seaweed
from tests.support import Nats
from tests.system.conftest import s3_values
from tests.system.gateway import Served, served
from tests.system.resumable import MIB, film, send


async def test_parts_straight_to_s3(server: Nats, s3_server: Seaweed, tmp_path: Path) -> None:
    data = film(11 * MIB + 5)
    sha256 = hashlib.sha256(data).hexdigest()
    async with served(server, tmp_path / "data", **s3_values(s3_server, tmp_path)) as gateway:
        client = gateway.client
        wanted = {"name": "Film.mkv", "size_bytes": len(data), "sha256": sha256}
        begun = await client.post("/api/v1/uploads/direct", json=wanted)
        assert begun.status_code == 201, begun.text
        location, body = begun.headers["location"], begun.json()
        assert (body["part_bytes"], body["part_count"]) == (5 * MIB, 3)
        early = await client.post(f"{location}/complete")
        assert early.json()["code"] == "UPLOAD_INCOMPLETE"
        signed = (await client.post(f"{location}/parts", json={"numbers": [1, 2, 3]})).json()["parts"]
        async with httpx.AsyncClient(trust_env=False) as away:
            for item in signed:
                start = (item["number"] - 1) * body["part_bytes"]
                answer = await away.put(item["url"], content=data[start : start + body["part_bytes"]])
                assert answer.status_code == 200
                there = (await client.get(f"{location}/parts")).json()["parts"]
                assert [part["number"] for part in there] == list(range(1, item["number"] + 1))
        for number in ([0], [4], []):
            refused = await client.post(f"{location}/parts", json={"numbers": number})
            assert refused.json()["code"] == "INVALID_REQUEST"
        for _ in range(2):
            done = await client.post(f"{location}/complete")
            assert (done.status_code, done.json()["sha256"]) == (200, sha256), done.text
        made = await client.post("/api/v1/jobs", json={"upload": body["upload_id"]})
        assert made.json()["source"]["digest"] == f"sha256:{sha256}"
        assert await gateway.context.store.get(keys.source(body["upload_id"], "mkv")) == data
        by_patch = await send(gateway, location, 0, data)
        assert by_patch.json()["code"] == "CONFLICT"


async def test_parts_that_are_signed_with_their_sums(server: Nats, s3_server: Seaweed, tmp_path: Path) -> None:
    data = film(6 * MIB)
    pieces = data[: 5 * MIB], data[5 * MIB :]
    sums = [hashlib.sha256(piece).hexdigest() for piece in pieces]
    async with served(server, tmp_path / "data", **s3_values(s3_server, tmp_path)) as gateway:
        client = gateway.client
        begun = await client.post("/api/v1/uploads/direct", json={"name": "Film.mkv", "size_bytes": len(data)})
        assert begun.json()["takes_sums"]
        location = begun.headers["location"]
        for body in ({"numbers": [1, 2], "sha256": sums[:1]}, {"numbers": [1], "sha256": ["none"]}):
            refused = await client.post(f"{location}/parts", json=body)
            assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_REQUEST"), body
        signed = (await client.post(f"{location}/parts", json={"numbers": [1, 2], "sha256": sums})).json()["parts"]
        async with httpx.AsyncClient(trust_env=False) as away:
            swapped = await away.put(signed[0]["url"], content=bytes(5 * MIB), headers=signed[0]["headers"])
            assert swapped.status_code == 400
            for item, piece in zip(signed, pieces, strict=True):
                assert (await away.put(item["url"], content=piece, headers=item["headers"])).status_code == 200
        done = await client.post(f"{location}/complete")
        assert done.json()["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_local_store_offers_no_direct_uploads(gateway: Served) -> None:
    answer = await gateway.client.post("/api/v1/uploads/direct", json={"size_bytes": 5})
    assert (answer.status_code, answer.json()["code"]) == (501, "NOT_AVAILABLE")
