"""Resumable uploads over a real broker and real stores: the protocol, what is checked, how they end."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from services import intake
from services.gateway import tus
from services.janitor import Janitor
from stereospot import errors, keys
from tests.support import Nats
from tests.system.gateway import Served, served
from tests.system.resumable import BYTES, MIB, TUS, begin, film, meta, offset_of, send, stored_keys


async def test_in_pieces_through_restarts_to_a_job(server: Nats, tmp_path: Path, stored_on: dict[str, Any]) -> None:
    data = film(6 * MIB + 12_345)
    sha256 = hashlib.sha256(data).hexdigest()
    cuts = [0, 1000, 5 * MIB + 3, len(data)]
    location = ""
    for start, end in itertools.pairwise(cuts):
        async with served(server, tmp_path / "data", **stored_on) as gateway:
            if not location:
                location = await begin(gateway, len(data), filename="../My film.MP4", sha256=sha256.upper())
            assert await offset_of(gateway, location) == start
            answer = await send(gateway, location, start, data[start:end])
            assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(end))
            assert "upload-expires" in answer.headers
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        assert await offset_of(gateway, location) == len(data)
        resource = (await gateway.client.get(location)).json()
        assert resource == resource | {
            "name": "My film.MP4", "size_bytes": len(data), "offset": len(data), "stored": True, "sha256": sha256,
            "media_type": "video/mp4",
        }  # fmt: skip
        made = await gateway.client.post("/api/v1/jobs", json={"upload": resource["upload_id"], "sha256": sha256})
        assert made.status_code == 201, made.text
        job = made.json()
        assert job["job_id"] == resource["upload_id"]
        assert job["title"] == "My film"
        assert job["source"] == {"name": "My film.MP4", "size_bytes": len(data), "digest": f"sha256:{sha256}"}
        assert await gateway.context.store.get(keys.source(job["job_id"], "mp4")) == data
        refused = await gateway.client.delete(location, headers=TUS)
        assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")


async def test_creation_with_upload(gateway: Served) -> None:
    data = film(300_000)
    headers = BYTES | {"Upload-Length": str(len(data))}
    answer = await gateway.client.post("/api/v1/uploads", headers=headers | meta(filename="a.mkv"), content=data[:1000])
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "1000")
    location = answer.headers["location"]
    assert (await send(gateway, location, 1000, data[1000:])).status_code == 204
    whole = await gateway.client.post("/api/v1/uploads", headers=headers, content=data)
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, str(len(data)))
    made = await gateway.client.post("/api/v1/jobs", json={"upload": whole.headers["location"].rpartition("/")[2]})
    assert made.json()["source"]["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_what_the_server_offers(gateway: Served) -> None:
    answer = await gateway.client.request("OPTIONS", "/api/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,creation-with-upload,termination,checksum,expiration"
    assert answer.headers["tus-max-size"] == str(gateway.context.settings.max_upload_bytes)
    assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")


async def test_refusals(gateway: Served) -> None:
    location = await begin(gateway, 1000)
    create = ("POST", "/api/v1/uploads")
    append = ("PATCH", location)
    at = BYTES | {"Upload-Offset": "0"}
    table: list[tuple[tuple[str, str], dict[str, str], bytes, int, str]] = [
        (create, TUS | {"Upload-Length": "0"}, b"", 422, "EMPTY_INPUT"),
        (create, TUS | {"Upload-Length": str(1 << 50)}, b"", 507, "STORAGE_FULL"),
        (create, TUS | {"Upload-Length": "-1"}, b"", 400, "INVALID_REQUEST"),
        (create, TUS, b"", 400, "INVALID_REQUEST"),
        (create, TUS | {"Upload-Defer-Length": "1"}, b"", 400, "INVALID_REQUEST"),
        (create, TUS | {"Upload-Length": "5", "Upload-Metadata": "filename %%"}, b"", 400, "INVALID_REQUEST"),
        (create, TUS | {"Upload-Length": "5"} | meta(sha256="no"), b"", 400, "INVALID_REQUEST"),
        (create, {"Tus-Resumable": "0.2.2", "Upload-Length": "5"}, b"", 412, "PRECONDITION_FAILED"),
        (append, at | {"Tus-Resumable": "2.0.0"}, b"x", 412, "PRECONDITION_FAILED"),
        (append, at | {"Content-Type": "text/plain"}, b"x", 415, "INVALID_REQUEST"),
        (append, at | {"Upload-Offset": "5"}, b"x", 409, "CONFLICT"),
        (append, at | {"Upload-Offset": "x"}, b"x", 400, "INVALID_REQUEST"),
        (append, at, bytes(1001), 413, "TOO_LARGE"),
        (append, at | {"Upload-Checksum": "crc32 AAAA"}, b"x", 400, "INVALID_REQUEST"),
        (("PATCH", "/api/v1/uploads/none"), at, b"x", 404, "NOT_FOUND"),
        (("PATCH", "/api/v1/uploads/..%2fx"), at, b"x", 404, "NOT_FOUND"),
        (("DELETE", "/api/v1/uploads/none"), TUS, b"", 404, "NOT_FOUND"),
        (("GET", "/api/v1/uploads/none"), {}, b"", 404, "NOT_FOUND"),
    ]
    for (method, path), headers, body, status, code in table:
        answer = await gateway.client.request(method, path, headers=headers, content=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (method, path, headers, answer.text)
        if status == 412:
            assert answer.headers["tus-version"] == "1.0.0"
    assert (await gateway.client.head("/api/v1/uploads/none", headers=TUS)).status_code == 404
    assert await offset_of(gateway, location) == 0
    early = await gateway.client.post("/api/v1/jobs", json={"upload": location.rpartition("/")[2]})
    assert (early.status_code, early.json()["code"]) == (400, "UPLOAD_INCOMPLETE")


async def test_a_piece_with_its_checksum(gateway: Served) -> None:
    data = film(9 * MIB)
    location = await begin(gateway, len(data))
    offset = 0
    for algorithm, size in (("sha1", 1000), ("md5", 70_000), ("sha256", len(data) - 71_000)):
        piece = data[offset : offset + size]
        digest = base64.b64encode(hashlib.new(algorithm, piece).digest()).decode()
        damaged = bytes([piece[0] ^ 1]) + piece[1:]
        wrong = await send(gateway, location, offset, damaged, Upload_Checksum=f"{algorithm} {digest}")
        assert (wrong.status_code, wrong.json()["code"]) == (460, "CHECKSUM_MISMATCH")
        assert await offset_of(gateway, location) == offset
        right = await send(gateway, location, offset, piece, Upload_Checksum=f"{algorithm} {digest}")
        assert right.status_code == 204, right.text
        offset += size
    resource = (await gateway.client.get(location)).json()
    assert resource["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_wrong_whole_is_removed(gateway: Served) -> None:
    data = film(100_000)
    location = await begin(gateway, len(data), sha256="0" * 64)
    answer = await send(gateway, location, 0, data)
    assert (answer.status_code, answer.json()["code"]) == (460, "CHECKSUM_MISMATCH")
    assert await stored_keys(gateway) == []
    location = await begin(gateway, len(data))
    assert (await send(gateway, location, 0, data)).status_code == 204
    job = {"upload": location.rpartition("/")[2], "sha256": "0" * 64}
    assert (await gateway.client.post("/api/v1/jobs", json=job)).json()["code"] == "CHECKSUM_MISMATCH"


async def test_what_is_no_film_is_refused_with_its_first_bytes(gateway: Served) -> None:
    for head in (
        b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"PK\x03\x04\x14\0",
    ):
        location = await begin(gateway, 10_000_000, filename="film.mp4")
        answer = await send(gateway, location, 0, head)
        assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_CONTAINER"), head
        assert (await gateway.client.head(location, headers=TUS)).status_code == 404
        raw = await gateway.client.put("/api/v1/uploads?name=film.mp4", content=head)
        assert raw.json()["code"] == "UNSUPPORTED_CONTAINER"
    assert await stored_keys(gateway) == []
    # The name does not matter, only the bytes.
    location = await begin(gateway, 1000, filename="notes.txt")
    assert (await send(gateway, location, 0, film(1000))).status_code == 204
    assert (await gateway.client.get(location)).json()["media_type"] == "video/mp4"


async def test_termination(server: Nats, tmp_path: Path, stored_on: dict[str, Any]) -> None:
    data = film(5 * MIB + 10)
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        for size in (len(data) - 5, len(data)):
            location = await begin(gateway, len(data))
            await send(gateway, location, 0, data[:size])
            assert (await gateway.client.delete(location, headers=TUS)).status_code == 204
            assert (await gateway.client.head(location, headers=TUS)).status_code == 404
            assert await stored_keys(gateway) == []


async def test_an_upload_in_one_piece_is_given_up(gateway: Served) -> None:
    stored = (await gateway.client.put("/api/v1/uploads?name=a.mp4", content=film(1000))).json()
    location = f"/api/v1/uploads/{stored['upload_id']}"
    assert (await gateway.client.delete(location)).status_code == 204
    assert (await gateway.client.get(location)).status_code == 404
    assert (await gateway.client.delete(location)).status_code == 404
    assert await stored_keys(gateway) == []
    stored = (await gateway.client.put("/api/v1/uploads?name=a.mp4", content=film(1000))).json()
    assert (await gateway.client.post("/api/v1/jobs", json={"upload": stored["upload"]})).status_code == 201
    refused = await gateway.client.delete(f"/api/v1/uploads/{stored['upload_id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")


async def test_expired_uploads_are_removed(server: Nats, tmp_path: Path, stored_on: dict[str, Any]) -> None:
    data = film(5 * MIB + 10)
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        growing = await begin(gateway, len(data))
        await send(gateway, growing, 0, data[:-5])
        finished = await begin(gateway, len(data))
        await send(gateway, finished, 0, data)
        store = gateway.context.store
        assert await intake.sweep(store, 3600) == (0, frozenset({keys.source(growing.rpartition("/")[2], "")}))
        assert await offset_of(gateway, growing) == len(data) - 5
        janitor = Janitor(gateway.context, stale_seconds=0)
        assert (await janitor.sweep_storage()).expired == {"uploads": 2}
        assert (await gateway.client.head(growing, headers=TUS)).status_code == 404
        assert await stored_keys(gateway) == []


async def test_the_time_to_go_on_is_counted_from_the_last_byte(gateway: Served) -> None:
    data = film(1000)
    location = await begin(gateway, len(data))
    key = keys.upload_record(location.rpartition("/")[2])
    body = await gateway.context.store.get(key)
    assert body is not None
    at = time.time() - 3 * 86400
    await gateway.context.store.put(key, json.dumps(json.loads(body) | {"created_at": at}).encode())
    for reached in (400, len(data)):
        start = await offset_of(gateway, location)
        answer = await send(gateway, location, start, data[start:reached])
        assert answer.status_code == 204
        asked = await gateway.client.head(location, headers=TUS)
        told = [parsedate_to_datetime(item.headers["upload-expires"]).timestamp() for item in (answer, asked)]
        assert told == pytest.approx([time.time() + intake.EXPIRES_SECONDS] * 2, abs=60)


async def test_an_upload_says_what_its_creation_said(gateway: Served) -> None:
    said = meta(filename="film.mkv", mine="1")
    created = await gateway.client.post("/api/v1/uploads", headers=TUS | {"Upload-Length": "9"} | said)
    asked = await gateway.client.head(created.headers["location"], headers=TUS)
    assert asked.headers["upload-metadata"] == said["Upload-Metadata"]


async def test_a_repeated_creation_tells_the_time_of_the_last_byte(gateway: Served) -> None:
    headers = TUS | {"Upload-Length": "1000", "Idempotency-Key": "one-and-the-same"}
    location = (await gateway.client.post("/api/v1/uploads", headers=headers)).headers["location"]
    key = keys.upload_record(location.rpartition("/")[2])
    body = await gateway.context.store.get(key)
    assert body is not None
    at = time.time() - 20 * 3600
    await gateway.context.store.put(key, json.dumps(json.loads(body) | {"created_at": at}).encode())
    assert (await send(gateway, location, 0, film(400))).status_code == 204
    again = await gateway.client.post("/api/v1/uploads", headers=headers)
    assert (again.headers["location"], again.headers["upload-offset"]) == (location, "400")
    told = parsedate_to_datetime(again.headers["upload-expires"]).timestamp()
    assert told == pytest.approx(time.time() + intake.EXPIRES_SECONDS, abs=60)


async def test_the_source_of_a_job_outlives_the_records_of_its_upload(
    server: Nats, tmp_path: Path, stored_on: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left of the records, and in whichever order they went."""
    async with served(server, tmp_path / "data", **stored_on) as gateway:
        store = gateway.context.store
        for left in (keys.upload_record, keys.upload_result):
            upload_id, job_id = await a_job_of_another_id(gateway)
            assert job_id != upload_id
            if left is keys.upload_record:
                await store.delete(keys.upload_result(upload_id))
            else:
                # The first sweep breaks off between the two.
                with monkeypatch.context() as patch:
                    patch.setattr(store, "delete_prefix", unavailable)
                    with pytest.raises(errors.Transient):
                        await intake.sweep(store, 0)
            assert [key for key in await stored_keys(gateway) if key.startswith("uploads/")] == [left(upload_id)]
            assert await intake.sweep(store, 0) == (1, frozenset())
            assert [key for key in await stored_keys(gateway) if upload_id in key] == [
                keys.source(upload_id, ""), keys.input_use(upload_id, job_id)
            ]  # fmt: skip


async def test_an_upload_that_any_job_reads_is_not_terminated(gateway: Served) -> None:
    film_id, _ = await a_job_of_another_id(gateway)
    depth_id = await finished(gateway)
    body = {"path": str(an_empty_root(gateway) / "a.mp4"), "depth_upload": depth_id, "options": {"engine": "user"}}
    made = await gateway.client.post("/api/v1/jobs", json=body)
    assert made.status_code == 201, made.text
    for upload_id in (film_id, depth_id):
        refused = await gateway.client.delete(f"/api/v1/uploads/{upload_id}", headers=TUS)
        assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
        assert await gateway.context.store.head(keys.source(upload_id, "")) is not None


async def finished(gateway: Served) -> str:
    """The id of an upload that is stored and checked."""
    data = film(1000)
    location = await begin(gateway, len(data))
    assert (await send(gateway, location, 0, data)).status_code == 204
    return location.rpartition("/")[2]


async def a_job_of_another_id(gateway: Served) -> tuple[str, str]:
    """(upload, job): a request with a key of its own makes a job whose id is not the upload's."""
    upload_id = await finished(gateway)
    key = {"Idempotency-Key": f"job of {upload_id}"}
    made = await gateway.client.post("/api/v1/jobs", json={"upload": upload_id}, headers=key)
    assert made.status_code == 201, made.text
    return upload_id, made.json()["job_id"]


def an_empty_root(gateway: Served) -> Path:
    """A root of the gateway with one file in it."""
    roots = gateway.context.settings.roots
    assert roots is not None
    roots[0].mkdir()
    (roots[0] / "a.mp4").write_bytes(film(1000))
    return roots[0]


async def unavailable(_: str) -> int:
    raise errors.error("STORAGE_UNAVAILABLE", "It broke off.")


def test_metadata() -> None:
    assert tus.metadata("") == {}
    assert tus.metadata("filename w6QubXA0, is_confidential") == {"filename": "ä.mp4", "is_confidential": ""}
    for text in ("filename %%", "filename 4pi", "a YQ==,a YQ==", "filename /w=="):
        with pytest.raises(errors.Permanent):
            tus.metadata(text)
