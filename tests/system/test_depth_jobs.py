"""Depth of one's own in jobs, by upload, by path and over NATS, through a whole daemon; depth that was written out."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from numpy.typing import NDArray

from inference import layouts
from inference.depth import export
from services import daemon
from services.context import Context
from stereospot import records
from stereospot.jobs import Phase
from stereospot.media.model import Colour, StereoSpec
from stereospot.options import Layout
from tests.support import eventually
from tests.system.rig import rig
from tests.system.test_user_depth import COUNT, HEIGHT, WIDTH, film

ENDED = (Phase.COMPLETED, Phase.FAILED)
OPTIONS = {
    "layout": "full-sbs", "divergence": 5, "crf": 0, "preset": "ultrafast", "segment_seconds": 0.4,
    "export_depth": True,
}  # fmt: skip


def codes(count: int = COUNT, width: int = WIDTH, height: int = HEIGHT) -> list[NDArray[np.uint16]]:
    """A near box that moves over a slope."""
    found: list[NDArray[np.uint16]] = []
    for index in range(count):
        picture = np.linspace(0, 30000, height)[:, None].repeat(width, 1).astype(np.uint16)
        picture[height // 3 : 2 * height // 3, 2 * index : 2 * index + 20] = 60000
        found.append(picture)
    return found


def depth_film(path: Path, pictures: list[NDArray[np.uint16]]) -> Path:
    """16-bit grey FFV1, at a rate of its own."""
    height, width = pictures[0].shape
    writer = export.Writer(width, height, Fraction(10))
    for picture in pictures:
        writer.write(picture)
    path.write_bytes(writer.finish())
    return path


def expected(source: Path, pictures: list[NDArray[np.uint16]]) -> list[list[NDArray[Any]]]:
    """What the compositor makes of each frame and its depth, called directly."""
    stereo = StereoSpec(engine="user", layout=Layout.FULL_SBS, divergence=5, convergence=0.5, grid_step=1)
    compositor = layouts.Compositor(WIDTH, HEIGHT, "yuv420p", stereo, Colour())
    pairs = zip(planes_of(source), pictures, strict=True)
    return [list(compositor.compose(tuple(planes), depth)) for planes, depth in pairs]


def planes_of(path: Path) -> list[list[NDArray[Any]]]:
    """Y, U and V of every frame."""
    found: list[list[NDArray[Any]]] = []
    with av.open(str(path), "r") as container:
        for frame in container.decode(video=0):
            planes: list[NDArray[Any]] = []
            for plane in frame.planes:
                rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1)
                planes.append(np.ascontiguousarray(rows[:, : plane.width]))
            found.append(planes)
    return found


@dataclass(slots=True)
class House:
    """A whole daemon; `folder` is a root, from which jobs may be made by path."""

    context: Context
    client: httpx.AsyncClient
    folder: Path

    async def upload(self, path: Path) -> str:
        """The storage key of what was uploaded."""
        body = await asyncio.to_thread(path.read_bytes)
        answer = await self.client.post("/api/v1/uploads", params={"name": path.name}, content=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["upload"]

    async def convert(self, **wanted: Any) -> str:
        answer = await self.client.post("/api/v1/jobs", json={"options": OPTIONS | {"engine": "user"}} | wanted)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()["job_id"]

    async def ended(self, job_id: str) -> Any:
        async def look() -> Any:
            found = await records.get_job(self.context.bus, job_id)
            return found[0] if found is not None and found[0].phase in ENDED else None

        return await eventually(look, seconds=60, what="the job's end")

    async def fetched(self, job_id: str, name: str) -> Path:
        answer = await self.client.get(f"/api/v1/jobs/{job_id}/outputs/{name}")
        assert answer.status_code == 200, answer.text
        path = self.folder / f"{job_id}-{name}"
        await asyncio.to_thread(path.write_bytes, answer.content)
        return path


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncGenerator[House]:
    folder = tmp_path / "films"
    folder.mkdir()
    async with (
        rig(tmp_path, roots=(folder,), port=0, slots=1) as made,
        daemon.running(made.settings, daemon.ALL) as context,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{context.settings.port}", timeout=30, trust_env=False) as client,
    ):
        yield House(context, client, folder)


async def test_depth_by_upload_by_path_and_over_nats_is_used_to_the_pixel(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        source = await asyncio.to_thread(film, here.folder / "film.mp4")
        pictures = codes()
        given = await asyncio.to_thread(depth_film, here.folder / "depth.mkv", pictures)
        by_upload = await here.convert(upload=await here.upload(source), depth_upload=await here.upload(given))
        by_path = await here.convert(path=str(source), depth_path=str(given))
        body = {"path": str(source), "depth_path": str(given), "options": OPTIONS | {"engine": "user"}}
        await here.context.bus.publish("stereospot.work.submit.J1", json.dumps(body).encode())
        body = {"path": str(source), "depth_key": await here.upload(given), "options": OPTIONS | {"engine": "user"}}
        await here.context.bus.publish("stereospot.work.submit.J2", json.dumps(body).encode())
        wanted = await asyncio.to_thread(expected, source, pictures)
        for job_id in (by_upload, by_path, "J1", "J2"):
            job = await here.ended(job_id)
            assert job.phase is Phase.COMPLETED, (job_id, job.failure)
            found = planes_of(await here.fetched(job_id, job.film.file_name))
            assert len(found) == COUNT
            for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
                assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), (job_id, number)
        await written_out(here, by_upload, pictures)


async def written_out(here: House, job_id: str, pictures: list[NDArray[np.uint16]]) -> None:
    """The exported depth is listed, served like any output, and is what was given."""
    listed = (await here.client.get(f"/api/v1/jobs/{job_id}/outputs")).json()["outputs"]
    assert [item["profile"] for item in listed] == ["full-sbs", "depth"]
    item = listed[1]
    assert (item["file_name"], item["frames"]) == ("depth.mkv", COUNT)
    head = await here.client.head(item["href"])
    assert (head.status_code, int(head.headers["content-length"])) == (200, item["size_bytes"])
    assert head.headers["content-type"] == "video/x-matroska"
    part = await here.client.get(item["href"], headers={"Range": "bytes=4-9"})
    path = await here.fetched(job_id, "depth.mkv")
    assert (part.status_code, part.content) == (206, path.read_bytes()[4:10])
    again = await here.client.get(item["href"], headers={"If-None-Match": head.headers["etag"]})
    assert again.status_code == 304
    with av.open(str(path), "r") as container:
        kept = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert all(np.array_equal(a, b) for a, b in zip(kept, pictures, strict=True))


async def test_depth_that_does_not_fit_fails_the_job_with_its_code(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        source = await asyncio.to_thread(film, here.folder / "film.mp4")
        short = await asyncio.to_thread(depth_film, here.folder / "short.mkv", codes(COUNT - 3))
        other = await asyncio.to_thread(depth_film, here.folder / "other.mkv", codes(width=80))
        fitting = await asyncio.to_thread(depth_film, here.folder / "depth.mkv", codes())
        torn = here.folder / "torn.mkv"
        await asyncio.to_thread(torn.write_bytes, fitting.read_bytes()[:200])
        wrong = {
            await here.convert(path=str(source), depth_path=str(short)): "DEPTH_MISMATCH",
            await here.convert(path=str(source), depth_upload=await here.upload(other)): "DEPTH_MISMATCH",
            await here.convert(path=str(source), depth_path=str(torn)): "DEPTH_UNREADABLE",
            await here.convert(path=str(source)): "DEPTH_MISSING",
            await here.convert(
                path=str(source), depth_path=str(fitting), options=OPTIONS | {"engine": "cues"}
            ): "INVALID_OPTIONS",
        }
        for job_id, code in wrong.items():
            job = await here.ended(job_id)
            assert (job.phase, job.failure.code) == (Phase.FAILED, code), job.failure
            assert (await here.client.get(f"/api/v1/jobs/{job_id}/outputs")).json()["outputs"] == []
            assert (await here.client.get(f"/api/v1/jobs/{job_id}/outputs/depth.mkv")).status_code == 404
        with zipfile.ZipFile(here.folder / "depth.zip", "w") as archive:
            archive.write(fitting, "d0.png")
        refused = await here.client.post(
            "/api/v1/uploads", params={"name": "depth.zip"}, content=(here.folder / "depth.zip").read_bytes()
        )
        assert refused.json()["code"] == "UNSUPPORTED_CONTAINER", "a zip is packed by the command line, not here"
