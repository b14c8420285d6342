"""What tests of the player share: a film that is shown, windows of several sizes, the keyboard and the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stereospot import keys, records
from stereospot.media.model import Plan
from stereospot.options import Layout, Options
from tests.browser.conftest import Page
from tests.support import eventually
from tests.system.gateway import Served
from tests.system.showing import VTT, Showing, sound

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

PLAYER = "document.querySelector('ss-player')"
VIDEO = "document.querySelector('video')"

SIZES = ((390, 844), (844, 390), (1280, 800), (1920, 1080))
"""A telephone, held both ways, a laptop, a screen."""


async def resize(page: Page, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    await page.do(lambda driver: driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size))


async def shown(page: Page, gateway: Served, path: str = "/watch/J1", *, ready: Sequence[int] = (0, 1, 2)) -> Showing:
    """A film of three segments, of which these are ready."""
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2))
    await showing.begin()
    await showing.convert(*ready)
    await page.open(path)
    await page.wait(f"{VIDEO}.readyState >= 2")
    return showing


async def press(page: Page, *names: str) -> None:
    from selenium.webdriver import ActionChains

    await page.do(lambda driver: ActionChains(driver).send_keys(*names).perform())


async def click(page: Page, selector: str) -> None:
    """With the mouse, in the middle of it: what has the focus then is the browser's own decision."""
    from selenium.webdriver import ActionChains

    def press_it(driver: WebDriver) -> None:
        ActionChains(driver).move_to_element(driver.find_element("css selector", selector)).click().perform()

    await page.do(press_it)


async def read(page: Page, gateway: Served, path: str, layout: Layout) -> Showing:
    """A film of this layout with its subtitles, of which the first is shown."""
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "vtt"), VTT.encode())
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2), subtitles=True)
    await showing.begin()
    chosen = Options(layout=layout)
    await records.change_job(gateway.context.bus, "J1", lambda job: job.model_copy(update={"options": chosen}))
    await showing.convert(0, 1, 2)
    await eventually(lambda: layout_of(gateway, layout), what="the layout")
    await page.open(path)
    await page.wait(f"{VIDEO}.readyState >= 2")
    await page.wait("document.querySelectorAll('[aria-label=Subtitles] option').length === 2")
    await page.run(
        """
        const select = document.querySelector("[aria-label=Subtitles]");
        select.selectedIndex = 1;
        select.dispatchEvent(new Event("change"));
        """
    )
    await page.wait("document.querySelector('.subtitle').textContent === 'First & foremost'")
    return showing


async def layout_of(gateway: Served, layout: Layout) -> bool:
    return (await gateway.client.get("/api/v1/jobs/J1")).json()["options"]["layout"] == layout


class Bilingual(Showing):
    """Its sound is there in two languages."""

    def plan(self) -> Plan:
        plan = super().plan()
        first = plan.source.audio[0]
        audio = (first, first.model_copy(update={"stream_index": 3, "language": "fra"}))
        return plan.model_copy(update={"source": plan.source.model_copy(update={"audio": audio})})

    async def sing(self, ready: int) -> None:
        init, media = sound(sum(self.lengths), self.lengths)
        await self.context.store.put(keys.audio_init("J1", 1, 1), init)
        for index in range(ready):
            await self.context.store.put(keys.audio_segment("J1", 1, 1, index), media[index])
        await super().sing(ready)
