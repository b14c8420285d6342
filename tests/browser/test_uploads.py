"""Films on their way up: cut off by a reload, by the network, or by the one who sends them, and whole at the end."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stereospot import keys, records, subjects
from stereospot.messages import Worker
from tests.browser.conftest import Page, only
from tests.system.gateway import Served
from tests.system.showing import film

pytestmark = pytest.mark.browser

SIZE = 24 << 20
RATE = 3 << 20
"""Bytes a second while a test interferes."""

SAID = "document.querySelector('.uploads .said')?.textContent"
BAR = "document.querySelector('.uploads progress').value"


@dataclass
class Sent:
    """A file, what is in it, and the same under another name."""

    path: Path
    body: bytes
    other: Path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@pytest.fixture
def long_film(tmp_path: Path) -> Sent:
    """A film that takes seconds to send."""
    start = film(2)
    sent = Sent(tmp_path / "Long.mp4", start + bytes(range(256)) * ((SIZE - len(start)) // 256), tmp_path / "Other.mp4")
    sent.path.write_bytes(sent.body)
    sent.other.write_bytes(sent.body)
    return sent


async def network(page: Page, *, rate: int = -1, offline: bool = False) -> None:
    conditions: dict[str, Any] = {
        "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate,
    }  # fmt: skip

    def emulate() -> None:
        page.driver.execute_cdp_cmd("Network.enable", {})
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    await asyncio.to_thread(emulate)


@pytest.fixture(autouse=True)
async def _as_it_was(page: Page) -> AsyncGenerator[None]:
    """Whatever a test does to the network ends with it."""
    yield
    await network(page)


async def choose(page: Page, path: Path) -> None:
    await page.do(lambda driver: driver.find_element("css selector", "input[type=file]").send_keys(str(path)))


async def stored(page: Page, gateway: Served) -> str:
    """The sha256 of what the job that the page went to was made of."""
    await page.wait("location.pathname.startsWith('/jobs/')", seconds=40)
    found = await records.get_job(gateway.context.bus, await page.run("return location.pathname.split('/').pop()"))
    assert found is not None
    key = found[0].source.key
    assert key is not None
    assert keys.parse_source(key) is not None
    body = await gateway.context.store.get(key)
    assert body is not None
    return hashlib.sha256(body).hexdigest()


async def received(gateway: Served) -> int:
    """Bytes of uploads that the gateway took in, as its metrics count them."""
    text = (await gateway.client.get("/metrics")).text
    [count] = re.findall(r"^stereospot_upload_bytes_total ([\d.e+]+)$", text, re.MULTILINE)
    return int(float(count))


async def test_it_goes_on_after_a_reload(page: Page, gateway: Served, long_film: Sent) -> None:
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.3")
    await asyncio.to_thread(page.driver.refresh)
    said = await page.wait(SAID)
    assert re.fullmatch(r"\d+ % is here already. Choose the same file to go on.", said)
    assert int(said.split()[0]) >= 5
    await network(page)
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == len(long_film.body), "no byte was sent twice"
    await page.open("/")
    assert await page.run("return Object.keys(localStorage).filter((key) => key.includes('upload')).length") == 0


async def test_it_goes_on_when_the_network_is_back(page: Page, gateway: Served, long_film: Sent) -> None:
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.2")
    await network(page, offline=True)
    await page.wait(f"{SAID}?.startsWith('The connection broke.')")
    await network(page)
    assert await stored(page, gateway) == long_film.sha256
    # The broken connection is what was asked for.
    await only(page, "ERR_INTERNET_DISCONNECTED")


async def test_pause_go_on_and_stop(page: Page, gateway: Served, long_film: Sent) -> None:
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.2")
    await page.run("document.querySelector('.uploads [data-do=pause]').click()")
    await page.wait(f"{SAID}.startsWith('Paused at')")
    assert await page.run("return document.querySelector('.uploads [data-do=pause]').textContent") == "Go on"
    await network(page)
    await page.run("document.querySelector('.uploads [data-do=pause]').click()")
    assert await stored(page, gateway) == long_film.sha256
    # Another one is stopped: nothing of it stays, here or there.
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.other)
    await page.wait(f"{BAR} > 0.2")
    location = await page.run("return JSON.parse(localStorage.getItem(Object.keys(localStorage)[0])).location")
    await network(page)
    await page.run("document.querySelector('.uploads [data-do=stop]').click()")
    await page.wait("document.querySelector('.uploads').hidden")

    async def gone() -> bool:
        return (await gateway.client.get(location)).status_code == 404

    await page.until(gone, "the end of the upload")


async def test_a_file_that_is_no_film_is_refused_with_the_reason(page: Page, gateway: Served, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(b"only text, whatever its name says\n" * 100)
    await page.open("/")
    await choose(page, path)
    await page.wait("document.querySelector('.uploads li.failed')")
    said = await page.run(f"return {SAID}")
    assert len(said) > 20
    # The browser notes the refusal in its console.
    [complaint] = await page.complaints()
    assert "415" in complaint
    # What the server has dropped is not asked for again: neither at the next visit nor when the row is dismissed.
    kept = "Object.keys(localStorage).filter((key) => key.includes('upload')).length"
    assert await page.run(f"return {kept}") == 0
    await page.run("document.querySelector('.uploads [data-do=stop]').click()")
    assert await page.wait("document.querySelector('.uploads').hidden")
    await page.open("/")
    assert await page.complaints() == []


async def test_a_paste_and_a_folder(page: Page, gateway: Served) -> None:
    await page.open("/")
    await page.run(
        """
        const data = new DataTransfer();
        data.items.add(new File([""], "pasted.mp4", {type: "video/mp4"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        const file = (name, type) => ({ isFile: true, file: (done) => done(new File([""], name, {type})) });
        const batches = [[file("b.mkv", ""), file("cover.jpg", "image/jpeg")], [file("a.mp4", "video/mp4")],
                         [file("b.srt", "")], []];
        const folder = { isDirectory: true, createReader: () => ({ readEntries: (done) => done(batches.shift()) }) };
        const drop = new Event("drop", {cancelable: true});
        drop.dataTransfer = { types: ["Files"], files: [], items: [{ webkitGetAsEntry: () => folder }] };
        dispatchEvent(drop);
        """
    )
    await page.wait("document.querySelectorAll('.uploads li.failed').length === 3")
    names = await page.run("return [...document.querySelectorAll('.uploads .name')].map((item) => item.textContent)")
    assert names == ["pasted.mp4", "a.mp4", "b.mkv"]
    left_out = "document.querySelector('[data-left-out]')"
    assert await page.run(f"return {left_out}.checkVisibility()")
    text = await page.run(f"return {left_out}.textContent")
    assert text == "2 files are not films and were left out: b.srt, cover.jpg"


async def test_a_folder_is_chosen_and_what_is_no_film_in_it_is_named(
    page: Page, gateway: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "Holidays"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "One.mp4").write_bytes(film(1))
    for number in range(10):
        (folder / f"{number}.txt").write_text("notes")
    await page.open("/")
    await page.do(lambda driver: driver.find_element("css selector", "[data-folder]").send_keys(str(folder)))
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 1")
    assert await page.run("return document.querySelector('.card h3').textContent") == "One"
    # It stays to be read: a film alone leads to its page otherwise.
    text = await page.wait(
        "document.querySelector('[data-left-out]').checkVisibility() && location.pathname === '/' && "
        "document.querySelector('[data-left-out]').textContent"
    )
    names = ", ".join(f"{number}.txt" for number in range(8))
    assert text == f"10 files are not films and were left out: {names} and 2 more"


DAMAGE = """
const { send, setRequestHeader } = XMLHttpRequest.prototype;
XMLHttpRequest.prototype.setRequestHeader = function (name, value) {
  if (name === "Upload-Checksum") sessionStorage.sums = (sessionStorage.sums ?? "") + value.split(" ")[0] + " ";
  return setRequestHeader.call(this, name, value);
};
XMLHttpRequest.prototype.send = function (body) {
  this.addEventListener("load", () => { sessionStorage.answers = (sessionStorage.answers ?? "") + this.status + " "; });
  let sent = body;
  if (body.byteLength && Number(sessionStorage.damages) > 0) {
    sessionStorage.damages -= 1;
    sent = body.slice(0);
    new Uint8Array(sent)[1000] ^= 1;
  }
  return send.call(this, sent);
};
sessionStorage.clear();
sessionStorage.damages = arguments[0];
"""
"""As many pieces as the test says are changed on their way by one bit."""


async def test_a_damaged_piece_is_refused_and_sent_again(page: Page, gateway: Served, long_film: Sent) -> None:
    await page.open("/")
    await page.run(DAMAGE, 2)
    await choose(page, long_film.path)
    await page.wait(f"{SAID}?.startsWith('Some bytes arrived damaged. Sending them again in ')")
    assert await stored(page, gateway) == long_film.sha256
    answers, sums = await page.run("return [sessionStorage.answers, sessionStorage.sums]")
    assert answers.split()[:3] == ["460", "460", "204"]
    assert set(answers.split()[2:]) == {"204"}
    assert set(sums.split()) == {"sha256"}
    assert len(sums.split()) == len(answers.split()) >= 4 + 2
    assert await received(gateway) == len(long_film.body)
    assert len([item for item in await page.complaints() if "460" in item]) == 2


async def test_a_line_that_damages_everything_is_no_line(page: Page, gateway: Served, long_film: Sent) -> None:
    await page.open("/")
    await page.run(DAMAGE, 1000)
    await page.run("const wait = self.setTimeout; self.setTimeout = (act, pause) => wait(act, Math.min(pause, 50));")
    await choose(page, long_film.path)
    said = await page.wait("document.querySelector('.uploads li.failed .said')?.textContent")
    assert "not the bytes that were announced" in said
    assert await page.run("return sessionStorage.answers") == "460 " * 5
    await page.run("document.querySelector('.uploads [data-do=stop]').click()")
    assert len(await page.complaints()) == 5


async def test_where_the_browser_makes_no_sums_it_goes_without(page: Page, gateway: Served, long_film: Sent) -> None:
    """As on a plain address in the network, where pages have no `crypto.subtle`."""
    await page.open("/")
    await page.run(DAMAGE, 0)
    await page.run("Object.defineProperty(crypto, 'subtle', { value: undefined })")
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await page.run("return [sessionStorage.answers, sessionStorage.sums ?? null]") == ["204 ", None]


async def test_a_server_without_tus_gets_the_file_in_one_piece(page: Page, gateway: Served, long_film: Sent) -> None:
    await page.open("/")
    # As if the answer to the creation came from a server that does not know the protocol.
    await page.run(
        """
        const has = Headers.prototype.has;
        Headers.prototype.has = function (name) { return name !== "Tus-Resumable" && has.call(this, name); };
        const open = XMLHttpRequest.prototype.open;
        XMLHttpRequest.prototype.open = function (method, ...rest) {
          sessionStorage.methods = (sessionStorage.methods ?? "") + method;
          return open.call(this, method, ...rest);
        };
        """
    )
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await page.run("return sessionStorage.methods") == "PUT"


async def test_the_form_offers_what_is_there_and_the_job_gets_it(page: Page, gateway: Served, tmp_path: Path) -> None:
    card = Worker(
        worker_id="w", host="h", pid=1, pool="cpu", slots=1, started_at=0, seen_at=0, engines=("cues", "relief", "user")
    )
    await gateway.context.bus.bucket(subjects.WORKERS).put("w", card)

    async def known() -> bool:
        return (await gateway.client.get("/api/v1/capabilities")).json()["engines_present"] == list(card.engines)

    await page.until(known, "the worker")
    await page.open("/")
    await page.run("document.querySelector('details.more').open = true")
    offered = """
        return Object.fromEntries(["engine", "codec", "container"].map((name) =>
          [name, [...document.querySelector(`.options [name=${name}]`).options].map((item) => item.value)]));
    """
    assert await page.run(offered) == {
        "engine": ["", "cues", "relief"],
        "codec": ["", "x264", "x265", "svtav1"],
        "container": ["", "mov", "mkv"],
    }
    helps = await page.run(
        """
        return ["divergence", "convergence"].map((name) => document.getElementById(
          document.querySelector(`[name=${name}]`).getAttribute("aria-describedby")).checkVisibility());
        """
    )
    assert helps == [True, True]
    await page.run(
        """
        const form = document.querySelector("form.drop");
        const wanted = { engine: "cues", codec: "svtav1", container: "mkv" };
        for (const [name, value] of Object.entries(wanted)) form[name].value = value;
        form.crf.value = "24";
        """
    )
    path = tmp_path / "One.mp4"
    path.write_bytes(film(1))
    await choose(page, path)
    await page.wait("location.pathname.startsWith('/jobs/')")
    found = await records.get_job(gateway.context.bus, await page.run("return location.pathname.split('/').pop()"))
    assert found is not None
    options = found[0].options
    assert (options.engine, options.codec, options.container, options.crf) == ("cues", "svtav1", "mkv", 24)
    facts = "[...document.querySelectorAll('.facts > div')].find((item) => item.textContent.startsWith('Quality'))"
    assert await page.run(f"return {facts}.querySelector('dd').textContent") == "Smaller file (crf 24), AV1, mkv"
