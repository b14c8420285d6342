"""The planner on a real broker and real files: parts as the scan passes, the total last, and every way to repeat it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from services import daemon, operations, planner, sources, space, submit
from services.context import Context
from services.planner import Planner
from services.plans import Plans
from stereospot import crash, errors, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.media.model import Plan, PlanPart
from stereospot.messages import AudioWork, PartDone, PlanWork, TotalDone
from stereospot.options import Options
from stereospot.outcome import Ack, Outcome, Reject, Return
from tests.media import sources as films
from tests.media.recordings import joined
from tests.support import eventually
from tests.system.rig import rig


@asynccontextmanager
async def planning(tmp_path: Path, film: str | Path, **options: Any) -> AsyncGenerator[tuple[Context, Planner, Job]]:
    """A planner, and a job that was just created from a film."""
    async with rig(tmp_path) as context:
        path = film if isinstance(film, Path) else films.path(film)
        job = await submit.create(context, sources.identify(path), Options(**options), job_id="J1")
        made = Planner(context)
        try:
            yield context, made, job
        finally:
            made.close()


def work(job: Job, *, attempt: int | None = None) -> Delivery:
    body = PlanWork(
        job_id=job.job_id, generation=job.generation, attempt=attempt or job.attempt, redecode=job.redecoded
    )
    return Delivery(
        subject=subjects.work("plan", job.job_id), data=body.body(), stream=subjects.WORK, stream_sequence=1
    )


async def said(context: Context) -> list[tuple[str, bytes]]:
    """Everything in DONE: (last token, body)."""
    state = (await context.bus.stream_info(subjects.DONE))["state"]
    numbers = range(max(1, state["first_seq"]), state["last_seq"] + 1)
    found = [await context.bus.get(subjects.DONE, number) for number in numbers]
    return [(item.subject.rsplit(".", 1)[-1], item.data) for item in found if item is not None]


async def current(context: Context) -> Job:
    found = await records.get_job(context.bus, "J1")
    assert found is not None
    return found[0]


def times(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(container.streams.video[0]) if frame.pts is not None]


@pytest.mark.parametrize("film", ["h264_mp4", "h264_ts", "vp9_webm", "vfr_mp4"])
async def test_a_plan_has_exactly_the_films_frames_in_parts_and_the_total_last(tmp_path: Path, film: str) -> None:
    async with planning(tmp_path, film, segment_seconds=0.5) as (context, made, job):
        assert await made.handle(work(job)) == Ack()
        reader = Plans(context.store)
        total = await reader.total("J1", 1)
        assert total is not None
        segments = await reader.segments("J1", 1, total)
        assert segments is not None
        pts = times(films.path(film))
        assert total.frames == len(pts) == sum(segment.frames for segment in segments)
        for segment in segments:
            inside = [value for value in pts if segment.start <= value and (segment.end is None or value < segment.end)]
            assert len(inside) == segment.frames
        kinds = [kind for kind, _ in await said(context)]
        assert kinds == ["part"] * len(total.parts) + ["total"]
        assert list(total.parts) == [0, 1, 4, 16][: len(total.parts)]
        last = TotalDone.model_validate_json((await said(context))[-1][1])
        assert (last.total, last.parts, last.pool) == (total.segments, total.parts, "cpu")
        after = await current(context)
        assert (after.phase, after.segments, after.frames) == (Phase.CONVERTING, total.segments, len(pts))
        head = await reader.head("J1", 1)
        assert head is not None
        assert after.engine["name"] == head.stereo.engine
        sound = await context.bus.last(subjects.WORK, subjects.work("audio", "J1", 1))
        assert (sound is not None) == bool(head.source.audio)
        parts = [PartDone.model_validate_json(body) for kind, body in await said(context) if kind == "part"]
        assert {part.silent for part in parts} == {sound is None}
        if sound is not None:
            assert AudioWork.model_validate_json(sound.data).generation == 1


async def test_a_repeated_message_says_the_same_again_without_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with planning(tmp_path, "h264_mp4", segment_seconds=0.5) as (context, made, job):
        assert await made.handle(work(job)) == Ack()
        before = await said(context)
        stored = {item.key: item.modified async for item in context.store.list("jobs/")}

        def never(*_: object, **__: object) -> object:
            raise AssertionError("scanned again")

        monkeypatch.setattr(planner.planning, "scan", never)
        monkeypatch.setattr(planner.probe, "probe", never)
        assert await made.handle(work(job)) == Ack()
        assert await said(context) == before, "the broker drops what it has by its id"
        assert {item.key: item.modified async for item in context.store.list("jobs/")} == stored
        assert (await current(context)).history[-1].phase is Phase.CONVERTING

        # A retry says the total with its attempt, which opens what is missing.
        await operations.cancel(context.bus, "J1")
        retried = await operations.retry(context.bus, "J1")
        assert await made.handle(work(retried)) == Ack()
        last = TotalDone.model_validate_json((await said(context))[-1][1])
        assert last.attempt == 2
        assert (await current(context)).phase is Phase.CONVERTING


@pytest.mark.parametrize("at", ["planner.part_published", "planner.total_stored", "planner.job_converting"])
async def test_a_crash_between_any_two_steps_ends_in_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    async with planning(tmp_path, "h264_mp4", segment_seconds=0.5) as (context, made, job):

        class Crashed(BaseException):
            pass

        def point(name: str) -> None:
            if name == at:
                raise Crashed

        with monkeypatch.context() as patched:
            patched.setattr(crash, "point", point)
            with pytest.raises(Crashed):
                await made.handle(work(job))
        assert await Planner(context).handle(work(job)) == Ack()
        kinds = [kind for kind, _ in await said(context)]
        assert kinds.count("total") == 1
        assert kinds[-1] == "total"
        parts = [PartDone.model_validate_json(body) for kind, body in await said(context) if kind == "part"]
        assert [part.first for part in parts] == sorted({part.first for part in parts})
        total = await Plans(context.store).total("J1", 1)
        assert total is not None
        assert sum(part.count for part in parts) == total.segments


@pytest.mark.parametrize(
    ("film", "code"),
    [
        ("empty", "EMPTY_INPUT"),
        ("text", "UNSUPPORTED_CONTAINER"),
        ("audio_only", "NO_VIDEO_STREAM"),
    ],
)
async def test_a_bad_file_is_refused_with_its_code(tmp_path: Path, film: str, code: str) -> None:
    path = tmp_path / "bad.mp4"
    if film == "text":
        path.write_text("#EXTM3U\nfile:///etc/passwd\n")
    elif film == "empty":
        path.write_bytes(b"")
    else:
        path = films.path(film)
    async with rig(tmp_path) as context:
        key = keys.source("J1", "mp4")
        await context.store.put(key, path.read_bytes())
        job = await submit.create(context, submit.SourceRef(key=key, name="bad.mp4"), Options(), job_id="J1")
        made = Planner(context)
        outcome = await made.handle(work(job))
        assert isinstance(outcome, Reject)
        await made.reject(work(job), outcome.failure)
        after = await current(context)
        assert after.failure is not None
        assert (after.phase, after.failure.code) == (Phase.FAILED, code)
        made.close()


async def test_no_room_is_said_before_anything_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with planning(tmp_path, "h264_mp4") as (context, made, job):
        monkeypatch.setattr(space, "RESERVE_BYTES", 1 << 60)
        for _ in range(2):
            outcome = await made.handle(work(job))
            assert isinstance(outcome, Return), "others need the slot"
            assert outcome.failure is not None
            assert (outcome.failure.code, outcome.delay_seconds) == ("STORAGE_FULL", 30.0)
        assert [item async for item in context.store.list("jobs/")] == []
        (warning,) = (await current(context)).warnings
        assert (warning.code, warning.text) == (
            "STORAGE_FULL",
            "This job waits, others go on: There is not enough free space. "
            "Free some space; the work goes on by itself.",
        )
        monkeypatch.undo()
        assert await made.handle(work(job)) == Ack(), "the same message goes on once there is room"
        assert (await current(context)).warnings == (), "it waits no more"


async def test_a_film_that_is_begun_anew_gets_the_room_of_what_it_had_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host whose encoder was upgraded, say, on a disk that holds the film's fragments once and not twice."""
    async with planning(tmp_path, "h264_mp4", segment_seconds=0.5) as (context, made, job):
        assert await made.handle(work(job)) == Ack()
        old = (keys.segment("J1", 1, 0), keys.segment("J1", 1, 1), keys.audio_init("J1", 1, 0))
        kept = (keys.film("J1", 1, "mp4"), keys.segment("J2", 1, 0))
        for key in old + kept:
            await context.store.put(key, b"x")
        other = 0

        async def free(self: object) -> int:
            """Room for the new segments where none of the old ones is there, and nobody else takes it."""
            taken = [key for key in old if await context.store.head(key) is not None]
            return 0 if taken or other else 1 << 40

        monkeypatch.setattr(type(context.store), "free_bytes", free)
        assert await operations.reencode(context.bus, "J1", 1)
        other = 1
        assert isinstance(await made.handle(work(await current(context))), Return), "it waits where that is not enough"
        (warning,) = (await current(context)).warnings
        assert warning.code == "STORAGE_FULL"
        other = 0
        assert await made.handle(work(await current(context))) == Ack()
        after = await current(context)
        assert (after.phase, after.generation, after.warnings) == (Phase.CONVERTING, 2, ())
        assert [key for key in old + kept if await context.store.head(key) is not None] == list(kept)


async def test_films_that_do_not_fit_are_passed_by_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {"J1", "J2"}
    needed = space.plan_bytes

    def plan_bytes(plan: Plan) -> int:
        return 1 << 60 if plan.job_id in large else needed(plan)

    monkeypatch.setattr(space, "plan_bytes", plan_bytes)
    monkeypatch.setattr(space, "REST_SECONDS", 0.2)
    async with rig(tmp_path, max_attempts=2) as context, daemon.running(context.settings, {"planner"}):

        async def phases() -> list[Phase]:
            found = [await records.get_job(context.bus, job_id) for job_id in ("J1", "J2", "J3")]
            return [item[0].phase for item in found if item is not None]

        for job_id in ("J1", "J2", "J3"):
            await submit.create(context, sources.identify(films.path("h264_mp4")), Options(), job_id=job_id)
        waits = [Phase.PLANNING, Phase.PLANNING, Phase.CONVERTING]

        async def is_passed() -> bool:
            return await phases() == waits

        await eventually(is_passed, what="the plan of the one that fits")

        async def given_back() -> bool:
            return len(await context.bus.bucket(subjects.TRIES).keys()) == 2

        await eventually(given_back, what="two that are given back and not tried")
        large.clear()

        async def are_all() -> bool:
            return await phases() == [Phase.CONVERTING] * 3

        await eventually(are_all, what="all plans, once there is room")


async def test_work_of_old_generations_and_attempts_is_dropped(tmp_path: Path) -> None:
    async with planning(tmp_path, "h264_mp4") as (context, made, job):
        await operations.cancel(context.bus, "J1")
        assert await made.handle(work(job)) == Ack("stale")
        retried = await operations.retry(context.bus, "J1")
        assert await made.handle(work(job, attempt=1)) == Ack("stale")
        assert await made.handle(work(retried)) == Ack()
        await operations.change(context.bus, "J1", options=Options(crf=33))
        assert await made.handle(work(retried)) == Ack("stale")


async def test_a_second_plan_comes_from_the_frames(tmp_path: Path) -> None:
    async with planning(tmp_path, "h264_mp4", segment_seconds=0.5) as (context, made, job):
        assert await made.handle(work(job)) == Ack()
        assert await operations.replan(context.bus, "J1", 1, "a segment had other frames")
        again = await current(context)
        assert await made.handle(work(again)) == Ack()
        first, second = [await Plans(context.store).total("J1", generation) for generation in (1, 2)]
        assert first is not None
        assert second is not None
        assert (second.frames, second.pts_sha256) == (first.frames, first.pts_sha256)
        after = await current(context)
        assert (after.generation, after.phase) == (2, Phase.CONVERTING)
        assert "PTS_SYNTHESISED" in [item.code for item in after.warnings]


async def test_the_parts_tell_where_the_clock_is_set_anew_and_tell_it_alike_again(tmp_path: Path) -> None:
    """Whoever cuts the sound reads the parts while the scan goes on: all that is behind what one tells has to wait."""
    path = joined(tmp_path, "aac", *((30.0 - 5 * number, 1.9) for number in range(5)))
    async with planning(tmp_path, path, segment_seconds=0.5) as (context, made, first):
        assert await made.handle(work(first)) == Ack("replanned")

        async def planned() -> list[PlanPart]:
            job = await current(context)
            assert await made.handle(work(job)) == Ack()
            reader = Plans(context.store)
            head, total = await reader.head("J1", job.generation), await reader.total("J1", job.generation)
            assert head is not None
            assert head.decode.repaired
            assert total is not None
            parts = [await reader.part("J1", job.generation, first) for first in total.parts]
            found = [part for part in parts if part is not None]
            assert tuple(reset for part in found for reset in part.resets) == total.resets
            return found

        parts = await planned()
        resets = [reset for part in parts for reset in part.resets]
        base = Fraction(1, 90_000)
        assert [round((reset.start - resets[0].start) * base, 2) for reset in resets] == [0, 2, 4, 6]
        assert [round((reset.shift - resets[0].shift) * base, 2) for reset in resets] == [0, 7, 14, 21]
        assert parts[-1].read is None
        reads = [part.read for part in parts[:-1]]
        assert all(reads)
        assert reads == sorted(read for read in reads if read is not None)
        for part, read in zip(parts, reads, strict=False):
            later = [reset for other in parts for reset in other.resets if other.first > part.first]
            assert read is not None
            assert all(reset.position >= read for reset in later)
        await context.store.delete(keys.plan_total("J1", 2))
        assert await planned() == parts, "a scan that is repeated stores the same parts"


async def test_cancelling_ends_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = planner.watching

    def quickly(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs, every_seconds=0.05)

    monkeypatch.setattr(planner, "watching", quickly)
    async with planning(tmp_path, "h264_mp4") as (context, made, job):
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(source: object, info: object, *, stop: Any, **_: object) -> Any:
            loop.call_soon_threadsafe(reached.set)
            assert stop.wait(20), "the stop event came"
            raise errors.error("CANCELLED")
            yield

        monkeypatch.setattr(planner.planning, "scan", slow)
        async with asyncio.TaskGroup() as group:
            running: asyncio.Task[Outcome] = group.create_task(made.handle(work(job)))
            await reached.wait()
            await operations.cancel(context.bus, "J1")
        assert running.result() == Ack("cancelled")


def letterboxed(path: Path, bar: int, *, keyint: int = 12) -> Path:
    """Sixty frames of 320x180 with black bars above and below, over a moving picture; the first twelve are black."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": str(keyint)}
        for number in range(60):
            picture = films.picture(number)
            luma = picture[:180]
            luma[:bar] = luma[180 - bar :] = 16
            if number < 12:
                luma[:] = 16
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("bar", "suffix"), [(0, "mp4"), (24, "mp4"), (24, "mkv"), (24, "ts"), (24, "flv"), (0, "ts")])
async def test_black_bars_are_found_from_keyframes(tmp_path: Path, bar: int, suffix: str) -> None:
    film = letterboxed(tmp_path / f"film.{suffix}", bar)
    async with planning(tmp_path, film, engine="cues") as (context, made, job):
        assert await made.handle(work(job)) == Ack()
        head = await Plans(context.store).head("J1", 1)
        assert head is not None
        assert (head.stereo.bars.top, head.stereo.bars.bottom) == (bar, bar)
        assert (head.stereo.bars.left, head.stereo.bars.right) == (0, 0)


@pytest.mark.parametrize(("model", "code"), [("no-such-model", "MODEL_MISSING"), ("large", "LICENSE_NOT_ACCEPTED")])
async def test_a_model_is_checked_before_anything_is_made(tmp_path: Path, model: str, code: str) -> None:
    async with planning(tmp_path, "h264_mp4", engine="depth-anything", model=model) as (context, made, job):
        outcome = await made.handle(work(job))
        assert isinstance(outcome, Reject)
        assert outcome.failure.code == code
        assert [item async for item in context.store.list("jobs/")] == []
