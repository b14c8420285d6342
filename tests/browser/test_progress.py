"""What the page of a job says of its progress: the stages, the strip with its cells, the history."""

from __future__ import annotations

import pytest

from stereospot import jobs, records
from stereospot.messages import Failure
from tests.browser.conftest import Page
from tests.browser.watching import VIDEO
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser


async def test_the_strip_by_keyboard(page: Page, gateway: Served) -> None:
    from selenium.webdriver import ActionChains, Keys

    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0, 1)
    await page.open("/jobs/J1")
    await page.wait("document.querySelectorAll('ss-strip button.done').length === 2")
    await page.run("document.querySelector('ss-strip button').focus()")
    await page.do(lambda driver: ActionChains(driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform())
    label = await page.run("return document.activeElement.getAttribute('aria-label')")
    assert label == "Segment 2, 0:02 to 0:04: waiting"
    assert await page.run("return document.querySelector('[data-cell-note] p').textContent") == label


async def test_the_stages_follow_the_job(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    now = "[...document.querySelectorAll('[data-stages] [aria-current=step]')].map((item) => item.textContent).join()"
    await page.open("/jobs/J1")
    assert await page.run(f"return {now}") == "Converting"
    await records.change_job(
        gateway.context.bus, "J1", lambda job: jobs.advance(job, jobs.Phase.ASSEMBLING, at=job.updated_at + 1)
    )
    await page.wait(f"{now} === 'Assembling'")
    failure = Failure(code="ASSEMBLY_FAILED", sentence="s", advice="a")
    await records.change_job(gateway.context.bus, "J1", lambda job: jobs.fail(job, failure, at=job.updated_at + 1))
    await page.wait("document.querySelector('[data-stages]').hidden")


async def test_a_laptop_shows_the_progress_below_the_picture(page: Page, gateway: Served) -> None:
    """Whoever watches a film being made need not scroll; the picture of a film that was finished before is larger."""
    await Showing(gateway.context, "J1", lengths=(1,) * 40).begin()
    metrics = "Emulation.setDeviceMetricsOverride"
    height = "document.querySelector('.screen').getBoundingClientRect().height"
    try:
        for width, high in ((390, 844), (1280, 800), (1600, 1000)):
            size = {"width": width, "height": high, "deviceScaleFactor": 1, "mobile": False}
            await page.do(lambda driver, size=size: driver.execute_cdp_cmd(metrics, size))
            await page.open("/jobs/J1")
            await page.wait("document.querySelectorAll('ss-strip button').length === 40")
            edge = "document.querySelector(arguments[0]).getBoundingClientRect().bottom"
            for what in ("h1", "[data-stages]", ".strip"):
                assert await page.run(f"return {edge} <= innerHeight", what), (what, width)
            assert await page.run(f"return {height}") >= min(400, 0.48 * width)
        before = await page.run(f"return {height}")
        for phase in (jobs.Phase.ASSEMBLING, jobs.Phase.COMPLETED):
            await records.change_job(
                gateway.context.bus, "J1", lambda job, to=phase: jobs.advance(job, to, at=job.updated_at + 1)
            )
        await page.wait("document.querySelector('ss-job').dataset.phase === 'completed'")
        assert await page.run(f"return {height}") == before, "a picture that may be playing keeps its size"
        await page.open("/jobs/J1")
        await page.wait(f"{height} > {before}")
    finally:
        await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))


async def test_a_cell_tells_what_happened_to_it(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    failure = Failure(code="CORRUPT_INPUT", sentence="A frame is broken.", advice="a")
    await showing.tell(0, "running")
    await showing.tell(0, "retrying", worker_id="w2", failure=failure)
    await showing.tell(0, "done", worker_id="w2", attempt=2, seconds=1.4, fps=17.1)
    await showing.convert(0)
    await page.open("/jobs/J1")
    await page.wait("document.querySelectorAll('ss-strip button.done').length === 1")
    await page.run("document.querySelector('ss-strip button').focus()")
    said = "Segment 0, 0:00 to 0:01: done, in 1.4 s, 17 fps, on w2, attempt 2"
    await page.wait(f"document.querySelector('[data-cell-note] p').textContent === '{said}'")
    log = await page.wait(
        "document.querySelectorAll('.log li').length === 3 && [...document.querySelectorAll('.log li')].map("
        "(line) => line.textContent.replace(/^[0-9:]+ /, ''))"
    )
    assert log == ["at work, on w1", "trying again, on w2, A frame is broken.", "done, in 1.4 s, 17 fps, on w2"]


async def test_the_history_has_the_clock_of_whoever_reads_it(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    where = "Emulation.setTimezoneOverride"
    times = "[...document.querySelectorAll('.history time')].map((item) => item.textContent)"
    try:
        await page.do(lambda driver: driver.execute_cdp_cmd(where, {"timezoneId": "Asia/Tokyo"}))
        await page.open("/jobs/J1")
        assert all(
            "9:00:0" in item for item in await page.wait(f"{times}.every((item) => !/UTC/.test(item)) && {times}")
        )
        # What is made anew when the phase changes, too.
        await records.change_job(
            gateway.context.bus, "J1", lambda job: jobs.advance(job, jobs.Phase.ASSEMBLING, at=9.0)
        )
        await page.wait(f"{times}.length === 3 && {times}.every((item) => /9:00:0/.test(item))")
    finally:
        await page.do(lambda driver: driver.execute_cdp_cmd(where, {"timezoneId": ""}))


async def test_the_strip_has_the_scrubbers_scale(page: Page, gateway: Served) -> None:
    lengths = (1, 3, 2, 6)
    showing = Showing(gateway.context, "J1", lengths=lengths)
    await showing.begin()
    await showing.convert(0, 1, 2)
    await page.open("/jobs/J1")
    cells = "[...document.querySelectorAll('ss-strip button')]"
    await page.wait(f"{cells}.length === 4 && {VIDEO}.readyState >= 2")
    found = await page.run(
        f"""
        const {{ left, width }} = document.querySelector(".strip").getBoundingClientRect();
        return {cells}.map((cell) => (cell.getBoundingClientRect().left - left) / width);
        """
    )
    assert found == pytest.approx([sum(lengths[:index]) / sum(lengths) for index in range(4)], abs=0.01)
    # Where the film plays is in the cell that is underlined, however long its neighbours are.
    await page.run("document.querySelector('ss-player').seekTo(2.5, false)")
    await page.wait(f"{cells}.findIndex((cell) => cell.matches('.here')) === 1")
    inside = await page.run(
        """
        const scrub = document.querySelector(".scrub").getBoundingClientRect();
        const knob = scrub.left + (2.5 / 12) * scrub.width;
        const { left, right } = document.querySelector(".here").getBoundingClientRect();
        return left < knob && knob < right;
        """
    )
    assert inside
    # A new word about the segment keeps its mark.
    await showing.tell(1, "retrying")
    await page.run("document.querySelector('ss-strip').here(3)")
    await showing.tell(3, "running")
    await page.wait(f"{cells}[3].matches('.running.here')")


async def test_a_strip_of_very_many_segments_stays_in_rows_of_cells_that_can_be_pressed(
    page: Page, gateway: Served
) -> None:
    await Showing(gateway.context, "J1", lengths=(1, 2) * 600).begin()
    await page.open("/jobs/J1")
    cells = "document.querySelectorAll('ss-strip button')"
    await page.wait(f"{cells}.length === 1200")
    widths = await page.run(f"return [...{cells}].map((cell) => cell.getBoundingClientRect().width)")
    assert min(widths) == pytest.approx(max(widths), abs=0.1)
    assert min(widths) > 6
    # The page asks for them anew when its stream opens, and has none meanwhile.
    await page.wait("(self.known = document.querySelector('ss-job').segments)?.length === 1200")
    took = await page.run(
        """
        const strip = document.querySelector("ss-strip");
        const job = document.querySelector("ss-job");
        const begun = performance.now();
        for (let turn = 0; turn < 20; turn += 1) { strip.show(known, job.state); strip.offsetHeight; }
        return (performance.now() - begun) / 20;
        """
    )
    print(f"a strip of 1200 segments is brought up to date in {took:.2f} ms")
    assert took < 16


async def test_the_history_speaks_words(page: Page, gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await page.open("/jobs/J1")
    lines: list[str] = await page.run(
        """
        return [...document.querySelectorAll(".history li")].map((item) => {
          item.querySelector("time").remove();
          return item.textContent.trim();
        });
        """
    )
    assert lines == ["Reading the film", "Converting"]


async def test_a_segment_is_tried_again_as_often_as_somebody_asks(page: Page, gateway: Served) -> None:
    """Its button stays where it is; those of the job are made anew."""
    await Showing(gateway.context, "J1").begin()
    failure = Failure(code="NO_FRAMES", sentence="s", advice="a")
    button = "document.querySelector('[data-cell-note] [data-action=retry]')"
    await page.open("/jobs/J1")
    for attempt in (2, 3):
        await records.change_job(gateway.context.bus, "J1", lambda job: jobs.fail(job, failure, at=job.updated_at + 1))
        await page.wait("document.querySelector('ss-job').dataset.phase === 'failed'")
        await page.run(f"{button}.click()")
        await page.wait(f"document.querySelector('ss-player').attempt === {attempt} && !{button}.disabled")
