"""Who may ask the gateway: hosts, origins, keys, and the headers of every answer."""

from __future__ import annotations

from pathlib import Path

import httpx

from services.gateway.access import Access, access_key, entry_url
from tests.support import Nats
from tests.system.gateway import Served, served

WHO: tuple[tuple[str, str, dict[str, str], int], ...] = (
    ("GET", "/livez", {}, 200),
    ("GET", "/livez", {"Host": "localhost:1234"}, 200),
    ("GET", "/livez", {"Host": "[::1]:80"}, 200),
    ("GET", "/livez", {"Host": "evil.example"}, 403),
    ("GET", "/livez", {"Host": "127.0.0.1.nip.io"}, 403),
    ("GET", "/livez", {"Host": "localhost@evil.example"}, 403),
    ("GET", "/livez", {"Host": ""}, 403),
    ("GET", "/jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ("GET", "/jobs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ("GET", "/jobs", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ("POST", "/api/v1/jobs", {"Origin": "https://evil.example"}, 403),
    ("POST", "/api/v1/jobs", {"Origin": "null"}, 403),
    ("POST", "/api/v1/jobs", {"Origin": "http://localhost:1"}, 403),
    ("POST", "/api/v1/jobs", {"Sec-Fetch-Site": "same-site"}, 403),
    ("POST", "/api/v1/jobs", {"Sec-Fetch-Site": "same-origin"}, 400),
    ("DELETE", "/api/v1/jobs/x", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
)


async def test_who_may_ask(gateway: Served) -> None:
    for method, path, headers, status in WHO:
        body = b"{}" if method == "POST" else None
        answer = await gateway.client.request(method, path, headers=headers, content=body)
        assert answer.status_code == status, (method, path, headers, answer.text)
        if status == 403:
            assert answer.json()["code"] == "FORBIDDEN_ORIGIN"


async def test_own_origin_may_post(gateway: Served) -> None:
    answer = await gateway.client.post("/api/v1/jobs", headers={"Origin": gateway.url}, json={})
    assert answer.json()["code"] == "INVALID_REQUEST"


async def test_every_answer_has_the_headers(gateway: Served) -> None:
    for path in ("/livez", "/nowhere", "/jobs", "/api/v1/jobs", "/api/v1/errors"):
        answer = await gateway.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.headers["x-request-id"]) >= 8
    named = await gateway.client.get("/nowhere", headers={"X-Request-Id": "abcdefgh-1"})
    assert named.headers["x-request-id"] == "abcdefgh-1"
    assert named.json()["request_id"] == "abcdefgh-1"


async def test_only_this_machine_needs_no_key(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, allowed_hosts=("films.example",)) as gateway:
        key = access_key(gateway.context.settings)
        away = {"Host": "films.example"}
        get = gateway.client.get
        assert (await get("/jobs")).status_code == 200
        for path in ("/livez", "/readyz", "/static/style.css"):
            assert (await get(path, headers=away)).status_code == 200
        for path in ("/", "/jobs", "/metrics", "/api/v1/jobs", "/nowhere"):
            refused = await get(path, headers=away)
            assert (refused.status_code, refused.json()["code"]) == (401, "KEY_REQUIRED"), path
        assert (await get("/v/forged.0.x/1/master.m3u8", headers=away)).status_code == 404
        wrong = await get("/jobs", headers=away | {"Authorization": f"Bearer {key[:-1]}"})
        assert wrong.status_code == 401
        assert (await get("/jobs", headers=away | {"Authorization": f"Bearer {key}"})).status_code == 200
        entered = await get(f"/jobs?status=failed&key={key}", headers=away)
        assert (entered.status_code, entered.headers["location"]) == (303, "/jobs?status=failed")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        gateway.client.cookies.clear()
        assert (await get("/jobs", headers=away | {"Cookie": cookie.partition(";")[0]})).status_code == 200
        elsewhere = Access(gateway.context.settings).entered("//evil.example/", f"key={key}".encode())
        assert elsewhere is not None
        assert elsewhere[0] == "/evil.example/"
        asked = await get("/", headers=away | {"Accept": "text/html"})
        assert "<form" in asked.text
        assert entry_url(gateway.context.settings) == "http://127.0.0.1:8666/"
        everywhere = httpx.URL(entry_url(gateway.context.settings.model_copy(update={"host": "0.0.0.0"})))
        assert everywhere.params["key"] == key
        assert everywhere.host not in ("0.0.0.0", "")


async def test_a_server_on_all_addresses_is_opened_by_the_address_it_prints(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        printed = httpx.URL(entry_url(gateway.context.settings))
        named = {"Host": f"{printed.host}:{printed.port}"}
        entered = await gateway.client.get(printed.raw_path.decode(), headers=named)
        assert entered.status_code == 303, entered.text
        gateway.client.cookies.clear()
        for name, status in (("10.1.2.3", 401), ("[fd00::1]:99", 401), ("evil.example", 403), ("1.2.3.4.nip.io", 403)):
            assert (await gateway.client.get("/jobs", headers={"Host": name})).status_code == status, name
