"""Jobs of an engine with a curve through the whole daemon: windows first, then segments, and what may go wrong.

The engine is a double without torch (`curved`); `test_analyse.py` has the real network.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from inference import depth
from services import daemon, operations, submit
from services.analyse import Analyse
from services.context import Context
from services.dispatcher import ASKED
from services.reports import Report
from stereospot import completion, errors, keys, records, spans, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Job, Phase
from stereospot.messages import AnalyseWork, PartDone, WindowDone
from stereospot.options import Options
from stereospot.outcome import Ack, Reject, Retry, Return
from stereospot.settings import Settings
from tests.support import eventually
from tests.system import curved
from tests.system.rig import a_job, rig

T = TypeVar("T")

OPTIONS = Options(engine="depth-anything", crf=0, preset="ultrafast", segment_seconds=1.0)
ALL = frozenset({"planner", "collector", "analyse", "converter", "assembler"})


@pytest.fixture(autouse=True)
def engine() -> Generator[None]:
    """The double in depth-anything's place."""
    modules = depth._MODULES  # pyright: ignore[reportPrivateUsage]
    kept = modules[curved.NAME]
    curved.install()
    yield
    modules[curved.NAME] = kept


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curved.film(tmp_path_factory.mktemp("film"))


@asynccontextmanager
async def submitted(tmp_path: Path, film: Path, **settings: Any) -> AsyncGenerator[Context]:
    """A broker with one job that nobody has begun."""
    async with rig(tmp_path, pool="gpu", **settings) as context:
        source = await submit.local_source(film, None)
        await submit.create(context, source, OPTIONS, job_id="J1")
        yield context


async def the_job(context: Context) -> Job:
    found = await records.get_job(context.bus, "J1")
    assert found is not None
    return found[0]


async def in_phase(context: Context, *phases: Phase, seconds: float = 60.0) -> Job:
    async def reached() -> Job | None:
        job = await the_job(context)
        return job if job.phase in phases else None

    found = await eventually(reached, seconds=seconds, every=0.1, what=f"a job that is {phases}")
    assert found is not None
    return found


async def waiting(context: Context, stream: str) -> int:
    return int((await context.bus.stream_info(stream))["state"]["messages"])


async def soon(check: Callable[[], Awaitable[T]], what: str) -> T:
    return await eventually(check, seconds=60, every=0.1, what=what)


async def asked_for(context: Context, count: int) -> bool:
    """Whether so many windows wait for an analyser."""
    return (await context.bus.consumer_info(subjects.WORK, "work-analyse"))["num_pending"] == count


async def stored(context: Context, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async for item in context.store.list(f"jobs/J1/1/{prefix}"):
        body = await context.store.get(item.key)
        if body is not None:  # else it was deleted since
            found[item.key] = body
    return found


async def fragments(context: Context) -> dict[str, bytes]:
    return {key: body for key, body in (await stored(context, "segments/")).items() if key.endswith(".m4s")}


async def reports(context: Context) -> list[dict[str, Any]]:
    bodies = (await stored(context, "segments/")).items()
    return [Report.model_validate_json(body).measures for key, body in bodies if key.endswith(".json")]


async def test_a_segment_waits_for_its_windows(tmp_path: Path, film: Path) -> None:
    """Planned and asked for, but not dispatched; dispatched when analysed; converted without a look of its own."""
    async with submitted(tmp_path, film) as context:
        async with daemon.running(context.settings, {"planner", "collector"}):
            await in_phase(context, Phase.CONVERTING)
            # The film has windows 0 to 2; one before it and one behind it are looked at as well.
            await soon(lambda: asked_for(context, 5), "windows asked for")
            state = await records.get_state(context.bus, "J1", 1)
            assert state is not None
            assert state[0].waiting() == (1 << 10) - 1
            assert state[0].ahead()[0] == 0
            assert await waiting(context, subjects.CONVERT) == 0
        async with daemon.running(context.settings, {"collector", "analyse"}):
            await soon(lambda: waiting(context, subjects.CONVERT), "segments")
            await soon(lambda: _empty(context, subjects.WORK), "every window taken")
        assert len(await stored(context, "curves/")) == 5
        async with daemon.running(context.settings, ALL):
            job = await in_phase(context, Phase.COMPLETED, Phase.FAILED)
        assert job.phase is Phase.COMPLETED, job.failure
        assert job.report["limiting_stage"] in job.report["stage_seconds"]
        assert (job.report["device"], job.report["device_memory_bytes"]) == ("cpu", 123 << 20)
        assert job.report["worker_fps"] > 0
        measured = await reports(context)
        assert len(measured) == 10
        assert {item["windows_taken"] for item in measured} == {0}


async def test_two_workers_make_what_one_makes(tmp_path: Path, film: Path) -> None:
    """Every fragment, byte for byte: processes of their own beside one converter that does it all in order."""
    async with submitted(tmp_path / "one", film) as context:
        async with daemon.running(context.settings.model_copy(update={"slots": 1}), ALL):
            assert (await in_phase(context, Phase.COMPLETED, Phase.FAILED)).phase is Phase.COMPLETED
        serial, curve = await fragments(context), await stored(context, "curves/")
    async with submitted(tmp_path / "two", film) as context, workers(context.settings, 2):
        async with daemon.running(context.settings, ALL - {"analyse", "converter"}):
            assert (await in_phase(context, Phase.COMPLETED, Phase.FAILED)).phase is Phase.COMPLETED
        parallel = await fragments(context)
        assert await stored(context, "curves/") == curve
        assert {item["windows_taken"] for item in await reports(context)} == {0}
    assert len(serial) == 10
    assert parallel == serial


async def test_a_job_that_is_cancelled_and_deleted_leaves_nothing(tmp_path: Path, film: Path) -> None:
    async with submitted(tmp_path, film) as context:
        async with daemon.running(context.settings, {"planner", "collector"}):
            await in_phase(context, Phase.CONVERTING)
            await soon(lambda: asked_for(context, 5), "windows asked for")
        await operations.cancel(context.bus, "J1")
        async with daemon.running(context.settings, {"collector", "analyse"}):
            await soon(lambda: _empty(context, subjects.WORK), "dropped windows")
            assert await stored(context, "curves/") == {}
            # Another attempt: the same windows are asked for again, though their ids were used.
            await operations.retry(context.bus, "J1")
            async with daemon.running(context.settings, {"planner"}):
                await soon(lambda: stored(context, "curves/"), "a window")
        await operations.delete(context.bus, "J1")
        async with daemon.running(context.settings, {"delete", "analyse"}):
            await soon(lambda: _gone(context), "nothing under the job's prefix")


async def test_a_window_that_cannot_be_taken_fails_its_job(tmp_path: Path, film: Path) -> None:
    """Its letter names the cause; once that is mended a retry goes on with the windows that are stored."""
    source = Path(shutil.copy2(film, tmp_path))
    async with submitted(tmp_path, source) as context, daemon.running(context.settings, ALL - {"analyse"}):
        await in_phase(context, Phase.CONVERTING)
        await soon(lambda: asked_for(context, 5), "windows asked for")
        away = shutil.move(source, tmp_path / "away.mp4")
        async with daemon.running(context.settings, {"analyse"}):
            job = await in_phase(context, Phase.FAILED)
        assert job.failure is not None
        assert job.failure.code == "SOURCE_MISSING"
        assert await context.bus.last_per_subject(subjects.DEAD, "stereospot.dead.work-analyse.>")
        shutil.move(away, source)
        await operations.retry(context.bus, "J1")
        async with daemon.running(context.settings, {"analyse"}):
            job = await in_phase(context, Phase.COMPLETED, Phase.FAILED)
        assert job.phase is Phase.COMPLETED, job.failure


@pytest.mark.parametrize(
    ("code", "delivered", "alone", "expected"),
    [
        ("ENGINE_UNAVAILABLE", 1, False, Return),
        ("ENGINE_UNAVAILABLE", 1, True, Reject),
        ("OUT_OF_MEMORY", 1, False, Retry),
        ("CORRUPT_INPUT", 1, False, Reject),
        ("DECODER_CRASHED", 1, False, Retry),
        ("DECODER_CRASHED", 2, False, Reject),
        ("CANCELLED", 1, False, Ack),
    ],
)
async def test_what_follows_a_failure(
    tmp_path: Path, code: str, delivered: int, alone: bool, expected: type[object]
) -> None:
    async with rig(tmp_path) as context:
        service = Analyse(Context(context.settings, context.bus, context.store, alone=alone))
        await records.create_job(context.bus, a_job())
        work = AnalyseWork(job_id="J1", generation=1, window=0)
        outcome = await service.failed(Delivery(subject="s", data=b"", attempt=delivered), work, errors.error(code))
        assert isinstance(outcome, expected)
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        said = [item.code for item in found[0].warnings]
        elsewhere = not alone and code in errors.ELSEWHERE
        assert said == ([code] if elsewhere else []), "the job says what it waits for"
        with pytest.raises(errors.Transient):
            await service.failed(Delivery(subject="s", data=b""), work, errors.error("STORAGE_UNAVAILABLE"))
        service.close()


async def test_work_of_another_generation_or_attempt_is_dropped(tmp_path: Path, film: Path) -> None:
    async with submitted(tmp_path, film) as context:
        async with daemon.running(context.settings, {"planner", "collector"}):
            await in_phase(context, Phase.CONVERTING)
        service = Analyse(context)

        def work(**values: Any) -> Delivery:
            body = AnalyseWork.model_validate({"job_id": "J1", "generation": 1, "window": 0, **values})
            return Delivery(subject="stereospot.work.analyse.J1.1.0", data=body.body())

        assert await service.handle(work(generation=2)) == Ack("stale")
        assert await service.handle(work(attempt=2)) == Ack("stale")
        assert await service.handle(work(job_id="J2")) == Ack("stale")
        assert await service.handle(work()) == Ack()
        assert await service.handle(work()) == Ack("stored already")
        assert await context.store.head(keys.curve_window("J1", 1, 0)) is not None
        service.close()


async def test_a_set_that_was_lost_is_begun_anew_with_its_spans(tmp_path: Path, film: Path) -> None:
    """The total alone says what every segment needs: a doctor's replay has no parts to repeat."""
    async with submitted(tmp_path, film) as context:
        async with daemon.running(context.settings, {"planner", "collector"}):
            await in_phase(context, Phase.CONVERTING)
            key = subjects.state_key("J1", 1)
            before = await soon(lambda: _complete_plan(context), "the whole plan in the set")
        await operations.cancel(context.bus, "J1")
        await context.bus.bucket(subjects.STATE).purge(key)
        await operations.retry(context.bus, "J1")
        async with daemon.running(context.settings, {"planner", "collector"}):
            after = await soon(lambda: _complete_plan(context), "the set once more")
        assert before is not None
        assert after is not None
        assert after.spans == before.spans != {}
        assert after.planned == before.planned == 10


async def test_windows_are_asked_for_a_few_at_a_time(tmp_path: Path) -> None:
    """A two-hour film leaves the analysers room for others, and a seek changes what comes next."""
    spans_of = [(index, index + 2) for index in range(1500)]
    async with rig(tmp_path) as context, daemon.running(context.settings, {"collector"}):
        await records.create_job(context.bus, a_job("J1", pool="gpu"))
        part = PartDone(job_id="J1", generation=1, pool="gpu", first=0, count=1500, spans=spans.pack(spans_of))
        await context.bus.publish(subjects.done_plan("J1", 1, "part"), part)
        await soon(lambda: asked_for(context, ASKED), "the first windows")
        await operations.seek(context.bus, "J1", 1000)
        for window in range(4):
            done = WindowDone(job_id="J1", generation=1, window=window)
            await context.bus.publish(subjects.done_plan("J1", 1, "window"), done)
        await soon(lambda: asked_for(context, ASKED + 4), "as many more as were stored")
        info = (await context.bus.stream_info(subjects.WORK))["state"]
        found = [await context.bus.get(subjects.WORK, info["last_seq"] - back) for back in range(4)]
        last = {AnalyseWork.model_validate_json(item.data).window for item in found if item is not None}
        assert last == {1000, 1001, 1002, 1003}
        # Segments 0 and 1 have their windows, and wait behind those at the playhead.
        state = await records.get_state(context.bus, "J1", 1)
        assert state is not None
        assert state[0].ahead(1000, 1500)[0] == 0b11


async def test_one_command_converts_with_a_learned_engine(tmp_path: Path, film: Path) -> None:
    """`stereospot convert FILE --engine depth-anything`: its own daemon analyses too."""
    from services.cli.app import Common
    from services.cli.convert import convert

    target = tmp_path / "out.mp4"
    common = Common(data=tmp_path / "data", json=True)
    assert await convert(film, output=target, engine="depth-anything", preset="ultrafast", common=common) == 0
    assert target.stat().st_size > 0


# ---- processes -------------------------------------------------------------------------------------------
@asynccontextmanager
async def workers(
    settings: Settings, count: int, module: str = "tests.system.curved"
) -> AsyncGenerator[list[asyncio.subprocess.Process]]:
    """Processes with converter and analyser each, with the double or what another module starts."""
    from services import workers as supervision

    started: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            started.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", module, "converter", "analyse",
                    env=supervision.environment(settings) | {"STEREOSPOT_SLOTS": "1"},
                    stdin=asyncio.subprocess.DEVNULL,
                )
            )  # fmt: skip
        yield started
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _empty(context: Context, stream: str) -> bool:
    return not await waiting(context, stream)


async def _gone(context: Context) -> bool:
    return await stored(context, "") == {}


async def _complete_plan(context: Context) -> completion.Completion | None:
    found = await records.get_state(context.bus, "J1", 1)
    return found[0] if found is not None and found[0].total is not None else None
