"""Tokens of what is played: whose they are, and how long they hold."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.gateway import tokens
from services.gateway.tokens import DAY, Tokens
from stereospot import keys
from stereospot.jobs import Phase
from stereospot.messages import Film
from tests.support import eventually
from tests.system.gateway import FILM, Served, master_of, move
from tests.system.showing import Showing


async def test_tokens_open_one_job_only(gateway: Served) -> None:
    for job_id in ("J1", "J2"):
        showing = Showing(gateway.context, job_id, lengths=(1,))
        await showing.begin()
        await showing.convert(0)
    path = await master_of(gateway, "J1")
    token = path.split("/")[2]
    assert (await gateway.client.get(path)).status_code == 200
    forged = [
        token.replace("J1", "J2"),
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token + "A",
        "..",
        "a.b.c",
        "%2e%2e",
        token.rpartition(".")[0],
    ]
    bodies: set[str] = set()
    for other in forged:
        answer = await gateway.client.get(path.replace(token, other))
        assert answer.status_code == 404, other
        bodies.add(answer.json().get("detail", "").replace(other, ""))
    assert (await gateway.client.get(path.replace("/1/", "/2/"))).status_code == 404
    assert (await gateway.client.get(path.replace("master.m3u8", "video/../../../x"))).status_code == 404
    assert (await gateway.client.get(path.replace("master.m3u8", "video/00001.m4s"))).status_code == 404
    assert (await gateway.client.get(path.replace("master.m3u8", "video/init-..mp4"))).status_code == 404


async def test_a_film_of_last_week_is_told_with_addresses_that_hold(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one and the same gateway, which keeps what it told before."""
    await Showing(gateway.context, "J1").begin()
    key = keys.film("J1", 1, "mp4")
    await gateway.context.store.put(key, b"film")
    values: dict[str, Any] = FILM | {"size_bytes": 4}
    await move(gateway, "J1", Phase.ASSEMBLING, Phase.COMPLETED, film=Film(key=key, **values))

    async def told() -> str | None:
        events = (await gateway.client.get("/jobs/J1/events")).text
        line = next(line for line in events.splitlines() if line.startswith("data: {"))
        return json.loads(line.removeprefix("data: "))["playback"]["film"]

    first = await eventually(told, what="the film")
    assert first is not None
    assert (await gateway.client.get(first)).content == b"film"
    later = time.time() + 9 * DAY
    monkeypatch.setattr(tokens, "time", SimpleNamespace(time=lambda: later))
    assert (await gateway.client.get(first)).status_code == 404
    now = await told()
    assert now is not None
    assert (await gateway.client.get(now)).content == b"film"


def test_a_token_expires_and_is_the_same_all_day() -> None:
    tokens = Tokens(bytes(32))
    day = 20_000 * DAY
    first = tokens.issue("J1", now=day + 10)
    assert tokens.issue("J1", now=day + DAY - 10) == first
    assert tokens.check(first, now=day + 7 * DAY) == "J1"
    assert tokens.check(first, now=day + 9 * DAY) is None
    # That of the list is nobody's job, and no job's is that of the list.
    whole = tokens.issue_list(now=day)
    assert tokens.is_list(whole, now=day + 7 * DAY)
    assert not tokens.is_list(whole, now=day + 9 * DAY)
    assert tokens.check(whole, now=day) is None
    assert not any(tokens.is_list(tokens.issue(job_id, now=day), now=day) for job_id in ("J1", "films"))
    assert Tokens(bytes([1]) * 32).check(first, now=day) is None


def test_a_secret_that_a_power_failure_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "gateway.secret"
    path.write_bytes(b"")
    found = tokens.load_secret(path)
    assert len(found) >= tokens.SECRET_BYTES
    assert tokens.load_secret(path) == found
    assert path.stat().st_mode & 0o077 == 0
    assert [item.name for item in tmp_path.iterdir()] == ["gateway.secret"]
