"""The whole way by the page alone: a film is dropped in, seen being made, watched meanwhile, and fetched at the end.

In the middle of it the gateway dies and comes back, and nobody reloads anything.
"""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver

from services import daemon, workers
from services.context import Context
from stereospot import jobs, records
from stereospot.jobs import Phase
from stereospot.messages import Failure
from stereospot.settings import Settings
from tests.browser import counted
from tests.browser.conftest import Page
from tests.browser.house import opened
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

VIDEO = "document.querySelector('video')"
LABEL = "document.querySelector('[data-label]').textContent"
CELLS = "[...document.querySelectorAll('ss-strip button')].map((cell) => cell.className.split(' ')[0])"
READY = f"{CELLS}.filter((name) => name === 'done').length"
PROGRESS = "document.querySelector('progress.long').value"

STAGES = ["waiting", "running", "done"]

REMEMBER = f"""
self.same = true;
self.histories = [];
const look = () => {CELLS}.forEach((name, at) => {{
  const known = (histories[at] ??= []);
  if (known.at(-1) !== name) known.push(name);
}});
const all = {{ subtree: true, childList: true, attributes: true, attributeFilter: ["class"] }};
new MutationObserver(look).observe(document.querySelector("ss-strip"), all);
look();
"""
"""Keeps what each cell of the strip was in turn; gone with the page if that is loaded again."""

FETCH = """
const [address, done] = arguments;
fetch(address).then((answer) => answer.blob()).then((blob) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.split(",")[1]);
  reader.readAsDataURL(blob);
});
"""

GATEWAY = """
import asyncio, sys
from services import daemon
from stereospot import log
from stereospot.settings import Settings

async def ready(context):
    print(context.settings.port, flush=True)

log.configure("info", "json")
sys.exit(asyncio.run(daemon.run({"gateway"}, Settings(), ready=ready)))
"""


@asynccontextmanager
async def gateway_process(context: Context, port: int = 0) -> AsyncGenerator[tuple[asyncio.subprocess.Process, int]]:
    """A gateway of its own process that is ready, and its port; killed at the end."""
    environment = workers.environment(context.settings.model_copy(update={"port": port}))
    command = [sys.executable, "-c", GATEWAY]
    running = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
    try:
        assert running.stdout is not None
        yield running, int(await running.stdout.readline())
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


@pytest.mark.slow
async def test_from_the_drop_zone_to_the_film(driver: webdriver.Chrome, tmp_path: Path) -> None:
    film = await asyncio.to_thread(counted.write, tmp_path / "Counted.mp4", 240)
    settings = Settings(data_dir=tmp_path / "data", engine="flat")
    async with opened(settings, daemon.ALL - {"gateway"}) as house:
        await house.allow(0)
        async with gateway_process(house.context) as (first, port):
            page = Page(driver, f"http://127.0.0.1:{port}")
            await page.complaints()
            await page.open("/")
            choose = "input[type=file]"
            await page.do(lambda driver: driver.find_element("css selector", choose).send_keys(str(film.path)))
            await page.wait("location.pathname.startsWith('/jobs/')")
            await page.wait("document.querySelector('ss-strip')")
            await page.run(REMEMBER)
            await page.wait(f"{CELLS}[0] === 'running' && {CELLS}.length === 5")
            assert await page.run(f"return {READY}") == 0
            await house.allow(2)
            await page.wait(f"{READY} === 2 && {CELLS}[2] === 'running' && {VIDEO}.readyState >= 2")
            assert (await page.run(f"return {LABEL}")).startswith("Converting")
            before = await page.run(f"return {PROGRESS}")
            await page.do(lambda driver: driver.find_element("css selector", "[data-do=toggle]").click())
            await page.wait(f"{VIDEO}.currentTime > 0.3 && !{VIDEO}.paused")
            first.kill()
            await first.wait()
        # It plays what it has. What is made meanwhile nobody can tell the page.
        await house.allow(4)
        await page.wait(f"{VIDEO}.currentTime > 1.5")
        assert await page.run(f"return {READY}") == 2
        async with gateway_process(house.context, port):
            await page.wait(f"{READY} === 4 && {CELLS}[4] === 'running'", seconds=30)
            await page.wait(f"{PROGRESS} > {before}")
            assert (await page.run(f"return {LABEL}")).startswith("Converting")
            await page.wait(f"{VIDEO}.currentTime > 2.5", seconds=30)
            await house.allow()
            await page.wait(f"{LABEL} === 'Done'", seconds=30)
            await page.wait(f"{VIDEO}.ended", seconds=30)
            assert await page.run("return self.same")
            told: list[list[str]] = await page.run("return histories")
            assert all(set(item) <= set(STAGES) and item[-1] == "done" for item in told)
            # What one gateway saw goes forward only.
            assert all(item == [stage for stage in STAGES if stage in item] for item in told[:2])
            assert told[0][-2:] == ["running", "done"]
            assert told[-1][0] == "waiting"
            assert "running" in told[-1]
            spans = "return [...Array(played.length)].map((_, at) => [played.start(at), played.end(at)])"
            [played] = await page.run(f"const {{ played }} = {VIDEO}; {spans}")
            assert played == [pytest.approx(0, abs=0.05), pytest.approx(film.seconds, abs=0.05)]
            address = await page.wait("document.querySelector('a[download]').href")
            made = base64.b64decode(await asyncio.to_thread(driver.execute_async_script, FETCH, address))
            assert all("ERR_" in item or "Failed to fetch" in item for item in await page.complaints())
            await page.leave()
    pictures = await asyncio.to_thread(counted.pictures, io.BytesIO(made))
    assert [number for _, number in pictures] == list(range(len(film.times)))
    assert [time for time, _ in pictures] == pytest.approx(film.times, abs=1e-6)
    (heard, start), (source, begin) = counted.samples(io.BytesIO(made)), counted.samples(str(film.path))
    assert start == begin
    assert np.array_equal(heard, source)


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
