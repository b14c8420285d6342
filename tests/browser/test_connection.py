"""The gateway goes and comes back under a film that plays: the viewer is told what is so, and the film goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from selenium import webdriver

from tests.browser.conftest import Page
from tests.browser.test_native import CURTAIN, without_media_source
from tests.browser.watching import PLAYER, VIDEO
from tests.support import Nats
from tests.system.gateway import Served, served
from tests.system.showing import Showing, film

pytestmark = pytest.mark.browser

LOST = f"{CURTAIN}.checkVisibility() && {CURTAIN}.textContent.startsWith('The connection to the server is lost.')"
SLIM = f"Object.assign({PLAYER}.hls.config, {{ maxBufferSize: 1, maxBufferLength: 1 }})"
"""Have hls.js load no more than it is about to play."""


class Street:
    """One gateway after another at the same address, and the page that is open meanwhile."""

    def __init__(self, driver: webdriver.Chrome, server: Nats, folder: Path) -> None:
        self.page = Page(driver, "")
        self._server = server
        self._folder = folder
        self._port = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Served]:
        async with served(self._server, self._folder, port=self._port) as gateway:
            self.page.url = gateway.url
            self._port = int(gateway.url.rpartition(":")[2])
            yield gateway


@pytest.fixture
async def street(driver: webdriver.Chrome, server: Nats, tmp_path: Path) -> AsyncGenerator[Street]:
    found = Street(driver, server, tmp_path / "data")
    yield found
    await found.page.leave()
    # A browser complains of every request that nobody answered, and of nothing else.
    assert [line for line in await found.page.complaints() if "net::ERR_" not in line] == []


async def test_a_film_in_the_making_goes_on_with_its_server(street: Street) -> None:
    page = street.page
    async with street.open() as first:
        showing = Showing(first.context, "J1", lengths=(1, 1, 2, 4))
        await showing.begin()
        await showing.convert(0, 1)
        await page.open("/watch/J1")
        await page.wait(f"{VIDEO}.readyState >= 2")
        await page.run(f"{VIDEO}.play()")
    await page.wait(f"{LOST} && {PLAYER}.now > 1.8")
    assert "goes on by itself" in await page.run(f"return {CURTAIN}.textContent")
    assert not await page.run(f"return {VIDEO}.paused")
    assert not await page.run("return document.getElementById('offline').checkVisibility()")
    async with street.open() as second:
        showing.context = second.context
        await showing.convert(2, 3)
        await page.wait(f"{PLAYER}.now > 2.5 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
        await page.leave()


async def test_a_stream_that_cannot_even_begin_does_so_with_its_server(street: Street) -> None:
    page = street.page
    async with street.open() as first:
        showing = Showing(first.context, "J1", lengths=(1, 1, 2, 4))
        await showing.begin()
        await showing.convert(0, 1, 2)
        await page.open("/watch/J1")
        await page.wait(f"{VIDEO}.readyState >= 2")
    # Here hls.js gives up at once.
    await page.run(f"return {PLAYER}.load({PLAYER}.dataset.hls, {PLAYER}.anchor, true, 1)")
    await page.wait(LOST)
    async with street.open():
        await page.wait(f"{PLAYER}.now > 1.3 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
        await page.leave()


async def test_what_is_sought_meanwhile_comes_with_the_server(street: Street) -> None:
    """The rest of the film is there, and not in the browser."""
    page = street.page
    async with street.open() as first:
        showing = Showing(first.context, "J1", lengths=(2, *[4] * 8))
        await showing.begin()
        await showing.convert(0)
        await page.open("/jobs/J1")
        await page.wait(f"{VIDEO}.readyState >= 2")
        await page.run(SLIM)
        await showing.convert(*range(1, 9))
        await page.wait(f"{PLAYER}.edge > 33")
    await page.run(f"{PLAYER}.seekTo(25, true)")
    await page.wait(LOST)
    # Beside other things the page says so of itself.
    await page.wait("document.getElementById('offline').checkVisibility()")
    async with street.open():
        await page.wait(f"{PLAYER}.now > 25.5 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
        await page.wait("!document.getElementById('offline').checkVisibility()")
        await page.leave()


async def test_what_was_to_be_converted_first_is_asked_for_again(street: Street) -> None:
    page = street.page
    async with street.open() as first:
        showing = Showing(first.context, "J1", lengths=(1, 1, 2, 4))
        await showing.begin()
        await showing.convert(0)
        await page.open("/watch/J1")
        await page.wait(f"{VIDEO}.readyState >= 2 && Number({PLAYER}.scrub.max) === 8")
    await page.run(f"{PLAYER}.seekTo(4, true)")
    await page.wait(LOST)
    async with street.open() as second:
        showing.context = second.context
        await page.wait(f"{CURTAIN}.textContent === 'Converting this part first'")
        await showing.convert(3)
        await page.wait(f"{PLAYER}.now > 4.5 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
        await page.leave()


async def test_the_browser_s_own_player_goes_on_where_it_was(street: Street) -> None:
    page = street.page
    async with street.open() as first, without_media_source(page):
        showing = Showing(first.context, "J1", lengths=(2, *[4] * 8))
        await showing.begin()
        await showing.convert(*range(9))
        await page.open("/watch/J1")
        await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.edge > 33")
        await page.run(f"{VIDEO}.play()")
        await page.wait(f"{PLAYER}.now > 0.5")
    await page.run(f"{PLAYER}.seekTo(25)")
    await page.wait(f"{LOST} && {VIDEO}.error")
    # Elsewhere is where it goes on; the clock says so at once.
    await page.run(f"{PLAYER}.seekTo(30)")
    assert await page.run(f"return {PLAYER}.now") == 30
    async with street.open():
        await page.wait(f"{PLAYER}.now > 30.3 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
        await page.leave()


async def test_a_finished_film_goes_on_where_it_broke_off(street: Street) -> None:
    page = street.page
    async with street.open() as first:
        showing = Showing(first.context, "J1", lengths=(4,))
        await showing.begin()
        await showing.finish(film(4))
        await page.open("/watch/J1")
        await page.wait(f"{VIDEO}.readyState >= 2")
    # As if nothing of it were loaded: the browser gives up at once, which it else does after half a minute.
    await page.run(f"{PLAYER}.dataset.film += '?once=more'; {PLAYER}.playFilm(2, true)")
    await page.wait(f"{LOST} && {VIDEO}.error")
    async with street.open():
        await page.wait(f"{PLAYER}.now > 2.3 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
        await page.leave()
