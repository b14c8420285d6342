"""A film is begun anew, in a new generation: its old addresses lead nowhere, what is open goes on with the new ones."""

from __future__ import annotations

import pytest

from services import operations
from services.gateway.tokens import DAY, Tokens
from tests.browser.conftest import Page, only
from tests.browser.test_native import CURTAIN
from tests.browser.watching import PLAYER, VIDEO, shown
from tests.system.gateway import Served, master_of
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

PLAY = f"{VIDEO}.muted = true; {VIDEO}.play()"
CELLS = "[...document.querySelectorAll('ss-strip button')].map((cell) => cell.className.split(' ')[0])"


async def replan(gateway: Served, *, tried: bool = False) -> None:
    """What a worker does that finds other frames than were planned; the old generation ends at once."""
    bus = gateway.context.bus
    if tried:
        await operations.cancel(bus, "J1")
        await operations.retry(bus, "J1")
    assert await operations.replan(bus, "J1", 1, "The frames were counted anew.")


@pytest.mark.parametrize("tried", [False, True], ids=["at once", "by a retry"])
async def test_what_plays_goes_on_where_it_was(page: Page, gateway: Served, tried: bool) -> None:
    await shown(page, gateway, "/jobs/J1")
    await page.run(PLAY)
    await page.wait(f"{PLAYER}.now > 1.2")
    await page.run("self.same = true")
    old = await page.run(f"return {PLAYER}.dataset.hls")
    await replan(gateway, tried=tried)
    await page.wait(f"{CURTAIN}.checkVisibility() && {CURTAIN}.textContent.startsWith('The film is made anew.')")
    assert "from 0:01 on" in await page.run(f"return {CURTAIN}.textContent")
    assert (await gateway.client.get(old)).status_code == 404
    assert await page.run("return document.querySelector('ss-strip').checkVisibility()") is False
    assert await page.run("return document.querySelector('[data-now]').textContent") == "0:01"
    # It has other segments now, of the same film.
    again = Showing(gateway.context, "J1", lengths=(2, 2), generation=2)
    await again.begin_anew()
    await page.wait(f"{CURTAIN}.textContent === 'Converting this part first'")
    await page.wait(f"{CELLS}.length === 2")
    await again.convert(0, 1)
    await page.wait(f"{PLAYER}.now > 1.2 && !{VIDEO}.paused && !{CURTAIN}.checkVisibility()")
    await page.wait(f"{VIDEO}.ended && {PLAYER}.now > 3.9")
    assert await page.run(f"return [self.same, {PLAYER}.dataset.hls.split('/')[3], {CELLS}.join()]") == [
        True, "2", "done,done",
    ]  # fmt: skip
    await only(page, "/1/", "404", some=False)  # a piece of the old film that it may have been about to fetch


async def test_a_page_on_which_nobody_watches_shows_the_new_film(page: Page, gateway: Served) -> None:
    await shown(page, gateway, "/jobs/J1")
    await replan(gateway)
    await page.wait(f"{CURTAIN}.textContent.startsWith('The film is made anew.') && {VIDEO}.networkState === 0")
    again = Showing(gateway.context, "J1", lengths=(2, 2), generation=2)
    await again.begin_anew()
    await again.convert(0)
    await page.wait(f"{VIDEO}.readyState >= 2 && {PLAYER}.edge === 2 && !{CURTAIN}.checkVisibility()")
    assert await page.run(f"return [{PLAYER}.now, {VIDEO}.paused, {VIDEO}.poster.includes('/2/')]") == [0, True, True]
    await only(page, "/1/", "404", some=False)  # a piece of the old film that it may have been about to fetch


async def test_what_was_handed_leads_to_the_film_as_it_is_now(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(0, 1)
    hls = await master_of(gateway, "J1")
    await page.open(hls.replace("master.m3u8", "watch"))
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.run(PLAY)
    await page.wait(f"{PLAYER}.now > 0.5")
    await replan(gateway)
    again = Showing(gateway.context, "J1", lengths=(2, 2), generation=2)
    await again.begin_anew()
    await again.convert(0, 1)
    # It stands still where the old stream ends, and finds out why.
    await page.wait(f"{PLAYER}.dataset.hls.includes('/2/') && {VIDEO}.readyState >= 2 && {PLAYER}.edge > 3.9")
    await only(page, "404")


async def test_a_token_that_is_no_longer_good_gives_way_to_a_new_one(page: Page, gateway: Served) -> None:
    """As on a page that is open for more than a week."""
    await shown(page, gateway, "/jobs/J1")
    await page.run(PLAY)
    await page.wait(f"{PLAYER}.now > 1.2")
    good = await page.run(f"return {PLAYER}.dataset.hls")
    tokens = Tokens((gateway.context.settings.data_dir / "gateway.secret").read_bytes())
    old = f"/v/{tokens.issue('J1', now=9 * DAY)}/1/master.m3u8"
    assert (await gateway.client.get(old)).status_code == 404
    await page.run(f"{VIDEO}.pause(); return {PLAYER}.load('{old}', {PLAYER}.anchor, false, 1.5)")
    await page.wait(f"{PLAYER}.hls && {PLAYER}.address !== '{old}' && {VIDEO}.readyState >= 2")
    assert await page.run(f"return [{PLAYER}.dataset.hls, {VIDEO}.paused]") == [good, True]
    await only(page, "404")
