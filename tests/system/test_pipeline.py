"""From a file to a film through the real services in one process: broker, store, jail, encoder, assembler."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from services import daemon, operations, submit
from services.context import Context
from services.plans import Plans
from stereospot import keys, records, subjects
from stereospot.jobs import Job, Phase
from stereospot.messages import SourceRef
from stereospot.options import Layout, Options
from stereospot.settings import Settings
from tests.media import sources as films
from tests.storage.conftest import s3_settings
from tests.storage.seaweed import seaweed
from tests.support import eventually

PIPELINE = frozenset(
    {"planner", "analyse", "converter", "collector", "assembler", "janitor", "dead-letters", "delete", "audio"}
)


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(data_dir=tmp_path / "data", nats_port=-1, slots=2, **changes)


async def ended(context: Context, job_id: str, *, seconds: float = 60) -> Job:
    """The job once it is at its end."""

    async def read() -> list[Job]:
        found = await records.get_job(context.bus, job_id)
        return [found[0]] if found and not found[0].is_active else []

    (job,) = await eventually(read, seconds=seconds, what=f"the end of {job_id}")
    return job


def frames(path: Path) -> tuple[list[Fraction], list[np.ndarray[Any, Any]]]:
    """Times in seconds and luma planes of all frames, upright."""
    found: list[Fraction] = []
    planes: list[np.ndarray[Any, Any]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            assert frame.pts is not None
            assert stream.time_base is not None
            found.append(frame.pts * stream.time_base)
            planes.append(frame.to_ndarray()[: frame.height])
    return found, planes


def local(context: Context, key: str) -> Path:
    path = context.store.local_path(key)
    assert path is not None
    return path


@pytest.mark.parametrize("film", ["h264_mp4", "h264_open_gop_mkv", "h264_ts", "vfr_mp4", "delayed_mp4"])
async def test_identity_and_lossless_gives_back_the_source(tmp_path: Path, film: str) -> None:
    path = films.path(film)
    async with daemon.running(settings(tmp_path), PIPELINE) as context:
        options = Options(engine="identity", crf=0, preset="ultrafast", segment_seconds=0.7)
        source = await submit.local_source(path, None)
        created = await submit.create(context, source, options, title="A Film")
        job = await ended(context, created.job_id)
        assert job.phase is Phase.COMPLETED, job.failure
        assert job.film is not None
        made = local(context, job.film.key)
        expected, pictures = frames(path)
        got, copies = frames(made)
        assert got == expected
        assert all(np.array_equal(a, b) for a, b in zip(pictures, copies, strict=True))
        assert job.film.frames == len(expected)
        assert hashlib.sha256(made.read_bytes()).hexdigest() == job.film.sha256
        assert local(context, keys.film_alias(job.job_id)).read_bytes() == made.read_bytes()
        assert [step.phase for step in job.history] == [
            Phase.CREATED, Phase.PLANNING, Phase.CONVERTING, Phase.ASSEMBLING, Phase.COMPLETED,
        ]  # fmt: skip
        assert not list((context.settings.data_dir / "scratch").iterdir())
        trigger = await context.bus.bucket(subjects.STATE).get(subjects.trigger_key(job.job_id, 1))
        assert trigger is not None


async def test_pictures_do_not_depend_on_how_the_film_is_cut(tmp_path: Path) -> None:
    path = films.path("h264_mp4_silent")
    async with daemon.running(settings(tmp_path), PIPELINE) as context:
        source = await submit.local_source(path, None)
        made: list[list[np.ndarray[Any, Any]]] = []
        for number, seconds in enumerate((0.6, 3.0)):
            options = Options(engine="cues", crf=0, preset="ultrafast", segment_seconds=seconds)
            await submit.create(context, source, options, job_id=f"J{number}")
            job = await ended(context, f"J{number}")
            assert job.phase is Phase.COMPLETED, job.failure
            assert job.film is not None
            assert job.report["engine"]["name"] == "cues"
            made.append(frames(local(context, job.film.key))[1])
        assert all(np.array_equal(a, b) for a, b in zip(*made, strict=True))


async def test_a_retry_converts_only_what_is_missing_and_a_change_begins_anew(tmp_path: Path) -> None:
    path = films.path("h264_mp4_silent")
    async with daemon.running(settings(tmp_path), PIPELINE) as context:
        source = await submit.local_source(path, None)
        options = Options(engine="identity", preset="ultrafast", segment_seconds=0.5)
        await submit.create(context, source, options, job_id="J1")
        first = await ended(context, "J1")
        assert first.phase is Phase.COMPLETED, first.failure
        assert first.segments is not None
        stored = {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")}

        # As if the assembly had failed after every segment was stored.
        await records.change_job(
            context.bus, "J1", lambda job: job.model_copy(update={"phase": Phase.FAILED, "film": None})
        )
        await operations.retry(context.bus, "J1")
        again = await ended(context, "J1")
        assert again.phase is Phase.COMPLETED, again.failure
        assert (again.generation, again.attempt) == (1, 2)
        assert again.film is not None
        assert first.film is not None
        assert again.film.sha256 == first.film.sha256
        assert {item.key: item.modified async for item in context.store.list("jobs/J1/1/segments/")} == stored

        await operations.change(context.bus, "J1", options=options.model_copy(update={"layout": Layout.FULL_SBS}))
        changed = await ended(context, "J1")
        assert changed.phase is Phase.COMPLETED, changed.failure
        assert changed.generation == 2
        assert changed.film is not None
        assert changed.film.key.startswith("jobs/J1/2/")
        left = await eventually(lambda: _nothing_below(context, "jobs/J1/1/"), what="the old generation's end")
        assert left


async def _nothing_below(context: Context, prefix: str) -> bool:
    return not [item async for item in context.store.list(prefix)]


async def test_a_bad_file_fails_its_own_job_only(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a film at all")
    async with daemon.running(settings(tmp_path), PIPELINE) as context:
        good = await submit.local_source(films.path("h264_mp4_silent"), None)
        await submit.create(context, await submit.local_source(bad, None), Options(engine="flat"), job_id="bad")
        await submit.create(context, good, Options(engine="flat", preset="ultrafast"), job_id="good")
        failed, completed = await ended(context, "bad", seconds=30), await ended(context, "good")
        assert failed.failure is not None
        assert (failed.phase, failed.failure.code) == (Phase.FAILED, "UNSUPPORTED_CONTAINER")
        assert failed.failure.advice
        assert completed.phase is Phase.COMPLETED, completed.failure
        assert not list((context.settings.data_dir / "scratch").iterdir())


async def test_a_cancelled_job_stops_and_goes_on_when_it_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEREOSPOT_STUB_SECONDS", "1")
    async with daemon.running(settings(tmp_path, pool="stub"), PIPELINE) as context:
        source = await submit.local_source(films.path("h264_mp4_silent"), None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
        await submit.create(context, source, options, job_id="J1")

        async def some_done() -> bool:
            found = await records.get_state(context.bus, "J1", 1)
            return found is not None and found[0].count >= 2

        await eventually(some_done, seconds=30, what="two segments")
        await operations.cancel(context.bus, "J1")

        async def quiet() -> bool:
            info = await context.bus.stream_info(subjects.CONVERT)
            return info["state"]["messages"] == 0

        await eventually(quiet, seconds=10, what="no segment queued or at work")
        before = await records.get_state(context.bus, "J1", 1)
        assert before is not None
        monkeypatch.setenv("STEREOSPOT_STUB_SECONDS", "0")
        await operations.retry(context.bus, "J1")
        job = await ended(context, "J1")
        assert job.phase is Phase.COMPLETED, job.failure
        assert job.attempt == 2


async def test_sound_is_ready_while_pictures_are_still_being_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEREOSPOT_STUB_SECONDS", "1.5")
    async with daemon.running(settings(tmp_path, pool="stub"), PIPELINE) as context:
        source = await submit.local_source(films.path("h264_mp4"), None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=0.5)
        await submit.create(context, source, options, job_id="J1")

        async def sound() -> bool:
            found = await records.get_state(context.bus, "J1", 1)
            return found is not None and found[0].total is not None and found[0].audio_ready == found[0].total

        await eventually(sound, seconds=30, what="the sound of all segments")
        state = await records.get_state(context.bus, "J1", 1)
        assert state is not None
        assert state[0].audio
        assert not state[0].is_complete
        assert state[0].total is not None
        head = await Plans(context.store).head("J1", 1)
        assert head is not None
        for track in range(len(head.source.audio)):
            assert await context.store.head(keys.audio_init("J1", 1, track)) is not None
            for index in range(state[0].total):
                assert await context.store.head(keys.audio_segment("J1", 1, track, index)) is not None

        async def cues() -> list[bytes]:
            found = [await context.store.get(keys.subtitles("J1", 1, 0, kind)) or b"" for kind in ("vtt", "ass")]
            return found if all(found) else []

        text, _ = await eventually(cues, what="the subtitles")
        assert text.startswith(b"WEBVTT")
        assert b" --> " in text


async def test_the_pipeline_runs_on_s3_with_the_source_there_too(tmp_path: Path) -> None:
    path = films.path("h264_open_gop_mkv")
    with seaweed() as server:
        stored = s3_settings(server, tmp_path / "data")
        given = stored.model_copy(update={"nats_port": -1, "slots": 2})
        async with daemon.running(given, PIPELINE) as context:
            await context.store.put(keys.source("J1", "mkv"), path.read_bytes())
            options = Options(engine="identity", crf=0, preset="ultrafast", segment_seconds=0.7)
            await submit.create(context, SourceRef(key=keys.source("J1", "mkv")), options, job_id="J1", title="On S3")
            job = await ended(context, "J1")
            assert job.phase is Phase.COMPLETED, job.failure
            assert job.film is not None
            body = await context.store.get(job.film.key)
            assert body is not None
            assert hashlib.sha256(body).hexdigest() == job.film.sha256
            made = tmp_path / "film.mp4"
            made.write_bytes(body)
            expected, pictures = frames(path)
            got, copies = frames(made)
            assert got == expected
            assert all(np.array_equal(a, b) for a, b in zip(pictures, copies, strict=True))
            assert await context.store.get(keys.film_alias("J1")) == body


async def test_an_engine_that_is_not_here_fails_its_job_with_the_reason(tmp_path: Path) -> None:
    async with daemon.running(settings(tmp_path), PIPELINE) as context:
        source = await submit.local_source(films.path("h264_mp4_silent"), None)
        await submit.create(context, source, Options(engine="iw3"), job_id="J1")
        job = await ended(context, "J1", seconds=30)
        assert job.failure is not None
        assert (job.pool, job.failure.code) == ("gpu", "ENGINE_UNAVAILABLE")
        assert job.failure.advice


async def test_samples_convert_two_seconds_from_each_start_and_nothing_else(tmp_path: Path) -> None:
    path = films.path("h264_mp4_silent")
    async with daemon.running(settings(tmp_path), PIPELINE) as context:
        source = await submit.local_source(path, None)
        options = Options(engine="identity", crf=0, preset="ultrafast", samples=(1.5,))
        await submit.create(context, source, options, job_id="J1")
        job = await ended(context, "J1")
        assert job.phase is Phase.COMPLETED, job.failure
        assert job.film is not None
        times, pictures = frames(path)
        wanted = [number for number, at in enumerate(times) if Fraction(3, 2) <= at < Fraction(7, 2)]
        got, copies = frames(local(context, job.film.key))
        assert got == [times[number] for number in wanted]
        assert (job.segments, job.film.frames) == (1, len(wanted))
        assert all(np.array_equal(pictures[number], copy) for number, copy in zip(wanted, copies, strict=True))
