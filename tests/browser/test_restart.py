"""The gateway goes and comes back under a page that stays open."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver

from tests.browser.conftest import Page
from tests.support import Nats
from tests.system.gateway import served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

ASKED = "performance.getEntriesByType('resource').filter((item) => item.name.endsWith('/segments')).length"
STATES = "return [...document.querySelectorAll('ss-strip button')].map((item) => item.classList[0])"


async def test_what_was_at_work_before_is_seen_at_work_after(
    driver: webdriver.Chrome, server: Nats, tmp_path: Path
) -> None:
    async with served(server, tmp_path) as first:
        showing = Showing(first.context, "J1")
        await showing.begin()
        await showing.convert(0)
        await showing.tell(2, "running")
        page = Page(driver, first.url)
        await page.open("/jobs/J1")
        await page.wait("document.querySelectorAll('ss-strip button.running').length === 1")
    before = await page.run(f"return {ASKED}")
    port = int(first.url.rpartition(":")[2])
    async with served(server, tmp_path, port=port) as second:
        showing.context = second.context
        await page.wait(f"{ASKED} > {before}")
        await showing.convert(1)
        await page.wait("document.querySelectorAll('ss-strip button.done').length === 2")
        assert await page.run(STATES) == ["done", "done", "running", "waiting"]
        await showing.tell(2, "done")
        await showing.convert(2)
        await page.wait("document.querySelectorAll('ss-strip button.done').length === 3")
        assert await page.run(STATES) == ["done", "done", "done", "waiting"]
        await page.open("/livez")
    await page.complaints()
