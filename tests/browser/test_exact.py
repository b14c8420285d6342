"""Exactly the film, by HLS in a browser: every picture at its time and in its order, every sample of the sound once.

A loaded machine leaves out pictures when it presents them, so what is presented is gathered over several passes; what
is decoded is counted, and every picture is gone to by itself.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver

from services import submit
from stereospot.media import boxes
from stereospot.options import Layout, Options
from stereospot.settings import Settings
from tests.browser import counted
from tests.browser.conftest import Page
from tests.browser.counted import Counted
from tests.browser.house import House, opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLAYER = "document.querySelector('ss-player')"
VIDEO = "document.querySelector('video')"

PASSES = 5
"""How often a film may be played until every one of its pictures was presented."""

BLOCK = 1024
"""Samples of one frame of AAC."""

OPTIONS = Options(
    engine="flat", preset="ultrafast", crf=8, layout=Layout.FULL_SBS, container="mkv", segment_seconds=1.0
)
"""Matroska, which browsers do not play by themselves: the finished film goes by HLS, too."""

WATCH = f"""
const video = {VIDEO};
const note = (_, frame) => {{
  seen.push([frame.mediaTime, ...numbersIn(video)]);
  video.requestVideoFrameCallback(note);
}};
video.requestVideoFrameCallback(note);
for (const name of ["waiting", "stalled", "error"]) {{
  video.addEventListener(name, () => troubles.push([name, video.currentTime]));
}}
"""
"""Notes of every picture that is presented: its time, and the numbers of both eyes."""

TAKE = """
self.taken = [];
self.seen = [];
self.troubles = [];
const add = SourceBuffer.prototype.appendBuffer;
const kinds = new WeakMap();
const make = MediaSource.prototype.addSourceBuffer;
MediaSource.prototype.addSourceBuffer = function (kind) {
  const buffer = make.call(this, kind);
  kinds.set(buffer, kind);
  return buffer;
};
SourceBuffer.prototype.appendBuffer = function (data) {
  const view = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
  const copy = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
  taken.push([kinds.get(this), copy, this.timestampOffset]);
  return add.call(this, data);
};
"""
"""Keeps all that the browser's decoders are given, and by how much they move it; has room for what `WATCH` notes."""

GIVEN = """
const parts = taken.filter(([kind]) => kind.startsWith(arguments[0])).map(([, data]) => data);
return parts.map((part) => {
  let text = "";
  for (let at = 0; at < part.length; at += 8192) text += String.fromCharCode(...part.subarray(at, at + 8192));
  return btoa(text);
});
"""

GO_TO = """
const [seconds, done] = arguments;
const { video, glass } = document.querySelector("ss-player");
const eye = (mode) => {
  glass.mode = mode;
  glass.draw();
  return numberIn(glass.canvas, 0, glass.canvas.width, glass.canvas.height);
};
const shown = new Promise((resolve) => video.requestVideoFrameCallback((_, frame) => resolve(frame.mediaTime)));
// Before that there may be nothing to draw.
const there = new Promise((resolve) => video.addEventListener("seeked", resolve, { once: true }));
Promise.all([shown, there]).then(([time]) => done([time, ...numbersIn(video), eye("right"), eye("left")]));
video.currentTime = seconds;
"""
"""The picture at a place: its time, the numbers of both halves, and what the player draws for each eye."""

HEARD = """
const [parts, done] = arguments;
const bytes = parts.map((part) => Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0)));
const context = new OfflineAudioContext(2, 48000, 48000);
new Blob(bytes).arrayBuffer().then((data) => context.decodeAudioData(data)).then((sound) => {
  const heard = new Uint8Array(sound.getChannelData(0).slice().buffer);
  let text = "";
  for (let at = 0; at < heard.length; at += 8192) text += String.fromCharCode(...heard.subarray(at, at + 8192));
  done(btoa(text));
}, (problem) => done(String(problem)));
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[House]:
    async with opened(Settings(data_dir=tmp_path / "data")) as found:
        yield found


@pytest.fixture
async def page(driver: webdriver.Chrome, house: House) -> AsyncGenerator[Page]:
    shown = Page(driver, f"http://127.0.0.1:{house.context.settings.port}")
    await shown.complaints()
    add = "Page.addScriptToEvaluateOnNewDocument"
    script = await shown.do(lambda driver: driver.execute_cdp_cmd(add, {"source": counted.READ + TAKE}))
    yield shown
    remove = "Page.removeScriptToEvaluateOnNewDocument"
    await shown.do(lambda driver: driver.execute_cdp_cmd(remove, script))
    complaints = await shown.complaints()
    await shown.leave()
    assert complaints == []


async def submitted(house: House, film: Counted) -> str:
    source = await submit.local_source(film.path, None)
    return (await submit.create(house.context, source, OPTIONS, title="Counted")).job_id


async def ask_later(page: Page, script: str, *arguments: Any) -> Any:
    """What a script hands to its callback."""
    return await asyncio.to_thread(page.driver.execute_async_script, script, *arguments)


async def press(page: Page, keys: str) -> None:
    await page.do(lambda driver: webdriver.ActionChains(driver).send_keys(keys).perform())


async def seams(page: Page, job_id: str) -> list[float]:
    """Where one segment ends and the next begins, in seconds."""
    address = f"/api/v1/jobs/{job_id}/segments"
    found = await page.run("return fetch(arguments[0]).then((answer) => answer.json())", address)
    return [item["start_seconds"] for item in found["segments"][1:]]


def in_order(film: Counted, seen: list[list[float]]) -> set[int]:
    """The pictures that one pass presented; each was what its time says, in both eyes, and none came back."""
    last = -1
    found: set[int] = set()
    for time, left, right in seen:
        number = film.number(time)
        assert number >= last, f"picture {number} after {last}"
        assert left == right
        # On a loaded machine the next picture may have come before this one was looked at.
        assert number <= left <= number + 2, f"at {time} stands picture {left}, not {number}"
        last = number
        found.add(number)
    return found


def fidelity(source: np.ndarray[Any, Any], heard: np.ndarray[Any, Any], at: int, lag: int) -> float:
    """How well a block of the sound is what the source has `lag` samples later, in decibels."""
    wanted, got = source[:, at + lag : at + lag + BLOCK], heard[:, at : at + BLOCK]
    return float(10 * np.log10((wanted**2).sum() / (((wanted - got) ** 2).sum() + 1e-12)))


def is_the_sound(source: np.ndarray[Any, Any], heard: np.ndarray[Any, Any], lag: int = 0) -> None:
    """Every block stands `lag` samples before where it stands in the source, and not one sample beside it.

    The first ones may be told less well: a decoder begins without what came before, and no encoder keeps the jolt with
    which the sweep begins.
    """
    length = min(heard.shape[1], source.shape[1] - lag)
    for at in range(4 * BLOCK, length - 2 * BLOCK, BLOCK):
        moved = [fidelity(source, heard, at, lag + beside) for beside in (-BLOCK, -1, 1, BLOCK)]
        assert fidelity(source, heard, at, lag) > 20 > 17 > max(moved), f"at {at / counted.SOUND_RATE} s"


async def given(page: Page, kind: str) -> list[bytes]:
    """What the browser's decoder for "video" or "audio" was given, in order."""
    return [base64.b64decode(part) for part in await page.run(GIVEN, kind)]


async def ranges(page: Page, name: str) -> list[list[float]]:
    script = "return [...Array(found.length)].map((_, at) => [found.start(at), found.end(at)])"
    return await page.run(f"const found = {VIDEO}[arguments[0]]; {script}", name)


async def load(page: Page, film: Counted) -> None:
    """Begin anew, and have everything there before it plays."""
    await page.wait(f"{PLAYER}.hls !== null")
    forget = "for (const kept of [taken, seen, troubles]) kept.length = 0"
    begin = "player.load(player.dataset.hls, { index: 0, seconds: 0 })"
    await page.run(f"const player = {PLAYER}; player.hls.destroy(); {forget}; {begin}")
    whole = f"{VIDEO}.buffered.length === 1 && {VIDEO}.buffered.end(0) > {film.seconds - 0.03}"
    await page.wait(f"{VIDEO}.readyState === 4 && {VIDEO}.currentTime === 0 && {whole}")


async def look_at(page: Page, film: Counted, number: int) -> None:
    """Go to one picture; it is the one, at its time and in both eyes, in the video and in what the player draws."""
    time, *numbers = await ask_later(page, GO_TO, film.times[number] + 0.01)
    assert (film.number(time), numbers) == (number, [number] * 4)


async def test_every_picture_while_it_converts(page: Page, house: House, tmp_path: Path) -> None:
    film = await asyncio.to_thread(counted.write, tmp_path / "Counted.mp4", 132)
    await house.allow(0)
    job_id = await submitted(house, film)
    await page.open(f"/watch/{job_id}")
    # Before anything is there, so that the first picture is noted, too.
    await page.run(WATCH + "video.muted = true")
    await house.allow(2)
    edge = f"{PLAYER}.hls.levels[0].details.edge"
    await page.wait(f"{VIDEO}.readyState >= 2 && {edge} > 1.5", seconds=60)
    assert await page.run(f"return {edge}") < 3
    await page.run(f"{VIDEO}.playbackRate = 0.5; {VIDEO}.play()")
    # Up to the edge of what is there, where it waits for what comes next.
    await page.wait(f"{VIDEO}.currentTime > {edge} - 0.3", seconds=30)
    await house.allow()
    await page.wait(f"{VIDEO}.ended", seconds=60)
    found = in_order(film, await page.run("return seen"))
    print(f"presented: {len(found)} of {len(film.times)}, {await page.run('return troubles')}")
    assert await ranges(page, "played") == [[pytest.approx(0, abs=0.01), pytest.approx(film.seconds, abs=0.05)]]
    # A player that waited for the next segment may decode the last one again, so this is a lower bound.
    assert await page.run(f"return {VIDEO}.getVideoPlaybackQuality().totalVideoFrames") >= len(film.times)
    assert len(found) > 0.5 * len(film.times)
    for number in set(range(len(film.times))) - found:
        await look_at(page, film, number)
    # What was decoded is exactly the film, whatever of it this machine had the time to present.
    heard, start = counted.samples(io.BytesIO(b"".join(await given(page, "audio"))))
    assert start == 0
    assert heard.shape[1] >= film.seconds * counted.SOUND_RATE - BLOCK
    is_the_sound(counted.samples(str(film.path))[0], heard)
    pictures = counted.pictures(io.BytesIO(b"".join(await given(page, "video"))))
    assert [number for _, number in pictures] == list(range(len(film.times)))
    assert [time for time, _ in pictures] == pytest.approx(film.times, abs=1e-6)


async def test_every_picture_of_the_finished_film(page: Page, house: House, tmp_path: Path) -> None:
    film = await asyncio.to_thread(counted.write, tmp_path / "Counted.mp4", 132)
    every = set(range(len(film.times)))
    job_id = await submitted(house, film)
    await page.until(lambda: house.finished(job_id), "the end of the job", seconds=60)
    await page.open(f"/watch/{job_id}")
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.run(WATCH + "video.muted = true")
    found: set[int] = set()
    for turn in range(PASSES):
        await load(page, film)
        assert await ranges(page, "buffered") == [[pytest.approx(0, abs=0.01), pytest.approx(film.seconds, abs=0.03)]]
        await page.run(f"troubles.length = 0; {VIDEO}.playbackRate = 0.5; {VIDEO}.play()")
        await page.wait(f"{VIDEO}.ended", seconds=40)
        found |= in_order(film, await page.run("return seen"))
        assert await page.run("return troubles") == [], "it never waits at a seam"
        decoded = f"{VIDEO}.getVideoPlaybackQuality().totalVideoFrames"
        print(f"pass {turn}: {len(found)} of {len(every)} presented, {await page.run(f'return {decoded}')} decoded")
        assert await page.run(f"return {decoded}") == len(every)
        if found == every:
            break
    assert found == every

    cuts = [film.number(seconds) for seconds in await seams(page, job_id)]
    assert len(cuts) > 3
    near = [number for cut in cuts for number in range(cut - 2, cut + 2)]
    for number in near:
        await look_at(page, film, number)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("flac", ".mkv"), ("pcm_s16le", ".mkv")])
async def test_every_sample_of_the_sound(codec: str, suffix: str, page: Page, house: House, tmp_path: Path) -> None:
    film = await asyncio.to_thread(counted.write, tmp_path / f"Sound{suffix}", 120, sound=codec)
    job_id = await submitted(house, film)
    await page.until(lambda: house.finished(job_id), "the end of the job", seconds=60)
    await page.open(f"/watch/{job_id}")
    await page.wait(f"{VIDEO}.readyState >= 2")
    await load(page, film)
    parts = await given(page, "audio")
    cuts = await seams(page, job_id)
    assert len(parts) == 2 + len(cuts), "an init, and one fragment for each segment"
    heard, start = counted.samples(io.BytesIO(b"".join(parts)))
    source, begin = counted.samples(str(film.path))
    assert start == begin == 0
    assert heard.shape[1] >= film.seconds * counted.SOUND_RATE - BLOCK
    is_the_sound(source, heard)
    if codec == "aac":
        # Passed on as it is: nothing was encoded a second time.
        units = [
            part[item.position : item.position + item.size] for part in parts[1:] for item in boxes.read_fragment(part)
        ]
        assert units == counted.units(film.path)[: len(units)]
    # The browser's own decoder gives the same from first to last.
    answer = await ask_later(page, HEARD, [base64.b64encode(part).decode() for part in parts])
    own = np.frombuffer(base64.b64decode(answer), np.float32)
    assert own.shape == heard[0].shape
    assert np.abs(own - heard[0]).max() < 1e-3


async def test_a_seek_plays_from_there_with_its_sound_before_the_middle_is_done(
    page: Page, house: House, tmp_path: Path
) -> None:
    """Three quarters of a minute by the real converter: after the third segment it goes where the viewer is."""
    film = await asyncio.to_thread(counted.write, tmp_path / "Counted.mp4", 1008)
    await house.allow(2)
    job_id = await submitted(house, film)
    await page.open(f"/watch/{job_id}")
    await page.run(WATCH)
    await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.segments?.length > 40", seconds=60)
    cuts = await seams(page, job_id)
    first = next(index for index, seconds in enumerate(cuts, 1) if seconds > 0.6 * film.seconds) - 1
    await page.run("for (const kept of [taken, seen, troubles]) kept.length = 0")
    await press(page, "k6")
    await page.wait("document.querySelector('[data-curtain]').textContent === 'Converting this part first'")
    asked = f"/api/v1/jobs/{job_id}"
    # The one that is in the converter's hands, then those at the playhead; the middle stays undone.
    await house.allow_only([0, 1, 2, *range(first, len(cuts) + 1)])
    anchor = f"{PLAYER}.anchor.seconds"
    place = f"{PLAYER}.now - 0.6 * {PLAYER}.length"
    await page.wait(f"{PLAYER}.anchor.index === {first} && !{VIDEO}.paused && {place} > 1", seconds=60)
    found = await page.run("return fetch(arguments[0] + '/segments').then((answer) => answer.json())", asked)
    done = {item["index"] for item in found["segments"] if item["state"] == "done"}
    assert {0, 1, 2, first} <= done
    assert not done & set(range(3, first))
    # It is heard, and what is heard and seen is that part of the film.
    assert await page.run(f"return {VIDEO}.webkitAudioDecodedByteCount") > 10_000
    begin = await page.run(f"return {anchor}")
    assert begin == pytest.approx(cuts[first - 1], abs=1e-3)
    assert in_order(film, [[time + begin, *numbers] for time, *numbers in await page.run("return seen")])
    heard, start = counted.samples(io.BytesIO(b"".join(await given(page, "audio"))))
    source, _ = counted.samples(str(film.path))
    # The bytes are told in film time, and moved to the run's own by as much as the pictures are.
    assert start == pytest.approx(begin, abs=BLOCK / counted.SOUND_RATE)
    is_the_sound(source, heard, round(start * counted.SOUND_RATE))
    moved = await page.run("return taken.filter(([, data]) => data.length > 2000).map(([,, by]) => by)")
    assert len(moved) > 2
    assert moved == [pytest.approx(-begin, abs=1e-3)] * len(moved)
