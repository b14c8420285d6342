"""Every page for everybody: axe finds nothing, the keyboard alone is enough, scripts are small, the paint is quick."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from services.gateway import assets
from stereospot import jobs, keys, records, subjects
from stereospot.messages import Failure, Worker
from stereospot.options import Options
from tests.browser import npm
from tests.browser.conftest import Page
from tests.browser.test_letters import bury
from tests.support import Nats
from tests.system.gateway import Served, served
from tests.system.showing import VTT, Showing

pytestmark = pytest.mark.browser

PAGES = (
    "/", "/jobs", "/jobs?q=nothing", "/jobs?status=samples", "/jobs/J1", "/jobs/BAD", "/watch/J1", "/try/J1", "/try/S1",
    "/launch", "/launch/J1", "/workers", "/dead-letters", "/jobs/not-there",
)  # fmt: skip

RELEASE = "The.Lord.of.the.Rings.The.Fellowship.of.the.Ring.2001.EXTENDED.1080p.BluRay.x264-GROUP"
"""A title as files bring it: one word, far longer than a telephone's line."""

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
        if path in ("/jobs/J1", "/watch/J1"):
            await page.wait("document.querySelector('video').readyState >= 2")
        if violations := await examined(page, axe):
            found[path] = violations
    complaints = await page.complaints()
    assert [item for item in complaints if "not-there" not in item] == []
    assert found == {}


async def examined(page: Page, axe: str) -> list[str]:
    """What axe has against the page as it is, in the dark and in the light."""
    return await asyncio.to_thread(page.driver.execute_async_script, axe + ";" + AXE)


async def test_axe_finds_nothing_in_what_only_trouble_or_a_hand_makes_visible(
    page: Page, gateway: Served, tmp_path: Path
) -> None:
    axe = await asyncio.to_thread(npm.text, "axe-core")
    await furnish(gateway)
    await bury(gateway, "NO_FRAMES", "ATTEMPTS_EXHAUSTED", job_id="BAD")
    refused = tmp_path / "notes.mp4"
    await asyncio.to_thread(refused.write_bytes, b"only text, whatever its name says\n" * 100)
    await asyncio.to_thread(page.driver.set_script_timeout, 60)
    found: dict[str, list[str]] = {}

    await page.open("/")
    await page.do(lambda driver: driver.find_element("css selector", "input[type=file]").send_keys(str(refused)))
    await page.wait("document.querySelector('.uploads li.failed')")
    found["a refused upload"] = await examined(page, axe)
    # What says why can be read: the axe of a striped ground gives up on it.
    ground = "getComputedStyle(document.querySelector('.uploads li.failed')).background"
    assert "gradient" not in await page.run(f"return {ground}")
    await page.complaints()

    await page.open("/dead-letters")
    assert await page.run("return document.querySelectorAll('[data-letter]').length") == 2
    found["dead letters"] = await examined(page, axe)

    await page.open("/jobs")
    await page.wait("document.querySelectorAll('.pick input').length === 2")
    await page.run("document.querySelector('.pick input').click()")
    await page.wait("document.querySelector('[data-bulk-bar]').checkVisibility()")
    found["films that are chosen"] = await examined(page, axe)

    card = Worker(
        worker_id="w", host="studio", pid=1, pool="cpu", slots=2, started_at=0, seen_at=0, busy=("J1.1.2",)
    )  # fmt: skip
    await gateway.context.bus.bucket(subjects.WORKERS).put("w", card)
    await page.open("/workers")
    await page.wait("document.querySelector('.tasks a')")
    found["workers"] = await examined(page, axe)

    row = await gateway.client.get("/api/v1/jobs/J1")
    hls: str = row.json()["playback"]["hls"]
    await page.open(hls.rsplit("/", 1)[0] + "/watch")
    await page.wait("document.querySelector('video').readyState >= 2")
    found["the page that is handed on"] = await examined(page, axe)
    assert {name: violations for name, violations in found.items() if violations} == {}


async def test_axe_finds_nothing_on_the_page_that_asks_for_a_key(
    driver: webdriver.Chrome, server: Nats, tmp_path: Path
) -> None:
    axe = await asyncio.to_thread(npm.text, "axe-core")
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        page = Page(driver, gateway.url)
        await page.open("/jobs")
        assert await page.run("return document.querySelector('.problem .code').textContent") == "401"
        assert await examined(page, axe) == []
        # No way that leads back to the same page, and no mark of another notation.
        assert await page.run("return [...document.querySelectorAll('main a, header a')].length") == 0
        text: str = await page.run("return document.querySelector('main').textContent")
        assert "`" not in text
        assert await page.run("return document.querySelector('main p code').textContent") == "stereospot up"
        await page.complaints()
        await page.leave()


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
    for job_id in ("J1", "BAD", "S1"):
        changed = await gateway.client.patch(f"/api/v1/jobs/{job_id}", json={"title": RELEASE})
        assert changed.status_code == 200
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


async def test_what_is_imported_by_name_is_no_page() -> None:
    """Imports point downwards: what makes an element is loaded by `app.js`, and nobody takes a function out of it."""
    ours = {name: asset.body.decode() for name, asset in assets.load().items() if re.fullmatch(r"\w+\.js", name)}
    elements = {name for name, text in ours.items() if "customElements.define" in text}
    assert len(elements) > 5
    taken = {
        f"{name} takes from {other}"
        for name, text in ours.items()
        for other in re.findall(r'from "\./(\w+\.js)"', text)
        if other in elements
    }
    assert taken == set()


async def test_style_sheets_have_lines_that_people_read() -> None:
    sheets = {name: asset.body.decode() for name, asset in assets.load().items() if name.endswith(".css")}
    assert len(sheets) > 3
    long = {f"{name}: {line}" for name, text in sheets.items() for line in text.splitlines() if len(line) > 120}
    assert long == set()


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
