"""Dead letters on their page: what they say, and what a person does about them."""

from __future__ import annotations

import time

import pytest

from services import dead_letters
from stereospot import errors, jobs, records, subjects
from stereospot.messages import DeadLetter, Failure
from tests.browser.conftest import Page
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

ROWS = "[...document.querySelectorAll('[data-letter]')]"


async def bury(gateway: Served, *codes: str, job_id: str) -> None:
    """A letter of the plan's work for each code, the first one the newest."""
    for number, code in reversed(list(enumerate(codes))):
        failure = Failure.of(errors.error(code), attempts=number + 1)
        letter = DeadLetter(
            dead_id=f"work-{number}", kind="work-plan", subject=f"stereospot.work.plan.{job_id}", original="{}",
            failure=failure, attempts=number + 1, worker_id="w", job_id=job_id, at=time.time() - 100 * number,
        )  # fmt: skip
        await gateway.context.bus.publish(subjects.dead(letter.kind, letter.dead_id), letter)


async def test_they_speak_words_and_have_buttons_of_a_natural_height(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await bury(gateway, "DEPTH_MISSING", "ATTEMPTS_EXHAUSTED", job_id="J1")
    await page.open("/dead-letters")
    texts: list[str] = await page.run(f"return {ROWS}.map((row) => row.textContent.replace(/\\s+/g, ' '))")
    assert "reading a film · 1 attempt ·" in texts[0]
    assert "reading a film · 2 attempts ·" in texts[1]
    assert not any("work-plan" in text or "`" in text for text in texts)
    heights = await page.run(
        "return [...document.querySelectorAll('[data-letter] button')].map((button) => button.offsetHeight)"
    )
    assert set(heights) == {44}
    # Another try is offered where the server says that it may help; where it cannot, the letter says why.
    offered = f"{ROWS}.map((row) => [...row.querySelectorAll('button')].map((button) => button.textContent))"
    assert await page.run(f"return {offered}") == [["Discard"], ["Try again", "Discard"]]
    assert "The same would fail again" in texts[0]
    assert "fail again" not in texts[1]


async def test_one_is_tried_again_and_one_is_discarded(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    failure = Failure.of(errors.error("ATTEMPTS_EXHAUSTED"))

    def fail(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, failure, at=9.0)

    await records.change_job(gateway.context.bus, "J1", fail)
    await bury(gateway, "NO_FRAMES", "ATTEMPTS_EXHAUSTED", job_id="J1")
    await page.open("/dead-letters")
    await page.run(f"{ROWS}[1].querySelector('[data-letter-action=retry]').click()")
    await page.wait(f"{ROWS}.length === 1")
    found = await records.get_job(gateway.context.bus, "J1")
    assert found is not None
    assert found[0].phase is jobs.Phase.PLANNING
    assert [item.dead_id for item in await dead_letters.letters(gateway.context.bus)] == ["work-0"]
    await page.run(f"{ROWS}[0].querySelector('[data-letter-action=drop]').click()")
    await page.wait("document.querySelector('.empty')?.textContent.startsWith('There are none.')")
    assert await dead_letters.letters(gateway.context.bus) == []


async def test_what_the_server_refuses_is_said_by_its_letter(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await bury(gateway, "ATTEMPTS_EXHAUSTED", job_id="J1")
    await page.open("/dead-letters")
    assert (await gateway.client.post("/api/v1/jobs/J1/delete")).status_code == 204
    await page.run("document.querySelector('[data-letter-action=retry]').click()")
    note = "document.querySelector('[data-letter] [data-refused]')"
    said = await page.wait(f"{note}.checkVisibility() && {note}.textContent")
    assert "deleted" in said
    assert "ATTEMPTS_EXHAUSTED" in await page.run("return document.querySelector('[data-letter]').textContent")
    [complaint] = await page.complaints()
    assert "409" in complaint
