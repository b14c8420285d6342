"""A worker is killed in the middle of a segment: the page says that it is tried again, and then that it is done."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver

from services import daemon, submit, workers
from services.context import Context
from stereospot.options import Options
from stereospot.settings import Settings
from tests.browser.conftest import Page
from tests.system.showing import film

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@contextmanager
def worker(context: Context, seconds: float) -> Generator[subprocess.Popen[bytes]]:
    """A converter of its own whose stub takes `seconds` a segment."""
    environment = workers.environment(context.settings.model_copy(update={"pool": "stub", "slots": 1}))
    environment |= {"STEREOSPOT_STUB_SECONDS": str(seconds)}
    command = [sys.executable, "-m", "services.cli", "run", "converter"]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait(10)


async def test_a_killed_worker_is_seen_as_retrying(driver: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "Film.mp4"
    body = film(4)
    await asyncio.to_thread(path.write_bytes, body)
    settings = Settings(data_dir=tmp_path / "data", port=0, nats_port=0)
    async with daemon.running(settings, daemon.ALL - {"converter"}) as context:
        page = Page(driver, f"http://127.0.0.1:{context.settings.port}")
        source = await submit.local_source(path, None)
        job = await submit.create(context, source, Options(backend="stub", preset="ultrafast"), title="Film")
        await page.open(f"/jobs/{job.job_id}")
        with worker(context, 60.0) as first:
            await page.wait("document.querySelector('ss-strip button.running')", seconds=60)
            os.kill(first.pid, signal.SIGKILL)
        with worker(context, 4.0):
            await page.wait("document.querySelector('ss-strip button.retrying')", seconds=60)
            label = await page.run("return document.querySelector('ss-strip .retrying').getAttribute('aria-label')")
            assert "trying again" in label
            assert "attempt 2" in label
            await page.wait("document.querySelector('[data-label]').textContent === 'Done'", seconds=60)
        assert await page.run("return document.querySelectorAll('ss-strip button:not(.done)').length") == 0
        assert await page.complaints() == []
        await page.open("/livez")
