"""What the janitor mends, keeps and removes, on a real broker and a real storage."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from services import daemon, delete, operations, submit
from services.context import Context
from services.janitor import Janitor
from services.ledger import Ledger
from stereospot import completion, errors, jobs, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.completion import Completion
from stereospot.jobs import Phase
from stereospot.messages import DeleteWork, Failure, Film, SegmentTask, SourceRef, Trigger
from stereospot.options import Options
from stereospot.outcome import Ack
from streams_config.provision import provision
from tests.support import eventually
from tests.system.rig import a_job, rig


async def put_state(context: Context, state: Completion) -> None:
    await context.bus.bucket(subjects.STATE).put(subjects.state_key(state.job_id, state.generation), state)


async def test_a_sweep_reads_what_changed_and_not_what_there_is(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        for number in range(50):
            await records.create_job(context.bus, a_job(f"J{number}", phase=Phase.PLANNING))
        ledger = Ledger(context.bus)
        assert await ledger.read() == 50
        assert await ledger.read() == 0
        failure = Failure(code="INTERNAL", sentence="s", advice="a")
        await operations.fail(context.bus, "J7", 1, failure)
        await put_state(context, Completion(job_id="J8", generation=1, total=2, planned=2, sent=0b11))
        assert await ledger.read() == 2
        assert set(ledger.open) == {f"J{number}" for number in range(50)} - {"J7"}, "who failed waits for a person"
        await records.delete_job(context.bus, "J9")
        assert await ledger.read() == 1
        assert "J9" not in ledger.known


async def test_the_janitor_mends_each_thing_that_a_crash_can_leave(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        film = Film(
            key=keys.film("film", 1, "mp4"), sha256="0", size_bytes=4, frames=1, duration_seconds=1, container="mp4",
            file_name="f.mp4",
        )  # fmt: skip
        finished = jobs.advance(a_job("film", phase=Phase.ASSEMBLING), Phase.COMPLETED, at=time.time() - 40, film=film)
        await context.store.put(film.key, b"film")
        deleted = jobs.advance(a_job("deleted"), Phase.DELETED, at=1.0)
        made = [
            a_job("unplanned", phase=Phase.PLANNING),
            a_job("untold"),
            a_job("untriggered"),
            a_job("lost"),
            a_job("healthy"),
            finished,
            deleted,
        ]
        for job in made:
            await records.create_job(context.bus, job)
        whole = Completion(job_id="untriggered", generation=1, total=2, planned=2, done=0b11, sent=0b11)
        await put_state(context, whole)
        lost = Completion(job_id="lost", generation=1, total=3, planned=3, done=0b001, sent=0b111)
        await put_state(context, lost)
        await put_state(context, lost.model_copy(update={"job_id": "healthy"}))
        for job_id, index in (("lost", 1), ("healthy", 1), ("healthy", 2)):
            task = SegmentTask(job_id=job_id, generation=1, attempt=1, index=index, part=0)
            await context.bus.publish(subjects.convert("cpu", "normal", job_id, 1, index), task)

        janitor = Janitor(context)
        found = await janitor.sweep()
        assert found.mended == {
            "plan": ["unplanned"],
            "total": ["untold"],
            "trigger": ["untriggered.1"],
            "segments": ["lost.1: [2]"],
            "alias": ["film"],
            "delete": ["deleted"],
        }
        assert await context.store.get(keys.film_alias("film")) == b"film"
        entry = await context.bus.bucket(subjects.STATE).get(subjects.state_key("lost", 1))
        assert entry is not None
        assert completion.decode(entry.value).sent == 0b011
        assert (await janitor.sweep()).mended == {}, "what was mended stays mended"

        # An assembly that was acknowledged and did not happen.
        async with daemon.running(context.settings, {"dead-letters"}):
            puller = context.bus.nc.jetstream()
            subscription = await puller.pull_subscribe_bind("assembler", subjects.kv_stream(subjects.STATE))
            (message,) = await subscription.fetch(1, timeout=5)
            await message.ack_sync()
        assert (await janitor.sweep()).mended == {"assembly": ["untriggered.1"]}
        trigger = await context.bus.bucket(subjects.STATE).get(subjects.trigger_key("untriggered", 1))
        assert trigger is not None
        assert Trigger.model_validate_json(trigger.value).total == 2


async def test_an_alias_that_has_no_room_stops_nothing_that_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as context:
        long_ago = time.time() - 30 * 86400
        for job_id, at in (("new", time.time() - 40), ("old", long_ago)):
            film = Film(
                key=keys.film(job_id, 1, "mp4"), sha256="0", size_bytes=4, frames=1, duration_seconds=1,
                container="mp4", file_name="f.mp4",
            )  # fmt: skip
            await context.store.put(film.key, b"film")
            job = jobs.advance(a_job(job_id, phase=Phase.ASSEMBLING), Phase.COMPLETED, at=at, film=film)
            await records.create_job(context.bus, job)
        copy, full = context.store.copy, True

        async def copied(source: str, target: str) -> None:
            if full:
                raise errors.error("STORAGE_FULL", target)
            await copy(source, target)

        monkeypatch.setattr(context.store, "copy", copied)
        sweeping = Janitor(context)
        findings = await sweeping.sweep()
        assert findings.mended == {}
        assert findings.expired == {"streams": 1}
        full = False
        assert (await sweeping.sweep()).mended == {"alias": ["new"]}


async def test_segments_that_get_lost_later_are_offered_again_too(tmp_path: Path) -> None:
    """Whatever the janitor knew of the set from its own mending: in between others were sent."""
    async with rig(tmp_path) as context:
        await records.create_job(context.bus, a_job())
        janitor = Janitor(context)
        for sent, lost in ((0b0011, [0, 1]), (0b1100, [2, 3])):
            state = Completion(job_id="J1", generation=1, total=4, planned=4, sent=sent, done=0b1111 & ~0b1100 & ~sent)
            await put_state(context, state)
            assert (await janitor.sweep()).mended == {"segments": [f"J1.1: {lost}"]}
            found = await records.get_state(context.bus, "J1", 1)
            assert found is not None
            assert (found[0].sent, found[0].resends) == (0, 1)


async def test_streams_that_were_made_anew_are_read_from_their_beginning(tmp_path: Path) -> None:
    """Records that were rebuilt under a running janitor are watched over, too."""
    async with rig(tmp_path) as context:
        for number in range(9):
            await records.create_job(context.bus, a_job(f"J{number}", phase=Phase.PLANNING))
        janitor = Janitor(context)
        assert len((await janitor.sweep()).mended["plan"]) == 9
        for stream in ("KV_jobs", "WORK"):
            await context.bus.api(f"STREAM.DELETE.{stream}")
        await provision(context.bus.nc)
        await records.create_job(context.bus, a_job("again", phase=Phase.PLANNING))
        assert (await janitor.sweep()).mended == {"plan": ["again"]}


async def test_an_input_stays_while_another_job_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(delete, "SETTLED_SECONDS", 0.1)
    key = keys.source("film", "mp4")
    source = SourceRef(key=key, name="film.mp4", size_bytes=1)

    async def gone(job_id: str) -> bool:
        return await records.get_job(context.bus, job_id) is None

    async with rig(tmp_path) as context:
        await context.store.put(key, b"x")
        await submit.create(context, source, Options(), job_id="film")
        await submit.create(context, source, Options(samples=(0.0,)), job_id="try-1")
        async with daemon.running(context.settings, {"delete"}):
            await operations.delete(context.bus, "film")
            await eventually(lambda: gone("film"), what="the owner's record gone")
            assert await context.store.head(key) is not None
            assert (await Janitor(context, stale_seconds=0.0).sweep_storage()).mended == {}
            await operations.delete(context.bus, "try-1")
            await eventually(lambda: gone("try-1"), what="the reader's record gone")
        found = await Janitor(context, stale_seconds=0.0).sweep_storage()
        assert found.mended["orphan"] == ["input/film/"]
        assert [item.key async for item in context.store.list("input/")] == []


async def test_films_that_somebody_put_below_input_stay_while_a_job_reads_them(tmp_path: Path) -> None:
    """A key is any below `input/` (docs/operations.md), also in a folder that is called what no job can be."""
    films = ["input/films/holiday.mp4", "input/My.depth/2026/holiday.mkv"]
    work = json.dumps({"key": films[0], "depth_key": films[1], "options": {"engine": "user"}})
    async with rig(tmp_path) as context:
        for key in films:
            await context.store.put(key, b"x")
        assert await submit.handle(context, Delivery(subjects.work("submit", "J1"), work.encode())) == Ack()
        assert (await Janitor(context, stale_seconds=0.0).sweep_storage()).mended == {}
        assert [key for key in films if await context.store.head(key) is None] == []
        await operations.delete(context.bus, "J1")
        await delete.handle(context, Delivery(subjects.work("delete", "J1"), DeleteWork(job_id="J1").body()))
        assert [item.key async for item in context.store.list("input/")] == sorted(films), "no mark is left"


async def test_the_janitor_removes_what_dead_processes_left_in_scratch(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        left = context.settings.data_dir / "scratch" / "stereospot-remote-x"
        left.mkdir(parents=True)
        (left / "answer.mp4").write_bytes(b"x")
        await Janitor(context).sweep_storage()
        assert left.is_dir(), "it may be in use"
        await Janitor(context, stale_seconds=0.0).sweep_storage()
        assert not left.exists()


async def test_the_janitor_removes_only_old_orphans(tmp_path: Path) -> None:
    async with rig(tmp_path) as context:
        for job_id in ("J1", "gone"):
            await records.create_job(context.bus, a_job(job_id))
        await records.delete_job(context.bus, "gone")
        for key in ("input/J1/source.mp4", "input/gone/source.mp4", keys.segment("gone", 1, 0), "input/U1/source.mp4"):
            await context.store.put(key, b"x")
        assert (await Janitor(context).sweep_storage()).mended == {}, "a young object may be an upload"
        found = await Janitor(context, stale_seconds=0.0).sweep_storage()
        assert found.mended["orphan"] == ["input/U1/", "input/gone/", "jobs/gone/"]
        assert [item.key async for item in context.store.list("input/")] == ["input/J1/source.mp4"]


async def test_the_janitor_keeps_the_films_of_a_broker_whose_store_was_lost(tmp_path: Path) -> None:
    """`doctor --repair` rebuilds their records, also when somebody has started all services before."""
    async with rig(tmp_path) as context:
        whole = submit.SourceRef(key="input/J1/source.mp4")
        await records.create_job(context.bus, a_job())
        await submit.create(context, whole, Options(), job_id="J2")
        for key in ("input/J1/source.mp4", keys.plan("J1", 1), keys.film("J1", 1, "mp4"), keys.plan("J2", 1)):
            await context.store.put(key, b"x")
        before = {item.key async for item in context.store.list("")}
        await context.bus.purge(subjects.kv_stream(subjects.JOBS))
        assert (await Janitor(context, stale_seconds=0.0).sweep_storage()).mended == {}
        assert {item.key async for item in context.store.list("")} == before

        await context.store.delete_prefix("jobs/J1/")
        assert (await Janitor(context, stale_seconds=0.0).sweep_storage()).mended == {}, "the other job reads it, too"
        await context.store.delete_prefix("jobs/J2/")
        found = await Janitor(context, stale_seconds=0.0).sweep_storage()
        assert found.mended.get("orphan") is None, "its mark is young"
