"""https without a proxy, and what the pages say where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services import certificate
from services.gateway import assets
from services.gateway.access import access_key, entry_url, own_url
from services.gateway.origins import is_trustworthy_address
from stereospot import errors
from stereospot.settings import Settings
from tests.support import Nats, eventually
from tests.system import certificates
from tests.system.gateway import Served, served
from tests.system.showing import Showing
from tests.system.test_gateway_access import AWAY, addresses, finish, launch_page, without_a_key


async def test_the_gateway_speaks_https(server: Nats, tmp_path: Path) -> None:
    cert, key = certificates.write(tmp_path)
    async with served(server, tmp_path, host="0.0.0.0", tls_certificate=cert, tls_key=key) as gateway:
        settings = gateway.context.settings
        assert gateway.url.startswith("https://")
        assert entry_url(settings).startswith("https://")
        entered = await gateway.client.get(f"/jobs?key={access_key(settings)}")
        assert entered.headers["set-cookie"].endswith("; Secure"), "the key never goes over plain http"
        answer = await gateway.client.get("/livez", headers={"Host": AWAY})
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(gateway.url.replace("https:", "http:"))
        assert (await gateway.client.get("/livez")).status_code == 200, "it goes on"


def _broken(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Settings that cannot be, each with what is said of them."""
    cert, key = certificates.write(folder)
    _, other = certificates.write(folder, "other")
    _, locked = certificates.write(folder, "locked", password=b"hunter2")
    text = folder / "notes.txt"
    text.write_text("no certificate")
    return {
        "no key": ({"tls_certificate": cert}, "no key (tls_key)"),
        "no certificate": ({"tls_key": key}, "no certificate (tls_certificate)"),
        "not there": ({"tls_certificate": folder / "none.pem", "tls_key": key}, "none.pem: No such file"),
        "a folder": ({"tls_certificate": cert, "tls_key": folder}, "Is a directory"),
        "no PEM": ({"tls_certificate": text, "tls_key": key}, "notes.txt"),
        "another's key": ({"tls_certificate": cert, "tls_key": other}, "key values mismatch"),
        "a password": ({"tls_certificate": cert, "tls_key": locked}, "locked.key.pem"),
    }


def test_what_is_no_certificate_is_said(tmp_path: Path) -> None:
    for name, (given, wanted) in _broken(tmp_path).items():
        with pytest.raises(errors.Misconfigured) as caught:
            certificate.check(Settings(data_dir=tmp_path, **given))
        assert caught.value.code == "CERTIFICATE_UNUSABLE", name
        assert wanted in caught.value.detail, (name, caught.value.detail)
    certificate.check(Settings(data_dir=tmp_path))


def test_up_says_so_before_it_starts_anything(tmp_path: Path) -> None:
    cert, _ = certificates.write(tmp_path)
    data = tmp_path / "data"
    command = [sys.executable, "-m", "services.cli", "up", "--data", str(data), "--tls-certificate", str(cert)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == errors.EXIT_MISCONFIGURED, done.stderr
    assert "error CERTIFICATE_UNUSABLE: " in done.stderr
    assert "--tls-key" in done.stderr
    assert not (data / "broker").exists()


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [
        ("https://films.example", True), ("http://localhost:8666", True), ("http://a.localhost", True),
        ("http://127.0.0.1:1", True), ("http://127.9.9.9", True), ("http://[::1]:80", True),
        ("http://10.1.2.3:8666", False), ("http://films.example", False), ("http://localhost.example", False),
        ("http://", False),
    ],
)  # fmt: skip
def test_what_a_browser_trusts(address: str, is_trusted: bool) -> None:
    assert is_trustworthy_address(address) is is_trusted


async def test_a_header_that_a_browser_would_ignore_is_not_sent(gateway: Served, server: Nats, tmp_path: Path) -> None:
    """It would say so in the console of every page."""
    assert (await gateway.client.get("/livez")).headers["cross-origin-opener-policy"] == "same-origin"
    async with served(server, tmp_path / "away", host="0.0.0.0") as away:
        answer = await away.client.get("/livez", headers={"Host": AWAY})
        assert answer.status_code == 200
        assert "cross-origin-opener-policy" not in answer.headers


async def test_pages_promise_vr_only_where_a_browser_offers_it(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        await Showing(gateway.context, "J1").begin()
        away = await launch_page(gateway, "J1")
        assert "puts the screen in front of you" not in away
        assert "--tls-certificate" in away
        (watch,) = [path for path in addresses(away) if path.endswith("/watch")]
        assert "For VR a browser wants a page that comes over https" in (await without_a_key(gateway, watch)).text
        here = {"Host": "localhost:8666", "Authorization": f"Bearer {access_key(gateway.context.settings)}"}
        local = (await gateway.client.get("/launch/J1", headers=here)).text
        assert "puts the screen in front of you" in local
        assert "adb reverse tcp:8666 tcp:8666" in local
        handed = await gateway.client.get(watch, headers={"Host": "localhost:8666"})
        assert "For VR a browser wants" not in handed.text


async def test_a_proxy_takes_https_for_the_gateway(server: Nats, tmp_path: Path) -> None:
    async with served(server, tmp_path, public_url="https://films.example/") as gateway:
        await Showing(gateway.context, "J1").begin()
        named = {"Host": "films.example", "Authorization": f"Bearer {access_key(gateway.context.settings)}"}
        page = (await gateway.client.get("/launch/J1", headers=named)).text
        assert "puts the screen in front of you" in page
        assert "--tls-certificate" not in page
        watch = page.split('href="https://films.example', 1)[1].partition('"')[0]
        handed = await gateway.client.get(watch, headers={"Host": "films.example"})
        assert handed.status_code == 200
        assert "For VR a browser wants" not in handed.text
        assert own_url(gateway.context.settings) == "https://films.example"
        assert handed.headers["cross-origin-opener-policy"] == "same-origin"


async def test_who_was_handed_a_film_is_told_of_a_build_without_hls(
    server: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the page's own player a stream then plays in few browsers; a whole film plays in all."""
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        showing = Showing(gateway.context, "J1")
        await showing.begin()
        (watch,) = [path for path in addresses(await launch_page(gateway, "J1")) if path.endswith("/watch")]
        note = "built without hls.js"
        monkeypatch.setattr(assets, "has_hls", lambda: True)
        assert note not in (await without_a_key(gateway, watch)).text
        monkeypatch.setattr(assets, "has_hls", lambda: False)
        assert note in (await without_a_key(gateway, watch)).text
        await finish(gateway)
        await eventually(lambda: plays(gateway, watch), what="the whole film")
        assert note not in (await without_a_key(gateway, watch)).text


async def plays(gateway: Served, watch: str) -> bool:
    return "/film" in (await without_a_key(gateway, watch)).text
