"""Promises 5 and 9 on real processes: a player that follows a film while its workers die, a cancel in the middle."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from services import operations
from services.gateway.tokens import Tokens
from stereospot.jobs import Phase
from tests.faults import history, promises
from tests.faults.fleet import PIPELINE, Fleet, fleet, shorten, stretched
from tests.faults.history import Playlist
from tests.faults.table import Tell
from tests.storage.faulty import faulty
from tests.storage.seaweed import seaweed
from tests.support import eventually
from tests.system.gateway import Served, served

pytestmark = pytest.mark.slow


class Player:
    """Reads a playlist again and again, and asks for everything that it names."""

    def __init__(self, gateway: Served, path: str) -> None:
        self._gateway = gateway
        self._path = path
        self._fetched: set[str] = set()
        self.heard: list[Playlist] = []

    async def look(self, total: int | None) -> bool:
        """One round; whether the film has ended."""
        answer = await self._gateway.client.get(self._path)
        if answer.status_code == 404:
            return False
        assert answer.status_code == 200, answer.text
        lines = answer.text.splitlines()
        names = tuple(line for line in lines if line and not line.startswith("#"))
        inits = re.findall(r'#EXT-X-MAP:URI="([^"]+)"', answer.text)
        missing: list[str] = []
        for name in (*inits, *names):
            if name in self._fetched:
                continue
            body = await self._gateway.client.get(urljoin(self._path, name))
            if body.status_code != 200 or not body.content:
                missing.append(name)
            self._fetched.add(name)
        ended = "#EXT-X-ENDLIST" in lines
        self.heard.append(Playlist("from 0", names, tuple(missing), ended, total))
        return ended


async def test_p5_a_player_follows_while_workers_die(tmp_path: Path, tell: Tell) -> None:
    async with (
        fleet(tmp_path, ack_wait=1.5, start=PIPELINE - {"converter"}) as made,
        served(made.server, made.context.settings.data_dir) as gateway,
    ):
        # The gateway's helper has provisioned as shipped; the run needs its own settings again.
        await shorten(made.bus, made.ack_wait)
        await history.keep_everything(made.bus)
        await made.submit("J1")
        token = Tokens((made.context.settings.data_dir / "gateway.secret").read_bytes()).issue("J1")
        player = Player(gateway, f"/v/{token}/1/from/0/video.m3u8")

        async def follow() -> None:
            ended = False
            while not ended:
                ended = await player.look((await made.job("J1")).segments)
                await asyncio.sleep(0.05)

        async with asyncio.timeout(stretched(60)), asyncio.TaskGroup() as group:
            group.create_task(follow())
            for _ in range(2):
                worker = await made.start("converter", stub_seconds=0.5)
                await made.at_work(worker)
                await made.kill(worker)
            await made.start("converter")
        await made.ended("J1")
        await made.at_rest()
        found = replace(await made.history(), playlists=tuple(player.heard))
        verdict = promises.check(found, ack_wait_seconds=made.ack_wait, slack_seconds=stretched(2.0))
        tell("F1 kill -9 under a player", verdict)
        assert verdict.violations == (), verdict
        assert player.heard[-1].ended
        assert len(player.heard[-1].names) == (await made.job("J1")).segments


async def test_p9_nothing_is_worked_on_ten_seconds_after_a_cancel(tmp_path: Path, tell: Tell) -> None:
    async with fleet(tmp_path, start=PIPELINE - {"converter"}) as made:
        workers = [await made.start("converter", stub_seconds=60) for _ in range(2)]
        await made.submit("J1")
        for worker in workers:
            await made.at_work(worker)
        await operations.cancel(made.bus, "J1")
        await eventually(lambda: _idle(made), seconds=promises.CANCEL_SECONDS, what="nothing in anybody's hands")
        await asyncio.sleep(promises.CANCEL_SECONDS + 2.0)  # what would come late comes now
        verdict = await made.verdict({"J1": Phase.CANCELLED})
        tell("F3 cancel in the middle", verdict)
        assert verdict.violations == (), verdict
        assert all(worker.is_alive for worker in workers)


async def test_p9_a_film_on_its_way_to_a_slow_store_stops_at_a_cancel(tmp_path: Path, tell: Tell) -> None:
    """The store takes the film's bytes and says nothing; a transfer of minutes looks no different."""
    with seaweed() as server:
        async with faulty(server.endpoint) as proxy:
            proxy.stall_seconds = 120.0
            ours: dict[str, Any] = {
                "storage": "s3", "s3_endpoint": server.endpoint, "s3_access_key": server.access_key,
                "s3_secret_key": server.secret_key, "s3_bucket": "tests", "s3_prefix": uuid.uuid4().hex,
            }  # fmt: skip
            theirs: dict[str, Any] = ours | {"s3_endpoint": proxy.endpoint}
            async with fleet(tmp_path, start=PIPELINE, ours=ours, **theirs) as made:
                proxy.inject("stall", "PUT", "/final.", times=9)
                await made.submit("J1")
                await eventually(lambda: proxy.done["stall"], seconds=stretched(60), what="the film on its way")
                assert (await made.job("J1")).phase is Phase.ASSEMBLING
                await operations.cancel(made.bus, "J1")
                began = time.monotonic()

                async def settled() -> bool:
                    info = await made.bus.consumer_info("KV_state", "assembler")
                    return not info["num_ack_pending"] and not info["num_pending"]

                await eventually(settled, seconds=promises.CANCEL_SECONDS, what="the assembler's hands empty")
                recovery = time.monotonic() - began
                verdict = await made.verdict({"J1": Phase.CANCELLED})
                tell("F3 cancel of a film on its way", jobs=1, lost=verdict.lost, recovery=recovery)
                assert verdict.violations == (), verdict
                assert (await made.job("J1")).film is None


async def _idle(made: Fleet) -> bool:
    return (await made.bus.stream_info("CONVERT"))["state"]["messages"] == 0
