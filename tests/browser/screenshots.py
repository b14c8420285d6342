"""Screenshots of every page at phone, laptop and headset width, from the running product: `just screenshots`.

    python -m tests.browser.screenshots [--films PATH…] [--to docs/images] [--only home,job] [--light] [--data FOLDER]

Starts a whole daemon on a free port, gives it films (without `--films` the demo's own clip), and looks at each page
while they are converted and after. The pictures are WebP, small enough for a repository.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from selenium import webdriver

from services import daemon, submit
from services.cli.clip import write_clip
from services.context import Context
from stereospot import records
from stereospot.jobs import Job, Phase
from stereospot.options import Options
from stereospot.settings import Settings
from tests.browser import browser
from tests.support import eventually

SIZES = {"phone": (390, 844, 2.0), "laptop": (1280, 800, 1.0), "headset": (1600, 1000, 1.0)}
"""Name: CSS pixels across and down, device pixels for each."""

MAX_BYTES = 150_000
PATIENCE_SECONDS = 600.0
TALL = 1.7
"""A long page is cut at so many screens."""

PLAYED = "document.querySelector('video')?.readyState >= 2"


SETTINGS: dict[str, dict[str, Any]] = {
    "a": {},
    "b": {"options": {"divergence": 2.6, "convergence": 0.3}},
    "depth": {"kind": "depth"},
}
MIDDLE = """
document.querySelectorAll("[data-place]")[1].click();
const { video } = document.querySelector("ss-try").below;
video.pause();
"""
ANAGLYPH = """
const player = document.querySelector("ss-player");
player.view.value = "anaglyph";
player.look("anaglyph");
player.video.muted = true;
player.seekTo(20);
player.video.play();
"""
RUNNING = "document.querySelector('ss-player').now > 20.3 && !document.querySelector('video').seeking"


@dataclass
class Studio:
    """A daemon, a browser, and where the pictures go."""

    context: Context
    driver: webdriver.Chrome
    to: Path
    only: frozenset[str]
    theme: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.context.settings.port}"

    async def submit(self, film: Path, title: str) -> Job:
        return await submit.create(self.context, await submit.local_source(film, None), Options(), title=title)

    async def job(self, job_id: str) -> Job:
        found = await records.get_job(self.context.bus, job_id)
        assert found is not None
        return found[0]

    async def samples(self, job_id: str) -> str:
        """The page of a film's samples as a query, once they are converted."""
        if self.only and "try" not in self.only:
            return ""
        found: dict[str, str] = {}
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30) as client:
            for name, wanted in SETTINGS.items():
                answer = await client.post("/api/v1/samples", json={"job_id": job_id, **wanted})
                found[name] = answer.raise_for_status().json()["job_id"]

        async def done() -> bool:
            return all([(await self.job(item)).phase is Phase.COMPLETED for item in found.values()])

        await eventually(done, seconds=PATIENCE_SECONDS, every=0.5, what="the samples")
        return "&".join(f"{name}={item}" for name, item in found.items())

    async def shoot(self, name: str, path: str, *, ready: str = "true", first: str = "", then: str = "true") -> None:
        """One page at all widths: once `ready` is true, `first` is run, and when `then` is true it is taken."""
        if self.only and name not in self.only:
            return
        for size in SIZES:
            await asyncio.to_thread(self._open, size, path)
            await self._is(ready)
            if first:
                await asyncio.to_thread(self.driver.execute_script, first)
            await self._is(then)
            await asyncio.to_thread(self.driver.execute_async_script, _SETTLED)
            picture = await asyncio.to_thread(self._take, size)
            where = self.to / f"page-{name}-{size}{'' if self.theme == 'dark' else '-light'}.webp"
            print(f"{where.name} {_write(picture, where) / 1000:.0f} kB", flush=True)

    async def _is(self, expression: str) -> None:
        async def look() -> bool:
            # In a thread: the page that answers may wait for the daemon, which lives in this process.
            return bool(await asyncio.to_thread(self.driver.execute_script, f"return {expression}"))

        await eventually(look, seconds=60, every=0.2, what=expression)

    def _open(self, size: str, path: str) -> None:
        width, height, scale = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": size == "phone"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(self.url + "/livez")
        self.driver.execute_script("localStorage.setItem('theme', arguments[0])", self.theme)
        self.driver.get(self.url + path)

    def _take(self, size: str) -> Image.Image:
        width, height, scale = SIZES[size]
        whole = int(self.driver.execute_script("return document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": min(max(whole, height), int(height * TALL)), "scale": 1}
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
        )
        picture = Image.open(io.BytesIO(base64.b64decode(shot["data"])))
        assert picture.width == round(width * scale), "a page is wider than its window"
        return picture


_SETTLED = """
const done = arguments[arguments.length - 1];
const pictures = [...document.images].filter((item) => !item.complete)
  .map((item) => new Promise((resolve) => { item.onload = item.onerror = resolve; }));
Promise.all([document.fonts.ready, ...pictures]).then(() => requestAnimationFrame(() => requestAnimationFrame(done)));
"""


def _write(picture: Image.Image, where: Path) -> int:
    """As small as it has to be; returns its bytes."""
    for quality in (88, 80, 70, 55):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MAX_BYTES:
            break
    where.write_bytes(buffer.getvalue())
    return buffer.tell()


async def session(studio: Studio, films: Sequence[Path]) -> None:
    """Every page, from the empty house to the finished film."""
    await studio.shoot("home-empty", "/")
    job = await studio.submit(films[0], _title(films[0]))
    page = f"/jobs/{job.job_id}"
    some = "document.querySelectorAll('ss-strip .done').length > 1"
    await studio.shoot("job-converting", page, ready=f"{some} && {PLAYED}")
    others = [await studio.submit(film, _title(film)) for film in films[1:]]
    await studio.shoot("home", "/", ready="document.querySelectorAll('.card').length > 0")

    async def finished() -> bool:
        found = [await studio.job(item.job_id) for item in (job, *others)]
        return all(item.phase in (Phase.COMPLETED, Phase.FAILED) for item in found)

    await eventually(finished, seconds=PATIENCE_SECONDS, every=0.5, what="the films")
    await studio.shoot("films", "/jobs")
    await studio.shoot("job", page, ready=PLAYED)
    await studio.shoot("watch", f"/watch/{job.job_id}", ready=PLAYED, first=ANAGLYPH, then=RUNNING)
    samples = await studio.samples(job.job_id)
    shown = "!document.querySelector('[data-split]').hidden"
    await studio.shoot("try", f"/try/{job.job_id}?{samples}", ready=shown, first=MIDDLE)
    await studio.shoot("launch", f"/launch/{job.job_id}")
    await studio.shoot("workers", "/workers")
    await studio.shoot("letters", "/dead-letters")
    await studio.shoot("problem", "/jobs/not-there")


def _title(film: Path) -> str:
    return film.stem.replace("-", " ").replace("_", " ").capitalize()


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[Context]:
    async with daemon.running(Settings(data_dir=folder, port=0, nats_port=0), daemon.ALL) as context:
        yield context


async def run(arguments: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="stereospot-screenshots-") as temporary:
        films = list(arguments.films)
        if not films:
            films = [Path(temporary) / "landscape.mp4"]
            await asyncio.to_thread(write_clip, films[0], 24.0)
        driver = await asyncio.to_thread(browser.start)
        if driver is None:
            raise SystemExit("There is no Chromium with its driver on this system.")
        try:
            async with house(arguments.data or Path(temporary) / "data") as context:
                arguments.to.mkdir(parents=True, exist_ok=True)
                theme = "light" if arguments.light else "dark"
                await session(Studio(context, driver, arguments.to, frozenset(arguments.only), theme), films)
        finally:
            await asyncio.to_thread(driver.quit)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--films", type=Path, nargs="*", default=())
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", type=lambda text: text.split(","), default=())
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--data", type=Path)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
