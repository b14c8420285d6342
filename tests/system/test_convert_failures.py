"""`stereospot convert` after what can be mended: finished segments stay, and the same command goes on with them.

In this process, as in `test_convert_command.py`: what ends a run here is a failure, or an exception in place of a kill.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from services import operations
from services.assembler import Assembler
from services.cli import main
from services.cli.outputs import deliver
from services.converter import Converter
from services.results import Results
from stereospot import errors, jobs, records
from stereospot.bus import Bus
from stereospot.jobs import Job
from stereospot.media.model import Segment
from stereospot.messages import SegmentDone, SegmentTask
from tests.media import sources
from tests.system.test_convert_command import read
from tests.system.test_convert_resume import stored

WORDS = ["--json", "--engine", "flat", "--crf", "0", "--preset", "ultrafast", "--segment-seconds", "0.7"]


def convert(folder: Path) -> int:
    out, data = folder / "out.mp4", folder / "data"
    return main(["convert", str(sources.path("h264_mp4_silent")), "-o", str(out), "--data", str(data), *WORDS])


class Killed(Exception):
    """A kill, as far as one process can be killed twice."""


@pytest.mark.parametrize("code", ["SOURCE_MISSING", "ATTEMPTS_EXHAUSTED", "ASSEMBLY_FAILED"])
def test_a_failure_that_can_be_mended_keeps_what_is_finished(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise errors.error(code, "this time")

    with monkeypatch.context() as broken:
        broken.setattr(Assembler, "make", fail)
        assert convert(tmp_path) == 1
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    kept = stored(tmp_path / "data")
    assert error["code"] == code
    assert kept
    (folder,) = (tmp_path / "data" / "convert").iterdir()
    assert f"kept in {folder}" in error["advice"], "where they are, and how to be rid of them"
    assert str(folder) in said.err

    # Once it is mended, the same command tries again, and computes nothing twice.
    monkeypatch.setattr(Converter, "_work", fail)
    assert convert(tmp_path) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    film = read(tmp_path / "out.mp4")
    assert film.times == read(sources.path("h264_mp4_silent")).times
    assert result["frames_resumed"] == len(film.times)
    assert not any((tmp_path / "data" / "convert").iterdir())


def test_a_plan_that_nobody_was_asked_for_is_asked_for_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = operations.publish_plan

    async def die(bus: Bus, job: Job, **values: Any) -> None:
        """The message of the first generation is in the queue, the record is of the second one, and that is all."""
        await publish(bus, job, **values)
        renewed = await records.change_job(
            bus, job.job_id, lambda found: jobs.renew(found, at=time.time(), note="replan", redecoded=True)
        )
        assert renewed.generation == 2
        raise Killed

    async def begin(*_: object) -> None:
        """As of a planner that is not there."""

    with monkeypatch.context() as killed:
        killed.setattr("services.operations.publish_plan", die)
        killed.setattr("services.planner.Planner._begin", begin)
        with pytest.raises(Killed):
            convert(tmp_path)
    assert convert(tmp_path) == 0
    assert read(tmp_path / "out.mp4").times == read(sources.path("h264_mp4_silent")).times


def test_a_film_that_was_begun_by_another_encoder_is_begun_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, work = Results.publish, Converter._work  # pyright: ignore[reportPrivateUsage]

    told = threading.Event()

    async def publish_older(self: Results, task: SegmentTask, done: SegmentDone) -> None:
        await publish(self, task, done.model_copy(update={"init_sha256": "b" * 64}))
        told.set()

    def some(self: Converter, lease: Any, head: Any, segment: Segment) -> Any:
        if segment.index > 0:  # one only: this version's encoder would find the next one's header to be another
            assert told.wait(60)
            raise errors.error("SOURCE_MISSING")
        return work(self, lease, head, segment)

    with monkeypatch.context() as older:
        older.setattr(Results, "publish", publish_older)
        older.setattr(Converter, "_work", some)
        assert convert(tmp_path) == 1
    assert stored(tmp_path / "data")
    capsys.readouterr()
    assert convert(tmp_path) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    assert read(tmp_path / "out.mp4").times == read(sources.path("h264_mp4_silent")).times
    assert result["frames_resumed"] == 0
    assert result["warnings"] == []


def test_a_film_is_delivered_whole_whatever_a_killed_run_has_left(tmp_path: Path) -> None:
    film, target, part = tmp_path / "final.mp4", tmp_path / "out.mp4", tmp_path / ".out.mp4.part"
    film.write_bytes(b"x" * 1000)
    os.link(film, part)
    deliver(film, target)
    assert (target.stat().st_size, film.stat().st_size, part.exists()) == (1000, 1000, False)

    deliver(film, target)  # both are one file already
    assert (target.stat().st_size, part.exists()) == (1000, False)

    target.unlink()
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        deliver(film, target)
    assert not part.exists()
    target.rmdir()
    deliver(film, target)
    assert (target.read_bytes(), film.stat().st_size) == (b"x" * 1000, 1000)
