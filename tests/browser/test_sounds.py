"""A finished film with several sounds is played by its stream, which has a choice of them; the file has none."""

from __future__ import annotations

import re

import pytest

from stereospot import keys, subjects
from stereospot.media.model import Plan
from stereospot.messages import AudioWork
from tests.browser.conftest import Page
from tests.browser.watching import PLAYER, VIDEO, Bilingual
from tests.system.gateway import Served
from tests.system.showing import VTT, Showing, film

pytestmark = pytest.mark.browser


async def finished(gateway: Served, *, sung: int = 3, subtitles: bool = False) -> Bilingual:
    showing = Bilingual(gateway.context, "J1", lengths=(1, 1, 2), sound=True, subtitles=subtitles)
    await showing.begin()
    await showing.sing(sung)
    await showing.convert(0, 1, 2)
    await showing.finish(film(4))
    return showing


async def handed(gateway: Served) -> str:
    """The path of the page that needs no key."""
    film_path = (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]["film"]
    return re.sub(r"(/v/[^/]+/\d+/).*", r"\1watch", film_path)


async def test_a_finished_film_has_a_choice_of_sound(page: Page, gateway: Served) -> None:
    await finished(gateway)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && document.querySelectorAll('[aria-label=Sound] option').length === 2")
    assert await page.run(f"return [{PLAYER}.whole, Boolean({PLAYER}.hls)]") == [False, True]


async def test_who_has_begun_to_watch_gets_the_choice_at_the_same_place(page: Page, gateway: Served) -> None:
    await finished(gateway)
    await page.open("/watch/J1")
    await page.wait(f"{PLAYER}.hls && {VIDEO}.readyState >= 2")
    # The file again, as if `tracks.json` had answered only after somebody began to watch.
    await page.run(f"{PLAYER}.hls?.destroy(); {PLAYER}.hls = null; {PLAYER}.begin(); {PLAYER}.playFilm()")
    await page.wait(f"{PLAYER}.whole && {VIDEO}.readyState >= 2")
    await page.run(f"{VIDEO}.currentTime = 2.5")
    await page.wait(f"!{VIDEO}.seeking")
    await page.run(f"{PLAYER}.stream()")
    await page.wait(f"{PLAYER}.hls && {VIDEO}.readyState >= 2 && !{VIDEO}.seeking")
    assert await page.run(f"return [{PLAYER}.whole, {VIDEO}.paused, {PLAYER}.now]") == [
        False,
        True,
        pytest.approx(2.5, abs=0.1),
    ]


async def test_the_file_stays_when_a_stream_was_on_its_way(page: Page, gateway: Served) -> None:
    await finished(gateway)
    await page.open("/watch/J1")
    await page.wait(f"{PLAYER}.hls && {VIDEO}.readyState >= 2")
    await page.run(
        f"""
        {PLAYER}.load({PLAYER}.dataset.hls, {{ index: 0, seconds: 0 }}).then(() => {{ self.came = true; }});
        {PLAYER}.playFilm();
        """
    )
    await page.wait("self.came")
    assert await page.run(f"return [{PLAYER}.whole, Boolean({PLAYER}.hls)]") == [True, False]


@pytest.mark.parametrize("is_handed", [False, True], ids=["events", "handed"])
async def test_sound_that_is_whole_after_the_film_is_offered_to_a_page_that_is_open(
    page: Page, gateway: Served, is_handed: bool
) -> None:
    """The pictures are done and subtitles are there; the page that was handed out hears of no event."""
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    showing = await finished(gateway, sung=2, subtitles=True)
    work = AudioWork(job_id="J1", generation=1, attempt=1)
    await gateway.context.bus.publish(subjects.work("audio", "J1", 1), work)
    await page.open(await handed(gateway) if is_handed else "/watch/J1")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")
    assert await page.run(f"return {PLAYER}.whole && !{PLAYER}.sound")
    await showing.sing(3)
    await page.wait("document.querySelectorAll('[aria-label=Sound] option').length === 2")


async def test_subtitles_come_one_after_the_other(page: Page, gateway: Served) -> None:
    showing = Polyglot(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True)
    await showing.begin()
    await showing.convert(0)
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    await page.open("/watch/J1")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")
    await gateway.context.store.put(keys.subtitles("J1", 1, 1, "vtt"), VTT.encode())
    await showing.convert(1)
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 3")
    assert await page.run("return document.querySelectorAll('[aria-label=Subtitles]').length") == 1


class Polyglot(Showing):
    """It has subtitles in two languages."""

    def plan(self) -> Plan:
        plan = super().plan()
        first = plan.source.subtitles[0]
        texts = (first, first.model_copy(update={"stream_index": 4, "language": "fra", "title": "Français"}))
        return plan.model_copy(update={"source": plan.source.model_copy(update={"subtitles": texts})})


class Coded(Polyglot, Bilingual):
    """Sounds and subtitles with codes for names, as films have them."""

    def plan(self) -> Plan:
        source = super().plan().source
        german, commentary = source.audio
        other, french = source.subtitles
        audio = (
            german.model_copy(update={"language": "deu"}),
            commentary.model_copy(update={"language": "eng", "title": "Commentary"}),
        )
        texts = (other.model_copy(update={"language": "ger", "title": None}), french)
        return (
            super().plan().model_copy(update={"source": source.model_copy(update={"audio": audio, "subtitles": texts})})
        )


async def test_menus_have_words_pictures_and_one_order(page: Page, gateway: Served) -> None:
    """Whichever of them came first; here the second of two subtitles, then chapters, then sound, then the first."""
    showing = Coded(gateway.context, "J1", lengths=(1, 1, 2), sound=True, subtitles=True)
    await showing.begin()
    await gateway.context.store.put(keys.subtitles("J1", 1, 1, "vtt"), VTT.encode())
    await showing.sing(3)
    await showing.convert(0, 1, 2)
    await page.open("/watch/J1")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")
    await page.wait("document.querySelectorAll('[aria-label=Sound] option').length === 2")
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 3")
    menus = await page.run(
        """
        return [...document.querySelectorAll(".menus > *")].map((label) => [
          label.title, label.querySelector("svg").checkVisibility(),
          label.querySelector("select").getAttribute("aria-label"),
          [...label.querySelectorAll("option")].map((option) => option.textContent)]);
        """
    )
    assert menus == [
        ["View", True, "View", ["One eye", "Both eyes", "Anaglyph", "Wiggle"]],
        ["Sound", True, "Sound", ["German", "English: Commentary"]],
        ["Subtitles", True, "Subtitles", ["No subtitles", "German", "Français"]],
        ["Chapters", True, "Chapters", ["Chapters", "0:02 The second"]],
    ]


async def test_a_file_of_subtitles_says_of_what_language_it_is(page: Page, gateway: Served) -> None:
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "ass"), b"[Script Info]\n")
    await finished(gateway, subtitles=True)
    await page.open("/jobs/J1")
    said = "[...document.querySelectorAll('[data-about] dt')].find((name) => name.textContent === 'Subtitles')"
    for _ in range(2):
        told = await page.run(f"return {said}.nextElementSibling.textContent")
        assert told == "Holiday.3D.HSBS.LR.ass, English, 14 B"
        # The same when the page asks for it again.
        await page.run("return document.querySelector('ss-job').about()")


async def test_names_of_languages(page: Page) -> None:
    """Codes of three letters of both kinds, codes of two, numbers of namesakes, and what is no code."""
    await page.open("/jobs")
    wanted = {
        ("deu", "deu"): "German", ("ger", "ger"): "German", ("fre 2", "fre"): "French 2",
        ("pt-BR", "pt-BR"): "Brazilian Portuguese", ("SDH", "eng"): "English: SDH",
        ("Español", "spa"): "Español", ("English for the deaf", "eng"): "English for the deaf",
        ("und", "und"): "und", ("Track 1", None): "Track 1", ("?!", "?!"): "?!", ("Subtitles 1", "zzz"): "Subtitles 1",
    }  # fmt: skip
    names = "return import('/static/languages.js').then(({ nameOf }) => arguments[0].map((item) => nameOf(...item)))"
    assert await page.run(names, list(wanted)) == list(wanted.values())


async def test_the_sound_can_be_switched_off(page: Page, gateway: Served) -> None:
    await finished(gateway)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")
    button = "document.querySelector('[data-do=mute]')"
    say = f"[{button}.getAttribute('aria-label'), {VIDEO}.muted, document.querySelector('.loud').value]"
    assert await page.run(f"return {say}") == ["Mute", False, "1"]
    await page.run(f"{button}.click()")
    await page.wait(f"{button}.getAttribute('aria-label') === 'Sound on'")
    assert await page.run(f"return {say}") == ["Sound on", True, "0"]
    await page.run(f"{button}.click()")
    await page.wait(f"{button}.getAttribute('aria-label') === 'Mute'")
    # A slider at its end is silence, too; the button ends it.
    await page.run(f"{VIDEO}.volume = 0")
    await page.wait(f"{button}.getAttribute('aria-label') === 'Sound on'")
    await page.run(f"{button}.click()")
    await page.wait(f"{button}.getAttribute('aria-label') === 'Mute'")
    assert await page.run(f"return {say}") == ["Mute", False, "1"]


LATE = """
const old = document.querySelector("ss-player");
const fresh = old.cloneNode(false);
const screen = old.querySelector(".screen");
screen.querySelector("canvas")?.remove();
fresh.append(screen);
old.replaceWith(fresh);
"""
"""The player begins anew over a picture that is there already, as where its script comes late."""


async def test_a_player_whose_script_comes_late_knows_its_film(page: Page, gateway: Served) -> None:
    await finished(gateway)
    await page.open(await handed(gateway))
    await page.wait(f"{VIDEO}.readyState >= 2 && document.querySelector('[aria-label=Sound]')")
    await page.run(f"{PLAYER}.hls.destroy(); {PLAYER}.hls = null; {PLAYER}.playFilm()")
    await page.wait(f"{PLAYER}.whole && {VIDEO}.readyState >= 2")
    await page.run(LATE)
    assert await page.run("return document.querySelector('[data-length]').textContent") == "0:04"
    await page.wait("document.querySelectorAll('[aria-label=Sound] option').length === 2")
