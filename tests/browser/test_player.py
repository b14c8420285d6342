"""The player's own manners: poster, storyboard, keyboard, views, sounds, life without hls.js."""

from __future__ import annotations

import pytest

from stereospot import keys
from tests.browser.conftest import Page, only
from tests.browser.watching import PLAYER, VIDEO, Bilingual, click, press, shown
from tests.system.gateway import Served
from tests.system.showing import Showing, film

pytestmark = pytest.mark.browser


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


async def test_the_button_of_the_full_screen_gives_the_keys_to_the_film(page: Page, gateway: Served) -> None:
    await shown(page, gateway, "/jobs/J1")
    await page.run(f"{VIDEO}.loop = true; {VIDEO}.muted = true")
    await click(page, "[data-do=full]")
    await page.wait(f"document.fullscreenElement === {PLAYER}")
    await press(page, " ")
    await page.wait(f"!{VIDEO}.paused")
    assert await page.run(f"return document.fullscreenElement === {PLAYER}")
    # Nothing holds the bar, whatever key comes next.
    await press(page, "m")
    await page.wait(f"!{VIDEO}.muted")
    await page.run(f"{PLAYER}.rest.rest()")
    assert await page.run(f"return {PLAYER}.rest.resting")
    await click(page, ".screen")
    await page.wait(f"{VIDEO}.paused")
    await click(page, "[data-do=full]")
    await page.wait("document.fullscreenElement === null")
    await press(page, "k")
    await page.wait(f"!{VIDEO}.paused")


@pytest.mark.parametrize("path", ["/watch/J1", "/jobs/J1"])
async def test_escape_closes_the_list_of_keys(page: Page, gateway: Served, path: str) -> None:
    from selenium.webdriver import Keys

    await shown(page, gateway, path)
    for focus in (f"{PLAYER}.screen.focus()", "document.activeElement.blur()"):
        await page.run(f"{PLAYER}.screen.focus()")
        await press(page, "?")
        await page.wait("document.querySelector('.keys').checkVisibility()")
        await page.run(focus)
        await press(page, Keys.ESCAPE)
        assert not await page.run("return document.querySelector('.keys').checkVisibility()")
        # It closes and never opens.
        await press(page, Keys.ESCAPE)
        assert not await page.run("return document.querySelector('.keys').checkVisibility()")
    # Beside other things a film takes no keys that are not meant for it.
    await press(page, "?")
    assert await page.run("return document.querySelector('.keys').checkVisibility()") == (path == "/watch/J1")


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
    showing = await shown(page, gateway, ready=(0,))
    await page.run(f"{VIDEO}.play()")
    waits = f"{PLAYER}.classList.contains('waiting-for-data')"
    await page.wait(waits)
    await showing.convert(1)
    await page.wait(f"{PLAYER}.now > 1.1 && !{waits}")


async def test_a_picture_that_is_announced_too_early_comes_all_the_same(page: Page, gateway: Served) -> None:
    showing = await shown(page, gateway, ready=(0,))
    # There is nothing there yet, and the server says so with 404.
    await page.run(
        f"{PLAYER}.load({PLAYER}.dataset.hls.replace('master', 'from/1/master'), {{ index: 1, seconds: 1 }}, true)"
    )
    curtain = "document.querySelector('[data-curtain]')"
    await page.wait(f"{curtain}.checkVisibility() && {curtain}.textContent === 'The picture is not there yet.'")
    asked = "performance.getEntriesByType('resource').filter((item) => item.name.endsWith('from/1/master.m3u8')).length"
    await page.wait(f"{asked} === 2")
    await only(page, "404")
    await showing.convert(1)
    await page.wait(f"{PLAYER}.now > 1.2 && !{VIDEO}.paused && !{curtain}.checkVisibility()")
    await only(page, "404", some=False)  # it may have asked once more before that
    assert await page.run(f"return {asked}") <= 4


async def test_a_telephone_without_full_screen_for_pages_shows_its_own(page: Page, gateway: Served) -> None:
    await shown(page, gateway)
    await page.run(
        f"{PLAYER}.requestFullscreen = undefined; {VIDEO}.webkitEnterFullscreen = () => {{ self.native = true; }}"
    )
    await press(page, "f")
    assert await page.wait("self.native")


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
