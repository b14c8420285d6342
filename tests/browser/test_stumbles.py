"""Films on their way up while what lies between stumbles: a proxy, an answer that is lost, a folder half readable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stereospot import records
from stereospot.jobs import Job
from stereospot.options import Codec, Layout
from tests.browser.conftest import Page
from tests.browser.test_uploads import BAR, RATE, SAID, Sent, choose, long_film, network, received, stored
from tests.system.gateway import Served
from tests.system.showing import film

pytestmark = pytest.mark.browser

__all__ = ["long_film"]

UNFINISHED = """
const whole = self.fetch;
const answers = {
  away: () => new Response(null, { status: 503 }),
  gone: () => Response.json({ code: "NOT_FOUND" }, { status: 404 }),
  proxy: () => new Response("<h1>No such page.</h1>", { status: 404 }),
  busy: () => new Response(null, { status: 429 }),
  shut: () => Response.json({ code: "KEY_REQUIRED" }, { status: 401 }),
  here: () => Response.json({ offset: 5 }),
  cut: () => { throw new TypeError("Failed to fetch"); },
};
for (const name of Object.keys(answers)) {
  localStorage.setItem(`stereospot-upload:${name}`, JSON.stringify({ location: name, name, size: 10 }));
}
self.fetch = async (address, ...more) => (answers[address] ?? (() => whole(address, ...more)))();
"""
"""Uploads that another page has begun, and what is answered about each."""

PROXY = """
const [whole, open] = [self.fetch, XMLHttpRequest.prototype.open];
const bad = [...arguments];
sessionStorage.methods = "";
self.fetch = async (address, options) => {
  const status = address === "/api/v1/uploads" && options.method === "POST" && bad.shift();
  return status ? new Response("<h1>It is away.</h1>", { status }) : whole(address, options);
};
XMLHttpRequest.prototype.open = function (method, ...rest) {
  sessionStorage.methods += `${method} `;
  return open.call(this, method, ...rest);
};
"""
"""A proxy that answers the creation of uploads itself, with these states, one after the other."""

LOST = """
const whole = self.fetch;
self.fetch = async (address, options) => {
  const answer = await whole(address, options);
  if (address !== "/api/v1/jobs") return answer;
  self.made = answer.status;
  return new Promise(() => {});
};
"""
"""The job is made, and its answer never arrives."""


async def job_of(page: Page, gateway: Served) -> Job:
    """The job whose page the browser has gone to."""
    await page.wait("location.pathname.startsWith('/jobs/')")
    found = await records.get_job(gateway.context.bus, await page.run("return location.pathname.split('/').pop()"))
    assert found is not None
    return found[0]


@pytest.fixture
def short_film(tmp_path: Path) -> Path:
    path = tmp_path / "One.mp4"
    path.write_bytes(film(1))
    return path


async def test_what_cannot_be_asked_for_now_is_not_forgotten(page: Page, gateway: Served) -> None:
    add, remove = "Page.addScriptToEvaluateOnNewDocument", "Page.removeScriptToEvaluateOnNewDocument"
    added = await page.do(lambda driver: driver.execute_cdp_cmd(add, {"source": UNFINISHED}))
    try:
        await page.open("/")
        assert (await page.wait(SAID)).startswith("50 % is here already.")
    finally:
        await page.do(lambda driver: driver.execute_cdp_cmd(remove, added))
    assert await page.run("return document.querySelectorAll('.uploads li').length") == 1
    await page.run("return new Promise((done) => setTimeout(done, 300))")  # all of them were asked for at once
    kept = await page.run(
        "return Object.keys(localStorage).filter((key) => key.startsWith('stereospot-upload')).sort()"
    )
    assert kept == [f"stereospot-upload:{name}" for name in ("away", "busy", "cut", "here", "proxy", "shut")]


HEADS = """
const whole = self.fetch;
const bad = [...arguments];
self.fetch = async (address, options) => {
  const status = options?.method === "HEAD" && bad.shift();
  return status ? new Response(null, { status }) : whole(address, options);
};
"""
"""A question for the offset that is answered with these states first, one after the other."""

KEPT = "Object.keys(localStorage).filter((key) => key.startsWith('stereospot-upload:')).length"


async def test_an_upload_whose_offset_is_not_told_now_is_not_begun_anew(
    page: Page, gateway: Served, long_film: Sent
) -> None:
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, long_film.path)
    await page.wait(f"{BAR} > 0.3")
    await asyncio.to_thread(page.driver.refresh)
    await page.wait(f"{SAID}?.endsWith('Choose the same file to go on.')")
    await network(page)
    for bad in ((423, 401), (429, 404)):
        await page.run(HEADS, *bad)
        await choose(page, long_film.path)
        said = await page.wait(f"document.querySelector('.uploads li.failed') && {SAID}", seconds=30)
        assert said == f"The server answered {bad[1]}."
        # Who does not want to read that any longer has not given the upload up.
        await page.run("document.querySelector('.uploads [data-do=stop]').click()")
        assert await page.wait("document.querySelector('.uploads').hidden")
        assert await page.run(f"return {KEPT}") == 1
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == len(long_film.body), "no byte was sent twice"


async def test_only_the_servers_word_on_the_file_ends_what_is_kept(page: Page, gateway: Served) -> None:
    await page.open("/")
    said = await page.run(
        """
        return import("/static/upload.js").then(({ outcome }) => [
          [413, "<h1>Too large for this proxy.</h1>"], [401, '{"code": "KEY_REQUIRED"}'],
          [403, '{"code": "FORBIDDEN_ORIGIN"}'], [409, '{"code": "CONFLICT"}'], [503, '{"code": "STORAGE_FULL"}'],
          [415, '{"code": "UNSUPPORTED_CONTAINER"}'], [404, '{"code": "NOT_FOUND"}'],
        ].map(([status, responseText]) => {
          const { final, refused } = outcome(status, { responseText });
          return [final, refused];
        }));
        """
    )
    assert said == [[True, False]] * 3 + [[False, False]] * 2 + [[True, True]] * 2


async def test_a_film_whose_drive_is_unplugged_goes_on_when_it_is_back(
    page: Page, gateway: Served, long_film: Sent, tmp_path: Path
) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    path = drive / "Film.mp4"
    path.write_bytes(long_film.body)
    await page.open("/")
    await network(page, rate=RATE)
    await choose(page, path)
    await page.wait(f"{BAR} > 0.3")
    away = drive.rename(tmp_path / "away")
    await page.wait(f"{SAID}.startsWith('The file cannot be read. Trying again in')")
    away.rename(drive)
    await page.wait(f"{SAID}.endsWith('MB/s')")
    # Away for longer: it is chosen once more, also by somebody who has read what went wrong.
    drive.rename(away)
    await page.run("const wait = self.setTimeout; self.setTimeout = (act, pause) => wait(act, Math.min(pause, 50));")
    said = await page.wait(f"document.querySelector('.uploads li.failed') && {SAID}", seconds=30)
    assert said == "The file cannot be read any more. Choose it again."
    away.rename(drive)
    await network(page)
    await choose(page, path)
    assert await page.run("return document.querySelectorAll('.uploads li').length") <= 1
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == len(long_film.body), "no byte was sent twice"


async def test_what_is_stopped_while_it_is_announced_is_given_up(page: Page, gateway: Served, short_film: Path) -> None:
    await page.open("/")
    await page.run(
        """
        const whole = self.fetch;
        self.fetch = async (address, options) => {
          const answer = await whole(address, options);
          if (options?.method !== "POST" || address !== "/api/v1/uploads") return answer;
          self.location_ = answer.headers.get("Location");
          await new Promise((release) => { self.release = release; });
          return answer;
        };
        """
    )
    await choose(page, short_film)
    location = await page.wait("self.location_")
    await page.run("document.querySelector('.uploads [data-do=stop]').click(); self.release();")

    async def gone() -> bool:
        return (await gateway.client.get(location)).status_code == 404

    await page.until(gone, "the end of the upload")
    assert await page.run(f"return {KEPT}") == 0


async def test_a_long_name_is_cut_between_its_letters(page: Page, gateway: Served) -> None:
    await page.open("/")
    name = await page.run(
        """
        return import("/static/upload.js").then(({ nameOf }) => nameOf({ name: `x${"😀".repeat(250)}.mp4` }));
        """
    )
    assert name == "x" + "\U0001f600" * 199


async def test_a_proxy_whose_server_is_away_ends_no_resumable_upload(
    page: Page, gateway: Served, long_film: Sent
) -> None:
    await page.open("/")
    await page.run(PROXY, 502, 503)
    await choose(page, long_film.path)
    assert await stored(page, gateway) == long_film.sha256
    assert await received(gateway) == len(long_film.body)
    assert set((await page.run("return sessionStorage.methods")).split()) == {"PATCH"}


async def test_who_wants_a_key_first_gets_no_film(page: Page, gateway: Served, short_film: Path) -> None:
    await page.open("/")
    await page.run(PROXY, 401)
    await choose(page, short_film)
    assert await page.wait(f"document.querySelector('.uploads li.failed') && {SAID}") == "The server answered 401."
    assert await page.run("return sessionStorage.methods") == ""


async def test_a_server_that_knows_no_such_thing_gets_the_file_in_one_piece(
    page: Page, gateway: Served, short_film: Path
) -> None:
    await page.open("/")
    await page.run(PROXY, 405)
    await choose(page, short_film)
    await job_of(page, gateway)
    assert await page.run("return sessionStorage.methods") == "PUT "


async def test_a_film_whose_answer_was_lost_can_be_made_with_other_options(
    page: Page, gateway: Served, short_film: Path
) -> None:
    await page.open("/")
    await page.run(LOST)
    await choose(page, short_film)
    assert await page.wait("self.made") == 201
    await page.open("/")
    await page.run("document.querySelector('[name=layout]').value = 'half-tb'")
    await choose(page, short_film)
    assert (await job_of(page, gateway)).options.layout is Layout.HALF_TB


async def test_the_same_options_again_are_the_same_job(page: Page, gateway: Served, short_film: Path) -> None:
    await page.open("/")
    await page.run(LOST)
    await choose(page, short_film)
    await page.wait("self.made")
    await page.open("/")
    await choose(page, short_film)
    await job_of(page, gateway)
    assert len((await gateway.client.get("/api/v1/jobs")).json()["jobs"]) == 1


async def test_the_codec_of_the_film_waits_behind_its_samples(page: Page, gateway: Served, short_film: Path) -> None:
    await page.open("/")
    await page.run(
        """
        const form = document.querySelector("form.drop");
        form.codec.value = "x265";
        form.try.checked = true;
        """
    )
    await choose(page, short_film)
    await page.wait("document.querySelector('[data-whole=a]')?.disabled === false")
    await page.run("document.querySelector('[data-whole=a]').click()")
    assert (await job_of(page, gateway)).options.codec is Codec.X265


async def test_one_entry_that_cannot_be_read_takes_no_other_with_it(page: Page, gateway: Served) -> None:
    await page.open("/")
    await page.run(
        """
        const refuse = (_, failed) => failed(new DOMException("", "NotReadableError"));
        const good = { isFile: true, name: "a.mkv", file: (done) => done(new File([""], "a.mkv")) };
        const folder = (name, readEntries) => ({ isDirectory: true, name, createReader: () => ({ readEntries }) });
        const batches = [[{ isFile: true, name: "b.mkv", file: refuse }, folder("locked", refuse), good], []];
        const outer = folder("Films", (done) => done(batches.shift()));
        const drop = new Event("drop", {cancelable: true});
        drop.dataTransfer = { types: ["Files"], files: [], items: [{ webkitGetAsEntry: () => outer }] };
        dispatchEvent(drop);
        """
    )
    await page.wait("document.querySelectorAll('.uploads li.failed').length === 1")
    assert await page.run("return document.querySelector('.uploads .name').textContent") == "a.mkv"
    text = await page.run("return document.querySelector('[data-left-out]').textContent")
    assert text.endswith("left out: b.mkv (cannot be read), locked (cannot be read)")


async def test_a_film_is_given_without_scripts(page: Page, gateway: Served, short_film: Path) -> None:
    """What a browser says of where a form comes from is enough for the guard."""
    command = "Emulation.setScriptExecutionDisabled"
    await page.do(lambda driver: driver.execute_cdp_cmd(command, {"value": True}))
    try:
        await page.open("/")
        await choose(page, short_film)
        await page.do(lambda driver: driver.find_element("css selector", "button.noscript-only").click())
        where = await page.do(lambda driver: driver.current_url)
    finally:
        await page.do(lambda driver: driver.execute_cdp_cmd(command, {"value": False}))
    ((job, _),) = await records.list_jobs(gateway.context.bus)
    assert where.endswith(f"/jobs/{job.job_id}")
