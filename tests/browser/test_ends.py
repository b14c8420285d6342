"""Streams that end before their film: the player goes on with the file, or with what another attempt brings."""

from __future__ import annotations

import pytest

from services import operations
from stereospot import jobs, records
from stereospot.jobs import Phase
from stereospot.messages import Failure
from tests.browser.conftest import Page, only
from tests.browser.test_native import CURTAIN
from tests.browser.watching import PLAYER, VIDEO
from tests.system.gateway import Served, move
from tests.system.showing import Showing, film

pytestmark = pytest.mark.browser

PLAY = f"{VIDEO}.muted = true; {VIDEO}.play()"


async def test_where_the_sound_broke_off_the_file_goes_on(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), sound=True)
    await showing.begin()
    await showing.convert(0, 1, 2)
    await showing.sing(2)
    await page.open("/watch/J1")
    await page.wait(f"{PLAYER}.hls && {VIDEO}.readyState >= 2 && {PLAYER}.edge > 1.9")
    await showing.finish(film(4))
    await page.wait(f"Boolean({PLAYER}.dataset.film)")
    assert not await page.run(f"return {PLAYER}.whole")
    await page.run(PLAY)
    await page.wait(f"{PLAYER}.whole && !{VIDEO}.paused && {PLAYER}.now > 2.1")
    await page.wait(f"{VIDEO}.ended && {PLAYER}.now > 3.9")


async def test_a_stream_that_ended_with_its_job_goes_on_with_a_retry(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0, 1)

    def fail(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, Failure(code="NO_FRAMES", sentence="s", advice="a"), at=3.0)

    await records.change_job(gateway.context.bus, "J1", fail)
    await page.open("/jobs/J1")
    await page.wait(f"{PLAYER}.hls && {VIDEO}.readyState >= 2")
    await page.run(PLAY)
    await page.wait(f"{VIDEO}.ended && Math.abs({PLAYER}.now - 2) < 0.1")
    await operations.retry(gateway.context.bus, "J1")
    await showing.convert(2)
    await page.wait(f"{PLAYER}.edge > 3.9 && {PLAYER}.now > 1.8")


async def test_what_is_waited_for_in_vain_is_waited_for_no_more(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.segments && {PLAYER}.phase === 'converting'")
    await page.run(f"{PLAYER}.seekTo(2, true)")
    await page.wait(f"{CURTAIN}.textContent === 'Converting this part first'")
    await move(gateway, "J1", Phase.CANCELLED)
    await page.wait(f"!{CURTAIN}.hidden && {CURTAIN}.textContent.includes('not converted, and the job is cancelled')")
    await page.wait(f"!{PLAYER}.aim")
    await only(page, "409")


async def test_what_is_waited_for_and_gone_is_told_of(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.segments")
    # A proxy stumbles, then the server says that the stream is kept no more.
    await page.run(
        """
        const [whole, answers] = [self.fetch, [502, 410]];
        self.fetch = async (address, ...more) => {
          if (!String(address).endsWith("?wait=25")) return whole(address, ...more);
          return new Response("", { status: answers.shift() ?? 204 });
        };
        """
    )
    await page.run(f"{PLAYER}.seekTo(2, true)")
    await page.wait(f"{CURTAIN}.textContent === 'The picture is not there any more.' && !{PLAYER}.aim")
