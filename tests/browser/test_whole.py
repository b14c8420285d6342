"""What is done to several films at once by the page alone."""

from __future__ import annotations

import pytest

from stereospot import jobs, records
from stereospot.jobs import Phase
from stereospot.messages import Failure
from tests.browser.conftest import Page
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser


async def test_failed_films_are_tried_again_together(page: Page, gateway: Served) -> None:
    failure = Failure(code="NO_FRAMES", sentence="The video holds no frame that decodes.", advice="Play it first.")

    def fail(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, failure, at=9.0)

    for job_id in ("J1", "J2"):
        await Showing(gateway.context, job_id).begin()
        await records.change_job(gateway.context.bus, job_id, fail)
    await page.open("/jobs?status=failed")
    await page.wait("document.querySelectorAll('.pick input').length === 2")
    # Somebody else is quicker with the second one, by a hair.
    await page.run(
        """
        const ask = self.fetch;
        self.fetch = async (path, ...rest) => {
          if (String(path).endsWith("/J2/retry")) await ask(path, ...rest);
          return ask(path, ...rest);
        };
        for (const box of document.querySelectorAll(".pick input")) box.click();
        """
    )
    assert await page.run("return document.querySelector('[data-bulk-count]').textContent") == "2 chosen"
    await page.run("document.querySelector('[data-bulk-action=retry]').click()")
    note = "document.querySelector('[data-refused][role=alert]')"
    said = await page.wait(f"{note}.checkVisibility() && {note}.textContent")
    assert said.startswith("1 of 2 refused. ")
    assert "Only a failed or cancelled job can be retried" in said
    for job_id in ("J1", "J2"):
        found = await records.get_job(gateway.context.bus, job_id)
        assert found is not None
        assert (found[0].phase, found[0].attempt) == (Phase.PLANNING, 2)
    # Neither is a failed film any more.
    await page.wait("!document.querySelector('.card')")
    assert await page.run(f"return {note}.checkVisibility()")
    complaints = [item for item in await page.complaints() if gateway.url in item]
    assert [item for item in complaints if "409" not in item] == []
    assert len(complaints) == 1
