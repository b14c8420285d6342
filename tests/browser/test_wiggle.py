"""Wiggle shows one eye after the other, in the player and where settings are compared: what is drawn is read back."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stereospot import jobs, records
from stereospot.options import Layout, Options
from tests.browser.conftest import Page
from tests.browser.watching import PLAYER, shown
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

TRY = "document.querySelector('ss-try')"

TURNS = """
self.turns = [];
const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const { draw } = glass;
glass.draw = function () {
  draw.call(this);
  copy.drawImage(this.canvas, this.canvas.width / 32, this.canvas.height / 2, 1, 1, 0, 0, 1, 1);
  const [red] = copy.getImageData(0, 0, 1, 1).data;
  if (!turns.length || Math.abs(turns.at(-1)[0] - red) > 60) turns.push([red, performance.now()]);
};
"""
"""How bright a place near the left edge is and since when, of every picture that `glass` draws; a new entry when that
changes. The left eye of a `Showing` begins with a white bar, the right one is dark grey all over."""


async def alternates(page: Page) -> None:
    turns = await page.wait("turns.length > 6 && turns")
    reds = [red for red, _ in turns]
    for first in (0, 1):
        assert all((red > 200) is (reds[first] > 200) for red in reds[first::2]), reds
    assert min(reds[:2]) < 110 < 200 < max(reds[:2])
    waits = sorted(after - before for (_, before), (_, after) in pairwise(turns[1:]))
    # On a slow machine one comes late, and the next sooner after it.
    assert waits[len(waits) // 2] > 80, waits


async def test_in_the_player(page: Page, gateway: Served) -> None:
    await shown(page, gateway)
    await page.run(f"{PLAYER}.begin(); {PLAYER}.view.value = 'wiggle'; {PLAYER}.look('wiggle')")
    await page.run(f"const {{ glass }} = {PLAYER};" + TURNS)
    await alternates(page)
    # With another way to look it stands still.
    await page.run(f"{PLAYER}.look('left'); {PLAYER}.glass.draw(); turns.length = 0; {PLAYER}.glass.draw()")
    assert await page.run(f"return [{PLAYER}.glass.second, turns.length]") == [False, 1]
    assert await page.run("return turns[0][0]") > 200


async def test_where_settings_are_compared(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "S1", lengths=(1, 1, 1))
    await showing.begin()

    def sampled(job: jobs.Job) -> jobs.Job:
        return job.model_copy(update={"options": Options(samples=(0.0, 1.0, 2.0), layout=Layout.FULL_SBS)})

    await records.change_job(gateway.context.bus, "S1", sampled)
    await showing.convert(0)
    await page.open("/try/S1")
    await page.wait(f"{TRY}.sets.a")
    await page.run(
        f"""
        for (const [name, value] of [["pair", "a"], ["look", "wiggle"]]) {{
          {TRY}[name].value = value;
          {TRY}[name].dispatchEvent(new Event("change"));
        }}
        """
    )
    await page.wait(f"{TRY}.below.glass?.mode === 'wiggle' && {TRY}.below.video.readyState >= 2")
    await page.run(f"const {{ glass }} = {TRY}.below;" + TURNS)
    await alternates(page)
