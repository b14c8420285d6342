"""Films that the page sends straight to an S3 store: whole, after a reload, and past a store that is out of reach."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from stereospot.storage import open_store
from tests.browser.conftest import Page, only
from tests.browser.test_uploads import BAR, SAID, Sent, choose, long_film, network, received, stored
from tests.storage.conftest import s3_settings
from tests.storage.faulty import Faulty, faulty
from tests.storage.seaweed import Seaweed, seaweed
from tests.support import Nats
from tests.system.gateway import Served, served

pytestmark = pytest.mark.browser

__all__ = ["long_film"]

RATE = 4 << 20

NO_JOB = """
const ask = window.fetch;
window.fetch = (path, ...rest) => (path === "/api/v1/jobs" ? new Promise(() => {}) : ask(path, ...rest));
"""


NOTED = """
const [now, bar] = [new Set(), []];
let most = 0;
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function (body) {
  now.add(this);
  most = Math.max(most, now.size);
  this.addEventListener("loadend", () => now.delete(this));
  send.call(this, body);
};
self.going = () => now.size;
new MutationObserver((changes) => {
  for (const { target } of changes) if (target.localName === "progress") bar.push(target.value);
  sessionStorage.setItem("noted", JSON.stringify([most, bar]));
}).observe(document.querySelector(".uploads"), { subtree: true, attributes: true, attributeFilter: ["value"] });
"""
"""How many requests go at once, and where the bar was: kept for the page behind this one."""


@pytest.fixture(scope="module")
def s3_server() -> Generator[Seaweed]:
    with seaweed() as running:
        yield running


@pytest.fixture
async def proxy(s3_server: Seaweed) -> AsyncGenerator[Faulty]:
    async with faulty(s3_server.endpoint) as running:
        yield running


@pytest.fixture
async def gateway(server: Nats, proxy: Faulty, s3_server: Seaweed, tmp_path: Path) -> AsyncGenerator[Served]:
    reached = Seaweed(proxy.endpoint, s3_server.access_key, s3_server.secret_key)
    settings = s3_settings(reached, tmp_path / "data", s3_page_uploads="true")
    store = open_store(settings)
    await store.put("made", b"so that the bucket is there")
    await store.close()
    changes = {name: getattr(settings, name) for name in settings.model_fields_set if name.startswith(("s3_", "stor"))}
    async with served(server, tmp_path / "data", **changes) as running:
        yield running


def sent(proxy: Faulty, number: int | str = "") -> int:
    """How many PUTs of this part (or of any) the store has seen."""
    return sum(line.startswith("PUT") and f"partNumber={number}" in line for line in proxy.seen)


async def test_the_page_sends_a_film_to_the_store_itself(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent
) -> None:
    await page.open("/")
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert sorted(Counter(re.findall(r"PUT .*partNumber=(\d+)", "\n".join(proxy.seen))).values()) == [1] * sent(proxy)
    assert await received(gateway) == 0, "not a byte came by the gateway"


async def test_parts_go_up_side_by_side_and_the_bar_only_forward(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent
) -> None:
    await page.open("/")
    await network(page, rate=2 * RATE)
    await page.run(NOTED)
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    most, bar = json.loads(await page.run("return sessionStorage.getItem('noted')"))
    assert most == 3
    assert len(bar) > 10
    assert bar == sorted(bar)
    assert bar[-1] == 1


async def test_pause_go_on_and_stop(page: Page, gateway: Served, proxy: Faulty, long_film: Sent) -> None:
    await page.open("/")
    await network(page, rate=RATE // 4)  # no part is whole for many seconds
    await page.run(NOTED)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.05")
    await page.run("document.querySelector('.uploads [data-do=pause]').click()")
    await page.wait(f"{SAID}.startsWith('Paused at') && self.going() === 0")
    before = sent(proxy)
    await page.run("document.querySelector('.uploads [data-do=pause]').click()")
    await page.wait("self.going() === 3")
    assert before == 3
    await page.run("document.querySelector('.uploads [data-do=stop]').click()")
    await page.wait("document.querySelector('.uploads').hidden && self.going() === 0")
    await choose(page, long_film.other)
    await page.wait(f"{BAR} > 0.05")
    await page.run("document.querySelector('.uploads [data-do=pause]').click()")
    await page.wait(f"{SAID}.startsWith('Paused at')")
    await network(page)
    await page.run("document.querySelector('.uploads [data-do=pause]').click()")
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == 0


async def test_it_goes_on_after_a_reload(page: Page, gateway: Served, proxy: Faulty, long_film: Sent) -> None:
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.75")  # three of five parts are stored
    await asyncio.to_thread(page.driver.refresh)
    assert (await page.wait(SAID)).endswith("% is here already. Choose the same file to go on.")
    await network(page)
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert sent(proxy, 1) == 1
    assert await received(gateway) == 0


async def test_it_goes_on_where_all_was_stored_but_no_job_made(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent
) -> None:
    await page.open("/")
    await page.run(NO_JOB)
    await choose(page, long_film.path)
    await page.wait(f"{SAID} === 'Stored. Making the job'")
    before = sent(proxy)
    await asyncio.to_thread(page.driver.refresh)
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert sent(proxy) == before
    await only(page, "/parts")


async def test_a_part_that_broke_is_sent_again(page: Page, gateway: Served, proxy: Faulty, long_film: Sent) -> None:
    proxy.inject("reset", "PUT ", "partNumber=2")
    proxy.inject("unheard", "PUT ", "partNumber=3")
    await page.open("/")
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert (sent(proxy, 1), sent(proxy, 2), sent(proxy, 3)) == (1, 2, 2)
    await only(page, "partNumber=")  # what was done to the store


async def test_a_store_that_refuses_pages_is_passed_by(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent
) -> None:
    proxy.inject("501", "OPTIONS ", times=12)
    await page.open("/")
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == len(long_film.body)
    await only(page, "partNumber=")  # what was done to the store


async def test_a_part_that_arrives_damaged_is_refused_and_sent_again(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent
) -> None:
    proxy.inject("damage", "PUT ", "partNumber=2")
    proxy.inject("damage", "PUT ", "partNumber=5")
    await page.open("/")
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert [sent(proxy, number) for number in range(1, 6)] == [1, 2, 1, 1, 2]
    assert all("SignedHeaders=content-length%3Bhost%3Bx-amz-checksum-sha256" in line for line in puts(proxy))
    await only(page, "partNumber=")  # what was done to the store


async def test_a_line_that_damages_everything_is_no_line(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent
) -> None:
    proxy.inject("damage", "PUT ", "partNumber=3", times=5)
    await page.open("/")
    await choose(page, long_film.path)
    await page.wait("document.querySelector('.uploads .failed')", seconds=30)
    assert sent(proxy, 3) == 5
    assert await page.run(f"return {SAID}") == "What the store gets is not what is sent."
    assert await page.run("return location.pathname") == "/"
    await only(page, "partNumber=")  # what was done to the store


@pytest.mark.parametrize("method", ["OPTIONS", "PUT"])
async def test_a_store_that_knows_no_sums_gets_none(
    page: Page, gateway: Served, proxy: Faulty, long_film: Sent, method: str
) -> None:
    proxy.inject("501", f"{method} ", "x-amz-checksum-sha256", times=3)
    await page.open("/")
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == 0
    assert ["x-amz-checksum" in line for line in puts(proxy)][-5:] == [False] * 5
    await only(page, "partNumber=")  # what was done to the store


def puts(proxy: Faulty) -> list[str]:
    return [line for line in proxy.seen if line.startswith("PUT ") and "partNumber=" in line]
