"""What a job's page says, as it comes from the server: comfort, files, failures."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from inference.comfort import Comfort
from stereospot import jobs, keys, records
from stereospot.jobs import Job, Phase
from stereospot.media.model import Plan, SubtitleTrack
from stereospot.messages import Failure, Film
from stereospot.options import Layout, Options
from tests.support import nats_server
from tests.system.gateway import FILM, Served, served, upload
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


ASS = b"[Script Info]\nScriptType: v4.00+\n"


class Polyglot(Showing):
    """Its source has eleven subtitles; of what language they are is known of the third only."""

    def plan(self) -> Plan:
        plan = super().plan()
        track = SubtitleTrack(stream_index=2, codec="subrip")
        text = tuple(track.model_copy(update={"language": "deu" if number == 2 else None}) for number in range(11))
        return plan.model_copy(update={"source": plan.source.model_copy(update={"subtitles": text})})


async def finished(gateway: Served) -> None:
    """A film with its depth and two text subtitles (tracks 2 and 10) beside it."""
    await Polyglot(gateway.context, "J1").begin()
    store = gateway.context.store
    film = Film(key=keys.film("J1", 1, "mp4"), **FILM)
    await store.put(film.key, b"f" * FILM["size_bytes"])
    await store.put(keys.depth("J1", 1), b"depth" * 20)
    for track in (10, 2):
        await store.put(keys.subtitles("J1", 1, track, "ass"), ASS + b"; %d\n" % track)
        await store.put(keys.subtitles("J1", 1, track, "vtt"), b"WEBVTT\n")
    await change(gateway, phase=Phase.COMPLETED, film=film, options=Options(export_depth=True))


async def test_every_output_is_listed_served_and_on_the_page(gateway: Served) -> None:
    await finished(gateway)
    listed = (await gateway.client.get("/api/v1/jobs/J1/outputs")).json()["outputs"]
    stem = FILM["file_name"].removesuffix(".mp4")
    assert [(item["profile"], item["file_name"]) for item in listed] == [
        ("half-sbs", f"{stem}.mp4"),
        ("depth", "depth.mkv"),
        ("subtitles", f"{stem}.ass"),
        ("subtitles", f"{stem}.2.ass"),
    ]
    assert [item.get("language", "") for item in listed] == ["", "", "deu", ""]
    page = (await gateway.client.get("/jobs/J1", headers={"Accept": "text/html"})).text
    about = (await gateway.client.get("/jobs/J1/about", headers={"Accept": "text/html"})).text
    for item in listed:
        answer = await gateway.client.get(item["href"])
        assert (answer.status_code, len(answer.content)) == (200, item["size_bytes"])
        assert answer.headers["content-disposition"].startswith("attachment")
        # The address is that of the next generation, too.
        assert answer.headers["cache-control"] == "private, no-cache"
        again = await gateway.client.get(item["href"], headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert f'href="{item["href"]}"' in page
        assert f'href="{item["href"]}"' in about
    for text in (page, about):
        assert re.findall(r'</a>, <span data-language="(\w+)">(\w+)</span>, \d+ ', text) == [("deu", "deu")]
    first = await gateway.client.get(listed[2]["href"])
    assert first.content.endswith(b"; 2\n"), "in the order of the tracks"
    assert first.headers["content-type"].startswith("text/x-ssa")
    for name in (f"{stem}.3.ass", "2.ass", "other.mkv", f"{stem}.vtt"):
        assert (await gateway.client.get(f"/api/v1/jobs/J1/outputs/{name}")).json()["code"] == "NOT_FOUND", name


async def test_before_the_film_is_there_nothing_is_listed(gateway: Served) -> None:
    await Showing(gateway.context, "J1").begin()
    await gateway.context.store.put(keys.subtitles("J1", 1, 0, "ass"), ASS)
    assert (await gateway.client.get("/api/v1/jobs/J1/outputs")).json()["outputs"] == []
    assert (await gateway.client.get("/api/v1/jobs/J1/outputs/x.ass")).status_code == 404


@pytest.mark.parametrize(
    ("code", "attempts", "button", "said"),
    [
        ("UNSUPPORTED_CONTAINER", 1, 'class="quiet"', "1 attempt "),
        ("STORAGE_UNAVAILABLE", 3, 'class="primary"', "3 attempts "),
    ],
)
async def test_another_try_is_pressed_upon_nobody_where_it_cannot_help(
    gateway: Served, code: str, attempts: int, button: str, said: str
) -> None:
    await Showing(gateway.context, "J1").begin()
    failure = Failure(code=code, sentence="It failed.", advice="Look.", attempts=attempts)

    def fail(job: Job) -> Job | None:
        return jobs.fail(job, failure, at=9.0)

    await records.change_job(gateway.context.bus, "J1", fail)
    page = (await gateway.client.get("/jobs/J1", headers={"Accept": "text/html"})).text
    assert f'<button type="button" {button} data-action="retry">' in page
    assert said in await text_of(gateway, "/jobs/J1")


async def test_the_command_on_the_page_asks_for_the_same_conversion_once_more(gateway: Served) -> None:
    made = (await upload(gateway, name="It's a film.mp4"))["job_id"]
    options = Options(layout=Layout.ANAGLYPH, divergence=1.2, engine="cues")

    def choose(job: Job) -> Job:
        return job.model_copy(update={"options": options, "title": "It's 50 % / a “film”", "priority": 7})

    await records.change_job(gateway.context.bus, made, choose)
    page = (await gateway.client.get(f"/jobs/{made}", headers={"Accept": "text/html"})).text
    command = re.search(r'data-copy="([^"]*)"', page)
    assert command is not None
    words = shlex.split(html.unescape(command[1]))
    assert words[:3] == ["curl", "-sS", "/api/v1/jobs"]
    headers = dict([words[words.index("-H") + 1].split(": ")])
    answer = await gateway.client.post(words[2], content=words[words.index("-d") + 1], headers=headers)
    assert answer.status_code == 201, answer.text
    again = answer.json()
    assert again["job_id"] != made
    assert (again["title"], again["priority"]) == ("It's 50 % / a “film”", 7)
    assert Options.model_validate(again["options"]) == options
    assert again["source"]["name"] == "It's a film.mp4"


async def test_films_stay_here_only_if_nothing_of_it_is_elsewhere(gateway: Served, tmp_path: Path) -> None:
    said = "They stay on the machine that serves this page."
    # Another process may take work from this broker.
    assert said not in await text_of(gateway, "/")
    for endpoint, stays in ((None, True), ("http://127.0.0.1:9/", False)):
        async with served(gateway.server, tmp_path / "alone", alone=True, inference_url=endpoint) as alone:
            assert (said in await text_of(alone, "/")) is stays
