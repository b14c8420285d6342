"""The page of workers: who is there, and what each is at."""

from __future__ import annotations

import pytest

from stereospot import subjects
from stereospot.messages import Worker
from tests.browser.conftest import Page
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

CELLS = """
[...document.querySelectorAll("td[data-th='At work on']")].map((cell) => cell.textContent.trim().replace(/\\s+/g, " "))
"""


async def test_each_says_which_film_and_which_segment_it_is_at(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()

    async def card(name: str, *busy: str) -> None:
        worker = Worker(
            worker_id=name, host="studio", pid=1, pool="cpu", slots=2, started_at=0, seen_at=0, busy=busy,
            engines=("cues",),
        )  # fmt: skip
        await gateway.context.bus.bucket(subjects.WORKERS).put(name, worker)

    await card("w1", "J1.1.2")
    await card("w2")
    await page.open("/workers")
    await page.wait(f"({CELLS.strip()}).join() === 'Holiday, segment 2,nothing'")
    assert await page.run("return document.querySelector('.tasks a').pathname") == "/jobs/J1"
    busy = "[...document.querySelectorAll('td[data-th=Busy]')].map((cell) => cell.textContent)"
    assert await page.run(f"return {busy}") == ["1 of 2", "0 of 2"]
    # The page follows by itself.
    await card("w2", "J1.1.3")
    await page.wait(f"({CELLS.strip()})[1] === 'Holiday, segment 3'")
