"""Every page for everybody: axe finds nothing, the keyboard alone is enough, scripts are small, the paint is quick."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from services.gateway import assets
from stereospot import jobs, keys, records
from stereospot.messages import Failure
from stereospot.options import Options
from tests.browser import npm
from tests.browser.conftest import Page
from tests.system.gateway import Served
from tests.system.showing import VTT, Showing

pytestmark = pytest.mark.browser

PAGES = (
    "/", "/jobs", "/jobs?q=nothing", "/jobs?status=samples", "/jobs/J1", "/jobs/BAD", "/watch/J1", "/try/J1", "/try/S1",
    "/launch", "/launch/J1", "/workers", "/dead-letters", "/jobs/not-there",
)  # fmt: skip

AXE = """
const done = arguments[arguments.length - 1];
const look = () => axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
  violations.map((item) => `${item.id}: ${item.nodes.map((node) => node.html).join(" ").slice(0, 300)}`));
(async () => {
  const found = [];
  for (const theme of ["dark", "light"]) {
    document.documentElement.dataset.theme = theme;
    for (const item of document.querySelectorAll("details")) item.open = true;
    found.push(...(await look()).map((text) => `${theme} ${text}`));
  }
  done(found);
})();
"""

MAX_SCRIPT_BYTES = 60_000
FIRST_PAINT_MS = 1000


async def furnish(gateway: Served) -> None:
    """A film at work with subtitles and chapters, a failed one, and samples."""
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True)
    await showing.begin()
    await showing.convert(0, 1)
    await Showing(gateway.context, "BAD").begin()
    failure = Failure(code="NO_FRAMES", sentence="The video holds no frame that decodes.", advice="Play it first.")

    def fail(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, failure, at=9.0)

    await records.change_job(gateway.context.bus, "BAD", fail)
    samples = Showing(gateway.context, "S1", lengths=(1, 1, 1))
    await samples.begin()

    def sampled(job: jobs.Job) -> jobs.Job:
        return job.model_copy(update={"options": Options(samples=(0.0, 1.0, 2.0), layout="full-sbs")})  # type: ignore[arg-type]

    await records.change_job(gateway.context.bus, "S1", sampled)
    await samples.convert(0)


async def test_axe_finds_nothing_on_any_page(page: Page, gateway: Served) -> None:
    axe = await asyncio.to_thread(npm.text, "axe-core")
    await furnish(gateway)
    await asyncio.to_thread(page.driver.set_script_timeout, 60)
    found: dict[str, list[str]] = {}
    for path in PAGES:
        await page.open(path)
        await page.wait("document.readyState === 'complete'")
        if path in ("/jobs/J1", "/watch/J1"):
            await page.wait("document.querySelector('video').readyState >= 2")
        violations: list[str] = await asyncio.to_thread(page.driver.execute_async_script, axe + ";" + AXE)
        if violations:
            found[path] = violations
    complaints = await page.complaints()
    assert [item for item in complaints if "not-there" not in item] == []
    assert found == {}


async def test_the_keyboard_alone_is_enough(page: Page, gateway: Served) -> None:
    """From the address bar to a converted film's middle, with Tab, Enter and the arrows."""
    from selenium.webdriver import ActionChains, Keys

    await furnish(gateway)

    async def press(*names: str) -> None:
        await page.do(lambda driver: ActionChains(driver).send_keys(*names).perform())

    async def tab_to(expression: str) -> None:
        """Tab until what has the focus is the one; every stop on the way can be seen."""
        for _ in range(60):
            await press(Keys.TAB)
            seen = await page.run(
                """
                const item = document.activeElement;
                const box = item.getBoundingClientRect();
                const style = getComputedStyle(item);
                const shown = style.outlineStyle !== "none" || item.closest(".drop-target");
                return item === document.body || (box.width > 0 && Boolean(shown)) || item.outerHTML.slice(0, 200);
                """
            )
            assert seen is True, seen
            if await page.run(f"return Boolean({expression})"):
                return
        raise AssertionError(f"Tab does not lead to {expression}")

    await page.open("/")
    await press(Keys.TAB)
    assert await page.run("return document.activeElement.className") == "skip"
    await tab_to("document.activeElement.closest('nav') && document.activeElement.textContent === 'Films'")
    await press(Keys.ENTER)
    await page.wait("location.pathname === '/jobs'")
    await tab_to("document.activeElement.pathname === '/jobs/J1'")
    await press(Keys.ENTER)
    await page.wait("location.pathname === '/jobs/J1' && document.querySelector('video').readyState >= 2")
    await tab_to("document.activeElement.dataset.do === 'toggle'")
    await press(Keys.ENTER)
    await page.wait("!document.querySelector('video').paused")
    await page.run("document.querySelector('video').pause()")
    await tab_to("document.activeElement.segment?.index === 0")
    await press(Keys.ARROW_RIGHT, Keys.ENTER)
    await page.wait("document.querySelector('ss-player').now >= 1")
    await tab_to("document.activeElement.dataset.action === 'cancel'")
    await press(Keys.ENTER)
    await page.wait("document.querySelector('[data-label]').textContent === 'Cancelled'")


async def test_every_page_fits_its_window_with_all_its_details_open(page: Page, gateway: Served) -> None:
    """No page is wider than a telephone's, and no field of a form lies on its neighbour at any width."""
    await furnish(gateway)
    metrics = "Emulation.setDeviceMetricsOverride"
    look = """
        for (const item of document.querySelectorAll("details")) item.open = true;
        const over = (one, other) => one.left < other.right - 0.5 && other.left < one.right - 0.5
          && one.top < other.bottom - 0.5 && other.top < one.bottom - 0.5;
        const inputs = [...document.querySelectorAll(".field :is(select, input)")];
        const seen = inputs.filter((item) => item.checkVisibility());
        const boxes = seen.map((item) => [item.name, item.getBoundingClientRect()]);
        return {
          wide: document.documentElement.scrollWidth - innerWidth,
          outside: boxes.filter(([, box]) => box.right > innerWidth).map(([name]) => name),
          over: boxes.flatMap(([name, box], at) =>
            boxes.slice(at + 1).filter(([, other]) => over(box, other)).map(([other]) => `${name} on ${other}`)),
        };
    """
    try:
        for width in (390, 768, 1280, 1920):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            await page.do(lambda driver, size=size: driver.execute_cdp_cmd(metrics, size))
            for path in PAGES[:-1]:
                await page.open(path)
                found = await page.run(look)
                assert found["wide"] <= 0, (path, width)
                assert found["outside"] == found["over"] == [], (path, width)
    finally:
        await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))


async def test_our_own_scripts_are_small() -> None:
    packed = {
        name: len(gzip.compress(asset.body, 9))
        for name, asset in assets.load().items()
        if name.endswith(".js") and not name.startswith("vendor/")
    }
    print(f"own JavaScript, gzipped: {sum(packed.values())} bytes of {MAX_SCRIPT_BYTES}")
    assert sum(packed.values()) < MAX_SCRIPT_BYTES
    assert len(packed) > 5


async def test_the_first_paint_is_quick(page: Page, gateway: Served) -> None:
    await furnish(gateway)
    paint = "performance.getEntriesByType('paint').find((item) => item.name === 'first-contentful-paint')?.startTime"
    await page.open("/livez")
    found: dict[str, float] = {}
    for path in ("/", "/jobs", "/jobs/J1"):
        await page.open(path)
        found[path] = await page.wait(paint)
    print(f"first contentful paint, ms: {found}")
    assert max(found.values()) < FIRST_PAINT_MS


async def test_nothing_is_asked_of_anybody_else(page: Page, gateway: Served) -> None:
    """Every request goes to this server; what the policy forbids is refused."""
    await furnish(gateway)
    for path in PAGES[:-1]:
        await page.open(path)
        await page.wait("document.readyState === 'complete'")
        names: list[str] = await page.run("return performance.getEntriesByType('resource').map((item) => item.name)")
        assert [name for name in names if not name.startswith((gateway.url, "blob:", "data:"))] == [], path
        answer = await gateway.client.get(path, headers={"Accept": "text/html"})
        policy: Any = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
    broken = await page.run(
        """
        const seen = [];
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.violatedDirective));
        const script = document.createElement("script");
        script.textContent = "self.broken = true";
        document.head.append(script);
        return new Promise((resolve) => setTimeout(() => resolve([self.broken ?? false, seen]), 200));
        """
    )
    assert broken == [False, ["script-src-elem"]]
    # That one complaint is what was asked for.
    assert len(await page.complaints()) == 1
