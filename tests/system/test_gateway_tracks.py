"""What a player is told beside the picture, and when it may stop asking."""

from __future__ import annotations

from typing import Any

import pytest

from stereospot import keys, subjects
from stereospot.jobs import Phase
from stereospot.media.model import Plan
from stereospot.messages import AudioDone, AudioWork, Film
from tests.support import eventually
from tests.system.gateway import FILM, Served, master_of, move
from tests.system.showing import FRAME, RATE, Showing


class Bilingual(Showing):
    """Its sound has a second language, of which nothing is stored by itself."""

    def plan(self) -> Plan:
        plan = super().plan()
        audio = (plan.source.audio[0], plan.source.audio[0].model_copy(update={"stream_index": 3}))
        return plan.model_copy(update={"source": plan.source.model_copy(update={"audio": audio})})

    async def sing(self, ready: int) -> None:
        for index in range(ready):
            await self.context.store.put(keys.audio_segment("J1", self.generation, 1, index), b"sound")
        await super().sing(ready)


async def test_the_choice_of_sound_is_told_once_the_stream_has_all_of_it(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(0, 1, 2, 3)
    await showing.sing(3)
    path = (await master_of(gateway, showing.job_id)).replace("master.m3u8", "tracks.json")

    async def sounds() -> list[str]:
        return (await gateway.client.get(path)).json()["sounds"]

    assert await sounds() == []
    await showing.sing(4)
    assert await eventually(sounds, what="the names of the tracks") == ["eng"]
    await gateway.context.store.delete(keys.audio_segment("J1", 1, 0, 3))
    assert await sounds() == [], "a stream that is cleared away is not offered"


async def test_who_asks_for_the_choice_is_told_when_to_stop(gateway: Served) -> None:
    """The film's pictures may be done before its sound is cut; sound that nobody cuts any more is not waited for."""
    bus = gateway.context.bus
    showing = Bilingual(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(0, 1, 2, 3)
    job = (await gateway.client.get("/api/v1/jobs/J1")).json()
    path = job["playback"]["poster"].replace("poster.jpg", "tracks.json")

    async def told() -> tuple[int, bool]:
        answer = (await gateway.client.get(path)).json()
        return len(answer["sounds"]), answer["more"]

    assert await told() == (0, True), "the job is at work"
    work = await bus.publish(subjects.work("audio", "J1", 1), AudioWork(job_id="J1", generation=1, attempt=1))
    done = AudioDone(job_id="J1", generation=1, first=0, until=3, ready=3)
    counted = await bus.publish(subjects.done_plan("J1", 1, "audio"), done)
    film: Any = FILM | {"key": keys.film("J1", 1, "mp4")}
    await move(gateway, "J1", Phase.ASSEMBLING, Phase.COMPLETED, film=Film(**film))

    async def completed() -> bool:
        return (await gateway.client.get("/api/v1/jobs?status=completed")).json()["jobs"] != []

    await eventually(completed, what="the film")
    assert await told() == (0, True), "its sound is still cut"
    await bus.remove(subjects.WORK, work)
    assert await told() == (0, True), "and counted"
    await bus.remove(subjects.DONE, counted)
    assert await told() == (0, False), "and then nobody is there to bring the rest"
    await showing.sing(4)
    assert await told() == (2, False)


@pytest.mark.parametrize("late", [0, 2])
async def test_a_film_that_starts_late_says_where_its_stream_begins(gateway: Served, late: int) -> None:
    """Cues and chapters go by the clock of its file, whose first picture lies there."""
    showing = Showing(gateway.context, "J1", subtitles=True, start=late * RATE * FRAME)
    await showing.begin()
    await showing.convert(0)
    answer = (await gateway.client.get((await master_of(gateway, "J1")).replace("master.m3u8", "tracks.json"))).json()
    assert answer["late_seconds"] == late
    assert answer["chapters"] == [{"title": "The second", "start_seconds": 2.0}]
