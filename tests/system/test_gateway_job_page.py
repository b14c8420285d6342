"""What a job's page says, as it comes from the server: comfort, files, failures."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from inference.comfort import Comfort
from stereospot import records
from stereospot.jobs import Job
from tests.support import nats_server
from tests.system.gateway import Served, served
from tests.system.showing import Showing


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Served]:
    with nats_server() as server:
        async with served(server, tmp_path / "data") as running:
            yield running


async def text_of(gateway: Served, path: str) -> str:
    """What people read on a page, without its markup."""
    answer = await gateway.client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


async def change(gateway: Served, **values: Any) -> None:
    def apply(job: Job) -> Job:
        return job.model_copy(update=values)

    await records.change_job(gateway.context.bus, "J1", apply)


async def test_the_comfort_report_in_words(gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    report = Comfort(
        frames=192, segments=4, disparity_p1=-2.425, disparity_p50=-0.02, disparity_p99=0.325, within_budget=False,
        suggested_divergence=1.4, violation_ratio=0.031, stretch_ratio=0.012, folds=3, seam_step=0.2071,
        frame_step_p95=0.0452, worker_fps=23.91,
    )  # fmt: skip
    await change(gateway, report=report.model_dump(mode="json", exclude={"warnings"}))
    text = await text_of(gateway, "/jobs/J1")
    for said in (
        "From 2.4 % behind the screen to 0.3 % in front of the screen, in the middle at the screen; "
        "% of the picture's width",
        "Beyond what is comfortable, 2.0 % behind the screen to 1.0 % in front of the screen; "
        "a divergence of 1.4 % would just fill it",
        "3.1 % of the frame's edge",
        "1.2 % of the picture",
        "0.207 % at the worst seam of segments, 0.045 % between ordinary frames",
        "Folds 3 places shown out of order",
        "Work 23.9 frames a second",
    ):
        assert said in text, text


async def test_a_page_without_a_report_has_no_words_of_comfort(gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    assert "comfortable" not in await text_of(gateway, "/jobs/J1")
