"""An encoder that never ends: its process says so and goes, nothing is left of it, and the work goes on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from services import encoding
from services.watch import Threads
from stereospot import errors
from stereospot.media import cmaf
from tests import support
from tests.media import sources
from tests.media.test_cmaf import spec
from tests.system.test_convert_command import read
from tests.system.test_convert_resume import alive, family

WORDS = ("--json", "--engine", "flat", "--preset", "ultrafast")


def test_a_conversion_whose_encoder_stalls_ends_with_the_reason_and_resumes(tmp_path: Path) -> None:
    source, out = sources.path("h264_mp4"), tmp_path / "out.mp4"
    words = ["convert", str(source), "-o", str(out), "--data", str(tmp_path / "data"), *WORDS]
    command = [sys.executable, "-m", "tests.system.stalling", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen: set[int] = set()
        said: str | None = None
        while said is None:
            seen |= family(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                said, _ = process.communicate(timeout=0.2)
        assert process.returncode == 1
    error = json.loads(said)["error"]
    assert (error["code"], out.exists()) == ("ENCODER_STALLED", False)
    assert len(seen) > 2, "broker and jail were at work"
    support.wait_until(lambda: not any(map(alive, seen)), what="the end of broker and jail")

    again = subprocess.run([sys.executable, "-m", "services.cli", *words], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["frames"] == len(read(source).times) == len(read(out).times)


async def test_only_the_thread_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "LOOK_SECONDS", 0.01)
    stalled: set[int] = set()
    threads, go_on = Threads(2, "test"), threading.Event()

    def seconds(thread: int) -> float:
        return encoding.STALLED_SECONDS + (thread in stalled)

    def spin() -> None:
        stalled.add(threading.get_ident())
        go_on.wait(30)

    def work() -> int:
        go_on.wait(30)
        return 7

    monkeypatch.setattr(cmaf, "call_seconds", seconds)
    other = asyncio.create_task(encoding.run(threads, work))
    try:
        with pytest.raises(errors.Transient) as caught:
            await encoding.run(threads, spin)
        assert caught.value.code == "ENCODER_STALLED"
        assert not other.done()
    finally:
        go_on.set()
    assert await other == 7
    threads.close()


def test_a_call_is_timed_while_it_runs_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = cmaf.FragmentEncoder(spec())
    asked: list[float] = []

    class Slow:
        """The encoder's context, which asks how long it has been at work."""

        def encode(self, _: object) -> list[object]:
            asked.append(cmaf.call_seconds(threading.get_ident()))
            return []

    monkeypatch.setattr(encoder, "_context", Slow())
    encoder.write(encoder.canvas(), 0)
    assert 0 < asked[0] < 10
    assert cmaf.call_seconds(threading.get_ident()) == 0.0
