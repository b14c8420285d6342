"""The analyser with the real architecture: windows stored once, as a converter would have measured them, and read back
from its threads; whole jobs by two workers and by one. Everything else about it: `test_curved_jobs.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from inference import geometry
from inference.gpu import backend
from services import daemon, plans, submit
from services.analyse import Analyse
from services.windows import StoredWindows
from stereospot import keys, records
from stereospot.bus import Delivery
from stereospot.jobs import Phase
from stereospot.media import frames, probe
from stereospot.media import plan as planning
from stereospot.media.limits import Limits
from stereospot.media.model import Plan
from stereospot.media.source import FileSource
from stereospot.messages import AnalyseWork, SourceRef
from stereospot.options import Layout, Options
from stereospot.outcome import Ack, Reject
from tests.media import sources
from tests.system import curved
from tests.system.rig import a_job, rig
from tests.system.test_curved_jobs import OPTIONS, fragments, in_phase, reports, stored, workers
from tests.unit import tiny_depth

LIMITS = Limits(sandbox="off")


def head(path: Path) -> Plan:
    source = FileSource(path)
    info = probe.probe(source, limits=LIMITS)
    source.close()
    return planning.head(
        info, Options(), job_id="J1", generation=1, source_key="", engine="depth-anything", divergence=2.0,
        output=geometry.output_size(info, Layout.HALF_SBS), created_at=0.0,
    )  # fmt: skip


def asked(window: int) -> Delivery:
    work = AnalyseWork(job_id="J1", generation=1, window=window)
    return Delivery(subject=f"stereospot.work.analyse.J1.1.{window}", data=work.body())


async def test_a_window_is_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_depth.write(tmp_path / "models" / "small")
    monkeypatch.setenv("STEREOSPOT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("STEREOSPOT_DEVICE", "cpu")
    path = sources.path("h264_mp4")
    plan = head(path)
    async with rig(tmp_path) as context:
        state = path.stat()
        ref = SourceRef(path=str(path), size_bytes=state.st_size, mtime_ns=state.st_mtime_ns)
        await records.create_job(context.bus, a_job(source=ref))
        service = Analyse(context)
        assert await service.handle(asked(0)) == Ack("stale")
        await plans.write_head(context.store, plan)
        assert await service.handle(asked(0)) == Ack()
        key = keys.curve_window("J1", 1, 0)
        body = await context.store.get(key)
        assert body is not None
        assert await service.handle(asked(0)) == Ack("stored already")
        assert await service.handle(asked(-1)) == Ack()
        assert isinstance(await service.handle(Delivery(subject="s", data=b"{}")), Reject)

        windows = StoredWindows(context.store, asyncio.get_running_loop())
        read = windows.lookup(plan)
        stored = await asyncio.to_thread(read, 0)
        assert await asyncio.to_thread(read, 7) is None

        def measured() -> object:
            engine = backend.configured(engine="depth-anything")
            source = FileSource(path)
            with frames.Decoder(source, plan.decode, plan.source, limits=LIMITS) as decoder:
                found = engine.measure(decoder=decoder, plan=plan, index=0)
            source.close()
            engine.close()
            return found

        assert stored == await asyncio.to_thread(measured)
        assert stored is not None
        assert len(stored.samples) >= 7
        service.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("dtype", "every"), [("float32", 1), ("bfloat16", 1), ("int8", 4)])
async def test_parallel_equals_serial_with_the_real_network(tmp_path: Path, dtype: str, every: int) -> None:
    """Two processes beside one, through the whole daemon on a CPU: every window and every fragment, byte for byte."""
    tiny_depth.write(tmp_path / "models" / "small")
    film = curved.film(tmp_path, seconds=6)
    settings: dict[str, Any] = {
        "models_dir": tmp_path / "models",
        "device": "cpu",
        "depth_dtype": dtype,
        "depth_every": every,
    }
    made: list[tuple[dict[str, bytes], dict[str, bytes]]] = []
    for count in (1, 2):
        async with rig(tmp_path / str(count), pool="gpu", **settings) as context:
            await submit.create(context, await submit.local_source(film, None), OPTIONS, job_id="J1")
            async with (
                workers(context.settings, count, "services.workers"),
                daemon.running(context.settings, {"planner", "collector", "assembler"}),
            ):
                job = await in_phase(context, Phase.COMPLETED, Phase.FAILED, seconds=240)
            assert job.phase is Phase.COMPLETED, job.failure
            assert (job.report["device"], job.report["dtype"]) == ("cpu", dtype)
            assert {item["windows_taken"] for item in await reports(context)} == {0}
            made.append((await fragments(context), await stored(context, "curves/")))
    assert len(made[0][0]) == 6
    assert made[0] == made[1]
