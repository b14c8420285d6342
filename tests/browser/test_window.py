"""The picture has the whole window, or the whole screen; the bar goes while it plays; words lie in the picture."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from stereospot.options import Layout
from tests.browser.conftest import Page
from tests.browser.watching import PLAYER, SIZES, VIDEO, click, press, read, resize, shown
from tests.system.gateway import Served

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = pytest.mark.browser

Sized = Callable[[int, int], Awaitable[None]]


@pytest.fixture
async def sized(page: Page) -> AsyncGenerator[Sized]:
    """Makes the window as large as a device's."""
    yield lambda width, height: resize(page, width, height)
    await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))


async def test_the_full_window_is_the_picture(page: Page, gateway: Served, sized: Sized) -> None:
    """As large as it can be, and nothing to scroll for, on the page of the house and on the one that is handed out."""
    await shown(page, gateway)
    playback = (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]
    for path in ("/watch/J1", playback["hls"].replace("master.m3u8", "watch")):
        await page.open(path)
        await page.wait(f"{VIDEO}.readyState >= 2")
        for size in SIZES:
            await sized(*size)
            box = await page.run(
                f"const box = {VIDEO}.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]"
            )
            assert box == [0, 0, *size], path
            scroll = "const it = document.documentElement; return [it.scrollWidth, it.scrollHeight]"
            assert await page.run(scroll) == [*size], path
            # The bar lies over it, and all of the bar is in the window.
            bar = await page.run(
                f"const box = {PLAYER}.bar.getBoundingClientRect(); return [box.left, box.right, box.bottom]"
            )
            assert bar == [0, size[0], size[1]], (path, size)
            outside = """
                return [...document.querySelectorAll(".controls :is(button, select, input)")].filter((item) => {
                  const box = item.getBoundingClientRect();
                  return item.checkVisibility() && (box.left < 0 || box.right > innerWidth || box.bottom > innerHeight);
                }).map((item) => item.outerHTML);
            """
            assert await page.run(outside) == [], (path, size)


async def test_full_screen_is_the_picture_while_the_film_is_made(page: Page, gateway: Served) -> None:
    await shown(page, gateway, "/jobs/J1")
    await page.run(f"{PLAYER}.screen.focus()")
    await press(page, "f")
    await page.wait(
        f"document.fullscreenElement === {PLAYER} && {VIDEO}.getBoundingClientRect().height === innerHeight"
    )
    assert await page.run(f"return {VIDEO}.getBoundingClientRect().width === innerWidth")
    await press(page, "f")
    await page.wait(f"document.fullscreenElement === null && {VIDEO}.getBoundingClientRect().height < innerHeight")


GONE = f"""(() => {{
  const seen = [{PLAYER}.bar, ...document.querySelectorAll(".page-watch > .bar, .theatre-title")];
  return seen.every((item) => getComputedStyle(item).opacity === "0")
    && getComputedStyle({PLAYER}.screen).cursor === "none"
    && getComputedStyle({PLAYER}.screen).outlineStyle === "none";
}})()"""
THERE = f"getComputedStyle({PLAYER}.bar).opacity === '1' && getComputedStyle({PLAYER}.screen).cursor !== 'none'"

TOUCHED = f"""
self.touched = performance.now();
for (const name of ["pointermove", "keydown"]) {{
  document.addEventListener(name, () => {{ self.touched = performance.now(); }}, true);
}}
new MutationObserver(() => {{
  if ({PLAYER}.classList.contains("resting")) self.rested = performance.now() - touched;
}}).observe({PLAYER}, {{ attributeFilter: ["class"] }});
"""
"""How long it was after the last touch that the bar went."""


async def move(page: Page, across: int) -> None:
    """The pointer, over the picture."""
    from selenium.webdriver import ActionChains

    def go(driver: WebDriver) -> None:
        screen = driver.find_element("css selector", ".screen")
        ActionChains(driver).move_to_element_with_offset(screen, across, 0).perform()

    await page.do(go)


@pytest.mark.parametrize("path", ["/watch/J1", "/jobs/J1"], ids=["window", "screen"])
async def test_the_bar_and_the_pointer_go_while_it_plays(page: Page, gateway: Served, path: str) -> None:
    await shown(page, gateway, path)
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true; {PLAYER}.screen.focus()")
    if path == "/jobs/J1":
        await press(page, "f")
        await page.wait("document.fullscreenElement")
    await page.run(TOUCHED)
    await press(page, "k")
    assert await page.run(f"return getComputedStyle({PLAYER}.screen).outlineStyle") != "none", "the keyboard is in use"
    await page.wait(f"!{VIDEO}.paused && {GONE}")
    assert await page.run("return rested") >= 2990
    await move(page, 40)
    await page.wait(THERE)
    await page.wait(GONE)
    assert await page.run("return rested") >= 2990
    await press(page, "m")
    await page.wait(THERE)
    await page.wait(GONE)
    # A pause brings them back, whoever made it.
    await page.run(f"{VIDEO}.pause()")
    await page.wait(THERE)


async def test_the_bar_stays_while_somebody_needs_it(page: Page, gateway: Served) -> None:
    """What happens when its time is over, without waiting for it."""
    from selenium.webdriver import Keys

    rests = f"{PLAYER}.rest.rest(); return {PLAYER}.rest.resting"
    await shown(page, gateway)
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true")
    assert not await page.run(rests), "it is paused"
    await press(page, "k")
    await page.wait(f"!{VIDEO}.paused")
    assert await page.run(rests)
    # By keyboard inside the bar; the first key that goes there shows it.
    await page.run(f"{PLAYER}.screen.focus()")
    assert await page.run(rests)
    await press(page, Keys.TAB)
    await page.wait(THERE)
    assert await page.run(f"return {PLAYER}.bar.contains(document.activeElement)")
    assert not await page.run(rests)
    await page.run(f"{PLAYER}.view.focus()")
    assert not await page.run(rests), "a menu has the focus"
    await page.run(f"{PLAYER}.screen.focus()")
    assert await page.run(rests)
    await press(page, "?")
    assert not await page.run(rests), "the keys are shown"
    await press(page, "?")
    # A button that was pressed with the mouse has the focus and is done with.
    await click(page, "[data-do=mute]")
    assert await page.run("return document.activeElement.dataset.do") == "mute"
    assert await page.run(rests)
    # Beside other things the bar is never in the way.
    await page.open("/jobs/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true; {VIDEO}.play()")
    await page.wait(f"!{VIDEO}.paused")
    assert not await page.run(rests)


async def test_a_finger_calls_the_bar_back_and_does_nothing_else(page: Page, gateway: Served) -> None:
    """Wherever it comes down: on the picture, or where a button is that it cannot see."""
    await shown(page, gateway)
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.volume = 0.5; {VIDEO}.play()")
    await page.wait(f"!{VIDEO}.paused")

    async def tap(selector: str) -> None:
        box = f"const box = document.querySelector({selector!r}).getBoundingClientRect();"
        middle = await page.run(f"{box} return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }}")
        await page.run(
            "self.ended = false; addEventListener('click', () => { self.ended = true; }, { once: true, capture: true })"
        )
        for kind, points in (("touchStart", [middle]), ("touchEnd", [])):
            event = {"type": kind, "touchPoints": points}
            await page.do(lambda driver, event=event: driver.execute_cdp_cmd("Input.dispatchTouchEvent", event))
        await page.wait("self.ended")

    for where, done in ((".screen", f"{VIDEO}.paused"), ("[data-do=mute]", f"{VIDEO}.muted"), ("h1 a", "false")):
        await page.run(f"{VIDEO}.play(); {PLAYER}.rest.rest()")
        assert await page.wait(f"{PLAYER}.rest.resting")
        await tap(where)
        await page.wait(THERE)
        assert not await page.run(f"return {done}")
        if done != "false":
            await tap(where)
            await page.wait(done)
    assert await page.run("return location.pathname") == "/watch/J1"


async def test_subtitles_make_room_for_the_bar(page: Page, gateway: Served, sized: Sized) -> None:
    await sized(844, 390)
    await read(page, gateway, "/watch/J1", Layout.HALF_SBS)
    # It is paused, and nobody has touched anything since the words came.
    gap = (
        f"{PLAYER}.bar.getBoundingClientRect().top - document.querySelector('.subtitle').getBoundingClientRect().bottom"
    )
    await page.wait(f"{gap} >= -0.5")
    low = f"{VIDEO}.getBoundingClientRect().bottom - document.querySelector('.subtitle').getBoundingClientRect().bottom"
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true; {VIDEO}.play()")
    await page.wait(f"!{VIDEO}.paused")
    await page.run(f"{PLAYER}.rest.rest()")
    await page.wait(f"{low} < 20")


OVER_WHITE = f"""
const white = document.createElement("div");
white.style.cssText = "position: absolute; inset: 0; background: #fff";
{PLAYER}.screen.append(white);
const title = document.querySelector(".theatre-title");
if (!title.querySelector(".fine")) {{
  const note = document.createElement("p");
  note.className = "fine";
  note.textContent = "A note that takes more than a line. ".repeat(6);
  title.append(note);
}}
const curtain = document.querySelector("[data-curtain]");
{PLAYER}.say("Why there is no picture.");
const within = document.createRange();
const texts = [...title.querySelectorAll("h1, .figures, .fine"), curtain].map((item) => {{
  within.selectNodeContents(item);
  const {{ x, y, right, bottom }} = (item === curtain ? within : item).getBoundingClientRect();
  return {{ color: getComputedStyle(item).color.match(/\\d+/g).map(Number), box: [x, y, right, bottom] }};
}});
for (const item of title.querySelectorAll("*")) item.style.visibility = "hidden";
curtain.style.color = "transparent";
return texts;
"""
"""What is to be read at the upper edge and in the middle, its colour, and where. Hidden then, before all white."""


def luminance(color: Sequence[float]) -> float:
    parts = [value / 255 for value in color[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("size", SIZES)
async def test_what_lies_over_a_bright_picture_can_be_read(
    page: Page, gateway: Served, sized: Sized, size: tuple[int, int]
) -> None:
    await shown(page, gateway)
    playback = (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]
    await page.open(playback["hls"].replace("master.m3u8", "watch"))
    await page.wait(f"{VIDEO}.readyState >= 2")
    await sized(*size)
    texts = await page.run(OVER_WHITE)
    assert len(texts) == 4
    picture = Image.open(io.BytesIO(await page.do(lambda driver: driver.get_screenshot_as_png()))).convert("RGB")
    for text in texts:
        left, top, right, bottom = (round(value) for value in text["box"])
        ground = np.asarray(picture)[top:bottom, left:right].reshape(-1, 3)
        brightest = max(luminance(tuple(color)) for color in np.unique(ground, axis=0))
        assert brightest > 0.02, "the white picture is behind it"
        assert (luminance(text["color"]) + 0.05) / (brightest + 0.05) >= 4.5, text


WORDS = """
const video = document.querySelector("video");
const box = video.getBoundingClientRect();
const scale = Math.min(box.width / video.videoWidth, box.height / video.videoHeight);
const [width, height] = [video.videoWidth * scale, video.videoHeight * scale];
const [left, top] = [box.left + (box.width - width) / 2, box.top + (box.height - height) / 2];
return [...document.querySelectorAll(".subtitle:not([hidden])")].map((item) => {
  const range = document.createRange();
  range.selectNodeContents(item);
  const words = range.getBoundingClientRect();
  const [across, down] = [(at) => (at - left) / width, (at) => (at - top) / height];
  return { middle: across((words.left + words.right) / 2), left: across(words.left), right: across(words.right),
           top: down(words.top), bottom: down(words.bottom) };
});
"""
"""Where the words are, as parts of the picture: what is beside it in its box does not count."""


@pytest.mark.parametrize("path", ["/watch/J1", "/jobs/J1"])
@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.FULL_SBS, Layout.HALF_TB, Layout.FULL_TB])
async def test_a_subtitle_is_shown_once_to_each_eye(
    layout: Layout, path: str, page: Page, gateway: Served, sized: Sized
) -> None:
    """At the same place of both pictures, or the two would not become one; that is measured where bars are, too."""
    await read(page, gateway, path, layout)
    assert await page.run("return document.querySelectorAll('.subtitle:not([hidden])').length") == 1
    await page.run(f"{PLAYER}.view.value = 'raw'; {PLAYER}.look('raw')")
    await page.wait("document.querySelectorAll('.subtitle:not([hidden])').length === 2")
    side_by_side = layout in (Layout.HALF_SBS, Layout.FULL_SBS)
    for size in SIZES:
        await sized(*size)
        one, other = await page.run(WORDS)
        assert other["middle"] - one["middle"] == pytest.approx(0.5 if side_by_side else 0, abs=0.005), size
        assert one["middle"] == pytest.approx(0.25 if side_by_side else 0.5, abs=0.005), size
        assert other["bottom"] - one["bottom"] == pytest.approx(0 if side_by_side else 0.5, abs=0.005), size
        assert 0 <= one["left"] < one["right"] <= (0.5 if side_by_side else 1), size
        assert 0 <= one["top"] < one["bottom"] <= (1 if side_by_side else 0.5), size
