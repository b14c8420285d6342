"""What people see, in a real browser: uploading, watching while it converts, seeking, and what happens on trouble."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from stereospot import jobs, keys, records
from stereospot.messages import Failure, Notice
from stereospot.options import Options
from tests.browser.conftest import Page
from tests.browser.watching import VIDEO
from tests.support import Nats, eventually
from tests.system.gateway import Served, served
from tests.system.showing import FRAME, RATE, VTT, Showing, film

pytestmark = pytest.mark.browser


async def test_upload_by_the_page(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "My first film.mp4"
    path.write_bytes(film(2))
    await page.open("/")
    await page.do(lambda driver: driver.find_element("css selector", "input[type=file]").send_keys(str(path)))
    await page.wait("location.pathname.startsWith('/jobs/')")
    assert await page.wait("document.querySelector('h1').textContent") == "My first film"
    assert await page.run("return document.querySelector('[data-label]').textContent") == "Waiting"
    await page.open("/")
    await page.wait("document.querySelectorAll('.card').length === 1")


async def test_several_films_by_drop_stay_on_the_page(page: Page) -> None:
    await page.open("/")
    await page.run(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const files = new DataTransfer();
        for (const name of ["one.mp4", "two.mkv", "empty.mov"]) {
          files.items.add(new File([name === "empty.mov" ? "" : bytes], name, {type: "video/mp4"}));
        }
        dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
        """,
        base64.b64encode(film(1)).decode(),
    )
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 2")
    said = await page.wait("document.querySelector('.uploads li.failed .said')?.textContent")
    assert said == "The file is empty."
    titles = await page.run("return [...document.querySelectorAll('.card h3')].map((item) => item.textContent)")
    assert sorted(titles) == ["one", "two"]


async def test_it_plays_while_it_converts_every_frame_with_sound(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", sound=True, lengths=(1, 1, 2))
    await showing.begin()
    await page.open("/jobs/J1")
    assert await page.wait("document.querySelectorAll('ss-strip button.waiting').length === 3")
    await showing.sing(3)
    await showing.convert(0)
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.run(
        f"""
        const video = {VIDEO};
        self.times = [];
        const note = (_, frame) => {{ times.push(frame.mediaTime); video.requestVideoFrameCallback(note); }};
        video.requestVideoFrameCallback(note);
        video.play();
        """
    )
    await page.wait("document.querySelectorAll('ss-strip button.done').length === 1")
    await showing.convert(1)
    await showing.convert(2)
    await page.wait(f"{VIDEO}.ended", seconds=30)
    # A player that waited for the next segment may decode the last one again, so this is a lower bound.
    assert await page.run(f"return {VIDEO}.getVideoPlaybackQuality().totalVideoFrames") >= 4 * RATE
    [played] = await page.run(
        f"const p = {VIDEO}.played; return [...Array(p.length)].map((_, i) => [p.start(i), p.end(i)])"
    )
    assert played == [pytest.approx(0, abs=0.05), pytest.approx(4, abs=0.05)]
    assert await page.run(f"return {VIDEO}.webkitAudioDecodedByteCount") > 10_000
    times = await page.run("return times")
    assert times == sorted(times)
    assert await page.wait("document.querySelectorAll('ss-strip button.done').length === 3")


async def test_seeking_into_what_is_not_converted_plays_it_first(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 1, 1, 1, 1))
    await showing.begin()
    await showing.convert(0)
    await page.open("/jobs/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.wait("document.querySelectorAll('ss-strip button').length === 6")
    await page.run("document.querySelectorAll('ss-strip button')[4].click()")
    await page.wait("document.querySelector('[data-curtain]').textContent === 'Converting this part first'")

    async def asked() -> bool:
        found = await records.get_job(gateway.context.bus, "J1")
        return found is not None and found[0].playhead == 4

    await eventually(asked, what="the playhead")
    await showing.convert(4, 5)
    await page.wait(f"document.querySelector('ss-player').now > 4.2 && !{VIDEO}.paused")
    states = await page.run("return [...document.querySelectorAll('ss-strip button')].map((item) => item.classList[0])")
    assert states == ["done", "waiting", "waiting", "waiting", "done", "done"]
    assert await page.run("return document.querySelector('[data-curtain]').hidden")


async def show_subtitled(page: Page, gateway: Served) -> None:
    """The page of a film that has subtitles to choose."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True)
    await showing.begin()
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    await showing.convert(0, 1, 2)
    await page.open("/jobs/J1")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")


async def test_subtitles_and_chapters_follow_the_film(page: Page, gateway: Served) -> None:
    await show_subtitled(page, gateway)
    choose = """
        const select = document.querySelector(`[aria-label=${arguments[0]}]`);
        select.selectedIndex = 1;
        select.dispatchEvent(new Event("change"));
    """
    await page.run(choose, "Subtitles")
    await page.wait("document.querySelector('.subtitle').textContent === 'First & foremost'")
    await page.run(choose, "Chapters")
    await page.wait("document.querySelector('ss-player').now >= 2")
    await page.wait("document.querySelector('.subtitle').textContent === 'Later'")


@pytest.mark.parametrize("answer", ["new Response(null, { status: 503 })", "Promise.reject(new TypeError())"])
async def test_subtitles_that_cannot_be_had_now_are_not_chosen(page: Page, gateway: Served, answer: str) -> None:
    await show_subtitled(page, gateway)
    await page.wait(f"{VIDEO}.readyState >= 3")  # nothing else is said
    await page.run(
        f"""
        const whole = self.fetch;
        self.fetch = (path, ...more) => (self.back || !String(path).endsWith(".vtt") ? whole(path, ...more) : {answer});
        self.choose = () => {{
          const select = document.querySelector("[aria-label=Subtitles]");
          select.selectedIndex = 1;
          select.dispatchEvent(new Event("change"));
        }};
        choose();
        """
    )
    curtain = "document.querySelector('[data-curtain]')"
    await page.wait(f"{curtain}.checkVisibility() && /cannot be had now/.test({curtain}.textContent)")
    assert await page.run("return document.querySelector('[aria-label=Subtitles]').value") == ""
    await page.run("self.back = true; choose();")
    await page.wait("document.querySelector('.subtitle')?.textContent === 'First & foremost'")


async def test_cues_of_a_film_that_starts_late_come_with_its_pictures(page: Page, gateway: Served) -> None:
    """Its stream begins with the first picture, two seconds later than its cues count from."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True, start=2 * RATE * FRAME)
    await showing.begin()
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    await showing.convert(0, 1, 2)
    await page.open("/jobs/J1")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")
    await page.run(
        """
        const select = document.querySelector("[aria-label=Subtitles]");
        select.selectedIndex = 1;
        select.dispatchEvent(new Event("change"));
        """
    )
    await page.run("document.querySelector('ss-player').seekTo(0.7, false)")
    await page.wait("document.querySelector('.subtitle')?.textContent === 'Later'")
    assert await page.run("return document.querySelector('ss-player').now") < 2


async def test_subtitles_that_come_late_come_to_a_page_that_is_open(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True)
    await showing.begin()
    await showing.convert(0)
    await page.open("/jobs/J1")
    await page.wait("document.querySelectorAll('[aria-label=Chapters] option').length === 2")
    assert await page.run("return document.querySelector('[aria-label=Subtitles]')") is None
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    await showing.convert(1)
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")


async def test_the_anaglyph_has_the_left_eye_in_red_and_the_right_in_cyan(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1,))
    await showing.begin()
    await showing.convert(0)
    await page.open("/jobs/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")
    pixel = await page.run(
        """
        const glass = document.querySelector("ss-player").glass;
        const read = () => {
          glass.draw();
          const copy = document.createElement("canvas");
          copy.width = glass.canvas.width;
          copy.height = glass.canvas.height;
          const context = copy.getContext("2d");
          context.drawImage(glass.canvas, 0, 0);
          return [...context.getImageData(4, copy.height / 2, 1, 1).data];
        };
        glass.show("anaglyph");
        const straight = read();
        glass.swap = true;
        return [straight, read()];
        """
    )
    # The left eye begins with a white bar, the right one is dark grey all over.
    (red, green, blue, _), (swapped_red, swapped_green, swapped_blue, _) = pixel
    assert red > green + 80
    assert red > blue + 80
    assert swapped_green > swapped_red + 80
    assert swapped_blue > swapped_red + 80


async def test_a_film_with_the_right_eye_first_is_shown_the_right_way(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1,))
    await showing.begin()
    chosen = Options(swap_eyes=True)
    await records.change_job(gateway.context.bus, "J1", lambda job: job.model_copy(update={"options": chosen}))
    await showing.convert(0)

    async def known() -> bool:
        return (await gateway.client.get("/api/v1/jobs/J1")).json()["options"]["swap_eyes"]

    await eventually(known, what="the option")
    await page.open("/jobs/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")
    told = """
        const player = document.querySelector("ss-player");
        return [player.glass.swap, player.bar.querySelector("[data-do=swap]").getAttribute("aria-pressed")];
    """
    assert await page.run(told) == [True, "false"]
    await page.run("document.querySelector('ss-player').swap()")
    assert await page.run(told) == [False, "true"]


async def test_a_failure_says_why_and_what_to_do(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await page.open("/jobs/J1")
    failure = Failure(code="NO_FRAMES", sentence="The video holds no frame that decodes.", advice="Play it first.")

    def fail(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, failure, at=9.0)

    await records.change_job(gateway.context.bus, "J1", fail)
    text = await page.wait("document.querySelector('.failure')?.textContent")
    await page.wait("document.querySelector('ss-player').hidden")  # there is no picture to wait for
    assert failure.sentence in text
    assert failure.advice in text
    assert "NO_FRAMES" in text
    await page.run("document.querySelector('[data-action=retry]').click()")
    await page.wait("document.querySelector('[data-label]').textContent === 'Reading the film'")
    await page.wait("!document.querySelector('.failure')")


async def test_a_warning_says_where_to_look(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    report = {"disparity_p1": -1.0, "disparity_p99": 0.5, "violation_places": [0.0, 0.5]}
    text = "Things are cut off by the edge."

    def warn(job: jobs.Job) -> jobs.Job:
        notice = Notice(code="WINDOW_VIOLATIONS", text=text)
        return job.model_copy(update={"warnings": (notice,), "report": report, "duration_seconds": 8.0})

    await records.change_job(gateway.context.bus, "J1", warn)
    await page.open("/jobs/J1")
    said = await page.run("return document.querySelector('.note.warning').textContent")
    assert said == f"Around 0:00 and 0:04: {text} WINDOW_VIOLATIONS"


async def test_a_page_recovers_from_a_gateway_restart_without_a_reload(
    driver: Any, server: Nats, tmp_path: Path
) -> None:
    async with served(server, tmp_path) as first:
        showing = Showing(first.context, "J1")
        await showing.begin()
        await showing.convert(0)
        page = Page(driver, first.url)
        await page.open("/jobs/J1")
        await page.wait("document.querySelectorAll('ss-strip button.done').length === 1")
        await page.run("self.same = true")
    port = int(first.url.rpartition(":")[2])
    async with served(server, tmp_path, port=port) as second:
        showing.context = second.context
        await showing.convert(1)
        await page.wait("document.querySelectorAll('ss-strip button.done').length === 2")
        assert await page.run("return self.same")
        assert await page.run("return document.getElementById('offline').hidden")
        await page.open("/livez")
    await page.complaints()


async def test_a_title_cannot_become_markup(page: Page, gateway: Served) -> None:
    title = "<img src=x onerror=\"document.title='bad'\">\"'</script>"
    await Showing(gateway.context, "J1").begin()

    def rename(job: jobs.Job) -> jobs.Job:
        return job.model_copy(update={"title": title})

    await records.change_job(gateway.context.bus, "J1", rename)
    for path in ("/", "/jobs", "/jobs/J1", "/watch/J1"):
        await page.open(path)
        await page.wait("document.body.textContent.includes('onerror')")
        assert await page.run("return document.querySelectorAll('img[src=x]').length") == 0
        assert await page.run("return document.title") != "bad"


async def test_names_for_everything_that_can_be_pressed(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    for path in ("/", "/jobs", "/jobs/J1", "/watch/J1", "/workers", "/dead-letters", "/launch"):
        await page.open(path)
        nameless = await page.run(
            """
            return [...document.querySelectorAll("button, a, input, select, progress")].filter((item) => {
              if (item.closest("[hidden], [aria-hidden=true]") || item.type === "hidden") return false;
              const labels = [...(item.labels ?? [])].map((label) => label.textContent).join("");
              return !(item.textContent.trim() || item.getAttribute("aria-label") || labels.trim());
            }).map((item) => item.outerHTML);
            """
        )
        assert nameless == [], path
        assert await page.run("return document.querySelectorAll('h1').length") == 1, path
        assert await page.run("return document.documentElement.scrollWidth <= innerWidth"), path


async def test_a_card_whose_picture_cannot_be_had_shows_the_rings(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs")
    picture = "document.querySelector('.card .picture')"
    await page.wait(f"{picture}.querySelector('img').naturalWidth && !{picture}.querySelector('svg').checkVisibility()")
    await page.run(f"{picture}.querySelector('img').src = '/static/not-there.jpg'")
    await page.wait(f"!{picture}.querySelector('img') && {picture}.querySelector('svg').checkVisibility()")
    [missing] = await page.complaints()
    assert "not-there" in missing


COPY = "document.querySelector('[data-copy]')"


async def test_the_command_is_copied_and_only_then_says_so(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": gateway.url}
    await page.do(lambda driver: driver.execute_cdp_cmd("Browser.grantPermissions", grant))
    await page.open("/jobs/J1")
    await page.do(lambda driver: driver.find_element("css selector", "[data-copy]").click())
    await page.wait(f"{COPY}.textContent === 'Copied'")
    copied = await page.run("return navigator.clipboard.readText()")
    assert copied.startswith("curl ")
    assert gateway.url in copied
    # As on a plain address in the network, where a page has no clipboard.
    await page.open("/jobs/J1")
    await page.run("navigator.clipboard.writeText('something else')")
    await page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    await page.do(lambda driver: driver.find_element("css selector", "[data-copy]").click())
    await page.wait(f"{COPY}.textContent === 'Copied'")
    await page.run("delete navigator.clipboard")
    assert await page.run("return navigator.clipboard.readText()") == copied
    assert not await page.run("return document.querySelector('[data-by-hand]').checkVisibility()")


async def test_a_command_that_cannot_be_copied_is_shown_chosen(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs/J1")
    await page.run(
        """
        Object.defineProperty(navigator, "clipboard", { value: undefined });
        document.execCommand = () => false;
        """
    )
    await page.do(lambda driver: driver.find_element("css selector", "[data-copy]").click())
    await page.wait("document.querySelector('[data-by-hand]').checkVisibility()")
    assert await page.run(f"return {COPY}.textContent") == "Copy as curl"
    chosen = """
        const { value, selectionStart: start, selectionEnd: end } = document.activeElement;
        return value.slice(start, end);
    """
    assert (await page.run(chosen)).startswith("curl ")


async def test_the_head_stays_where_it_is_from_page_to_page(page: Page, gateway: Served) -> None:
    """Also from one that scrolls to one that does not."""
    await Showing(gateway.context, "J1").begin()
    places: dict[str, float] = {}
    for path in ("/jobs/J1", "/workers"):
        await page.open(path)
        places[path] = await page.run("return document.querySelector('.brand').getBoundingClientRect().left")
        scrolls = await page.run("return document.documentElement.scrollHeight > innerHeight")
        assert scrolls is (path == "/jobs/J1")
    assert len(set(places.values())) == 1
