"""The player's own manners: poster, storyboard, keyboard, views, subtitles for each eye, life without hls.js."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from stereospot import keys, records
from stereospot.media.model import Plan
from stereospot.options import Layout, Options
from tests.browser.conftest import Page
from tests.support import eventually
from tests.system.gateway import Served
from tests.system.showing import VTT, Showing, film, sound

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = pytest.mark.browser

PLAYER = "document.querySelector('ss-player')"
VIDEO = "document.querySelector('video')"

SIZES = ((390, 844), (844, 390), (1280, 800), (1920, 1080))
"""A telephone, held both ways, a laptop, a screen."""

Sized = Callable[[int, int], Awaitable[None]]


async def resize(page: Page, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size))


@pytest.fixture
async def sized(page: Page) -> AsyncGenerator[Sized]:
    """Makes the window as large as a device's."""
    yield lambda width, height: resize(page, width, height)
    await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))


async def shown(page: Page, gateway: Served, path: str = "/watch/J1", **film_: bool) -> Showing:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), **film_)  # type: ignore[arg-type]
    await showing.begin()
    await showing.convert(0, 1, 2)
    await page.open(path)
    await page.wait(f"{VIDEO}.readyState >= 2")
    return showing


async def press(page: Page, *names: str) -> None:
    from selenium.webdriver import ActionChains

    await page.do(lambda driver: ActionChains(driver).send_keys(*names).perform())


async def test_the_poster_stays_until_it_plays(page: Page, gateway: Served) -> None:
    await shown(page, gateway)
    assert await page.run(f"return {PLAYER}.glass.canvas.hidden && {VIDEO}.poster.endsWith('/poster.jpg')")
    await page.run(f"{VIDEO}.play()")
    await page.wait(f"!{PLAYER}.glass.canvas.hidden")


async def test_the_screen_shows_what_was_converted_last(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await page.open("/jobs/J1")
    for index, shown_ in ((0, "frame/0"), (1, "frame/1"), (2, "poster.jpg")):
        await showing.convert(index)
        await page.wait(f"{VIDEO}.poster.endsWith('/{shown_}')")


async def test_the_scrubber_shows_what_lies_there(page: Page, gateway: Served) -> None:
    await gateway.context.store.put(keys.source("J1", "mp4"), film(4))
    await shown(page, gateway)
    await page.wait(f"Number({PLAYER}.scrub.max) === 4")
    await page.run(f"{PLAYER}.scrub.value = 3; {PLAYER}.scrub.dispatchEvent(new Event('input'))")
    await page.wait("document.querySelector('.peek div').style.backgroundImage")
    assert await page.run("return document.querySelector('.peek span').textContent") == "0:03"
    style = await page.run("return document.querySelector('.peek div').style.cssText")
    # The second of two tiles, right of the first.
    assert "storyboard/0.jpg" in style
    assert "-192px 0px" in style
    await page.run(f"{PLAYER}.scrub.dispatchEvent(new Event('blur'))")
    assert await page.run("return document.querySelector('.peek').hidden")


async def test_the_player_by_keyboard(page: Page, gateway: Served) -> None:
    await shown(page, gateway)
    await page.run(f"{PLAYER}.screen.focus()")
    await press(page, "k")
    await page.wait(f"!{VIDEO}.paused")
    await press(page, " ")
    await page.wait(f"{VIDEO}.paused")
    await press(page, "m")
    assert await page.wait(f"{VIDEO}.muted")
    await press(page, "s")
    assert await page.run(f"return {PLAYER}.glass.swap")
    await press(page, "v")
    assert await page.run(f"return {PLAYER}.view.value") == "raw"
    await press(page, "v")
    assert await page.run(f"return {PLAYER}.glass.mode") == "anaglyph"
    await press(page, "3")
    await page.wait(f"Math.abs({PLAYER}.now - 1.2) < 0.5")
    await press(page, "?")
    assert await page.wait("!document.querySelector('.keys').hidden")
    await press(page, "f")
    await page.wait("document.fullscreenElement?.localName === 'ss-player'")
    await press(page, "f")
    await page.wait("document.fullscreenElement === null")


async def click(page: Page, selector: str) -> None:
    """With the mouse, in the middle of it: what has the focus then is the browser's own decision."""
    from selenium.webdriver import ActionChains

    def press_it(driver: WebDriver) -> None:
        ActionChains(driver).move_to_element(driver.find_element("css selector", selector)).click().perform()

    await page.do(press_it)


async def test_whoever_presses_the_picture_has_the_keys(page: Page, gateway: Served) -> None:
    await shown(page, gateway, "/jobs/J1")
    await click(page, ".screen")
    await page.wait(f"{PLAYER}.begun")
    view = await page.run(f"return {PLAYER}.view.value")
    await press(page, "v")
    assert await page.run(f"return {PLAYER}.view.value") != view
    paused = await page.run(f"return {VIDEO}.paused")
    await press(page, " ")
    await page.wait(f"{VIDEO}.paused !== {str(paused).lower()}")
    assert await page.run("return scrollY") == 0


async def test_the_full_window_has_the_keys_from_the_beginning(page: Page, gateway: Served) -> None:
    from selenium.webdriver import Keys

    await shown(page, gateway)
    assert await page.run("return document.activeElement === document.body")
    await press(page, "k")
    await page.wait(f"!{VIDEO}.paused")
    # A slider keeps the arrows that move it, and nothing else.
    await click(page, ".loud")
    await press(page, "K")
    await page.wait(f"{VIDEO}.paused")
    before = await page.run(f"return [{PLAYER}.now, {VIDEO}.volume]")
    await press(page, Keys.ARROW_LEFT)
    now, volume = await page.run(f"return [{PLAYER}.now, {VIDEO}.volume]")
    assert now == before[0]
    assert volume < before[1]


async def test_a_paused_film_stays_paused_when_its_place_changes(page: Page, gateway: Served) -> None:
    await gateway.context.store.put(keys.source("J1", "mp4"), film(4))
    await shown(page, gateway)
    await page.wait(f"Number({PLAYER}.scrub.max) === 4")
    await page.run(f"{PLAYER}.scrub.value = 3; {PLAYER}.scrub.dispatchEvent(new Event('change'))")
    await page.wait(f"!{VIDEO}.seeking && Math.abs({PLAYER}.now - 3) < 0.01 && !{PLAYER}.glass.canvas.hidden")
    assert await page.run(f"return {VIDEO}.paused")
    await press(page, "1")
    await page.wait(f"!{VIDEO}.seeking && Math.abs({PLAYER}.now - 0.4) < 0.01")
    assert await page.run(f"return {VIDEO}.paused")
    # One that plays goes on.
    await press(page, "k")
    await page.wait(f"!{VIDEO}.paused")
    await press(page, "0")
    assert not await page.run(f"return {VIDEO}.paused")


async def test_the_arrows_of_the_scrubber_ask_once_when_they_rest(page: Page, gateway: Served) -> None:
    from selenium.webdriver import Keys

    await gateway.context.store.put(keys.source("J1", "mp4"), film(34))
    showing = Showing(gateway.context, "J1", lengths=(4, *(1 for _ in range(30))))
    await showing.begin()
    await showing.convert(0)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && Number({PLAYER}.scrub.max) === 34")
    await page.run(
        f"""
        self.asked = [];
        const whole = self.fetch;
        self.fetch = (path, ...rest) => {{
          if (String(path).endsWith("/seek")) asked.push(JSON.parse(rest[0].body).seconds);
          return whole(path, ...rest);
        }};
        {PLAYER}.scrub.focus();
        """
    )
    await press(page, *[Keys.ARROW_RIGHT] * 4)
    assert await page.run(f"return Number({PLAYER}.scrub.value)") == 20
    await page.wait("asked.length")
    await press(page, Keys.ARROW_LEFT)
    await page.wait("asked.length === 2")
    assert await page.run("return asked") == [20, 15]
    await showing.convert(12)
    await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.now === 15")
    assert await page.run(f"return {VIDEO}.paused")
    # Back into what is there, without asking.
    await press(page, Keys.PAGE_DOWN, Keys.PAGE_UP)
    assert await page.run(f"return Number({PLAYER}.scrub.value)") == 34


async def test_whoever_was_handed_the_film_is_told_how_far_it_goes(page: Page, gateway: Served) -> None:
    """That page has no key to the API: it asks nothing of it, and leads to nothing that would."""
    from selenium.webdriver import Keys

    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2, 8))
    await showing.begin()
    await showing.convert(0, 1)
    playback = (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]
    await page.open(playback["hls"].replace("master.m3u8", "watch"))
    await page.wait(f"{VIDEO}.readyState >= 2 && Number({PLAYER}.scrub.max) === 2")
    await press(page, Keys.ARROW_RIGHT)
    curtain = "document.querySelector('[data-curtain]')"
    await page.wait(f"{curtain}.checkVisibility() && {curtain}.textContent.endsWith('the film goes to 0:02.')")
    # It stays where it was, and plays from there.
    assert await page.run(f"return [{PLAYER}.now, Number({PLAYER}.scrub.value)]") == [0, 0]
    await press(page, "k")
    await page.wait(f"{PLAYER}.now > 0.2 && !{curtain}.checkVisibility()")
    asked = "performance.getEntriesByType('resource').map((item) => new URL(item.name).pathname)"
    assert not [path for path in await page.run(f"return {asked}") if not path.startswith(("/v/", "/static/"))]
    links = await page.run("return [...document.links].map((link) => link.getAttribute('href'))")
    assert links == ["#main"]


async def test_it_waits_for_data_no_longer_than_it_does(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.run(f"{VIDEO}.play()")
    waits = f"{PLAYER}.classList.contains('waiting-for-data')"
    await page.wait(waits)
    await showing.convert(1)
    await page.wait(f"{PLAYER}.now > 1.1 && !{waits}")


async def test_a_telephone_without_full_screen_for_pages_shows_its_own(page: Page, gateway: Served) -> None:
    await shown(page, gateway)
    await page.run(
        f"{PLAYER}.requestFullscreen = undefined; {VIDEO}.webkitEnterFullscreen = () => {{ self.native = true; }}"
    )
    await press(page, "f")
    assert await page.wait("self.native")


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
    && getComputedStyle({PLAYER}.screen).cursor === "none";
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
    await shown(page, gateway)
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true; {VIDEO}.play()")
    await page.wait(f"!{VIDEO}.paused")
    await page.run(f"{PLAYER}.rest.rest()")

    async def tap() -> None:
        for kind, points in (("touchStart", [{"x": 300, "y": 200}]), ("touchEnd", [])):
            event = {"type": kind, "touchPoints": points}
            await page.do(lambda driver, event=event: driver.execute_cdp_cmd("Input.dispatchTouchEvent", event))

    await tap()
    await page.wait(THERE)
    assert not await page.run(f"return {VIDEO}.paused")
    await tap()
    await page.wait(f"{VIDEO}.paused")


async def test_subtitles_make_room_for_the_bar(page: Page, gateway: Served, sized: Sized) -> None:
    await read(page, gateway, "/watch/J1", Layout.HALF_SBS)
    await sized(844, 390)
    gap = (
        f"{PLAYER}.bar.getBoundingClientRect().top - document.querySelector('.subtitle').getBoundingClientRect().bottom"
    )
    await page.wait(f"{gap} >= -0.5")
    low = f"{VIDEO}.getBoundingClientRect().bottom - document.querySelector('.subtitle').getBoundingClientRect().bottom"
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true; {VIDEO}.play()")
    await page.wait(f"!{VIDEO}.paused")
    await page.run(f"{PLAYER}.rest.rest()")
    await page.wait(f"{low} < 20")


BRIGHT = f"""
const {{ track }} = {PLAYER};
const copy = new OffscreenCanvas(track.width, 1).getContext("2d", {{ willReadFrequently: true }});
copy.drawImage(track, 0, 0);
const {{ data }} = copy.getImageData(0, 0, track.width, 1);
const strokes = [];
for (let at = 0; at < track.width; at += 1) {{
  const bright = data[4 * at] > 100;
  if (bright && !(at && strokes.at(-1)?.[1] === at / track.width)) strokes.push([at / track.width, 0]);
  if (bright) strokes.at(-1)[1] = (at + 1) / track.width;
}}
return strokes;
"""
"""Where the scrubber's track is bright, as parts of its length."""


async def test_the_scrubber_shows_what_is_there_without_seams(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 2, 1, 3, 1, 1, 1, 1, 2))
    await showing.begin()
    await showing.convert(1, 2, 4)
    await page.open("/jobs/J1")
    await page.wait(f"{PLAYER}.segments?.length === 9 && Number({PLAYER}.scrub.max) === 13")
    near = pytest.approx
    assert await page.run(BRIGHT) == [
        [near(1 / 13, abs=0.002), near(4 / 13, abs=0.002)],
        [near(7 / 13, abs=0.002), near(8 / 13, abs=0.002)],
    ]
    await showing.convert(*range(9))
    await page.wait("document.querySelectorAll('ss-strip .done').length === 9")
    assert await page.run(BRIGHT) == [[0, 1]]
    # The knob's middle is at the place, at the beginning and at the end, where the track begins and ends.
    boxes = f"[{PLAYER}.scrub, {PLAYER}.track].map((item) => item.getBoundingClientRect())"
    scrub, track = await page.run(f"return {boxes}.map((box) => [box.left, box.right])")
    knob = 0.9 * 16
    assert [scrub[0] + knob / 2, scrub[1] - knob / 2] == [pytest.approx(at, abs=0.5) for at in track]


class Bilingual(Showing):
    """Its sound is there in two languages."""

    def plan(self) -> Plan:
        plan = super().plan()
        first = plan.source.audio[0]
        audio = (first, first.model_copy(update={"stream_index": 3, "language": "fra"}))
        return plan.model_copy(update={"source": plan.source.model_copy(update={"audio": audio})})

    async def sing(self, ready: int) -> None:
        init, media = sound(sum(self.lengths), self.lengths)
        await self.context.store.put(keys.audio_init("J1", 1, 1), init)
        for index in range(ready):
            await self.context.store.put(keys.audio_segment("J1", 1, 1, index), media[index])
        await super().sing(ready)


async def test_one_of_two_sounds_is_chosen(page: Page, gateway: Served) -> None:
    showing = Bilingual(gateway.context, "J1", lengths=(1, 1, 2), sound=True)
    await showing.begin()
    await showing.sing(3)
    await showing.convert(0, 1, 2)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && document.querySelectorAll('[aria-label=Sound] option').length === 2")
    assert await page.run(f"return [{PLAYER}.hls.audioTrack, {PLAYER}.sound.value]") == [0, "0"]
    await page.run(f"{PLAYER}.sound.value = '1'; {PLAYER}.sound.dispatchEvent(new Event('change'))")
    heard = "performance.getEntriesByType('resource').some((item) => /audio.1.\\d+.m4s/.test(item.name))"
    await page.wait(f"{PLAYER}.hls.audioTrack === 1 && {heard}")
    # The next run has it, too.
    await page.run(f"{PLAYER}.load({PLAYER}.dataset.hls, {{ index: 0, seconds: 0 }})")
    await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.hls.audioTrack === 1")


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


async def read(page: Page, gateway: Served, path: str, layout: Layout) -> Showing:
    """A film of this layout with its subtitles, of which the first is shown."""
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True)
    await showing.begin()
    chosen = Options(layout=layout)
    await records.change_job(gateway.context.bus, "J1", lambda job: job.model_copy(update={"options": chosen}))
    await showing.convert(0, 1, 2)
    await eventually(lambda: layout_of(gateway, layout), what="the layout")
    await page.open(path)
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")
    await page.run(
        """
        const select = document.querySelector("[aria-label=Subtitles]");
        select.selectedIndex = 1;
        select.dispatchEvent(new Event("change"));
        """
    )
    await page.wait("document.querySelector('.subtitle').textContent === 'First & foremost'")
    return showing


async def layout_of(gateway: Served, layout: Layout) -> bool:
    return (await gateway.client.get("/api/v1/jobs/J1")).json()["options"]["layout"] == layout


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


async def test_without_hls_js_the_browser_gets_the_playlist_itself(page: Page, gateway: Served) -> None:
    await shown(page, gateway)
    # What the player does in a build without hls.js, or where it is not supported.
    await page.run(f"delete {PLAYER}.dataset.hlsjs; {PLAYER}.load({PLAYER}.dataset.hls, {{ index: 0, seconds: 0 }})")
    await page.wait(f"{VIDEO}.src.endsWith('/master.m3u8')")
    assert await page.run(f"return {PLAYER}.hls") is None
    if await page.run(f"return {VIDEO}.canPlayType('application/vnd.apple.mpegurl')"):
        await page.wait(f"{VIDEO}.readyState >= 2 || {VIDEO}.error")
        if not await page.run(f"return {VIDEO}.error"):
            await page.run(f"{VIDEO}.muted = true; {VIDEO}.play()")
            await page.wait(f"{VIDEO}.currentTime > 0.3")
