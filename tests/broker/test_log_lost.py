"""Work goes on where its log lines cannot be written: a full disk, a terminal that is gone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from stereospot import log
from stereospot.bus import Bus, Delivery
from stereospot.outcome import Ack, Outcome
from tests.broker.acting import empty, plan_actor, running, submit
from tests.support import eventually


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
async def test_an_actor_outlives_a_log_that_cannot_be_written(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def fail_once(_: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("this time")
        return Ack()

    with open("/dev/full", "wb", buffering=0) as raw:  # noqa: ASYNC230
        full = io.TextIOWrapper(raw, write_through=True)
        with pytest.raises(OSError, match="No space"):
            print("line", file=full)
        monkeypatch.setattr("sys.stderr", full)
        log.configure("info", "json")
        async with running(plan_actor(bus, fail_once)):
            await submit(bus, "J1")
            await eventually(lambda: calls == 2, what="the second attempt")
            await eventually(empty(bus), what="it is acknowledged")
        monkeypatch.undo()
