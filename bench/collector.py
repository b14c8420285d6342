"""B4: the collector draining completions that are already there, over workers that each count their own.

Both read the same work-queue stream under the shipped configuration (a broker that syncs every write):

collector   `services.collector`: fetches up to 256, one compare-and-set a generation, then acks
naive       64 workers, each: fetch one, read the set, add the bit, compare-and-set until it holds, ack

The acknowledged publish rate of the same run is printed beside them: it is what fills the stream.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bench import measure
from services.collector import Collector
from services.context import Context
from stereospot import broker, jobs, log, records, subjects
from stereospot.bus import Bus, Conflict, Puller
from stereospot.completion import Completion, decode, encode
from stereospot.embedded import Embedded
from stereospot.jobs import Job, Phase
from stereospot.messages import SegmentDone, SourceRef
from stereospot.settings import Settings
from stereospot.storage import open_store

INIT = "a" * 64
CONNECTIONS = 8


@asynccontextmanager
async def deployment() -> AsyncGenerator[Context]:
    """The embedded broker with everything provisioned, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="stereospot-bench-") as folder:
        given = Settings(data_dir=Path(folder), nats_port=-1)
        async with Embedded(given.data_dir, port=None) as server:
            settings = server.settings(given)
            bus = await Bus.connect(settings, name="bench")
            await broker.provision(bus, settings)
            store = open_store(settings)
            yield Context(settings, bus, store)
            await store.close()
            await bus.drain()


async def fill(context: Context, job_ids: list[str], segments: int) -> float:
    """Records, and every completion published in random order; returns acknowledged publishes a second."""
    for job_id in job_ids:
        job = Job(job_id=job_id, created_at=1.0, updated_at=1.0, source=SourceRef(key="input/a/source.mp4"))
        for phase in (Phase.PLANNING, Phase.CONVERTING):
            job = jobs.advance(job, phase, at=1.0)
        await records.create_job(context.bus, job)
        state = Completion(job_id=job_id, generation=1, total=segments, planned=segments, sent=(1 << segments) - 1)
        await context.bus.bucket(subjects.STATE).create(subjects.state_key(job_id, 1), state)
    places = [(job_id, index) for job_id in job_ids for index in range(segments)]
    random.Random(1).shuffle(places)
    room = asyncio.Semaphore(256)

    async def publish(job_id: str, index: int) -> None:
        done = SegmentDone(
            job_id=job_id,
            generation=1,
            index=index,
            frames=144,
            init_sha256=INIT,
            size_bytes=1,
            worker_id="w",
            seconds=1,
        )
        async with room:
            await context.bus.publish(subjects.done_segment(job_id, 1, index), done)

    started = time.perf_counter()
    await asyncio.gather(*(publish(*place) for place in places))
    return len(places) / (time.perf_counter() - started)


async def drained(context: Context) -> bool:
    return (await context.bus.stream_info(subjects.DONE))["state"]["messages"] == 0


async def until(check: Callable[[], Awaitable[object]], every: float = 0.01) -> None:
    """Ask until the answer is true."""
    while True:
        if await check():
            return
        await asyncio.sleep(every)


async def triggers(context: Context) -> int:
    return len(await context.bus.bucket(subjects.STATE).keys("trigger"))


async def collect(job_count: int, segments: int) -> tuple[float, float, int]:
    """(completions a second, publishes a second, triggers) of the collector."""
    async with deployment() as context:
        names = [f"J{number}" for number in range(job_count)]
        published = await fill(context, names, segments)
        collector = Collector(context)
        started = time.perf_counter()
        task = asyncio.create_task(collector.collect())
        await until(lambda: drained(context))
        seconds = time.perf_counter() - started
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return job_count * segments / seconds, published, await triggers(context)


async def each_counts(workers: int, segments: int) -> tuple[float, int]:
    """(completions a second, compare-and-sets that lost) when every worker counts for itself."""
    async with deployment() as context:
        await fill(context, ["J0"], segments)
        buses = [await Bus.connect(context.settings, name=f"w{number}") for number in range(CONNECTIONS)]
        key = subjects.state_key("J0", 1)
        lost = 0
        left = segments
        finished = asyncio.Event()

        async def work(bus: Bus) -> None:
            nonlocal lost, left
            puller = Puller(bus, subjects.DONE, "collector")
            await puller.open()
            bucket = bus.bucket(subjects.STATE)
            while left:
                for received in await puller.take(1):
                    index = int(received.delivery.subject.rsplit(".", 1)[-1])
                    while True:
                        entry = await bucket.get(key)
                        assert entry is not None
                        try:
                            await bucket.update(key, encode(decode(entry.value).with_done(index, INIT)), entry.revision)
                        except Conflict:
                            lost += 1
                            await asyncio.sleep(random.uniform(0, 0.002))
                            continue
                        break
                    await received.ack()
                    left -= 1
                    if not left:
                        finished.set()

        started = time.perf_counter()
        tasks = [asyncio.create_task(work(buses[number % CONNECTIONS])) for number in range(workers)]
        await finished.wait()
        seconds = time.perf_counter() - started
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for bus in buses:
            await bus.drain()
        return segments / seconds, lost


def b4(pairs: int = 3, segments: int = 1000, workers: int = 64) -> str:
    """Completions a second of both, in turn: ten jobs of 1,000 segments for the collector, one of 500 for them."""
    log.configure("error")
    ours: list[tuple[float, float, int]] = []
    theirs: list[tuple[float, int]] = []
    for _ in range(pairs):
        theirs.append(asyncio.run(each_counts(workers, segments // 2)))
        ours.append(asyncio.run(collect(10, segments)))
    ratio = measure.Pairs([rate for rate, _, _ in ours], [rate for rate, _ in theirs])
    rows: list[list[object]] = [
        [
            "collector",
            max(ratio.a),
            sorted(ratio.a)[pairs // 2],
            f"{max(count for _, _, count in ours)} triggers of 10",
        ],
        [
            f"{workers} workers",
            max(ratio.b),
            sorted(ratio.b)[pairs // 2],
            f"{max(lost for _, lost in theirs)} lost writes",
        ],
        ["acked publishes", max(rate for _, rate, _ in ours), sorted(rate for _, rate, _ in ours)[pairs // 2], ""],
    ]
    head = ["what", "per second, best", "per second, median", ""]
    return measure.table(f"B4: rate ratio {ratio.describe()}; target >= 20", head, rows)
