"""The system's Chromium, driven over WebDriver; without it these tests say so and skip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import Nats, eventually, nats_server
from tests.system.gateway import Served, served

pytest.importorskip("selenium", reason="the package selenium is in the dev group")

from selenium import webdriver

from tests.browser import browser


def started(*more: str, trusts_all: bool = False) -> Generator[webdriver.Chrome]:
    """For a fixture: a browser as `browser.start` makes it. One that is there and does not start is an error."""
    running = browser.start(*more, trusts_all=trusts_all)
    if running is None:
        pytest.skip("there is no Chromium with its driver on this system")
    yield running
    running.quit()


@pytest.fixture(scope="session")
def driver() -> Generator[webdriver.Chrome]:
    yield from started()


@dataclass
class Page:
    """The browser's one page. WebDriver blocks, so every call goes through a thread: the gateway shares the loop."""

    driver: webdriver.Chrome
    url: str

    async def open(self, path: str) -> None:
        """The whole of a page: the driver gives the first one of a new browser back while that still reads it."""
        await asyncio.to_thread(self.driver.get, self.url + path)
        await self.wait("document.readyState === 'complete'")

    async def leave(self) -> None:
        """Let nothing of this page ask a gateway that is about to end."""
        await asyncio.to_thread(self.driver.get, "about:blank")

    async def run(self, script: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(self.driver.execute_script, script, *arguments)

    async def wait(self, expression: str, *, seconds: float = 20.0) -> Any:
        """The value of a JavaScript expression as soon as it is true; what it looks into need not be there yet."""
        script = f"try {{ return {expression} }} catch (e) {{ if (e instanceof TypeError) return null; throw e }}"
        return await eventually(lambda: self.run(script), seconds=seconds, every=0.1, what=expression)

    async def until(self, check: Callable[[], Awaitable[Any]], what: str, *, seconds: float = 20.0) -> Any:
        return await eventually(check, seconds=seconds, every=0.1, what=what)

    async def do(self, action: Callable[[webdriver.Chrome], Any]) -> Any:
        return await asyncio.to_thread(action, self.driver)

    async def complaints(self) -> list[str]:
        """What the browser wrote to its console, but for the notes of its software renderer."""
        found: list[dict[str, Any]] = await asyncio.to_thread(self.driver.get_log, "browser")
        return [f"{item['level']} {item['message']}" for item in found if "GL Driver Message" not in item["message"]]


async def only(page: Page, *texts: str, some: bool = True) -> None:
    """Since it was last asked the browser complained of what holds all these texts, and of nothing else.

    some: it did complain; else it may have had no reason to.
    """
    found = await page.complaints()
    assert found or not some
    assert [line for line in found if not all(text in line for text in texts)] == []


@pytest.fixture
def server() -> Generator[Nats]:
    with nats_server() as running:
        yield running


@pytest.fixture
async def gateway(server: Nats, tmp_path: Path) -> AsyncGenerator[Served]:
    async with served(server, tmp_path / "data") as running:
        yield running


@pytest.fixture
async def page(driver: webdriver.Chrome, gateway: Served) -> AsyncGenerator[Page]:
    opened = Page(driver, gateway.url)
    yield opened
    complaints = await opened.complaints()
    # A gateway to come may get this one's port, and with it what pages have kept here.
    await opened.run("try { localStorage.clear() } catch { /* about:blank has none */ }")
    await opened.leave()
    assert complaints == []
