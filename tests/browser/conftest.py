"""The system's Chromium, driven over WebDriver; without it these tests say so and skip."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import Nats, eventually, nats_server
from tests.system.gateway import Served, served

selenium = pytest.importorskip("selenium", reason="the package selenium is in the dev group")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1280,900",
)


@pytest.fixture(scope="session")
def driver() -> Generator[webdriver.Chrome]:
    browser = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or shutil.which("google-chrome")
    control = os.environ.get("CHROMEDRIVER_BIN") or shutil.which("chromedriver")
    if browser is None or control is None:
        pytest.skip("there is no Chromium with its driver on this system")
    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(control))
    yield running
    running.quit()


@dataclass
class Page:
    """The browser's one page. WebDriver blocks, so every call goes through a thread: the gateway shares the loop."""

    driver: webdriver.Chrome
    gateway: Served

    async def open(self, path: str) -> None:
        await asyncio.to_thread(self.driver.get, self.gateway.url + path)

    async def run(self, script: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(self.driver.execute_script, script, *arguments)

    async def wait(self, expression: str, *, seconds: float = 20.0) -> Any:
        """The value of a JavaScript expression as soon as it is true."""
        return await eventually(lambda: self.run(f"return {expression}"), seconds=seconds, every=0.1, what=expression)

    async def do(self, action: Callable[[webdriver.Chrome], Any]) -> Any:
        return await asyncio.to_thread(action, self.driver)

    async def complaints(self) -> list[str]:
        """What the browser wrote to its console, but for the notes of its software renderer."""
        found: list[dict[str, Any]] = await asyncio.to_thread(self.driver.get_log, "browser")
        return [f"{item['level']} {item['message']}" for item in found if "GL Driver Message" not in item["message"]]


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
    opened = Page(driver, gateway)
    yield opened
    complaints = await opened.complaints()
    await asyncio.to_thread(driver.get, "about:blank")
    assert complaints == []
