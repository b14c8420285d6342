"""Try before you convert, with a whole daemon: three places of a film with two settings, compared on one page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from selenium import webdriver

from services import daemon
from services.context import Context
from stereospot.settings import Settings
from tests.browser.conftest import Page
from tests.system.showing import film

pytestmark = pytest.mark.browser

METRICS = "Emulation.setDeviceMetricsOverride"

READ = """
const read = (selector, across) => {
  const pane = [document.querySelector("ss-try").below, document.querySelector("ss-try").above][selector];
  pane.glass.draw();
  const copy = document.createElement("canvas");
  copy.width = pane.canvas.width;
  copy.height = pane.canvas.height;
  const context = copy.getContext("2d");
  context.drawImage(pane.canvas, 0, 0);
  return [...context.getImageData(Math.floor(copy.width * across), copy.height / 2, 1, 1).data].slice(0, 3);
};
"""

ANEW = """
const own = document.querySelector("ss-try"), set = own.sets.a, before = Object.keys(set.films).length;
const hls = set.base.replace("/1/sample/", "/2/master.m3u8");
own.learn(set, { phase: "converting", progress: { segments: { total: 3 } }, playback: { hls, ready: false } });
return [before > 0, Object.keys(set.films).length, set.done(2)];
"""


SWAPPED = """
const own = document.querySelector("ss-try");
return [[true, "full-sbs"], [true, "2d-depth"], [false, "full-sbs"]].map(([swap, layout]) => {
  own.base.swap_eyes = swap;
  own.lay(own.below, own.below.address, layout, "left");
  return own.below.glass.swap;
});
"""
"""Samples of a film with the right eye first are so themselves, and depth maps never."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[Context]:
    settings = Settings(data_dir=tmp_path / "data", port=0, nats_port=0, engine="cues")
    async with daemon.running(settings, daemon.ALL) as context:
        yield context


@pytest.fixture
async def page(driver: webdriver.Chrome, house: Context) -> AsyncGenerator[Page]:
    opened = Page(driver, f"http://127.0.0.1:{house.settings.port}")
    yield opened
    complaints = await opened.complaints()
    await opened.open("/livez")
    assert complaints == []


async def test_from_the_drop_zone_to_the_whole_film(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "Grey.mp4"
    path.write_bytes(film(12))
    await page.open("/")
    # What is worth trying is seen without opening anything.
    assert await page.run("return document.querySelector('[name=try]').checkVisibility()")
    await page.run("document.querySelector('[name=try]').click()")
    await page.run("document.querySelector('[name=layout]').value = 'half-tb'")
    await page.do(lambda driver: driver.find_element("css selector", "input[type=file]").send_keys(str(path)))
    await page.wait("location.pathname.startsWith('/try/')")
    # Three places, as the length that the browser read says; the depth map is made without being asked for.
    await page.wait("document.querySelectorAll('[data-place]').length === 3", seconds=60)
    places = await page.run("return [...document.querySelectorAll('[data-place]')].map((item) => item.textContent)")
    assert places == ["0:02", "0:06", "0:09"]
    await page.wait(
        "document.querySelector('ss-try').dataset && !document.querySelector('[data-split]').hidden", seconds=90
    )
    await page.wait("document.querySelector('[data-stage]').dataset.pair === 'depth'")
    await page.wait("document.querySelector('ss-try').below.video.readyState >= 2")
    # It plays in a loop: hold it at its first picture.
    await page.run("const { video } = document.querySelector('ss-try').below; video.pause(); video.currentTime = 0")
    await page.wait("!document.querySelector('ss-try').below.video.seeking")
    flat = await page.run(READ + "return read(0, 0.2)")
    # The film is grey: at two seconds 40 + 2 x 16, in video levels.
    assert all(abs(value - (72 - 16) * 255 / 219) < 12 for value in flat), flat
    # The depth map is above, from the other half of the same picture.
    assert await page.run("return getComputedStyle(document.querySelector('.glass.above')).clipPath") != "none"
    # Another place is another picture.
    await page.run("document.querySelectorAll('[data-place]')[2].click()")
    await page.wait("document.querySelector('[data-place][aria-pressed=true]').textContent === '0:09'")
    bright = (
        "document.querySelector('ss-try').below.video.src !== '' && document.querySelector('[data-curtain]').hidden"
    )
    await page.wait(bright, seconds=60)

    async def brighter() -> bool:
        return (await page.run(READ + "return read(0, 0.2)"))[0] > flat[0] + 70

    await page.until(brighter, "the picture of the third place")
    # B is stronger; both are looked at through the same glasses.
    await page.run("document.querySelector('[data-setting=b] [type=submit]').click()")
    await page.wait("document.querySelector('[data-stage]').dataset.pair === 'ab'", seconds=90)
    await page.run(
        """
        const look = document.querySelector("[data-look]");
        look.value = "anaglyph";
        look.dispatchEvent(new Event("change"));
        """
    )
    await page.wait("document.querySelector('ss-try').above.glass.mode === 'anaglyph'")
    assert await page.run(SWAPPED) == [True, False, False]
    # What is made anew, in a new generation, is fetched anew.
    assert await page.run(ANEW) == [True, 0, False]
    await page.run("document.querySelector('ss-try').refresh()")
    await page.wait(
        "document.querySelector('[data-curtain]').hidden && document.querySelector('ss-try').sets.a.films[2]"
    )
    # A reload finds the same samples.
    await page.run("location.reload()")
    await page.wait("document.querySelector('[data-pair] [value=ab]')?.disabled === false")
    # The whole film, as A, in the layout that was chosen at first.
    await page.run("document.querySelector('[data-whole=a]').click()")
    await page.wait("location.pathname.startsWith('/jobs/')")
    job_id = await page.run("return location.pathname.split('/').pop()")
    facts = await page.wait("document.querySelector('.facts')?.textContent")
    assert "Half top and bottom" in facts
    assert not job_id.startswith("try-")
    # Samples are a list of their own, which leads to their page; films are listed without them.
    await page.open("/jobs?status=samples")
    links = "[...document.querySelectorAll('.card h3 a')].map((item) => item.pathname)"
    listed = await page.run(f"return {links}")
    assert len(listed) == 3
    # Their cards say what is in them, and not how long the film is.
    lengths = await page.run("return [...document.querySelectorAll('.card .length')].map((item) => item.textContent)")
    assert lengths == ["3 × 2 s"] * 3
    assert all(link.startswith("/try/") for link in listed)
    await page.open("/jobs")
    assert await page.run(f"return {links}") == [f"/jobs/{job_id}"]
    # Its picture is there as soon as it is planned.
    await page.wait("document.querySelector('.card img').naturalWidth > 0")
    # A film that is there already is tried from its picture on, with what to press in view.
    small = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    try:
        await page.do(lambda driver: driver.execute_cdp_cmd(METRICS, small))
        await page.open(f"/try/{job_id}")
        poster = "document.querySelector('[data-stage] img')"
        await page.wait(f"{poster}.naturalWidth > 0 && {poster}.checkVisibility()")
        for name in ("a", "b"):
            button = f"document.querySelector('[data-setting={name}] [type=submit]').getBoundingClientRect()"
            assert await page.run(f"return {button}.bottom <= innerHeight"), name
        await page.run("document.querySelector('[data-setting=a] [type=submit]').click()")
        await page.wait("!document.querySelector('[data-split]').hidden", seconds=90)
        assert not await page.run(f"return {poster}.checkVisibility()")
    finally:
        await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))
