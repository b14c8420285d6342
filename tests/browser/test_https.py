"""Away from loopback: what a browser gives a page over plain http, and over https with a certificate of one's own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.gateway.access import access_key
from tests.browser.conftest import Page, started
from tests.support import Nats
from tests.system import certificates
from tests.system.gateway import served
from tests.system.showing import Showing

if TYPE_CHECKING:
    from selenium import webdriver

pytestmark = pytest.mark.browser

NAME = "films.test"
"""Leads to this machine in this browser alone, which does not know that it does."""


@pytest.fixture(scope="module")
def away() -> Generator[webdriver.Chrome]:
    yield from started(f"--host-resolver-rules=MAP {NAME} 127.0.0.1", trusts_all=True)


@pytest.mark.parametrize("is_https", [False, True], ids=["http", "https"])
async def test_a_browser_has_vr_for_a_page_over_https_and_no_complaint_without(
    away: webdriver.Chrome, server: Nats, tmp_path: Path, is_https: bool
) -> None:
    more = dict(zip(("tls_certificate", "tls_key"), certificates.write(tmp_path), strict=True)) if is_https else {}
    async with served(server, tmp_path / "data", allowed_hosts=(NAME,), **more) as gateway:
        showing = Showing(gateway.context, "J1")
        await showing.begin()
        await showing.convert(0, 1, 2, 3)
        page = Page(away, gateway.url.replace("127.0.0.1", NAME))
        await page.open(f"/launch/J1?key={access_key(gateway.context.settings)}")
        promise = await page.run("return document.body.textContent.includes('puts the screen in front of you')")
        watch = await page.run("return [...document.links].find(it => it.pathname.endsWith('/watch')).pathname")
        await page.open(watch)
        await page.wait("document.querySelector('video').readyState > 1")
        trusted, has_xr = await page.run("return [isSecureContext, 'xr' in navigator]")
        assert [promise, trusted, has_xr] == [is_https] * 3
        told = await page.run(
            "const note = [...document.querySelectorAll('.fine')].find(it => it.textContent.includes('https'));"
            "if (!note) return null;"
            "const box = note.getBoundingClientRect();"
            "return [box.left, box.top, innerWidth - box.right, innerHeight - box.bottom, box.height]"
        )
        if is_https:
            assert told is None
        else:
            assert min(told) > 0, "the note can be read in the window"
        complaints = await page.complaints()
        await page.leave()
        assert complaints == []
