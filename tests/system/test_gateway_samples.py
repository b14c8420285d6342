"""What is looked at beside the film: samples before it is converted, and the scrubber's storyboard."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import av
import pytest

from services import submit
from services.gateway import formats, samples
from services.janitor import Janitor
from stereospot import jobs, keys, records
from stereospot.jobs import Phase
from stereospot.messages import Film, SourceRef
from stereospot.options import Layout, Options
from tests.support import eventually, nats_server
from tests.system.gateway import FILM, Served, served
from tests.system.showing import FRAME, RATE, Showing, film


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Served]:
    with nats_server() as server:
        async with served(server, tmp_path / "data") as running:
            yield running


async def playback(gateway: Served, job_id: str) -> str:
    """The folder of a job's playlists, token and generation included."""

    async def path() -> str | None:
        return (await gateway.client.get(f"/api/v1/jobs/{job_id}")).json()["playback"]["hls"]

    return str(await eventually(path, what="something to play")).removesuffix("master.m3u8")


async def upload(gateway: Served) -> str:
    answer = await gateway.client.put("/api/v1/uploads?name=film.mp4", content=film(1))
    return str(answer.json()["upload"])


# ---- the storyboard --------------------------------------------------------------------------------------
async def test_a_storyboard_is_drawn_once_and_kept(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 1, 2, 4))
    await showing.begin()
    source = keys.source("J1", "mp4")
    await gateway.context.store.put(source, film(8))
    await showing.convert(0)
    base = await playback(gateway, "J1")
    answer = await gateway.client.get(f"{base}storyboard.vtt")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/vtt")
    cues = [block.splitlines() for block in answer.text.split("\n\n")[1:]]
    assert [cue[0] for cue in cues] == [f"00:00:0{at}.000 --> 00:00:0{at + 2}.000" for at in (0, 2, 4, 6)]
    address, _, box = cues[3][1].partition("#xywh=")
    left, top, width, height = map(int, box.split(","))
    sheet = await gateway.client.get(base + address)
    assert sheet.headers["content-type"] == "image/jpeg"
    with av.open(io.BytesIO(sheet.content), "r", format="jpeg_pipe") as container:
        picture = next(container.decode(container.streams.video[0])).to_ndarray(format="rgb24")
    tile = picture[top : top + height, left : left + width]
    assert abs(float(tile.mean()) - (40 + 16 * 6 - 16) * 255 / 219) < 6, "the picture of the sixth second"
    await gateway.context.store.delete(source)
    assert (await gateway.client.get(f"{base}storyboard.vtt")).text == answer.text
    assert (await gateway.client.get(f"{base}storyboard/7.jpg")).status_code == 404
    assert (await gateway.client.get(f"{base}storyboard/x.jpg")).status_code == 404


async def test_a_film_without_pictures_has_a_storyboard_without_cues(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    base = await playback(gateway, "J1")
    for _ in range(2):
        answer = await gateway.client.get(f"{base}storyboard.vtt")
        assert (answer.status_code, answer.text) == (200, "WEBVTT\n")


async def test_a_poster_is_a_picture_of_the_film_and_there_before_the_first_segment(gateway: Served) -> None:
    await Showing(gateway.context, "J1", lengths=(1, 1, 2, 4)).begin()
    source = keys.source("J1", "mp4")
    await gateway.context.store.put(source, film(8))
    path = (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]["poster"]
    answer = await gateway.client.get(path)
    assert answer.headers["content-type"] == "image/jpeg"
    with av.open(io.BytesIO(answer.content), "r", format="jpeg_pipe") as container:
        assert next(container.decode(container.streams.video[0])).width == 640
    await gateway.context.store.delete(source)
    assert (await gateway.client.get(path)).content == answer.content


async def test_without_its_source_a_film_has_a_poster_of_what_is_converted(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    path = (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]["poster"]
    blank = await gateway.client.get(path)
    assert blank.headers["content-type"].startswith("image/svg+xml")
    assert blank.headers["cache-control"] == "no-store"
    await showing.convert(0)
    await playback(gateway, "J1")
    assert (await gateway.client.get(path)).headers["content-type"] == "image/jpeg"


# ---- samples ---------------------------------------------------------------------------------------------
async def test_samples_of_an_upload_are_one_job_however_often_they_are_asked_for(gateway: Served) -> None:
    key = await upload(gateway)
    wanted: dict[str, Any] = {
        "upload": key,
        "title": "Film",
        "duration_seconds": 100,
        "options": {"divergence": 1.2, "codec": "x265"},
    }
    first = await gateway.client.post("/api/v1/samples", json=wanted)
    assert first.status_code == 201
    body = first.json()
    assert body["options"]["samples"] == [20.0, 50.0, 80.0]
    assert body["options"]["layout"] == "full-sbs"
    assert body["options"]["divergence"] == 1.2
    assert body["options"]["codec"] is None, "every browser loops them, whatever the film is to be"
    again = await gateway.client.post("/api/v1/samples", json=wanted)
    assert again.json()["job_id"] == body["job_id"]
    other = await gateway.client.post("/api/v1/samples", json=wanted | {"options": {"divergence": 2.0}})
    assert other.json()["job_id"] != body["job_id"]
    depth = await gateway.client.post("/api/v1/samples", json={"job_id": body["job_id"], "kind": "depth"})
    assert depth.json()["options"]["layout"] == "2d-depth"
    assert depth.json()["options"]["samples"] == [20.0, 50.0, 80.0]
    assert depth.json()["title"] == "Film"


async def test_samples_that_were_given_up_are_made_anew(gateway: Served) -> None:
    key = await upload(gateway)
    first = (await gateway.client.post("/api/v1/samples", json={"upload": key})).json()
    assert first["options"]["samples"] == [60.0, 300.0, 900.0], "nobody said how long the film is"
    await gateway.client.post(f"/api/v1/jobs/{first['job_id']}/cancel")
    second = (await gateway.client.post("/api/v1/samples", json={"upload": key})).json()
    assert second["job_id"] != first["job_id"]


@pytest.mark.parametrize("wanted", [{}, {"job_id": "J1", "upload": "input/x/source.mp4"}])
async def test_samples_are_of_one_thing(gateway: Served, wanted: dict[str, str]) -> None:
    answer = await gateway.client.post("/api/v1/samples", json=wanted)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")


async def test_the_whole_film_after_its_samples(gateway: Served) -> None:
    key = await upload(gateway)
    samples = (await gateway.client.post("/api/v1/samples", json={"upload": key, "title": "Film"})).json()
    options = {"layout": "half-sbs", "convergence": 0.3, "samples": [1.0]}
    answer = await gateway.client.post(f"/api/v1/jobs/{samples['job_id']}/whole", json={"options": options})
    assert answer.status_code == 201
    body = answer.json()
    assert body["options"]["samples"] is None
    assert body["options"]["convergence"] == 0.3
    assert body["title"] == "Film"
    parsed = keys.parse_source(key)
    assert parsed is not None
    assert body["job_id"] == parsed.job_id, "the source lies under the prefix of the job that goes with it"
    another = await gateway.client.post(f"/api/v1/jobs/{samples['job_id']}/whole", json={})
    assert another.json()["job_id"] not in (body["job_id"], samples["job_id"])


@pytest.mark.parametrize("path", ["/api/v1/samples", "/api/v1/jobs/{}/whole"])
async def test_what_is_made_of_a_job_has_its_depth_and_its_pool(gateway: Served, path: str) -> None:
    film_key, depth_key = await upload(gateway), await upload(gateway)
    wanted: dict[str, Any] = {"upload": film_key, "depth_upload": depth_key, "options": {"engine": "user"}}
    wanted |= {"pool": "gpu", "passthrough": "mine"}
    origin = (await gateway.client.post("/api/v1/jobs", json=wanted)).json()["job_id"]

    async def made(**more: Any) -> jobs.Job:
        body = {"job_id": origin, **more} if path.endswith("samples") else more
        answer = await gateway.client.post(path.format(origin), json=body)
        assert answer.status_code == 201, answer.text
        found = await records.get_job(gateway.context.bus, answer.json()["job_id"])
        assert found is not None
        return found[0]

    same = await made()
    assert (same.depth is not None and same.depth.key, same.pool) == (depth_key, "gpu")
    assert same.passthrough == ("" if path.endswith("samples") else "mine")
    other = await made(options={"engine": "flat"})
    assert (other.depth, other.pool) == (None, "gpu"), "another engine would refuse the depth"


async def test_the_whole_film_by_another_engine_goes_to_its_pool(gateway: Served) -> None:
    origin = (await gateway.client.post("/api/v1/jobs", json={"upload": await upload(gateway)})).json()["job_id"]
    answer = await gateway.client.post(f"/api/v1/jobs/{origin}/whole", json={"options": {"engine": "depth-anything"}})
    found = await records.get_job(gateway.context.bus, answer.json()["job_id"])
    assert found is not None
    assert found[0].pool == "gpu"


async def test_samples_are_not_among_films(gateway: Served) -> None:
    key = await upload(gateway)
    sample = (await gateway.client.post("/api/v1/samples", json={"upload": key})).json()
    film_id = (await gateway.client.post("/api/v1/jobs", json={"upload": key})).json()["job_id"]
    assert sample["is_sample"]

    async def listed(query: str) -> tuple[set[str], int]:
        body = (await gateway.client.get(f"/api/v1/jobs{query}")).json()
        return {job["job_id"] for job in body["jobs"]}, sum(body["counts"].values())

    async def known() -> bool:
        return (await listed("?kind=all"))[1] == 2

    await eventually(known, what="both jobs in the list")
    assert await listed("") == ({film_id}, 1)
    assert await listed("?kind=samples") == ({sample["job_id"]}, 1)
    assert await listed("?kind=all&status=active") == ({film_id, sample["job_id"]}, 2)
    html = {"Accept": "text/html"}
    films = (await gateway.client.get("/jobs", headers=html)).text
    assert sample["job_id"] not in films
    assert "?status=samples" in films
    assert sample["job_id"] in (await gateway.client.get("/jobs?status=samples", headers=html)).text
    assert sample["job_id"] in (await gateway.client.get("/", headers=html)).text, "while it is made"


async def test_samples_expire_as_a_whole(gateway: Served) -> None:
    days = gateway.context.settings.keep_fragments_days
    now = time.time()
    rest = {Phase.COMPLETED: "completed", Phase.FAILED: "failed"}
    for age, options in (
        (days + 9, Options(samples=(1.0,))),
        (days - 1, Options(samples=(1.0,))),
        (days + 9, Options()),
    ):
        for phase, name in rest.items():
            job_id = f"{name}-{age:.0f}-{'sample' if options.samples else 'film'}"
            at = now - age * 86400
            await records.create_job(
                gateway.context.bus,
                jobs.Job(job_id=job_id, phase=phase, created_at=at, updated_at=at, source=SourceRef(), options=options),
            )
    findings = await Janitor(gateway.context).sweep()
    assert findings.expired["samples"] == 2
    left = (await gateway.client.get("/api/v1/jobs?kind=samples")).json()["jobs"]
    gone = {f"{name}-{days + 9:.0f}-sample" for name in rest.values()}
    for job_id in gone:
        assert (await gateway.client.get(f"/api/v1/jobs/{job_id}")).status_code == 404
    assert {job["job_id"] for job in left} - gone == {f"{name}-{days - 1:.0f}-sample" for name in rest.values()}


async def test_the_whole_film_of_a_local_file(gateway: Served, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film")
    source = await submit.local_source(path, None)
    await submit.create(gateway.context, source, Options(crf=24), job_id="J1", title="Film")
    answer = await gateway.client.post("/api/v1/jobs/J1/whole", json={"title": "Again"})
    found = await records.get_job(gateway.context.bus, answer.json()["job_id"])
    assert found is not None
    assert found[0].source == source
    assert (found[0].title, found[0].options.crf) == ("Again", 24)


async def test_a_sample_is_a_film_of_its_own_that_begins_at_zero(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", lengths=(1, 2, 1))
    await showing.begin()
    await showing.convert(0, 1)
    base = await playback(gateway, "J1")
    assert (await gateway.client.get(f"{base}sample/1.mp4")).status_code == 404, "it is no sample job"

    def sampled(job: jobs.Job) -> jobs.Job:
        return job.model_copy(update={"options": Options(samples=(0.0, 1.0, 3.0))})

    await records.change_job(gateway.context.bus, "J1", sampled)
    answer = await gateway.client.get(f"{base}sample/1.mp4")
    assert answer.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(answer.content), "r") as container:
        frames = list(container.decode(container.streams.video[0]))
    assert [frame.pts for frame in frames] == [number * FRAME for number in range(2 * RATE)]
    # The second segment's bar is 16 wide and bright.
    assert frames[0].to_ndarray(format="gray")[:, :14].mean() > 180
    assert (await gateway.client.get(f"{base}sample/2.mp4")).status_code == 404
    assert (await gateway.client.get(f"{base}sample/x.mp4")).status_code == 404


def test_every_layout_has_a_name_for_people() -> None:
    assert all(formats.layout(item) != item for item in Layout)


def test_the_source_of_a_sample_names_it() -> None:
    one = SourceRef(key="input/A/source.mp4", size_bytes=4)
    two = SourceRef(key="input/B/source.mp4", size_bytes=4)
    options = samples.settings(Options(), "stereo", (0.0,))
    assert samples.sample_id(one, options) == samples.sample_id(one, options)
    assert samples.sample_id(one, options) != samples.sample_id(two, options)
    assert samples.starts(1.0) == (0.0, 0.0, 0.0)


async def test_fragments_of_an_old_film_go_and_the_film_stays(gateway: Served) -> None:
    store, at = gateway.context.store, time.time() - 2 * 86400
    values: dict[str, Any] = FILM | {"size_bytes": 1, "stream_withdrawn_at": at}
    made = Film(key=keys.film("J1", 1, "mkv"), **values)
    old = jobs.Job(job_id="J1", phase=Phase.COMPLETED, created_at=1.0, updated_at=1.0, source=SourceRef(), film=made)
    await records.create_job(gateway.context.bus, old)
    gone = [keys.segment("J1", 1, 0), keys.segment_report("J1", 1, 0), keys.audio_init("J1", 1, 0)]
    gone.append(keys.audio_segment("J1", 1, 0, 0))
    kept = [keys.plan("J1", 1), keys.subtitles("J1", 1, 0, "vtt"), keys.film("J1", 1, "mkv")]
    for key in (*gone, *kept):
        await store.put(key, b"x")
    findings = await Janitor(gateway.context).sweep()
    assert findings.expired == {"fragments": len(gone)}
    assert [item.key async for item in store.list("jobs/J1/")] == sorted(kept)
