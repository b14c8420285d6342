"""`stereospot convert` has nobody beside it: what gets lost on the way is found by the command itself."""

from __future__ import annotations

import errno
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from services import operations
from services.assembler import Assembler
from services.cli import main, outputs
from services.converter import Converter
from services.janitor import Janitor
from stereospot import errors
from stereospot.bus import Bus, Delivery
from stereospot.jobs import Job
from stereospot.messages import SegmentTask
from stereospot.outcome import Outcome, Return
from tests.media import sources
from tests.system.test_convert_command import read
from tests.system.test_convert_failures import WORDS, convert


@pytest.mark.timeout(90)
def test_a_segment_that_rests_more_often_than_the_broker_offers_it_is_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one that must be alone a segment is given back every second, and that may take an hour."""
    handle, rests = Converter.handle, 8

    async def rest(self: Converter, delivery: Delivery) -> Outcome:
        nonlocal rests
        if rests > 0 and delivery.parse(SegmentTask).index == 1:
            rests -= 1
            return Return(0.05, reason="another one is alone here")
        return await handle(self, delivery)

    monkeypatch.setattr("streams_config.provision.EXCUSED", 1)
    monkeypatch.setattr(Converter, "handle", rest)
    assert convert(tmp_path) == 0, capsys.readouterr().err
    assert rests == 0
    assert read(tmp_path / "out.mp4").times == read(sources.path("h264_mp4_silent")).times


@pytest.mark.timeout(90)
def test_a_plan_that_could_not_be_asked_for_is_asked_for_later_in_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is of a new generation, and the broker's disk was full when its plan was to be asked for."""
    publish, work, refused = operations.publish_plan, Converter._work, 1  # pyright: ignore[reportPrivateUsage]

    async def refuse(bus: Bus, job: Job, **values: Any) -> None:
        nonlocal refused
        if job.generation == 2 and refused > 0:
            refused -= 1
            raise errors.error("STORAGE_FULL", "The broker says: insufficient storage.")
        await publish(bus, job, **values)

    def other_encoder(self: Converter, lease: Any, head: Any, segment: Any) -> Any:
        if head.generation == 1:
            raise errors.error("ENCODER_MISMATCH", "this is not that.")
        return work(self, lease, head, segment)

    monkeypatch.setattr(operations, "publish_plan", refuse)
    monkeypatch.setattr(Converter, "_work", other_encoder)
    quick = functools.partial(Janitor, every_seconds=0.5, settled_seconds=1.0)
    monkeypatch.setattr("services.janitor.Janitor", quick)
    assert convert(tmp_path) == 0, capsys.readouterr().err
    assert refused == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []
    assert read(tmp_path / "out.mp4").times == read(sources.path("h264_mp4_silent")).times


def test_a_film_that_cannot_be_put_in_its_place_is_kept_and_put_there_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    after, out = Assembler._after, tmp_path / "films"  # pyright: ignore[reportPrivateUsage]
    words = ["convert", str(sources.path("h264_mp4_silent")), "-o", str(out / "out.mp4"), "--data"]

    async def lose_the_folder(self: Assembler, job: Job) -> None:
        out.rmdir()  # a disk that was taken away, say
        await after(self, job)

    with monkeypatch.context() as broken:
        broken.setattr(Assembler, "_after", lose_the_folder)
        assert main([*words, str(tmp_path / "data"), *WORDS]) == 1
    said = json.loads(capsys.readouterr().out)["error"]
    assert said["code"] == "OUTPUT_UNWRITABLE"
    assert str(out) in said["reason"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Converter, "_work", never)
    monkeypatch.setattr(Assembler, "make", never)
    assert main([*words, str(tmp_path / "data"), *WORDS]) == 0, capsys.readouterr().err
    assert read(out / "out.mp4").times == read(sources.path("h264_mp4_silent")).times


def test_depth_that_was_put_in_its_place_before_the_film_could_not_be_is_in_nobodys_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver, out, depth = outputs.deliver, tmp_path / "out.mp4", tmp_path / "depth.mkv"
    words = ["convert", str(sources.path("h264_mp4_silent")), "-o", str(out), "--export-depth", str(depth)]
    words += ["--engine", "relief", "--preset", "ultrafast", "--json", "--data", str(tmp_path / "data")]

    def full(film: Path, target: Path) -> None:
        if target == out:
            raise OSError(errno.ENOSPC, "No space left on device")
        deliver(film, target)

    with monkeypatch.context() as broken:
        broken.setattr(outputs, "deliver", full)
        assert main(words) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "OUTPUT_UNWRITABLE"
    assert main(words) == 0, capsys.readouterr().err
    assert out.exists()
    assert depth.exists()


def test_what_came_to_lie_there_meanwhile_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    after, out = Assembler._after, tmp_path / "out.mp4"  # pyright: ignore[reportPrivateUsage]

    async def write(self: Assembler, job: Job) -> None:
        out.write_text("of another conversion")
        await after(self, job)

    with monkeypatch.context() as beside:
        beside.setattr(Assembler, "_after", write)
        assert convert(tmp_path) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "CONFLICT"
    assert out.read_text() == "of another conversion"
    out.rename(tmp_path / "other.mp4")
    assert convert(tmp_path) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["frames_resumed"] > 0


def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "films").write_text("no folder")
    for words in (["-o", str(tmp_path / "films" / "out.mp4")], ["--export-depth", str(tmp_path / "films" / "d.mkv")]):
        data = ["--data", str(tmp_path / "data")]
        assert main(["convert", str(sources.path("h264_mp4_silent")), *words, *data, *WORDS]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "OUTPUT_UNWRITABLE"
    (tmp_path / "folder.mp4").mkdir()
    words = ["-o", str(tmp_path / "folder.mp4"), "--overwrite", "--data", str(tmp_path / "data")]
    assert main(["convert", str(sources.path("h264_mp4_silent")), *words, *WORDS]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "OUTPUT_UNWRITABLE"
    assert not (tmp_path / "data").exists()


def test_a_film_is_there_where_its_folder_cannot_be_synced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(out):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    out = tmp_path / "share"
    monkeypatch.setattr(os, "fsync", refuse)
    words = ["convert", str(sources.path("h264_mp4_silent")), "-o", str(out / "out.mp4"), "--data"]
    assert main([*words, str(tmp_path / "data"), *WORDS]) == 0, capsys.readouterr().err
    assert (out / "out.mp4").exists()
