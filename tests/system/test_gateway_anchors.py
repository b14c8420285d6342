"""Seeking while a film is being made: what lies before the place is waited for by neither pictures nor sound."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from services import daemon, submit
from services.context import Context
from services.gateway.app import serve
from services.listener import listen
from services.plans import Plans
from stereospot import keys, records
from stereospot.completion import Completion
from stereospot.media import audio
from stereospot.media.source import FileSource
from stereospot.options import Options
from tests.media import sources as films
from tests.support import eventually
from tests.system.gateway import Served, master_of
from tests.system.showing import Showing
from tests.system.test_gateway_playback import run_of
from tests.system.test_pipeline import PIPELINE, settings

SECONDS, HELD = 24, 12


async def test_seek_gives_an_anchor(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    path = "/api/v1/jobs/J1/seek"
    answer = (await gateway.client.post(path, json={"seconds": 4.5})).json()
    assert (answer["segment_index"], answer["start_seconds"]) == (3, 4.0)
    found = await records.get_job(gateway.context.bus, "J1")
    assert found is not None
    assert found[0].playhead == 3
    assert (await gateway.client.get(answer["hls"])).status_code == 404
    await showing.convert(3)

    async def plays() -> bool:
        return (await gateway.client.get(answer["hls"])).status_code == 200

    await eventually(plays, what="the anchor plays before the middle is there")
    assert await run_of(gateway, answer["hls"].replace("master", "video")) == ([3], True)
    assert (await gateway.client.post(path, json={"segment_index": 9})).status_code == 400
    assert (await gateway.client.post(path, json={})).json()["hls"] is None


async def test_to_wait_in_vain_is_no_error_and_to_wait_is_answered_at_once(gateway: Served) -> None:
    """A page that asks with fetch has nothing red in its console; a player, which does not wait, has its 404."""
    showing = Showing(gateway.context, "J1")
    await showing.begin()
    await showing.convert(0)
    anchor = (await master_of(gateway, showing.job_id)).replace("master", "from/2/master")
    vain = await gateway.client.get(f"{anchor}?wait=1")
    assert (vain.status_code, vain.content, vain.headers["retry-after"]) == (204, b"", "1")
    assert vain.headers["cache-control"] == "no-store"
    now = await gateway.client.get(anchor)
    assert (now.status_code, now.headers["retry-after"]) == (404, "1")
    assert (await gateway.client.get(f"{anchor.replace('J1', 'J2')}?wait=1")).status_code == 404, "a wrong address"
    waiting = asyncio.create_task(gateway.client.get(f"{anchor}?wait=25"))
    await showing.convert(2)
    assert (await waiting).status_code == 200


async def test_sound_from_an_anchor_on_waits_for_no_pictures_before_it_either(gateway: Served) -> None:
    showing = Showing(gateway.context, "J1", sound=True)
    await showing.begin()
    await showing.convert(0, 2, 3)
    await showing.sing(1)
    base = (await master_of(gateway, showing.job_id)).removesuffix("/master.m3u8")
    assert await run_of(gateway, f"{base}/from/2/video.m3u8") == ([], False)
    await showing.write(showing.state.with_audio(3, first=2))

    async def third() -> bool:
        return await run_of(gateway, f"{base}/from/2/video.m3u8") == ([2], False)

    await eventually(third, what="the segment whose sound came from the middle on")
    assert await run_of(gateway, f"{base}/from/0/video.m3u8") == ([0], False)


def test_sound_from_two_beginnings_grows_together() -> None:
    state = Completion(job_id="J1", generation=1).with_audio(1).with_audio(7, first=5)
    assert (state.audio_ready, state.sound_prefix(0), state.sound_prefix(3), state.sound_prefix(5)) == (1, 1, 3, 7)
    assert state.with_audio(6, first=5) is state
    assert Completion.model_validate_json(state.body()) == state
    met = state.with_audio(5)
    assert (met.audio_ready, met.sound) == (7, 0)
    assert state.with_audio(9, first=9) is state


@asynccontextmanager
async def asking(context: Context) -> AsyncGenerator[httpx.AsyncClient]:
    """A gateway of its own before a running daemon."""
    stop, bound = asyncio.Event(), listen("127.0.0.1", 0)
    serving = asyncio.create_task(serve(context, stop, bound=bound))
    try:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=40, trust_env=False) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, what="the gateway")
            yield client
    finally:
        stop.set()
        await serving


async def test_seeking_far_ahead_in_a_film_with_flac_waits_for_no_sound_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut from the beginning is held until the anchor plays, so nothing before the anchor can have been needed."""
    path = tmp_path / "source.mkv"
    films.write(films.Film(suffix=".mkv", frames=24 * SECONDS, audio=(films.Audio("flac", rate=44100),)), path)
    monkeypatch.setenv("STEREOSPOT_STUB_SECONDS", "0.05")
    async with daemon.running(settings(tmp_path, pool="stub"), PIPELINE) as context, asking(context) as client:
        go_on = asyncio.Event()
        put = context.store.put

        async def held(key: str, *given: Any, **more: Any) -> Any:
            found = re.search(r"/audio/.*?(\d+)\.m4s$", key)
            if found and 1 <= int(found[1]) <= HELD:
                await go_on.wait()
            return await put(key, *given, **more)

        monkeypatch.setattr(context.store, "put", held)
        source = await submit.local_source(path, None)
        options = Options(backend="stub", preset="ultrafast", segment_seconds=1)
        await submit.create(context, source, options, job_id="J1")

        async def planned() -> bool:
            found = await records.get_state(context.bus, "J1", 1)
            return found is not None and found[0].total is not None

        await eventually(planned, seconds=30, what="the whole plan")
        seek = (await client.post("/api/v1/jobs/J1/seek", json={"seconds": SECONDS - 7.5})).json()
        first = seek["segment_index"]
        assert first > HELD
        assert (await client.get(f"{seek['hls']}?wait=30")).status_code == 200
        for rendition in ("video.m3u8", "audio/0.m3u8"):
            text = (await client.get(urljoin(seek["hls"], rendition))).text
            assert f"{first:05d}.m4s" in text
        state = await records.get_state(context.bus, "J1", 1)
        assert state is not None
        assert state[0].audio_ready <= 1, "no sound before the anchor was there"
        go_on.set()

        async def all_sound() -> bool:
            found = await records.get_state(context.bus, "J1", 1)
            return found is not None and found[0].total == found[0].audio_ready

        await eventually(all_sound, seconds=60, what="the sound of the whole film")
        # Around the anchor it is what one cut of the whole film has, byte for byte: encoder and resampler included.
        plans = Plans(context.store)
        head, part = await plans.head("J1", 1), await plans.part("J1", 1, 0)
        assert head is not None
        assert part is not None
        with contextlib.closing(FileSource(path)) as file:
            chunks = await asyncio.to_thread(lambda: list(audio.cut(file, head.source, head, [part])))
        assert len(chunks) == len(part.segments) + 1
        for chunk in chunks[1:]:
            assert chunk.index is not None
            assert await context.store.get(keys.audio_segment("J1", 1, 0, chunk.index)) == chunk.data, chunk.index
