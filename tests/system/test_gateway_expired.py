"""A finished film's stream is withdrawn after some days, its fragments go a day later; the film stays."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from services import janitor as module
from services.janitor import Janitor
from stereospot import errors, jobs, keys, records
from stereospot.jobs import Job, Phase
from stereospot.messages import Film, SourceRef
from tests.support import eventually
from tests.system.gateway import FILM, Served, master_of
from tests.system.showing import Showing

DAY = 86400.0


async def finished(gateway: Served, *, container: str = "mkv", days: float = 0.0) -> Showing:
    """A film with sound that was finished so long before its stream's time was over, or after it."""
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.sing(4)
    await showing.convert(0, 1, 2, 3)
    values: dict[str, Any] = FILM | {"container": container, "file_name": f"Holiday.{container}", "size_bytes": 4}
    film = Film(key=keys.film("J1", 1, container), **values)
    await gateway.context.store.put(film.key, b"film")
    at = time.time() - (gateway.context.settings.keep_fragments_days + days) * DAY

    def finish(job: Job) -> Job:
        return jobs.advance(jobs.advance(job, Phase.ASSEMBLING, at=at), Phase.COMPLETED, at=at, film=film)

    await records.change_job(gateway.context.bus, "J1", finish)
    return showing


async def playback(gateway: Served) -> dict[str, Any]:
    return (await gateway.client.get("/api/v1/jobs/J1")).json()["playback"]


async def until_withdrawn(gateway: Served) -> None:
    async def gone() -> bool:
        jobs = (await gateway.client.get("/api/v1/jobs")).json()["jobs"]
        return jobs[0]["playback"]["hls"] is None and (await playback(gateway))["hls"] is None

    await eventually(gone, what="no stream in the list and of the job")


async def pieces(gateway: Served) -> list[str]:
    store = gateway.context.store
    prefixes = (keys.segments_prefix("J1", 1), keys.audio_prefix("J1", 1))
    return [item.key for prefix in prefixes async for item in store.list(prefix)]


async def test_a_stream_is_withdrawn_before_its_first_fragment_goes(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finished(gateway, days=1)
    master = await master_of(gateway, "J1")
    folder = master.removesuffix("master.m3u8")
    lists = [master, *(f"{folder}from/0/{name}.m3u8" for name in ("master", "video", "audio/0"))]
    for path in lists * 2:  # the second time they may come from the shortcut
        assert (await gateway.client.get(path)).status_code == 200
    parts = [f"{folder}video/00000.m4s", f"{folder}audio/0/00000.m4s", f"{folder}audio/0/init.mp4"]

    janitor = Janitor(gateway.context)
    assert (await janitor.sweep()).expired == {"streams": 1}
    await until_withdrawn(gateway)
    for path in [*lists, f"{folder}from/0/master.m3u8?wait=20", f"{folder}frame/0"]:
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (410, "STREAM_EXPIRED"), path
        assert answer.json()["advice"]
        assert "retry-after" not in answer.headers, "players would ask again"
    for path in parts:
        assert (await gateway.client.get(path)).status_code == 200, "whoever watches comes to the end"
    assert (await janitor.sweep()).expired == {}

    monkeypatch.setattr(module, "WATCHED_SECONDS", -1.0)
    count = len(await pieces(gateway))
    assert (await janitor.sweep()).expired == {"fragments": count}
    assert await pieces(gateway) == []
    for path in parts:
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (410, "STREAM_EXPIRED"), path
    assert (await gateway.client.get(f"{folder}film")).content == b"film"
    assert (await gateway.client.get(f"{folder}tracks.json")).json()["sounds"] == []
    assert (await gateway.client.get(f"{folder}poster.jpg")).status_code == 200
    for one in (janitor, Janitor(gateway.context)):
        assert (await one.sweep()).expired == {}, "what is done is not done again, also not by another one"


async def test_what_leads_to_the_film_leads_to_its_file(gateway: Served) -> None:
    await finished(gateway, days=1)
    await Janitor(gateway.context).sweep()
    await until_withdrawn(gateway)
    film = (await playback(gateway))["film"]
    folder = re.sub(r"film$", "", film)
    for path in ("/jobs/J1", "/watch/J1", f"{folder}watch"):
        page = (await gateway.client.get(path, headers={"Accept": "text/html"})).text
        assert "data-hls=" not in page
        assert f'href="{film}?download=1"' in page.split("</ss-player>")[0], "beside the words that say so"
    assert "/film/Holiday.mkv" in (await gateway.client.get(f"{folder}playlist.m3u")).text
    answer = await gateway.client.post("/api/v1/jobs/J1/seek", json={"seconds": 2.0})
    assert (answer.status_code, answer.json()["code"]) == (410, "STREAM_EXPIRED")


async def test_a_film_that_browsers_play_says_nothing_of_its_stream(gateway: Served) -> None:
    await finished(gateway, container="mp4", days=1)
    await Janitor(gateway.context).sweep()
    await until_withdrawn(gateway)
    page = (await gateway.client.get("/watch/J1", headers={"Accept": "text/html"})).text
    assert "download=1" not in page.split("</ss-player>")[0]


async def test_a_stream_whose_time_is_not_over_stays(gateway: Served) -> None:
    await finished(gateway, days=-1)
    assert (await Janitor(gateway.context).sweep()).expired == {}
    assert (await playback(gateway))["hls"] is not None


async def test_a_janitor_that_comes_after_months_does_what_is_left(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step follows from the record: the one before may have been another's, however long ago."""
    await finished(gateway, days=100)
    assert (await Janitor(gateway.context).sweep()).expired == {"streams": 1}

    def long_ago(job: Job) -> Job:
        assert job.film is not None
        return job.model_copy(update={"film": job.film.model_copy(update={"stream_withdrawn_at": 3.0})})

    await records.change_job(gateway.context.bus, "J1", long_ago)
    monkeypatch.setattr(gateway.context.store, "delete_prefix", broken_after(gateway, 1))
    janitor = Janitor(gateway.context)
    removed = (await janitor.sweep()).expired["fragments"]
    left = await pieces(gateway)
    assert removed > 0
    assert left, "it died between pictures and sound"
    monkeypatch.undo()
    # The one that met the fault goes on, and so does one that knows nothing of it.
    assert (await Janitor(gateway.context).sweep()).expired == {"fragments": len(left)}
    assert await pieces(gateway) == []
    assert (await janitor.sweep()).expired == {}


async def test_a_fault_of_the_store_is_met_again_at_the_next_sweep(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finished(gateway, days=1)
    janitor = Janitor(gateway.context)
    await janitor.sweep()
    monkeypatch.setattr(module, "WATCHED_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(gateway.context.store, "delete_prefix", broken_after(gateway, 0))
        assert (await janitor.sweep()).expired == {}
    assert (await janitor.sweep()).expired["fragments"] > 0
    assert await pieces(gateway) == []


@pytest.mark.parametrize("left", [None, b"fil"], ids=["gone", "cut short"])
async def test_the_fragments_of_a_film_whose_file_is_lost_are_kept(
    gateway: Served, monkeypatch: pytest.MonkeyPatch, left: bytes | None
) -> None:
    """They are all that there is of it."""
    await finished(gateway, days=1)
    store, key = gateway.context.store, keys.film("J1", 1, "mkv")

    async def lose() -> None:
        await store.delete(key)
        if left is not None:
            await store.put(key, left)

    await lose()
    assert (await Janitor(gateway.context).sweep()).expired == {}
    assert (await playback(gateway))["hls"] is not None, "it can still be watched"

    await store.put(key, b"film")
    assert (await Janitor(gateway.context).sweep()).expired == {"streams": 1}
    await lose()
    monkeypatch.setattr(module, "WATCHED_SECONDS", -1.0)
    kept = await pieces(gateway)
    assert (await Janitor(gateway.context).sweep()).expired == {}
    assert await pieces(gateway) == kept


def broken_after(gateway: Served, count: int) -> Any:
    """`delete_prefix`, of a store that goes away after so many calls."""
    remove = gateway.context.store.delete_prefix
    calls = 0

    async def delete_prefix(prefix: str) -> int:
        nonlocal calls
        calls += 1
        if calls > count:
            raise errors.error("STORAGE_UNAVAILABLE")
        return await remove(prefix)

    return delete_prefix


def test_a_job_that_is_made_anew_has_a_stream_again() -> None:
    film = Film(key=keys.film("J1", 1, "mp4"), **FILM)
    job = Job(job_id="J1", phase=Phase.COMPLETED, created_at=1.0, updated_at=1.0, source=SourceRef(), film=film)
    assert jobs.withdraw_stream(job, at=9.0, before=0.5) is None
    old = jobs.withdraw_stream(job, at=9.0, before=1.0)
    assert old is not None
    assert not old.has_stream
    assert jobs.withdraw_stream(old, at=10.0, before=1.0) is None
    assert (jobs.is_clearable(old, before=8.9), jobs.is_clearable(old, before=9.0)) == (False, True)
    anew = jobs.renew(old, at=10.0, note="changed")
    assert anew.has_stream
    assert not jobs.is_clearable(anew, before=11.0)


async def test_the_oldest_are_seen_to_first_and_not_all_at_once(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ledger.AT_A_TIME", 2)
    for number in range(5):
        at = 10.0 + number
        film = Film(key=keys.film(f"J{number}", 1, "mp4"), **FILM)
        await gateway.context.store.put(film.key, bytes(film.size_bytes))
        job = Job(
            job_id=f"J{number}", phase=Phase.COMPLETED, created_at=at, updated_at=at, source=SourceRef(), film=film
        )
        await records.create_job(gateway.context.bus, job)
    janitor = Janitor(gateway.context)
    assert [(await janitor.sweep()).expired.get("streams", 0) for _ in range(4)] == [2, 2, 1, 0]
