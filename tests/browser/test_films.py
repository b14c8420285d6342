"""The list of films: what is chosen together is acted on together, and the filters count along."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stereospot import jobs, records
from stereospot.jobs import Phase
from stereospot.messages import Failure
from tests.browser.conftest import Page
from tests.browser.watching import PLAYER, VIDEO
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

COUNTS = (
    "Object.fromEntries([...document.querySelectorAll('[data-count]')].map((at) => [at.dataset.count, at.textContent]))"
)
PRESS = "document.querySelector(`[data-bulk-action=${arguments[0]}]`).click()"
CHOOSE = """
for (const id of arguments) document.querySelector(`.pick input[value=${id}]`).click();
return document.querySelector("[data-bulk-count]").textContent;
"""


async def test_films_that_are_chosen_are_cancelled_and_removed_together(page: Page, gateway: Served) -> None:
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    await page.open("/jobs")
    await page.wait("document.querySelectorAll('.pick input').length === 3")
    assert not await page.run("return document.querySelector('[data-bulk-bar]').checkVisibility()")
    assert (await page.run(f"return {COUNTS}"))["active"] == "3"

    assert await page.run(CHOOSE, "J1", "J3") == "2 chosen"
    assert await page.run("return document.querySelector('[data-bulk-bar]').checkVisibility()")
    await page.run(PRESS, "cancel")
    await page.wait(f"({COUNTS}).cancelled === '2' && ({COUNTS}).active === '1'")
    for job_id, phase in (("J1", Phase.CANCELLED), ("J2", Phase.CONVERTING), ("J3", Phase.CANCELLED)):
        found = await records.get_job(gateway.context.bus, job_id)
        assert found is not None
        assert found[0].phase is phase
    await page.wait("!document.querySelector('[data-bulk-bar]').checkVisibility()")

    await page.wait("document.querySelectorAll('.pick input').length === 3")
    assert await page.run(CHOOSE, "J1", "J2") == "2 chosen"
    await page.run("window.confirm = (said) => { window.asked = said; return true; }")
    await page.run(PRESS, "delete")
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 1")
    assert await page.run("return window.asked") == "Remove 2 films and everything made for them?"
    assert await page.run("return document.querySelector('.card').dataset.job") == "J3"
    await page.wait(f"({COUNTS}).all === '1'")


HOLD = """
const real = window.fetch;
window.held = 0;
window.fetch = async (address, ...more) => {
  const answer = await real(address, ...more);
  if (String(address).endsWith("/jobs/J1/card")) {
    window.held += 1;
    await new Promise((release) => { window.release = release; });
  }
  return answer;
};
"""


async def test_a_card_that_is_on_its_way_does_not_bring_back_a_film_that_was_deleted(
    page: Page, gateway: Served
) -> None:
    for job_id in ("J1", "J2"):
        await Showing(gateway.context, job_id).begin()
    await page.open("/jobs")
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 2")
    await page.run(HOLD)
    assert (await gateway.client.post("/api/v1/jobs/J1/cancel")).status_code < 300
    await page.wait("window.held === 1")
    assert (await gateway.client.post("/api/v1/jobs/J1/delete")).status_code < 300
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 1")
    # What was asked before it went is answered now.
    await page.run("window.release(); return new Promise((done) => setTimeout(done, 200));")
    assert await page.run("return document.querySelector('ss-jobs .card').dataset.job") == "J2"
    assert await page.run("return document.querySelectorAll('ss-jobs .card').length") == 1


AWAY = """
const [what] = arguments;
const whole = self.fetch;
self.away = true;
self.asked = 0;
self.fetch = (path, ...more) => {
  if (!away || !String(path).endsWith(`/jobs/J1/${what}`)) return whole(path, ...more);
  self.asked += 1;
  return asked % 2 ? Promise.reject(new TypeError()) : new Response(null, { status: 502 });
};
"""
"""A piece of a page that cannot be had before the test says so: at times the way is cut, at times a proxy is alone."""


async def test_a_card_that_could_not_be_had_comes_without_another_event(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs")
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 1")
    await page.run(AWAY, "card")
    assert (await gateway.client.post("/api/v1/jobs/J1/cancel")).status_code < 300
    await page.wait("asked >= 2")
    assert await page.run("return document.querySelector('.card').dataset.phase") == "converting"
    await page.run("self.away = false")
    await page.wait("document.querySelector('.card').dataset.phase === 'cancelled'")
    assert await page.run("return document.querySelector('ss-jobs').making.size") == 0


async def test_buttons_that_could_not_be_had_come_without_another_event(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs/J1")
    await page.wait("document.querySelector('[data-action=cancel]') && document.querySelector('ss-job').revision")
    await page.run(AWAY, "about")
    assert (await gateway.client.post("/api/v1/jobs/J1/cancel")).status_code < 300
    await page.wait("document.querySelector('ss-job').dataset.phase === 'cancelled' && asked >= 2")
    await page.run("self.away = false")
    await page.wait("document.querySelector('[data-action=retry]') && !document.querySelector('[data-action=cancel]')")


async def test_what_is_refused_says_so_by_its_buttons(page: Page, gateway: Served) -> None:
    failure = Failure(code="NO_FRAMES", sentence="s", advice="a")
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()

    def fail(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, failure, at=9.0)

    await records.change_job(gateway.context.bus, "J2", fail)
    note = "document.querySelector('[data-refused][role=alert]')"
    await page.open("/jobs")
    await page.wait("document.querySelectorAll('.pick input').length === 3")
    assert not await page.run(f"return {note}.checkVisibility()")
    await page.run(CHOOSE, "J1", "J2")
    await page.run(PRESS, "cancel")
    said = await page.wait(f"{note}.checkVisibility() && {note}.textContent")
    assert said.startswith("1 of 2 refused. ")
    await page.run(CHOOSE, "J2")
    await page.run(PRESS, "cancel")
    await page.wait(f"{note}.checkVisibility() && {note}.textContent === {said.removeprefix('1 of 2 refused. ')!r}")
    # What goes well takes the note away.
    await page.run(CHOOSE, "J3")
    await page.run(PRESS, "cancel")
    await page.wait(f"!{note}.checkVisibility()")

    await page.open("/jobs/J2")
    button = "document.querySelector('[data-action=retry]')"
    await page.wait(button)
    # Another tab was quicker; this page has the button still.
    await page.run(f"const held = {button}; held.dataset.action = 'cancel'; held.click()")
    assert await page.wait(f"{note}.checkVisibility() && {note}.textContent")
    complaints = await page.complaints()
    assert [item for item in complaints if "409" not in item] == []
    assert len(complaints) == 3


async def test_a_finished_film_goes_from_at_work_to_ready(page: Page, gateway: Served) -> None:
    async def go(job_id: str, *phases: Phase) -> None:
        for phase in phases:
            await records.change_job(
                gateway.context.bus, job_id, lambda job, to=phase: jobs.advance(job, to, at=job.updated_at + 1)
            )

    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    titles = "[...document.querySelectorAll(`${arguments[0]} .card`)].map((card) => card.dataset.job).join()"
    await page.open("/")
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 3")
    ready = "document.querySelector('[data-holds=completed]')"
    assert not await page.run(f"return {ready}.checkVisibility()")
    for job_id, shown in (("J2", "J2"), ("J1", "J1,J2")):
        await go(job_id, Phase.ASSEMBLING, Phase.COMPLETED)
        await page.wait(f"[...{ready}.children].map((card) => card.dataset.job).join() === '{shown}'")
        assert await page.run(f"return {ready}.checkVisibility()")
    assert await page.run(f"return {titles}", "ss-jobs") == "J3"
    await go("J3", Phase.CANCELLED)
    await page.wait("!document.querySelector('ss-jobs .card') && document.querySelector('ss-jobs h2').hidden")
    assert await page.run(f"return {titles}", "[data-holds=completed]") == "J1,J2"


async def test_what_failed_or_is_removed_leaves_its_list(page: Page, gateway: Served) -> None:
    """Every list of the home page follows what happens, whoever caused it."""
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    for phase in (Phase.ASSEMBLING, Phase.COMPLETED):
        await records.change_job(
            gateway.context.bus, "J3", lambda job, to=phase: jobs.advance(job, to, at=job.updated_at + 1)
        )
    held = "[...document.querySelectorAll(`${arguments[0]} .card`)].map((card) => card.dataset.job).sort().join()"

    async def lists(work: str, failed: str, ready: str) -> None:
        for where, wanted in (("ss-jobs", work), ("[data-holds=failed]", failed), ("[data-holds=completed]", ready)):

            async def so(where: str = where, wanted: str = wanted) -> bool:
                return await page.run(f"return {held}", where) == wanted

            await page.until(so, f"{wanted or 'nothing'} in {where}")
            heading = "document.querySelector(arguments[0]).closest('.section').querySelector('h2').checkVisibility()"
            assert await page.run(f"return {heading}", where) is bool(wanted), where

    await page.open("/")
    await lists("J1,J2", "", "J3")
    failure = Failure(code="NO_FRAMES", sentence="No frame decodes.", advice="a")
    await records.change_job(
        gateway.context.bus, "J1", lambda job: jobs.fail(job, failure, at=max(time.time(), job.updated_at))
    )
    await lists("J2", "J1", "J3")
    assert await page.run("return document.querySelector('[data-holds=failed] .why').textContent") == failure.sentence
    # Whoever comes later sees it as well.
    await page.open("/")
    await lists("J2", "J1", "J3")
    assert (await gateway.client.post("/api/v1/jobs/J3/delete")).status_code < 300
    await lists("J2", "J1", "")
    assert (await gateway.client.post("/api/v1/jobs/J1/retry")).status_code < 300
    await lists("J1,J2", "", "")


async def test_all_films_of_the_page_are_chosen_by_one_key(page: Page, gateway: Served) -> None:
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> Any:
        return page.do(lambda driver: ActionChains(driver).send_keys(*keys).perform())

    await page.open("/jobs")
    assert not await page.run("return document.querySelector('[data-bulk-all]').checkVisibility()")
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    await page.wait("document.querySelectorAll('.pick input').length === 3")
    state = "(({ checked, indeterminate }) => [checked, indeterminate])(document.querySelector('[data-bulk-all]'))"
    said = "document.querySelector('[data-bulk-count]').textContent"
    await page.wait("document.querySelector('[data-bulk-all]').checkVisibility()")
    await page.run("document.querySelector('[data-bulk-all]').focus()")
    await press(" ")
    assert await page.run(f"return [{said}, ...{state}]") == ["3 chosen", True, False]
    # The next stop of the Tab key is what can be done with them.
    await press(Keys.TAB)
    assert await page.run("return document.activeElement.dataset.bulkAction") == "cancel"
    assert await page.run(CHOOSE, "J2") == "2 chosen"
    assert await page.run(f"return {state}") == [False, True]
    await page.run("document.querySelector('[data-bulk-all]').focus()")
    await press(" ")
    assert await page.run(f"return [{said}, ...{state}]") == ["3 chosen", True, False]
    await press(Keys.TAB, Keys.ENTER)
    await page.wait(f"({COUNTS}).cancelled === '3'")
    assert await page.run(f"return {state}") == [False, False]


async def test_the_filters_keep_what_was_searched_for(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs?q=Holi%26day+x")
    links = "[...document.querySelectorAll('.chips a')].map((link) => Object.fromEntries(new URL(link).searchParams))"
    found = await page.run(f"return {links}")
    assert found[0] == {"q": "Holi&day x"}
    assert found[1] == {"status": "active", "q": "Holi&day x"}
    assert {item["q"] for item in found} == {"Holi&day x"}
    await page.open("/jobs")
    assert (await page.run(f"return {links}"))[:2] == [{}, {"status": "active"}]


async def test_a_film_that_lacks_something_does_not_pass_for_a_whole_one(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    text = "The film ends early: 180 of 377 frames were in the file."
    label = "document.querySelector('[data-job=J1] [data-label], ss-job [data-label]').textContent"
    await page.open("/jobs")
    await page.wait("document.querySelector('.pick')")
    for phase in (Phase.ASSEMBLING, Phase.COMPLETED):

        def step(job: jobs.Job, to: Phase = phase) -> jobs.Job:
            moved = jobs.advance(job, to, at=job.updated_at + 1)
            return moved.with_warning("SOURCE_CUT", text) if to is Phase.COMPLETED else moved

        await records.change_job(gateway.context.bus, "J1", step)
    # The list that is open says so, as whoever comes later reads it, and so does the film's own page.
    await page.wait(f"{label} === 'Done, with a warning' && document.querySelector('.card.lacking')")
    await page.open("/jobs/J1")
    assert await page.run(f"return {label}") == "Done, with a warning"
    assert text in await page.run("return document.querySelector('.note.warning').textContent")


@pytest.mark.parametrize(("seconds", "said"), [(29.999, "0:30"), (4.5, "0:05"), (5.4, "0:05")])
async def test_a_film_is_as_long_on_its_card_as_in_the_player(
    page: Page, gateway: Served, seconds: float, said: str
) -> None:
    await Showing(gateway.context, "J1", lengths=(1,)).begin()

    def last(job: jobs.Job) -> jobs.Job:
        return job.model_copy(update={"duration_seconds": seconds})

    await records.change_job(gateway.context.bus, "J1", last)
    await page.open("/jobs")
    await page.wait(f"document.querySelector('.card .length').textContent === '{said}'")
    await page.open("/jobs/J1")
    await page.wait(f"document.querySelector('[data-length]').textContent === '{said}'")


@pytest.mark.parametrize(("seconds", "before", "said"), [(29.999, "0:29", "0:30"), (1.6, "0:01", "0:02")])
async def test_at_its_end_a_film_has_played_as_long_as_it_is(
    page: Page, gateway: Served, seconds: float, before: str, said: str
) -> None:
    """Its pictures end before that: there is a second of them."""
    showing = Showing(gateway.context, "J1", lengths=(1,))
    await showing.begin()

    def last(job: jobs.Job) -> jobs.Job:
        return job.model_copy(update={"duration_seconds": seconds})

    await records.change_job(gateway.context.bus, "J1", last)
    await showing.convert(0)
    await page.open("/jobs/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && document.querySelector('[data-length]').textContent === '{said}'")
    now = "document.querySelector('[data-now]').textContent"
    told = f"{now}, document.querySelector('.peek span').textContent, {PLAYER}.scrub.getAttribute('aria-valuetext')"
    for place, shown in ((seconds - 0.1, before), (seconds, said), (0, "0:00")):
        await page.run(f"{PLAYER}.scrub.value = {place}; {PLAYER}.scrub.dispatchEvent(new Event('input'))")
        assert await page.run(f"return [{told}]") == [shown] * 3
    await page.run(f"{PLAYER}.scrub.dispatchEvent(new Event('change')); {VIDEO}.play()")
    await page.wait(f"{VIDEO}.ended && {now} === '{said}'")


STUMBLES = """
const whole = self.fetch;
self.asked = [];
self.fetch = async (address, ...more) => {
  asked.push(String(address));
  if (String(address).startsWith("/api/v1/jobs?")) return new Response(JSON.stringify({ jobs: [], next: "more" }));
  if (String(address).endsWith("/jobs/J1")) return new Response("{}", { status: 503 });
  if (String(address).endsWith("/jobs/J2")) return new Response("{}", { status: 404 });
  if (String(address).endsWith("/jobs/J3")) throw new TypeError("Failed to fetch");
  return whole(address, ...more);
};
"""
"""A list that has others, a film that cannot be asked for, one that is no more, and one that nobody answers for."""


async def test_a_film_that_cannot_be_asked_for_keeps_its_card(page: Page, gateway: Served) -> None:
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    await page.open("/jobs?q=Holi")
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 3")
    await page.run(f"{STUMBLES} return document.querySelector('ss-jobs').refresh()")
    left = await page.run("return [...document.querySelectorAll('ss-jobs .card')].map((card) => card.dataset.job)")
    assert sorted(left) == ["J1", "J3"]


async def test_a_page_asks_for_what_it_shows(page: Page, gateway: Served) -> None:
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    cursor = (await gateway.client.get("/api/v1/jobs", params={"q": "Holi", "limit": 1})).json()["next"]
    await page.open(f"/jobs?q=Holi&cursor={cursor}")
    await page.wait("document.querySelectorAll('ss-jobs .card').length === 2")
    await page.run(f"{STUMBLES} return document.querySelector('ss-jobs').refresh()")
    asked = await page.run("return asked.find((address) => address.startsWith('/api/v1/jobs?'))")
    assert "q=Holi" in asked
    there = {job["job_id"] for job in (await gateway.client.get(asked)).json()["jobs"]}
    shown = "[...document.querySelectorAll('ss-jobs .card')].map((card) => card.dataset.job)"
    assert len(there) == 2
    assert there >= set(await page.run(f"return {shown}"))


@pytest.mark.parametrize(("status", "shown"), [("processing", "J1"), ("converting", "J1"), ("queued", "")])
async def test_a_list_shows_what_its_address_asks_for(page: Page, gateway: Served, status: str, shown: str) -> None:
    """Also where no filter of the page has this name."""
    for job_id in ("J1", "J2", "J3"):
        await Showing(gateway.context, job_id).begin()
    assert (await gateway.client.post("/api/v1/jobs/J3/cancel")).status_code == 200
    listed = "[...document.querySelectorAll('ss-jobs .card')].map((card) => card.dataset.job).sort().join()"
    before = "J1,J2" if shown else ""
    await page.open(f"/jobs?status={status}")
    await page.run("return document.querySelector('ss-jobs').refresh()")
    assert await page.run(f"return {listed}") == before
    assert (await gateway.client.post("/api/v1/jobs/J2/cancel")).status_code == 200
    await page.wait(f"({COUNTS}).cancelled === '2'")
    await page.wait(f"{listed} === {shown!r}")
