"""Who may ask the gateway: hosts, origins, keys, and the headers of every answer."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import httpx
import pytest

from services.gateway.access import COOKIE, Access, access_key, entry_url
from services.gateway.tokens import Tokens, load_secret
from stereospot import keys
from stereospot.jobs import Phase
from stereospot.messages import Film
from tests.support import Nats, eventually
from tests.system.gateway import FILM, Served, move, served
from tests.system.showing import Showing

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
    ("POST", "/api/v1/jobs", {"Origin": "http://["}, 403),
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
        # Of a page that says "no-referrer" a form without scripts comes with `Origin: null`, which is refused.
        assert answer.headers["referrer-policy"] == "same-origin"
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
        own = cookie.partition(";")[0]
        # Other servers of this host set theirs, and a browser sends them along, older ones first.
        for sent in (own, f'a={{"x":1}}; {own}', f"a=b c;{own};d=e", f"x; {own}", f"{COOKIE}=old; {own}"):
            assert (await get("/jobs", headers=away | {"Cookie": sent})).status_code == 200, sent
        for sent in (own[:-1], own.partition("=")[2], f"x{own}", f"a={own}", COOKIE, ""):
            assert (await get("/jobs", headers=away | {"Cookie": sent})).status_code == 401, sent
        asked = await get("/", headers=away | {"Accept": "text/html"})
        assert "<form" in asked.text
        assert entry_url(gateway.context.settings) == "http://127.0.0.1:8666/"
        everywhere = httpx.URL(entry_url(gateway.context.settings.model_copy(update={"host": "0.0.0.0"})))
        assert everywhere.params["key"] == key
        assert everywhere.host not in ("0.0.0.0", "")


async def test_the_key_leads_to_the_very_address_that_brought_it(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, allowed_hosts=("films.example",)) as gateway:
        key = access_key(gateway.context.settings)
        origin = "http://films.example"
        table: tuple[tuple[str, str], ...] = (
            ("/jobs/a%2Fb%20%23c%3F%C3%A4", "/jobs/a%2Fb%20%23c%3F%C3%A4"),
            ("/v1;a=b,c@d:e+f!g'(h)*~", "/v1;a=b,c@d:e+f!g'(h)*~"),
            ("//evil.example/x", "/evil.example/x"),
            ("/%5Cevil.example/x", "/%5Cevil.example/x"),
            ("/\\evil.example/x", "/%5Cevil.example/x"),
            ("/%09/evil.example", "/%09/evil.example"),
            ("/a%0d%0aSet-Cookie:%20b=c", "/a%0d%0aSet-Cookie:%20b=c"),
        )
        access = Access(gateway.context.settings)
        for path, wanted in table:
            entered = access.entered(path.encode(), f"q=a%26b%23&key={key}&status=failed".encode(), "http")
            assert entered is not None
            assert entered[0] == f"{wanted}?q=a%26b%23&status=failed"
            # As a browser reads it: backslashes as slashes, tabs and line ends not at all.
            read = re.sub(r"[\t\r\n]", "", entered[0]).replace("\\", "/")
            assert urljoin(origin, read).startswith(f"{origin}/")
            if "\\" not in path:
                raw = f"{gateway.url}{path}?key={key}"
                answer = await gateway.client.get(raw, headers={"Host": "films.example"})
                assert (answer.status_code, answer.headers["location"]) == (303, wanted)
                gateway.client.cookies.clear()


async def test_a_server_on_all_addresses_is_opened_by_the_address_it_prints(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        printed = httpx.URL(entry_url(gateway.context.settings))
        named = {"Host": f"{printed.host}:{printed.port}"}
        entered = await gateway.client.get(printed.raw_path.decode(), headers=named)
        assert entered.status_code == 303, entered.text
        gateway.client.cookies.clear()
        for name, status in (("10.1.2.3", 401), ("[fd00::1]:99", 401), ("evil.example", 403), ("1.2.3.4.nip.io", 403)):
            assert (await gateway.client.get("/jobs", headers={"Host": name})).status_code == status, name


async def test_the_form_for_the_key_leads_to_the_page_that_was_asked_for(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, allowed_hosts=("films.example",)) as gateway:
        key = access_key(gateway.context.settings)
        away = {"Host": "films.example", "Accept": "text/html"}
        table: tuple[tuple[str, str, str], ...] = (
            ("GET", "/launch", "/launch"),
            ("GET", "/jobs?status=failed&q=a%26%22b&key=wrong", "/jobs?status=failed&q=a%26%22b"),
            ("GET", "//evil.example/", "/evil.example/"),
            ("POST", "/upload", "/"),
        )
        for method, path, wanted in table:
            gateway.client.cookies.clear()
            url = f"{gateway.url}{path}"
            page = (await gateway.client.request(method, url, headers=away)).text
            form = page[page.index("<form") : page.index("</form>")]
            action = re.search(r'<form[^>]* action="([^"]*)"', form)
            hidden = re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', form)
            fields = [(html.unescape(name), html.unescape(value)) for name, value in hidden] + [("key", key)]
            # As browsers send a form: to its action, else to the page's own address, with its fields for the query.
            target = f"{gateway.url}{action[1]}" if action else url.partition("?")[0]
            entered = await gateway.client.get(f"{target}?{urlencode(fields)}", headers=away)
            assert (entered.status_code, httpx.URL(entered.headers["location"])) == (303, httpx.URL(wanted)), path


# ---- what a headset is handed ----------------------------------------------------------------------------
AWAY = "10.1.2.3:8666"
"""An address of this machine in the net at home."""


def addresses(page: str, *, of: str = "main") -> list[str]:
    """What a page leads to, or asks for by itself, of this server."""
    part = page[page.index(f"<{of}") : page.index(f"</{of}>")]
    found = re.findall(r'(?:href|src|poster|data-film|data-hls|data-hlsjs)="([^"]+)"', part)
    found += re.findall(r"mpv (\S+)</dd>", part)
    return [html.unescape(item).removeprefix(f"http://{AWAY}") for item in found if "://" not in item or AWAY in item]


async def launch_page(gateway: Served, job_id: str = "") -> str:
    """The launch page as its owner sees it away from this machine."""
    headers = {"Host": AWAY, "Authorization": f"Bearer {access_key(gateway.context.settings)}"}
    answer = await gateway.client.get(f"/launch/{job_id}".rstrip("/"), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


async def without_a_key(gateway: Served, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, follow_redirects=True, trust_env=False) as client:
        answer = await client.get(path, headers={"Host": AWAY, "Accept": "text/html,*/*"})
    assert answer.status_code == 200, (path, answer.text)
    return answer


async def finish(gateway: Served) -> None:
    """J1's film is there."""
    key = keys.film("J1", 1, "mp4")
    await gateway.context.store.put(key, b"film")
    values: dict[str, Any] = FILM | {"size_bytes": 4}
    await move(gateway, "J1", Phase.ASSEMBLING, Phase.COMPLETED, film=Film(key=key, **values))


@pytest.mark.parametrize("is_finished", [False, True])
async def test_what_a_headset_is_handed_needs_no_key(server: Nats, tmp_path: Path, is_finished: bool) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        showing = Showing(gateway.context, "J1")
        await showing.begin()
        waits = await launch_page(gateway, "J1")
        (early,) = [path for path in addresses(waits) if path.endswith("/watch")]
        assert "playlist.m3u" not in waits, "there is nothing to list yet"
        assert (await without_a_key(gateway, early)).headers["refresh"] == "4", "it looks again until something plays"
        await showing.convert(*((0, 1, 2, 3) if is_finished else (0,)))
        if is_finished:
            await finish(gateway)

        async def playable() -> bool:
            ways = addresses(await launch_page(gateway, "J1"))
            name = "Holiday.3D.HSBS.LR.mp4" if is_finished else "master.m3u8"
            (way,) = {path for path in ways if path.startswith("/v/") and path.endswith(name)} or {None}
            return way is not None and (await gateway.client.get(way)).status_code == 200

        await eventually(playable, what="something to play")
        found = [path for path in addresses(await launch_page(gateway, "J1")) if not path.startswith("intent:")]
        assert {path.rpartition("/")[2] for path in found if path.startswith("/v/")} == {
            "watch", "playlist.m3u", "Holiday.3D.HSBS.LR.mp4" if is_finished else "master.m3u8",
        }  # fmt: skip
        for path in found:
            answer = await without_a_key(gateway, path)
            if path.endswith(".m3u"):
                entry = answer.text.splitlines()[2]
                assert entry.startswith(f"http://{AWAY}/v/"), "players are sent where they asked"
                await without_a_key(gateway, entry.removeprefix(f"http://{AWAY}"))
        player = await without_a_key(gateway, early)
        assert "refresh" not in player.headers
        assert "<ss-job" not in player.text, "which would ask the API"
        used = addresses(player.text)
        assert any(path.endswith("/film" if is_finished else "/master.m3u8") for path in used)
        for path in (*used, *(item for item in addresses(player.text, of="head") if item.startswith("/static/"))):
            if not path.endswith("poster.jpg"):
                await without_a_key(gateway, path)


async def test_the_list_of_all_films_has_a_token_of_its_own(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        showing = Showing(gateway.context, "J1")
        await showing.begin()
        await finish(gateway)

        async def listed() -> str:
            paths = addresses(await launch_page(gateway))
            assert paths
            assert len(set(paths)) == 1
            answer = await without_a_key(gateway, paths[0])
            return answer.text if "Holiday" in answer.text else ""

        text = await eventually(listed, what="the finished film")
        film = text.splitlines()[2].removeprefix(f"http://{AWAY}")
        assert (await without_a_key(gateway, film)).content == b"film"
        token = film.split("/")[2]
        refused = await gateway.client.get(f"/v/{token}/playlist.m3u", headers={"Host": AWAY})
        assert refused.status_code == 404, "a film's token is good for that film alone"
        # Whoever submits a job may choose its id.
        token = Tokens(load_secret(gateway.context.settings.data_dir / "gateway.secret")).issue("films")
        refused = await gateway.client.get(f"/v/{token}/playlist.m3u", headers={"Host": AWAY})
        assert refused.status_code == 404
