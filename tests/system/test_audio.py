"""The audio service: what is stored stays, what it begins comes to an end, and what it cannot do it says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services import operations, sources
from services.audio import Audio
from services.context import Context
from stereospot import errors, jobs, keys, records, subjects
from stereospot.bus import Delivery
from stereospot.jobs import Phase
from stereospot.media import audio as cutting
from stereospot.media.audio import AudioChunk
from stereospot.messages import AudioDone, AudioWork, Failure
from stereospot.outcome import Ack
from tests.media import sources as films
from tests.support import eventually
from tests.system.rig import a_planned_job, rig

SECONDS = 10


def work(generation: int = 1, *, attempt: int = 1) -> Delivery:
    body = AudioWork(job_id="J1", generation=generation)
    return Delivery(subjects.work("audio", "J1", generation), body.body(), attempt, subjects.WORK, 1)


@asynccontextmanager
async def service(tmp_path: Path) -> AsyncGenerator[tuple[Context, Audio]]:
    """The service before a planned job whose film has `SECONDS` segments and sound."""
    path = tmp_path / "source.mp4"
    films.write(films.Film(".mp4", frames=24 * SECONDS, audio=(films.Audio(),)), path)
    async with rig(tmp_path) as context:
        await a_planned_job(context, path)
        audio = Audio(context)
        try:
            yield context, audio
        finally:
            audio.close()


async def stored(context: Context) -> list[int]:
    """Segments whose sound is stored."""
    found = [keys.parse_audio_segment(item.key) async for item in context.store.list(keys.audio_prefix("J1", 1))]
    return [item.index for item in found if item is not None]


async def told(context: Context) -> AudioDone:
    message = await context.bus.last(subjects.DONE, subjects.done_plan("J1", 1, "audio"))
    assert message is not None
    return AudioDone.model_validate_json(message.data)


# ---- beginning anew ------------------------------------------------------------------------------------------
async def test_a_second_delivery_keeps_what_players_may_hold_and_makes_what_is_missing(tmp_path: Path) -> None:
    async with service(tmp_path) as (context, audio):
        assert await audio.handle(work()) == Ack()
        assert await stored(context) == list(range(SECONDS))
        held = [keys.audio_init("J1", 1, 0), *(keys.audio_segment("J1", 1, 0, index) for index in range(SECONDS - 1))]
        for key in held:
            await context.store.put(key, b"held")
        last = keys.audio_segment("J1", 1, 0, SECONDS - 1)
        await context.store.delete(last)
        assert await audio.handle(work(attempt=2)) == Ack()
        assert [await context.store.get(key) for key in held] == [b"held"] * SECONDS
        assert await context.store.head(last) is not None
        assert (await told(context)).until == SECONDS


async def test_where_the_sound_of_an_earlier_run_ends_the_cut_from_the_playhead_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as (context, audio):
        assert await audio.handle(work()) == Ack()
        for index in {*range(SECONDS)} - {3, 4, 5}:
            await context.store.delete(keys.audio_segment("J1", 1, 0, index))
        await operations.seek(context.bus, "J1", 3)
        begun, first = threading.Event(), list[int]()

        def cut(*given: Any, origin: int | None = None, **more: Any) -> Iterator[AudioChunk]:
            if origin is None:
                assert begun.wait(20), "there is no second cut"
            for chunk in real(*given, origin=origin, **more):
                if origin is not None and chunk.index is not None:
                    first.append(chunk.index)
                    begun.set()
                yield chunk

        real = cutting.cut
        monkeypatch.setattr(cutting, "cut", cut)
        assert await audio.handle(work(attempt=2)) == Ack()
        assert first[0] == 6
        assert await stored(context) == list(range(SECONDS))


# ---- the end -------------------------------------------------------------------------------------------------
class Ends:
    """Cuts that say when they end, and sources that say when they are closed; the first ones begin with the film."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self.opened = 0
        self.threads: set[int] = set()
        self.begun = {True: threading.Event(), False: threading.Event()}
        opening = sources.open_source

        async def open_source(*given: Any) -> Any:
            source = await opening(*given)
            close, name = source.close, f"{'second' if self.opened else 'first'} source"
            self.opened += 1

            def closed() -> None:
                self.note(name)
                close()

            source.close = closed  # type: ignore[method-assign]
            return source

        monkeypatch.setattr(sources, "open_source", open_source)
        monkeypatch.setattr(cutting, "cut", self.cut)

    def note(self, what: str) -> None:
        self.seen.append(what)
        self.threads.add(threading.get_ident())

    def cut(self, *_: Any, origin: int | None = None, stop: threading.Event, **more: Any) -> Generator[AudioChunk]:
        """A chunk, and then one that never comes."""
        try:
            self.begun[origin is None].set()
            yield AudioChunk(0, None if origin is None else 6, b"")
            if stop.wait(20):
                time.sleep(0.2)  # so long it takes to see that it is wanted no more
                raise errors.error("CANCELLED")
        finally:
            self.note("first cut" if origin is None else "second cut")


async def test_a_cut_that_cannot_be_stored_is_ended_in_a_thread_before_its_source_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as (context, audio):
        ends = Ends(monkeypatch)

        async def put(key: str, *given: Any, **more: Any) -> bool:
            raise errors.error("STORAGE_FULL", key)

        monkeypatch.setattr(context.store, "put", put)
        with pytest.raises(errors.StereoSpotError, match="init"):
            await audio.handle(work())
        assert ends.seen == ["first cut", "first source"]
        assert threading.get_ident() not in ends.threads, "the loop waits for no child"


async def test_cancelled_both_cuts_end_before_their_sources_and_nothing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as (context, audio):
        await operations.seek(context.bus, "J1", 5)
        ends = Ends(monkeypatch)
        before = asyncio.all_tasks()
        handling = asyncio.create_task(audio.handle(work()))
        await eventually(lambda: all(item.is_set() for item in ends.begun.values()), what="both cuts")
        handling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handling
        assert ends.seen == ["first cut", "second cut", "second source", "first source"]
        assert threading.get_ident() not in ends.threads
        assert asyncio.all_tasks() == before


async def test_when_the_cut_from_the_beginning_fails_the_other_one_ends_and_the_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as (context, audio):
        await operations.seek(context.bus, "J1", 5)
        ends = Ends(monkeypatch)

        def cut(*given: Any, origin: int | None = None, **more: Any) -> Iterator[AudioChunk]:
            if origin is not None:
                yield from ends.cut(*given, origin=origin, **more)
                return
            assert ends.begun[False].wait(20)
            raise errors.error("CORRUPT_INPUT", "as it happens")

        monkeypatch.setattr(cutting, "cut", cut)
        with pytest.raises(errors.StereoSpotError, match="as it happens"):
            await audio.handle(work())
        assert ends.seen == ["second cut", "second source", "first source"]


# ---- what it says --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("phase", "generation", "said"),
    [(None, 1, True), (Phase.COMPLETED, 1, True), (Phase.CANCELLED, 1, False), (None, 2, False)],
)
async def test_a_stream_that_lacks_sound_says_so_on_its_job_also_once_the_film_is_there(
    tmp_path: Path, phase: Phase | None, generation: int, said: bool
) -> None:
    async with service(tmp_path) as (context, audio):
        way = [] if phase is None else [Phase.ASSEMBLING, phase] if phase is Phase.COMPLETED else [phase]
        for step in way:
            await records.change_job(context.bus, "J1", lambda job, step=step: jobs.advance(job, step, at=2.0))
        await audio.reject(work(generation), Failure.of(errors.error("CORRUPT_INPUT", "The end is missing.")))
        found = await records.get_job(context.bus, "J1")
        assert found is not None
        assert [item.code for item in found[0].warnings] == (["CORRUPT_INPUT"] if said else [])


async def test_a_silent_film_with_subtitles_has_its_subtitles(tmp_path: Path) -> None:
    path = tmp_path / "source.mkv"
    films.write(films.Film(".mkv", frames=48, subtitles="subrip"), path)
    async with rig(tmp_path) as context:
        await a_planned_job(context, path)
        audio = Audio(context)
        assert await audio.handle(work()) == Ack()
        assert await context.store.head(keys.subtitles("J1", 1, 0, "vtt")) is not None
        audio.close()
