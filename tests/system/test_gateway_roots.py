"""The routes at the root that clients of older systems call, and the films they lead to."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import urlsplit

from stereospot import keys
from stereospot.jobs import Phase
from stereospot.messages import Film
from tests.support import eventually
from tests.system.gateway import CLIP, FILM, Served, move, upload


async def test_the_older_routes(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    film_key = keys.film(job_id, 1, "mp4")
    await gateway.context.store.put(film_key, bytes(range(256)) * 4)
    film = Film(key=film_key, **FILM)
    early = await gateway.client.get(f"/jobs/{job_id}/play")
    assert early.status_code == 400
    await move(gateway, job_id, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)
    table: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/jobs", {"files": {"file": ("b.mp4", CLIP)}, "data": {"mode": "anaglyph"}}, 303),
        ("POST", "/jobs/from-url", {"data": {"mode": "sbs", "source_url": "https://youtu.be/x"}}, 501),
        ("GET", "/jobs", {}, 200),
        ("GET", f"/jobs/{job_id}", {}, 200),
        ("PATCH", f"/jobs/{job_id}", {"json": {"title": "New", "source_file_size_bytes": 5}}, 204),
        ("GET", f"/jobs/{job_id}/play", {}, 302),
        ("GET", "/playlist.m3u", {}, 200),
        ("GET", f"/playlist/{job_id}.m3u", {}, 200),
        ("GET", "/playlist/none.m3u", {}, 404),
        ("GET", f"/launch/{job_id}", {}, 200),
        ("POST", "/upload", {"files": {"file": ("c.mp4", CLIP)}}, 200),
        ("POST", "/upload-url", {"json": {"url": "https://example.org/a.mp4"}}, 501),
        ("GET", "/stats", {}, 200),
        ("GET", "/queue", {}, 200),
        ("GET", "/dlq", {}, 200),
        ("POST", "/dlq/none/retry", {}, 404),
        ("DELETE", "/dlq/none", {}, 404),
        ("POST", "/stream_sessions", {"json": {"mode": "sbs"}}, 501),
        ("POST", "/stream_sessions/s1/end", {}, 501),
        ("GET", "/stream/s1/playlist.m3u8", {}, 501),
        ("GET", "/api/vapid-public-key", {}, 501),
        ("POST", "/api/push-subscriptions", {"json": {}}, 501),
        ("GET", "/setup/windows", {}, 501),
        ("POST", f"/jobs/{job_id}/delete", {}, 303),
        ("GET", f"/jobs/{job_id}", {}, 404),
    ]
    for method, path, arguments, status in table:
        answer = await gateway.client.request(method, path, **arguments)
        assert answer.status_code == status, (method, path, answer.text)
        if status == 501:
            assert answer.json()["code"] == "NOT_AVAILABLE"


async def test_playlists_and_play_lead_to_the_film(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    data = random.Random(5).randbytes(1_200_000)
    film_key = keys.film(job_id, 1, "mp4")
    await gateway.context.store.put(film_key, data)
    values: dict[str, Any] = FILM | {"size_bytes": len(data)}
    film = Film(key=film_key, **values)
    await move(gateway, job_id, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)
    lines = (await gateway.client.get(f"/playlist/{job_id}.m3u")).text.splitlines()
    assert lines[:2] == ["#EXTM3U", "#EXTINF:1,Holiday"]
    played = await gateway.client.get(f"/jobs/{job_id}/play", follow_redirects=True)
    assert played.content == data
    assert str(played.url) == lines[2]
    assert "Holiday.3D.HSBS.LR.mp4" in played.headers["content-disposition"]
    part = await gateway.client.get(lines[2], headers={"Range": "bytes=1000000-1000009"})
    assert (part.status_code, part.content) == (206, data[1_000_000:1_000_010])
    assert part.headers["content-range"] == "bytes 1000000-1000009/1200000"
    head = await gateway.client.head(lines[2])
    assert (head.headers["content-length"], head.content) == ("1200000", b"")
    listed = (await gateway.client.get(f"/api/v1/jobs/{job_id}/outputs")).json()["outputs"]
    assert [item["file_name"] for item in listed] == ["Holiday.3D.HSBS.LR.mp4"]
    href = listed[0]["href"]
    whole = await gateway.client.get(href)
    assert whole.content == data
    etag = whole.headers["etag"]
    table: list[tuple[str, dict[str, str], int, bytes]] = [
        ("HEAD", {}, 200, b""),
        ("GET", {"Range": "bytes=5-9"}, 206, data[5:10]),
        ("GET", {"Range": "bytes=5-9", "If-Range": etag}, 206, data[5:10]),
        ("GET", {"Range": "bytes=5-9", "If-Range": '"other"'}, 200, data),
        ("GET", {"If-None-Match": etag}, 304, b""),
    ]
    for method, headers, status, body in table:
        answer = await gateway.client.request(method, href, headers=headers)
        assert (answer.status_code, answer.content) == (status, body), (method, headers)
    beyond = await gateway.client.get(href, headers={"Range": "bytes=1200000-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert beyond.headers["content-range"] == "bytes */1200000"
    assert (await gateway.client.get(f"/api/v1/jobs/{job_id}/outputs/other.mp4")).json()["code"] == "NOT_FOUND"
    assert urlsplit(lines[2]).path.endswith("/film/Holiday.3D.HSBS.LR.mp4"), "players read the layout from the end"
    plain = (await gateway.client.get(f"/api/v1/jobs/{job_id}")).json()["playback"]["film"]
    assert lines[2] == f"{gateway.url}{plain}/Holiday.3D.HSBS.LR.mp4"
    assert (await gateway.client.get(plain)).content == data, "older clients know this one"
    assert (await gateway.client.get(f"{plain}/Other.3D.HSBS.LR.mp4")).json()["code"] == "NOT_FOUND"
    assert lines[2] in (await gateway.client.get(f"/launch/{job_id}")).text
    forged = lines[2].replace(job_id, "other")
    assert (await gateway.client.get(forged)).status_code == 404


async def test_a_films_name_may_have_any_letters(gateway: Served) -> None:
    job_id = (await upload(gateway))["job_id"]
    film_key = keys.film(job_id, 1, "mp4")
    await gateway.context.store.put(film_key, b"film")
    values: dict[str, Any] = FILM | {"size_bytes": 4, "file_name": "Größe #1 50% & mehr.3D.HSBS.LR.mp4"}
    film = Film(key=film_key, **values)
    await move(gateway, job_id, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED, film=film)
    address = (await gateway.client.get(f"/playlist/{job_id}.m3u")).text.splitlines()[2]

    async def heard() -> bool:
        return (await gateway.client.get(address)).content == b"film"

    await eventually(heard, what="the film under its name")
    assert (await gateway.client.get(f"/jobs/{job_id}/play", follow_redirects=True)).content == b"film"
