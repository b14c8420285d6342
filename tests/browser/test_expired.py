"""A film whose stream is kept no more: the page plays its file where the browser can, and else offers it."""

from __future__ import annotations

import time

import pytest

from stereospot import jobs, records
from tests.browser.conftest import Page, only
from tests.browser.watching import PLAYER, VIDEO, Bilingual, shown
from tests.system.gateway import Served
from tests.system.showing import Showing, film

pytestmark = pytest.mark.browser

CURTAIN = "document.querySelector('[data-curtain]')"
ADDRESS = f"({PLAYER}.address ?? '')"


async def withdraw(gateway: Served) -> None:
    now = time.time()
    job = await records.change_job(gateway.context.bus, "J1", lambda job: jobs.withdraw_stream(job, at=now, before=now))
    assert not job.has_stream


async def test_the_file_goes_on_at_the_same_place(page: Page, gateway: Served) -> None:
    showing = await shown(page, gateway)
    await page.run(f"{PLAYER}.begin(); {VIDEO}.currentTime = 2.5")
    await page.wait(f"!{VIDEO}.seeking")
    await showing.finish(film(4))
    await page.wait(f"{PLAYER}.dataset.film")
    assert await page.run(f"return {ADDRESS}.endsWith('master.m3u8')"), "it plays on as it did"
    await withdraw(gateway)
    await page.wait(f"{ADDRESS}.endsWith('/film') && {VIDEO}.readyState >= 2 && !{VIDEO}.seeking")
    found = await page.run(f"return [{PLAYER}.now, {VIDEO}.paused, {CURTAIN}.hidden, {PLAYER}.dataset.hls ?? null]")
    assert found == [pytest.approx(2.5, abs=0.1), True, True, None]


@pytest.mark.parametrize("container", ["mp4", "mkv"])
async def test_who_chose_a_sound_keeps_the_stream_until_it_is_gone(page: Page, gateway: Served, container: str) -> None:
    showing = Bilingual(gateway.context, "J1", lengths=(1, 1, 2), sound=True)
    await showing.begin()
    await showing.sing(3)
    await showing.convert(0, 1, 2)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && document.querySelectorAll('[aria-label=Sound] option').length === 2")
    await page.run(f"{PLAYER}.begin(); {VIDEO}.currentTime = 2.5")
    await page.wait(f"!{VIDEO}.seeking")
    await showing.finish(film(4), container)
    await page.wait(f"{PLAYER}.dataset.film")
    await withdraw(gateway)
    await page.wait(f"!{PLAYER}.dataset.hls")
    assert await page.run(f"return {ADDRESS}.endsWith('master.m3u8') && Boolean({PLAYER}.sound)")
    await page.run(f"{PLAYER}.line.ask()")  # as when it waits for a fragment in vain
    await page.wait("!document.querySelector('[aria-label=Sound]')")
    if container == "mp4":
        await page.wait(f"{ADDRESS}.endsWith('/film') && {VIDEO}.readyState >= 2 && !{VIDEO}.seeking")
        assert await page.run(f"return {PLAYER}.now") == pytest.approx(2.5, abs=0.1)
    else:
        await page.wait(f"!{CURTAIN}.hidden && {CURTAIN}.textContent.includes('not kept any more')")
    await only(page, "410")


@pytest.mark.parametrize("path", ["/jobs/J1", "/watch/J1"])
async def test_a_film_that_no_browser_plays_is_offered(page: Page, gateway: Served, path: str) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0, 1, 2)
    await showing.finish(b"no browser plays this", "mkv")
    await withdraw(gateway)
    await page.open(path)
    await page.wait(f"{VIDEO}.error && {PLAYER}.segments")
    words, address = await page.run(f"return [{CURTAIN}.textContent, {CURTAIN}.querySelector('a').href]")
    assert "not kept any more" in words
    assert "/film?download=1" in address
    assert await page.run(
        f"return !{CURTAIN}.hidden && {CURTAIN}.querySelector('a').getBoundingClientRect().height > 0"
    )
    await page.run(f"{PLAYER}.toggle()")
    assert await page.run(f"return Boolean({CURTAIN}.querySelector('a')) && !{CURTAIN}.hidden"), "it stays"
