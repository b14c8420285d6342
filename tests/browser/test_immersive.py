"""In a headset, the right eye sees the right picture: by the compositor's layer, and by our own drawing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.browser import npm
from tests.browser.conftest import Page
from tests.system.gateway import Served
from tests.system.showing import Showing

pytestmark = pytest.mark.browser

PLAYER = "document.querySelector('ss-player')"
VIDEO = "document.querySelector('video')"

EMULATOR = """
const device = new IWER.XRDevice(IWER.metaQuest3);
device.installRuntime({ forceInstall: true });
device.stereoEnabled = true;
self.device = device;
"""

PIXELS = """
const done = arguments[arguments.length - 1];
const show = document.querySelector("ss-player").immersed;
show.session.requestAnimationFrame((_, frame) => {
  // Behind our own frame's drawing: both callbacks run in one frame, so the buffer still holds it.
  const { gl, layer } = show;
  const read = frame.getViewerPose(show.space).views.map((view) => {
    const box = layer.getViewport(view);
    const pixel = (across) => {
      const data = new Uint8Array(4);
      const [x, y] = [box.x + Math.round(box.width * across), box.y + Math.round(box.height / 2)];
      gl.readPixels(x, y, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, data);
      return data[0];
    };
    const row = [...Array(40)].map((_, number) => pixel((number + 0.5) / 40));
    return [view.eye, box.width, row];
  });
  done(read);
});
"""


async def ready(page: Page, gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1,))
    await showing.begin()
    await showing.convert(0)
    await page.open("/watch/J1")
    await page.wait(f"{VIDEO}.readyState >= 2")


async def emulate(page: Page) -> None:
    await page.run(npm.text("iwer") + ";" + EMULATOR)


async def eyes(page: Page) -> dict[str, list[int]]:
    """One row of brightness an eye, read back from what was drawn for it."""
    found: list[list[Any]] = await asyncio.to_thread(page.driver.execute_async_script, PIXELS)
    assert [item[0] for item in found] == ["left", "right"]
    assert all(item[1] > 100 for item in found)
    return {eye: row for eye, _, row in found}


async def test_each_eye_is_drawn_its_own_half(page: Page, gateway: Served) -> None:
    await ready(page, gateway)
    await emulate(page)
    # The page looked for a headset before the emulator was there.
    await page.run(f"{PLAYER}.bar.querySelector('[data-do=headset]').hidden = false")
    await page.run(f"{PLAYER}.bar.querySelector('[data-do=headset]').click()")
    await page.wait(f"{PLAYER}.immersed?.way === 'drawn'")
    await page.run(f"{VIDEO}.pause(); {VIDEO}.currentTime = 0.5")
    await page.wait(f"!{VIDEO}.seeking && {VIDEO}.readyState >= 2")
    seen = await eyes(page)
    # The left half begins with a bright bar, the right half is dark grey all over.
    assert max(seen["left"]) > 180
    assert 30 < max(seen["right"]) < 120
    # With swapped eyes it is the other way round, without leaving the headset.
    await page.run(f"{PLAYER}.swap()")
    swapped = await eyes(page)
    assert max(swapped["right"]) > 180
    assert max(swapped["left"]) < 120
    await page.run(f"{PLAYER}.bar.querySelector('[data-do=headset]').click()")
    await page.wait(f"{PLAYER}.immersed === null")
    text = await page.run(f"return {PLAYER}.bar.querySelector('[data-do=headset]').textContent")
    assert text == "Enter VR"


async def test_a_compositor_that_takes_videos_gets_a_quad_layer(page: Page, gateway: Served) -> None:
    await ready(page, gateway)
    await emulate(page)
    # The emulator has no media layers: this is the specification's interface, which notes what it is asked for.
    await page.run(
        """
        self.asked = [];
        self.XRMediaBinding = class {
          constructor(session) { this.session = session; }
          createQuadLayer(video, init) {
            asked.push({ video: video.tagName, layout: init.layout, invert: init.invertStereo, width: init.width,
                         height: init.height, y: init.transform.position.y, z: init.transform.position.z });
            return { quad: true };
          }
        };
        const request = navigator.xr.requestSession.bind(navigator.xr);
        navigator.xr.requestSession = async (...given) => {
          const session = await request(...given);
          Object.defineProperty(session, "enabledFeatures", { value: ["local-floor", "layers"] });
          session.updateRenderState = async (state) => { self.state = state; };
          return session;
        };
        """
    )
    await page.run(f"{PLAYER}.glass.swap = true; {PLAYER}.headset()")
    await page.wait(f"{PLAYER}.immersed?.way === 'layer'")
    [asked] = await page.run("return asked")
    assert asked["video"] == "VIDEO"
    assert asked["layout"] == "stereo-left-right"
    assert asked["invert"] is True
    # 128 x 72 in half side by side is 16:9 for each eye.
    assert asked["width"] / asked["height"] == pytest.approx(16 / 9, rel=0.01)
    assert asked["z"] < -2
    assert await page.run("return state.layers.length") == 1
    await page.run(f"{PLAYER}.immersed.session.end()")


async def test_without_a_headset_there_is_no_button(page: Page, gateway: Served) -> None:
    await ready(page, gateway)
    assert await page.run(f"return {PLAYER}.bar.querySelector('[data-do=headset]').hidden")
