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


LAYERS = """
self.asked = [];
self.gone = [];
self.XRMediaBinding = class {
  constructor(session) { this.session = session; }
  createQuadLayer(video, init) {
    asked.push({ video: video.tagName, layout: init.layout, invert: init.invertStereo, width: init.width,
                 height: init.height, y: init.transform.position.y, z: init.transform.position.z });
    return { quad: asked.length, destroy() { gone.push(this.quad); } };
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
"""What the specification says of media layers, which the emulator has not; it notes what it is asked for."""


SIGNS = """
self.drawn = [];
self.XRWebGLBinding = class {
  constructor(session, gl) { this.gl = gl; }
  createQuadLayer(init) {
    self.sign = { width: init.width, height: init.height, z: init.transform.position.z,
                  pixels: [init.viewPixelWidth, init.viewPixelHeight] };
    const { gl } = this;
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, ...sign.pixels);
    return { sign: true, needsRedraw: false };
  }
  getSubImage() {
    // As soon as it is drawn to, look at what is there: the brightest red of a row through the last line.
    const { gl, texture } = this;
    queueMicrotask(() => {
      gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
      const row = new Uint8Array(4 * sign.pixels[0]);
      gl.readPixels(0, 36, sign.pixels[0], 1, gl.RGBA, gl.UNSIGNED_BYTE, row);
      drawn.push(Math.max(...row.filter((_, at) => at % 4 === 0)));
    });
    return { colorTexture: texture };
  }
};
const enter_ = navigator.xr.requestSession;
navigator.xr.requestSession = async (...given) => {
  const session = await enter_(...given);
  // The emulator makes no frames where there is no base layer.
  session.requestAnimationFrame = (step) => self.requestAnimationFrame((time) => step(time, {}));
  return session;
};
"""

AIM = """
// A ray from the right hand, at the screen's height, through a place so many metres right of the screen's middle.
const show = document.querySelector("ss-player").immersed;
const hand = device.controllers.right;
hand.position.set(0, show.height, 0);
const turn = -Math.atan2(arguments[0], 3.2) / 2;
hand.quaternion.set(0, Math.sin(turn), 0, Math.cos(turn));
"""

BRIGHT = """
const done = arguments[arguments.length - 1];
const show = document.querySelector("ss-player").immersed;
show.session.requestAnimationFrame((_, frame) => {
  const { gl, layer } = show;
  done(frame.getViewerPose(show.space).views.map((view) => {
    const box = layer.getViewport(view);
    const data = new Uint8Array(4 * box.width * box.height);
    gl.readPixels(box.x, box.y, box.width, box.height, gl.RGBA, gl.UNSIGNED_BYTE, data);
    let count = 0;
    // White letters: the film's own bright bar lies left of the middle.
    for (let y = 0; y < box.height / 2; y += 1)
      for (let x = Math.floor(box.width * 0.45); x < box.width * 0.55; x += 1)
        if (data[4 * (y * box.width + x)] > 235) count += 1;
    return [view.eye, count];
  }));
});
"""


async def bright(page: Page) -> dict[str, int]:
    """White pixels an eye in the middle of the lower half of what is drawn."""
    return dict(await asyncio.to_thread(page.driver.execute_async_script, BRIGHT))


async def frames(page: Page) -> None:
    """Some frames of the headset: in one of them the controllers are read."""
    await asyncio.to_thread(
        page.driver.execute_async_script,
        f"const done = arguments[0]; const {{ session }} = {PLAYER}.immersed;"
        "const next = (left) => session.requestAnimationFrame(() => (left ? next(left - 1) : done())); next(2);",
    )


async def enter_drawn(page: Page, gateway: Served, seconds: int = 1) -> None:
    await ready(page, gateway, seconds)
    await emulate(page)
    await page.run(f"{PLAYER}.headset()")
    await page.wait(f"{PLAYER}.immersed?.way === 'drawn'")
    await page.run(f"{VIDEO}.pause(); {VIDEO}.currentTime = 0.5")
    await page.wait(f"!{VIDEO}.seeking && {VIDEO}.readyState >= 2")


async def ready(page: Page, gateway: Served, seconds: int = 1) -> None:
    showing = Showing(gateway.context, "J1", lengths=(seconds,))
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
    await page.run(LAYERS)
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
    # Swapped while it runs: such a layer keeps its eyes, so another one takes its place.
    await page.run(f"{PLAYER}.swap()")
    await page.wait("asked.length === 2 && state.layers[0].quad === 2")
    assert await page.run("return [asked[1].invert, gone, state.layers.length]") == [False, [1], 1]
    await page.run(f"{PLAYER}.immersed.session.end()")


async def test_a_layer_of_its_own_has_the_subtitles(page: Page, gateway: Served) -> None:
    await ready(page, gateway)
    await emulate(page)
    await page.run(LAYERS)
    await page.run(SIGNS)
    await page.run(f"{PLAYER}.text.said = 'First line'; {PLAYER}.headset()")
    await page.wait(f"{PLAYER}.immersed?.way === 'layer' && drawn.length")
    assert await page.run("return state.layers.map((layer) => layer.sign ?? false)") == [False, True]
    assert not await page.run(f"return {PLAYER}.immersed.silent")
    width, height, pixels, film, here = await page.run(
        "return [sign.width, sign.height, sign.pixels, asked[0].z, sign.z]"
    )
    assert width / height == pytest.approx(pixels[0] / pixels[1])
    assert film < here < film + 0.5, "a little nearer than the film"
    first = await page.run("return drawn.at(-1)")
    assert first > 100, "bright letters"
    await page.run(f"{PLAYER}.text.said = ''")
    await page.wait("drawn.at(-1) === 0")
    await page.run(f"{PLAYER}.immersed.session.end()")


async def test_a_headset_without_them_says_so(page: Page, gateway: Served) -> None:
    await ready(page, gateway)
    await emulate(page)
    await page.run(LAYERS)
    await page.run(f"{PLAYER}.text.found = true; {PLAYER}.headset()")
    curtain = "document.querySelector('[data-curtain]')"
    await page.wait(f"{curtain}.checkVisibility() && /without its subtitles/.test({curtain}.textContent)")
    await page.run(f"{PLAYER}.immersed.session.end()")


async def test_subtitles_are_drawn_below_the_film_for_both_eyes(page: Page, gateway: Served) -> None:
    await enter_drawn(page, gateway)
    before = await bright(page)
    await page.run(f"{PLAYER}.text.said = 'MMMMMMMMMMMM'")
    await page.wait(f"{PLAYER}.immersed.sign.text === 'MMMMMMMMMMMM'")
    during = await bright(page)
    assert all(during[eye] > before[eye] + 20 for eye in ("left", "right")), (before, during)
    await page.run(f"{PLAYER}.text.said = ''")
    await page.wait(f"{PLAYER}.immersed.sign.text === ''")
    assert await bright(page) == before
    await page.run(f"{PLAYER}.immersed.session.end()")


async def test_a_controller_seeks_and_pauses(page: Page, gateway: Served) -> None:
    await enter_drawn(page, gateway, seconds=30)
    await page.run(f"self.steps = []; {PLAYER}.step = (seconds) => steps.push(seconds)")
    # A stick counts once, however long it is held.
    for x in (1, 0, -1, 0):
        await page.run("device.controllers.left.updateAxes('thumbstick', arguments[0], 0)", x)
        await frames(page)
    assert await page.run("return steps") == [10, -10]
    await page.run("steps.length = 0")
    # The trigger: on the right and left third it seeks, in the middle and beside the screen it plays or pauses.
    for across, steps in ((1.2, [10]), (-1.2, [10, -10]), (0.0, None), (4.0, None)):
        paused = await page.run(f"return {VIDEO}.paused")
        await page.run(AIM, across)
        await frames(page)
        for value in (1, 0):
            await page.run("device.controllers.right.updateButtonValue('trigger', arguments[0])", value)
            await frames(page)
        if steps is None:
            await page.wait(f"{VIDEO}.paused !== {str(paused).lower()}")
            assert await page.run("return steps") == [10, -10]
        else:
            assert await page.run("return steps") == steps
            assert await page.run(f"return {VIDEO}.paused") is paused
    await page.run(f"{PLAYER}.immersed.session.end()")


async def test_without_a_headset_there_is_no_button(page: Page, gateway: Served) -> None:
    await ready(page, gateway)
    assert await page.run(f"return {PLAYER}.bar.querySelector('[data-do=headset]').hidden")
