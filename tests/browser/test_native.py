"""What the page says where the browser plays for itself, without hls.js, and gives up."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from stereospot import jobs, keys, records
from stereospot.jobs import Phase
from stereospot.messages import Film
from tests.browser.conftest import Page
from tests.browser.test_player import TELEPHONE
from tests.browser.watching import PLAYER, VIDEO
from tests.system.gateway import FILM, Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

CURTAIN = "document.querySelector('[data-curtain]')"
CANNOT = f"{CURTAIN}.checkVisibility() && {CURTAIN}.textContent === 'This browser cannot play the picture.'"


@pytest.fixture
async def telephone(page: Page) -> AsyncGenerator[Page]:
    await page.open("/livez")
    if not await page.run("return document.createElement('video').canPlayType('application/vnd.apple.mpegurl')"):
        pytest.skip("this browser plays no HLS by itself")
    add = "Page.addScriptToEvaluateOnNewDocument"
    script = await page.do(lambda driver: driver.execute_cdp_cmd(add, {"source": TELEPHONE}))
    yield page
    remove = "Page.removeScriptToEvaluateOnNewDocument"
    await page.do(lambda driver: driver.execute_cdp_cmd(remove, {"identifier": script["identifier"]}))


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
    assert all("404" in line for line in await telephone.complaints())


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
    values: dict[str, Any] = FILM | {"size_bytes": 9}
    made = Film(key=keys.film("J1", 1, "mp4"), **values)
    await gateway.context.store.put(made.key, b"no film!!")

    def finish(job: jobs.Job) -> jobs.Job:
        job = jobs.advance(job, Phase.ASSEMBLING, at=3.0)
        return jobs.advance(job, Phase.COMPLETED, at=3.0, film=made)

    await records.change_job(gateway.context.bus, "J1", finish)
    await page.open("/watch/J1")
    await page.wait(CANNOT)
