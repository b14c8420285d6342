"""Several tabs of one browser: HTTP/1.1 gives a host six connections, so they share one event stream."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

import pytest

from stereospot import jobs, records
from tests.browser.conftest import Page
from tests.browser.test_uploads import BAR, RATE, SAID, Sent, choose, long_film, network, received, stored
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

__all__ = ["long_film"]

LABEL = "document.querySelector('[data-label]').textContent"


@pytest.fixture
async def tabs(page: Page) -> AsyncGenerator[list[str]]:
    """Two windows of the browser; only the first is left."""

    def opened() -> list[str]:
        page.driver.switch_to.new_window("tab")
        return page.driver.window_handles

    def closed() -> None:
        first, *others = page.driver.window_handles
        for other in others:
            page.driver.switch_to.window(other)
            page.driver.close()
        page.driver.switch_to.window(first)

    yield await page.do(lambda _: opened())
    await page.do(lambda _: closed())


async def test_tabs_share_one_stream_and_one_goes_on_when_the_other_closes(
    page: Page, gateway: Served, tabs: list[str]
) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 1, 1))
    await showing.begin()

    async def turn(handle: str) -> None:
        await page.do(lambda driver: driver.switch_to.window(handle))

    async def streams() -> int:
        text = (await gateway.client.get("/metrics")).text
        [count] = re.findall(r"^stereospot_sse_clients ([\d.]+)$", text, re.MULTILINE)
        return int(float(count))

    async def is_one() -> bool:
        return await streams() == 1

    first, second = tabs
    await turn(first)
    await page.open("/jobs/J1")
    await page.until(is_one, "the stream of the first tab")
    await turn(second)
    await page.open("/jobs/J1")
    # Both hear what the one stream says.
    await showing.convert(0)
    for handle in tabs:
        await turn(handle)
        await page.wait(f"{LABEL} === 'Converting: segment 1 of 4'")
    assert await streams() == 1
    await turn(first)
    await page.do(lambda driver: driver.close())
    await turn(second)
    await showing.convert(1, 2)
    await page.wait(f"{LABEL} === 'Converting: segment 3 of 4'")
    await records.change_job(
        gateway.context.bus, "J1", lambda job: jobs.advance(job, jobs.Phase.ASSEMBLING, at=job.updated_at + 1)
    )
    await page.wait(f"{LABEL} === 'Putting the film together'")
    await page.until(is_one, "the stream of the second tab, and no other")


async def test_a_second_tab_leaves_an_upload_of_the_first_alone(
    page: Page, gateway: Served, tabs: list[str], long_film: Sent
) -> None:
    async def turn(handle: str) -> None:
        await page.do(lambda driver: driver.switch_to.window(handle))

    first, second = tabs
    await turn(first)
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.1")
    await turn(second)
    await page.open("/")
    await page.run("return new Promise((done) => setTimeout(done, 1500))")
    assert await page.run("return document.querySelectorAll('.uploads li').length") == 0
    # One that hears of no other tab asks without taking the turn of whoever sends.
    add, remove = "Page.addScriptToEvaluateOnNewDocument", "Page.removeScriptToEvaluateOnNewDocument"
    deaf = {"source": "delete self.BroadcastChannel"}
    added = await page.do(lambda driver: driver.execute_cdp_cmd(add, deaf))
    await page.open("/")
    assert (await page.wait(SAID)).endswith("% is here already. Choose the same file to go on.")
    await page.do(lambda driver: driver.execute_cdp_cmd(remove, added))
    await page.open("/")
    await choose(page, long_film.path)
    said = await page.wait(f"document.querySelector('.uploads li.failed') && {SAID}")
    assert said == "Another tab is sending this file."
    await page.run("document.querySelector('.uploads [data-do=stop]').click()")
    # Nor does one that asked too early, or heard nothing, take the other's turn or its upload.
    await page.run(
        """
        const { location } = JSON.parse(Object.entries(localStorage).find(([key]) => key.includes("upload"))[1]);
        return import("/static/upload.js").then(({ abandon }) =>
          abandon({ key: Object.keys(localStorage).find((key) => key.includes("upload")), location }));
        """
    )
    await turn(first)
    assert await page.run("return document.querySelectorAll('.uploads li.failed').length") == 0
    await network(page)
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == len(long_film.body), "no byte was sent twice"
