"""`stereospot doctor`: what it finds is really wrong, and what it mends ends in the film that was there before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services import cli, daemon, doctor, lost, operations, plans, rebuild, submit
from services.context import Context
from services.doctor import Level
from stereospot import keys, records, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.messages import SegmentDone
from stereospot.options import Options
from stereospot.settings import Settings
from streams_config import provision as provisioner
from tests.faults.fleet import PIPELINE, stretched
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_job, a_planned_job, rig
from tests.system.test_newer_records import put_set


async def made(context: Context) -> Job:
    """A finished job, whose source lies in the storage."""
    await context.store.put(keys.source("J1", "mp4"), films.path("h264_mp4_silent").read_bytes())
    options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
    work = submit.SubmitWork(key=keys.source("J1", "mp4"), options=options)
    await submit.create(context, await submit.source_of(context, work), options, job_id="J1")
    return await ended(context)


async def ended(context: Context, *, attempt: int = 1) -> Job:
    async def read() -> list[Job]:
        found = await records.get_job(context.bus, "J1")
        done = found is not None and not found[0].is_active and found[0].attempt >= attempt
        return [found[0]] if found is not None and done else []

    (job,) = await eventually(read, seconds=stretched(40), what="the end of J1")
    assert job.phase is Phase.COMPLETED, job.failure
    return job


async def problems(context: Context) -> list[str]:
    found = await rebuild.compare(context, settled_seconds=0)
    return [text for item in found for text in item.problems]


async def repaired(context: Context) -> list[str]:
    found = await doctor.examine(context, repair=True, settled_seconds=0)
    assert not [item for item in found if item.is_open]
    return [item.repaired for item in found if item.repaired]


async def test_a_lost_film_is_assembled_and_lost_segments_are_converted_again(tmp_path: Path) -> None:
    async with rig(tmp_path, pool="stub", slots=1) as context, daemon.running(context.settings, PIPELINE):
        first = await made(context)
        assert first.film is not None
        assert await problems(context) == []

        await context.store.delete(first.film.key)
        (said,) = await problems(context)
        assert "is not stored" in said
        assert await repaired(context) == ["assemble it again"]
        second = await ended(context, attempt=2)
        assert second.film is not None
        assert second.film.sha256 == first.film.sha256

        await context.store.delete(second.film.key)
        await context.store.delete(keys.segment("J1", 1, 1))
        await context.store.delete(keys.segment("J1", 1, 1).replace(".m4s", ".json"))
        await context.store.delete(keys.segment("J1", 1, 0))  # its report is there
        assert await repaired(context) == ["convert what is missing and assemble it again"]
        third = await ended(context, attempt=3)
        assert third.film is not None
        assert third.film.sha256 == first.film.sha256
        await eventually(lambda: _quiet(context), what="rest")
        assert await problems(context) == []


async def _quiet(context: Context) -> bool:
    return (await context.bus.stream_info(subjects.CONVERT))["state"]["messages"] == 0


async def test_records_and_sets_are_rebuilt_from_storage(tmp_path: Path) -> None:
    """The broker's store was lost: first the film is there, then only its segments."""
    async with rig(tmp_path, pool="stub", slots=1) as context:
        async with daemon.running(context.settings, PIPELINE):
            first = await made(context)
            assert first.film is not None
        stored = {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")}

        async def lose_everything() -> None:
            for stream in ("KV_jobs", "KV_state", "WORK", "CONVERT", "DONE", "EVENT"):
                await context.bus.api(f"STREAM.DELETE.{stream}")
            assert not [item for item in await doctor.streams(context, repair=True) if item.is_open]

        await lose_everything()
        (said,) = await problems(context)
        assert "has no record" in said
        assert await repaired(context) == ["its record was rebuilt from plan and film"]
        again = await ended(context)
        assert again.film is not None
        assert (again.film.sha256, again.film.frames) == (first.film.sha256, first.film.frames)

        await lose_everything()
        await context.store.delete(first.film.key)
        (text,) = await repaired(context)
        assert "stored segments are kept" in text
        async with daemon.running(context.settings, PIPELINE):
            second = await ended(context)
        assert second.film is not None
        assert second.film.sha256 == first.film.sha256
        assert {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")} == stored


async def test_a_film_that_a_repeated_assembly_made_is_found_again(tmp_path: Path) -> None:
    """Its segments may be gone by then: without it all would be converted once more, or could not be."""
    async with rig(tmp_path) as context:
        await a_planned_job(context, films.path("h264_mp4_silent"))
        key = keys.film_again("J1", 1, 2, "c" * 64, "mp4")
        await context.store.put(key, b"film")
        await context.bus.purge("KV_jobs", "$KV.jobs.J1")
        assert await repaired(context) == ["its record was rebuilt from plan and film"]
        job = await records.get_job(context.bus, "J1")
        assert job is not None
        assert job[0].film is not None
        assert (job[0].phase, job[0].film.key, job[0].film.size_bytes) == (Phase.COMPLETED, key, 4)


@pytest.mark.parametrize(("label", "pool"), [("cpu", "gpu"), ("studio", "studio")])
async def test_a_rebuilt_record_goes_where_its_engine_is(label: str, pool: str, tmp_path: Path) -> None:
    """Not where the host that `doctor` runs on would take it from."""
    async with rig(tmp_path, pool=label) as context:
        await provisioner.provision(context.bus.nc, pools=(label,))
        _, head, _ = await a_planned_job(context, films.path("h264_mp4_silent"))
        stereo = head.stereo.model_copy(update={"engine": "depth-anything", "model": "da-v2-small"})
        await plans.write_head(
            context.store, head.model_copy(update={"stereo": stereo, "source_key": "input/J1/s.mp4"})
        )
        await context.bus.purge("KV_jobs", "$KV.jobs.J1")
        (said,) = await repaired(context)
        assert "was rebuilt from the plan" in said
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert found[0].pool == pool


async def test_a_set_that_cannot_be_read_hides_no_other_job(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        for job_id in ("J1", "J2"):
            await records.create_job(context.bus, a_job(job_id))
        await put_set(context, "J1")
        state = Completion(job_id="J2", generation=1, total=2, planned=2, done=0b11, sent=0b11)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J2", 1), state)
        unreadable, other = await rebuild.compare(context)
        assert (await rebuild.mend(context, unreadable)).startswith("nothing")
        assert other.lost == [0, 1]


async def test_what_is_counted_while_doctor_reads_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job(phase=Phase.CONVERTING))
        state = Completion(job_id="J1", generation=1, total=9, planned=9, done=0b01, sent=0b11)
        bucket, key = context.bus.bucket(subjects.STATE), subjects.state_key("J1", 1)
        await bucket.put(key, state)
        done = SegmentDone.model_construct(job_id="J1", generation=1)

        async def reports(*_: object) -> dict[int, SegmentDone]:
            await bucket.put(key, state.model_copy(update={"done": state.done | counted}))
            return {0: done, 1: done}

        monkeypatch.setattr(lost, "stored_reports", reports)
        counted = 0
        assert len(await problems(context)) == 1
        counted = 0b10
        assert await problems(context) == []


async def test_a_set_that_counts_too_much_or_too_little_is_seen(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        state = Completion(job_id="J1", generation=1, total=2, planned=2, done=0b11, sent=0b11)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        (item,) = await rebuild.compare(context)
        assert (item.lost, item.uncounted) == ([0, 1], [])
        await rebuild.mend(context, item)
        found = await records.get_state(context.bus, "J1", 1)
        job = await records.get_job(context.bus, "J1")
        assert found is not None
        assert job is not None
        assert found[0].done == 0
        assert (job[0].phase, job[0].attempt, job[0].history[-1].note) == (Phase.PLANNING, 2, "doctor")
        assert await rebuild.compare(context) == [], "a record that has just changed is left alone"


async def test_a_job_that_somebody_cancelled_is_not_begun_again(tmp_path: Path) -> None:
    """Its set is set right, so that a retry makes what is missing: that is for whoever cancelled it to ask for."""
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        state = Completion(job_id="J1", generation=1, total=2, planned=2, done=0b11, sent=0b11)
        await context.bus.bucket(subjects.STATE).put(subjects.state_key("J1", 1), state)
        await operations.cancel(context.bus, "J1")
        (item,) = await rebuild.compare(context, settled_seconds=0)
        assert item.remedy == await rebuild.mend(context, item) == "forget the segments that are not stored"
        found, job = await records.get_state(context.bus, "J1", 1), await records.get_job(context.bus, "J1")
        assert found is not None
        assert job is not None
        assert (found[0].done, job[0].phase, job[0].attempt) == (0, Phase.CANCELLED, 1)
        assert await rebuild.compare(context, settled_seconds=0) == []


async def test_streams_that_are_missing_or_different_are_named_and_made(tmp_path: Path) -> None:
    async with rig(tmp_path, provisioned=False) as context:
        missing = await doctor.streams(context, repair=False)
        assert {item.level for item in missing} == {Level.ERROR}
        assert any("DONE is missing" in item.text for item in missing)
        (mended,) = await doctor.streams(context, repair=True)
        assert not mended.is_open
        (fine,) = await doctor.streams(context, repair=False)
        assert fine.level is Level.FINE
        config = (await context.bus.stream_info(subjects.DONE))["config"] | {"max_bytes": 1000}
        await context.bus.api(f"STREAM.UPDATE.{subjects.DONE}", config)
        (different,) = await doctor.streams(context, repair=False)
        assert (different.level, "max_bytes is 1000" in different.text) == (Level.WARNING, True)
        assert different.advice


async def test_what_nobody_reads_and_what_is_paused_is_said(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        assert [item.level for item in await doctor.readers(context)] == [Level.FINE]
        await context.bus.publish(subjects.work("plan", "J1"), b"{}")
        await context.bus.pause(subjects.DONE, "collector", 60)
        found = {item.text.split()[0]: item for item in await doctor.readers(context)}
        assert found["1"].level is Level.WARNING
        assert found["collector"].level is Level.NOTE
        await provisioner.provision(context.bus.nc, pools=("studio",))
        await context.bus.pause(subjects.CONVERT, "convert-studio-normal", 60)
        assert any("convert-studio-normal is paused" in item.text for item in await doctor.readers(context))
        (sync,) = [item for item in await doctor.server(context) if item.check == "sync"]
        assert sync.level is Level.WARNING, "a server that is not ours does not say how it syncs"


async def test_the_embedded_server_is_known_to_sync(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, nats_port=-1, sandbox="off")
    async with daemon.running(settings, {"collector"}) as context:
        found = {item.check: item for item in await doctor.server(context)}
    assert found["server"].level is Level.FINE


def test_the_command_says_what_it_finds_without_a_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "--data", str(tmp_path)]) == 1
    found = {item["check"]: item for item in json.loads(capsys.readouterr().out)}
    assert found["broker"]["level"] == "error"
    assert found["broker"]["advice"]
    assert "libavcodec" in found["FFmpeg"]["text"]
    assert "libx264" in found["encoders"]["text"]
    assert {"sandbox", "engines", "runtime", "nats-server"} <= set(found)
