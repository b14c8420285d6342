"""Where playlists end: with the film, where its sound broke off, and where a job came to nothing."""

from __future__ import annotations

import time

import pytest

from services import operations
from services.gateway import coming
from services.gateway.table import Row
from stereospot import jobs, keys, records, subjects
from stereospot.jobs import Phase
from stereospot.messages import AudioDone, AudioWork, Failure, Film
from tests.system.gateway import FILM, Served, master_of, move
from tests.system.showing import Showing
from tests.system.test_gateway_playback import run_of, until_run

ALL = [0, 1, 2, 3]
FAILURE = Failure(code="NO_FRAMES", sentence="s", advice="a")


async def begun(gateway: Served, *converted: int, sung: int = 0) -> tuple[Showing, str]:
    """A job at work with these segments; where its playlists are."""
    showing = Showing(gateway.context, "J1", sound=sung > 0)
    await showing.begin()
    await showing.convert(*converted)
    if sung:
        await showing.sing(sung)
    path = await master_of(gateway, "J1")
    return showing, path.removesuffix("/master.m3u8")


async def complete(gateway: Served) -> None:
    film = Film(key=keys.film("J1", 1, "mp4"), **FILM)
    await move(gateway, "J1", Phase.ASSEMBLING, Phase.COMPLETED, film=film)


async def end(gateway: Served, phase: Phase, at: float) -> None:
    def change(job: jobs.Job) -> jobs.Job | None:
        return jobs.fail(job, FAILURE, at=at) if phase is Phase.FAILED else jobs.cancel(job, at=at)

    await records.change_job(gateway.context.bus, "J1", change)


async def test_a_film_whose_sound_broke_off_ends_with_it_and_is_silent_from_there(gateway: Served) -> None:
    bus = gateway.context.bus
    _, base = await begun(gateway, *ALL, sung=2)
    paths = [f"{base}/from/0/video.m3u8", f"{base}/from/0/audio/0.m3u8"]
    work = await bus.publish(subjects.work("audio", "J1", 1), AudioWork(job_id="J1", generation=1, attempt=1))
    told = AudioDone(job_id="J1", generation=1, first=0, until=2, ready=2)
    counted = await bus.publish(subjects.done_plan("J1", 1, "audio"), told)
    await complete(gateway)
    for stream, sequence in ((subjects.WORK, work), (subjects.DONE, counted)):
        for path in paths * 2:
            assert await run_of(gateway, path) == ([0, 1], False), f"{stream} may bring the rest"
        await bus.remove(stream, sequence)
    for path in paths * 2:
        await until_run(gateway, path, [0, 1], True)
    assert 'AUDIO="sound"' in (await gateway.client.get(f"{base}/master.m3u8")).text
    assert await run_of(gateway, f"{base}/from/2/video.m3u8") == ([2, 3], True)
    assert "AUDIO" not in (await gateway.client.get(f"{base}/from/2/master.m3u8")).text
    assert (await gateway.client.get(f"{base}/from/2/audio/0.m3u8")).status_code == 404


async def test_a_film_that_is_done_before_its_first_sound_waits_for_it(gateway: Served) -> None:
    bus = gateway.context.bus
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(*ALL)
    work = await bus.publish(subjects.work("audio", "J1", 1), AudioWork(job_id="J1", generation=1, attempt=1))
    await complete(gateway)
    master = await master_of(gateway, "J1")
    video = master.replace("master", "from/0/video")
    for path in (master, video) * 2:
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.headers.get("retry-after")) == (404, "1"), "not as a silent film"
    await showing.sing(2)
    await until_run(gateway, video, [0, 1], False)
    assert 'AUDIO="sound"' in (await gateway.client.get(master)).text
    await bus.remove(subjects.WORK, work)
    await until_run(gateway, video, [0, 1], True)


async def test_a_film_whose_sound_never_comes_is_silent(gateway: Served) -> None:
    bus = gateway.context.bus
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(*ALL)
    work = await bus.publish(subjects.work("audio", "J1", 1), AudioWork(job_id="J1", generation=1, attempt=1))
    await complete(gateway)
    master = await master_of(gateway, "J1")
    assert (await gateway.client.get(master)).status_code == 404
    await bus.remove(subjects.WORK, work)
    await until_run(gateway, master.replace("master", "from/0/video"), ALL, True)
    assert "AUDIO" not in (await gateway.client.get(master)).text


async def test_a_film_that_is_whole_ends_whatever_the_queues_hold(gateway: Served) -> None:
    await gateway.context.bus.publish(subjects.work("audio", "J1", 1), AudioWork(job_id="J1", generation=1, attempt=1))
    _, base = await begun(gateway, *ALL, sung=4)
    await complete(gateway)
    for path in (f"{base}/from/0/video.m3u8", f"{base}/from/2/audio/0.m3u8"):
        assert await run_of(gateway, path) == (ALL if "from/0" in path else [2, 3], True)


async def test_an_end_is_not_told_by_a_set_that_the_index_has_not_heard_of(gateway: Served) -> None:
    """The sound is cut and counted, the queues are empty; the gateway hears of the last of it a moment later."""
    showing, base = await begun(gateway, *ALL, sung=2)
    await complete(gateway)
    old = showing.state
    await showing.sing(4)
    found = await records.get_job(gateway.context.bus, "J1")
    assert found is not None
    row = Row(*found)
    assert not await coming.nothing(gateway.context.bus, row, old)
    assert await coming.nothing(gateway.context.bus, row, showing.state)
    assert not await coming.nothing(gateway.context.bus, Row(found[0], found[1] - 1), showing.state)
    await until_run(gateway, f"{base}/from/0/audio/0.m3u8", ALL, True)


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.CANCELLED])
async def test_the_stream_of_a_job_that_came_to_nothing_ends_where_it_is(gateway: Served, phase: Phase) -> None:
    bus = gateway.context.bus
    showing, base = await begun(gateway, 0, 1, 2, sung=2)
    pictures, sound = f"{base}/from/0/video.m3u8", f"{base}/from/0/audio/0.m3u8"
    assert await run_of(gateway, pictures) == ([0, 1], False)
    await end(gateway, phase, 3.0)
    await until_run(gateway, pictures, [0, 1], True)
    await until_run(gateway, sound, [0, 1], True)
    # A retry goes on with it, for whoever comes then.
    await operations.retry(bus, "J1")
    await until_run(gateway, pictures, [0, 1], False)
    await showing.sing(4)
    await showing.convert(3)
    await until_run(gateway, pictures, ALL, True)


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.CANCELLED])
async def test_what_workers_have_in_hand_may_come_before_the_end(
    gateway: Served, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base = await begun(gateway, 0, 1)
    path = f"{base}/from/0/video.m3u8"
    await end(gateway, phase, time.time())
    for _ in range(3):
        assert await run_of(gateway, path) == ([0, 1], False)
    monkeypatch.setattr(coming, "WINDING_DOWN_SECONDS", 0.0)
    done = await gateway.context.bus.publish(subjects.done_segment("J1", 1, 2), b"{}")
    assert await run_of(gateway, path) == ([0, 1], False), "this one is not counted yet"
    await gateway.context.bus.remove(subjects.DONE, done)
    await until_run(gateway, path, [0, 1], True)


async def test_what_nobody_will_convert_is_not_promised(gateway: Served) -> None:
    await begun(gateway, 0, 1)
    seek = "/api/v1/jobs/J1/seek"
    assert (await gateway.client.post(seek, json={"segment_index": 3})).status_code == 200
    await end(gateway, Phase.CANCELLED, 3.0)
    refused = await gateway.client.post(seek, json={"segment_index": 3})
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    assert (await gateway.client.post(seek, json={"segment_index": 1})).status_code == 200
    await operations.retry(gateway.context.bus, "J1")
    assert (await gateway.client.post(seek, json={"segment_index": 3})).status_code == 200
