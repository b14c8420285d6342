"""What a page asks for is what is so now, whatever its browser has kept and in whatever order the answers come."""

from __future__ import annotations

import pytest

from stereospot.jobs import Phase
from tests.browser.conftest import Page
from tests.browser.watching import PLAYER
from tests.system.gateway import Served, move
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

JOB = "document.querySelector('ss-job')"
LABEL = "document.querySelector('[data-label]').textContent"
HELD = """
const real = self.fetch;
self.asked = [];
const gate = new Promise((release) => { self.release = release; });
self.fetch = async (address, options) => {
  if (!String(address).endsWith("/api/v1/jobs/J1")) return real(address, options);
  const answer = await real(address, options);
  asked.push(options.cache);
  await gate;
  return answer;
};
"""
"""Answers about the job wait until the test lets them go."""


async def test_a_page_that_is_opened_again_has_the_numbers_of_now(page: Page, gateway: Served) -> None:
    """Segments are done without the record's being written: its ETag stays."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 1, 1))
    await showing.begin()
    await showing.convert(0)
    await page.open("/jobs/J1")
    await page.wait(f"{LABEL} === 'Converting: segment 1 of 4' && {PLAYER}.segments")
    await page.leave()
    await showing.convert(1, 2)

    async def known() -> bool:
        return (await gateway.client.get("/api/v1/jobs/J1")).json()["progress"]["segments"]["done"] == 3

    await page.until(known, "the third segment")
    await page.open("/jobs/J1")
    await page.wait(f"{PLAYER}.segments && {PLAYER}.phase")
    assert await page.run(f"return {LABEL}") == "Converting: segment 3 of 4"
    # Nor does the browser keep it where something between it and the server says that it may.
    await page.run(f"{HELD} {JOB}.refresh()")
    await page.wait("asked.length")
    assert set(await page.run("release(); return asked")) == {"no-store"}


async def test_an_answer_that_comes_late_takes_nothing_back(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs/J1")
    await page.wait(f"{PLAYER}.segments")
    await page.run(f"{HELD} self.refreshed = {JOB}.refresh()")
    await page.wait("asked.length")
    await move(gateway, "J1", Phase.CANCELLED)
    await page.wait(f"{JOB}.dataset.phase === 'cancelled'")
    await page.run("release(); return refreshed")
    assert await page.run(f"return {JOB}.dataset.phase") == "cancelled"


async def test_what_comes_too_soon_after_another_word_is_spoken_in_its_turn(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs/J1")
    await page.wait(f"{PLAYER}.segments")
    spoken = "document.getElementById('announcements').textContent"
    await page.run(
        """
        const [now, wait] = [Date.now, self.setTimeout];
        self.skipped = 0;
        Date.now = () => now() + skipped;
        self.setTimeout = (act, pause, ...more) => wait(act, pause > 5000 ? 50 : pause, ...more);
        """
    )
    await move(gateway, "J1", Phase.ASSEMBLING)
    await page.wait(f"{spoken} === 'Putting the film together'")
    await move(gateway, "J1", Phase.COMPLETED)
    await page.wait(f"{LABEL} === 'Done'")
    assert await page.run(f"return {spoken}") == "Putting the film together"
    await page.run("skipped = 10_000")
    await page.wait(f"{spoken} === 'Done'")
