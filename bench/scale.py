"""B5: 64 stub workers over one, one second a segment: what coordination costs when computing costs nothing.

Workers are `stereospot run converter` processes with the stub backend: they decode, copy and encode a frame of 64x48
and then wait until the second is over. A first film of two segments a slot is converted before, since a process imports
and starts its jail while it already takes work; then time counts from the first segment begun to the set that is
complete, so start-up is left out. One worker does fewer segments: its rate is what is compared.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from bench import measure
from bench.collector import until
from services import daemon, submit
from services.context import Context
from stereospot import log, records, subjects
from stereospot.jobs import Phase
from stereospot.options import Options
from stereospot.settings import Settings

SERVICES = frozenset({"planner", "collector", "assembler", "audio"})

SEGMENT_SECONDS = 1.0


def film(path: Path, segments: int) -> None:
    """One frame a second, a segment a frame."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=1, options={"preset": "ultrafast", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1)
        for number in range(segments):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), number % 200, np.uint8), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


async def run(workers: int, segments: int, processes: int) -> tuple[float, int]:
    """(segments a second, triggers) of `workers` slots in so many processes."""
    with tempfile.TemporaryDirectory(prefix="stereospot-bench-") as folder:
        source, first = Path(folder) / "film.mp4", Path(folder) / "first.mp4"
        await asyncio.to_thread(film, source, segments)
        await asyncio.to_thread(film, first, 2 * workers)
        given = Settings(data_dir=Path(folder) / "data", nats_port=-1, pool="stub")
        async with daemon.running(given, SERVICES) as context:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("STEREOSPOT_")}
            token = context.settings.nats_token
            environment |= {
                "STEREOSPOT_DATA_DIR": str(context.settings.data_dir), "STEREOSPOT_POOL": "stub",
                "STEREOSPOT_NATS_URL": context.settings.nats_url or "", "STEREOSPOT_STUB_SECONDS": "1",
                "STEREOSPOT_NATS_TOKEN": token.get_secret_value() if token else "",
                "STEREOSPOT_SLOTS": str(workers // processes), "STEREOSPOT_LOG_LEVEL": "error",
            }  # fmt: skip
            command = [sys.executable, "-m", "services.cli", "run", "converter"]
            children = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(processes)]
            try:
                await _present(context, processes)
                await _warm(context, first)
                return await _measure(context, source, segments)
            finally:
                for child in children:
                    child.send_signal(signal.SIGTERM)
                for child in children:
                    await child.wait()


async def _present(context: Context, processes: int) -> None:
    """Wait until every process has said that it is there."""
    bucket = context.bus.bucket(subjects.WORKERS)

    async def all_there() -> bool:
        return len(await bucket.keys()) >= processes

    await until(all_there, 0.1)


async def _submit(context: Context, source: Path, job_id: str) -> None:
    reference = await submit.local_source(source, None)
    options = Options(backend="stub", preset="ultrafast", segment_seconds=SEGMENT_SECONDS)
    await submit.create(context, reference, options, job_id=job_id)


async def _warm(context: Context, source: Path) -> None:
    """A film before the one that is measured, to its end."""
    await _submit(context, source, "J0")

    async def ended() -> bool:
        found = await records.get_job(context.bus, "J0")
        return found is not None and found[0].phase is Phase.COMPLETED

    await until(ended, 0.1)


async def _measure(context: Context, source: Path, segments: int) -> tuple[float, int]:
    async def begun() -> bool:
        return bool(await context.bus.last_per_subject(subjects.EVENT, "stereospot.event.segment.J1.>"))

    await _submit(context, source, "J1")
    await until(begun)
    started = time.perf_counter()
    while True:
        found = await records.get_state(context.bus, "J1", 1)
        if found is not None and found[0].is_complete:
            break
        await asyncio.sleep(0.05)
    seconds = time.perf_counter() - started
    assert found[0].total == segments, f"{found[0].total} segments"
    return segments / seconds, len(await context.bus.bucket(subjects.STATE).keys("trigger.J1"))


def b5(segments: int = 1280, workers: int = 64, alone: int = 30, processes: int = 4) -> str:
    """Segments a second of 64 workers over those of one."""
    log.configure("error")
    single, _ = asyncio.run(run(1, alone, 1))
    many, triggers = asyncio.run(run(workers, segments, processes))
    rows: list[list[object]] = [
        ["1 worker", alone, single, ""],
        [f"{workers} workers in {processes} processes", segments, many, f"{triggers} trigger"],
    ]
    title = f"B5: {workers} workers over one: {many / single:.1f}x; target >= 60"
    return measure.table(title, ["what", "segments", "segments/s", ""], rows)
