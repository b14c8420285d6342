"""Where the browser plays for itself, without hls.js: seeks, and what the page says when it gives up."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.browser.conftest import Page, only
from tests.browser.watching import PLAYER, VIDEO, press
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

TELEPHONE = """
// As on a telephone that gives pages no media source: whatever asks finds none, and videos take playlists themselves.
for (const name of ["MediaSource", "ManagedMediaSource", "WebKitMediaSource"]) delete self[name];
"""

CURTAIN = "document.querySelector('[data-curtain]')"
CANNOT = f"{CURTAIN}.checkVisibility() && {CURTAIN}.textContent === 'This browser cannot play the picture.'"


@asynccontextmanager
async def without_media_source(page: Page) -> AsyncGenerator[None]:
    """Pages find no media source meanwhile. The test is skipped where the browser has no player of its own.

    That is asked of the browser alone, before any script of ours is there.
    """
    await page.open("/livez")
    if not await page.run("return document.createElement('video').canPlayType('application/vnd.apple.mpegurl')"):
        pytest.skip("this browser plays no HLS by itself")
    add = "Page.addScriptToEvaluateOnNewDocument"
    script = await page.do(lambda driver: driver.execute_cdp_cmd(add, {"source": TELEPHONE}))
    try:
        yield
    finally:
        remove = "Page.removeScriptToEvaluateOnNewDocument"
        await page.do(lambda driver: driver.execute_cdp_cmd(remove, {"identifier": script["identifier"]}))


@pytest.fixture
async def telephone(page: Page) -> AsyncGenerator[Page]:
    async with without_media_source(page):
        yield page


@pytest.mark.parametrize("sound", [False, True], ids=["silent", "sound"])
async def test_without_a_media_source_the_browser_plays_the_playlist_itself(
    telephone: Page, gateway: Served, sound: bool
) -> None:
    """After a seek it goes on there, in film time. This browser can do that, too, where playlists are at their end."""
    showing = Showing(gateway.context, "J1", lengths=(2, 2, 2, 2, 2), sound=sound)
    await showing.begin()
    if sound:
        await showing.sing(5)
    await showing.convert(0, 1)
    await telephone.open("/watch/J1")
    await telephone.wait(f"{VIDEO}.readyState >= 2 && Number({PLAYER}.scrub.max) === 10")
    assert await telephone.run(f"return [{PLAYER}.hls, {VIDEO}.src.endsWith('/master.m3u8')]") == [None, True]
    await press(telephone, "k6")
    await telephone.wait("document.querySelector('[data-curtain]').textContent === 'Converting this part first'")
    await showing.convert(3, 4)
    await telephone.wait(f"{PLAYER}.anchor.seconds === 6 && {PLAYER}.now > 6.5 && !{VIDEO}.paused")
    if sound:
        assert await telephone.run(f"return {VIDEO}.webkitAudioDecodedByteCount") > 1000
    # Within what is there nobody is asked.
    await press(telephone, "8")
    await telephone.wait(f"!{VIDEO}.seeking && {PLAYER}.now >= 8 && {PLAYER}.anchor.seconds === 6")
    # All of it, from its beginning.
    await showing.convert(2)
    await telephone.open("/watch/J1")
    await telephone.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.edge > 9.9 && {PLAYER}.now === 0")
    await press(telephone, "k")
    await telephone.wait(f"{PLAYER}.now > 0.5 && !{VIDEO}.paused && !{PLAYER}.hls")


async def test_a_list_that_is_not_there_yet_is_asked_for_again(telephone: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0)
    await telephone.open("/watch/J1")
    await telephone.wait(f"{VIDEO}.readyState >= 2")
    early = f"{PLAYER}.dataset.hls.replace('master', 'from/1/master')"
    await telephone.run(f"{PLAYER}.load({early}, {{ index: 1, seconds: 1 }})")
    await telephone.wait(f"{CURTAIN}.checkVisibility() && {CURTAIN}.textContent === 'The picture is not there yet.'")
    await showing.convert(1, 2)
    await telephone.wait(f"{VIDEO}.readyState >= 2 && !{CURTAIN}.checkVisibility()")
    await only(telephone, "404")


async def test_a_list_that_the_browser_cannot_read_is_told_of(telephone: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0, 1, 2)
    await telephone.open("/watch/J1")
    await telephone.wait(f"{VIDEO}.readyState >= 2")
    await telephone.run(f"{PLAYER}.load('/livez', {PLAYER}.anchor)")
    await telephone.wait(CANNOT)
    # Whoever presses play all the same is told nothing else.
    await telephone.run(f"{PLAYER}.toggle()")
    await telephone.run(f"return {VIDEO}.play().catch(() => null)")
    assert await telephone.run(f"return {CANNOT}")


async def test_a_film_that_the_browser_cannot_play_is_told_of(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0, 1, 2)
    await showing.finish(b"no film!!")
    await page.open("/watch/J1")
    await page.wait(CANNOT)
