"""Where `stereospot convert` puts its films: never over what it reads, and there whatever became of its terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from services.assembler import Assembler
from services.cli import main, outputs
from services.converter import Converter
from tests.media import sources
from tests.system.test_convert_command import read
from tests.system.test_convert_failures import WORDS, Killed
from tests.system.test_convert_resume import command


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "film.mp4", "--overwrite"],
        ["-o", "link.mp4", "--overwrite"],
        ["-o", "x.mkv", "--export-depth", "x.mkv"],
        ["-o", "x.mp4", "--depth", "d.mkv", "--export-depth", "sub/../d.mkv", "--overwrite"],
    ],
)
def test_no_output_replaces_what_is_read_or_another_output(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    film = tmp_path / "film.mp4"
    shutil.copy(sources.path("h264_mp4_silent"), film)
    shutil.copy(film, tmp_path / "d.mkv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.mp4").symlink_to(film)
    before = film.read_bytes()
    assert main(["convert", "film.mp4", *words, "--json", "--data", str(tmp_path / "data")]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], "is also" in error["reason"]) == ("INVALID_OPTIONS", True)
    assert (film.read_bytes(), (tmp_path / "d.mkv").read_bytes()) == (before, before)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("after", ["depth.mkv", "out.mp4"])
def test_a_run_that_was_killed_among_its_outputs_is_in_nobodys_way(
    after: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --overwrite: what lies there is what the folder keeps, so it is the command's own."""
    deliver, out, depth = outputs.deliver, tmp_path / "out.mp4", tmp_path / "depth.mkv"
    words = ["convert", str(sources.path("h264_mp4_silent")), "-o", str(out), "--export-depth", str(depth)]
    words += ["--engine", "relief", "--preset", "ultrafast", "--json", "--data", str(tmp_path / "data")]

    def die(film: Path, target: Path) -> None:
        deliver(film, target)
        if target.name == after:
            target.write_bytes(film.read_bytes())  # as on another file system: a copy, and no link
            raise Killed

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as killed:
        killed.setattr(outputs, "deliver", die)
        with pytest.raises(Killed):
            main(words)
    assert depth.exists()
    with monkeypatch.context() as working:
        working.setattr(Converter, "_work", never)
        working.setattr(Assembler, "make", never)
        assert main(words) == 0, capsys.readouterr().err
    assert read(out).times == read(sources.path("h264_mp4_silent")).times
    assert not any((tmp_path / "data" / "convert").iterdir())
    capsys.readouterr()

    assert main(words) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "CONFLICT", "now it is the user's"


@pytest.mark.parametrize("length", [248, 300])
def test_a_name_that_is_too_long_is_refused_before_any_work(
    length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one of 252 bytes: the film is written beside it first, under a name that is longer."""
    for flag, suffix in (("-o", ".mp4"), ("--export-depth", ".mkv")):
        words = [flag, str(tmp_path / ("x" * length + suffix)), "--data", str(tmp_path / "data")]
        assert main(["convert", str(sources.path("h264_mp4_silent")), *words, *WORDS]) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], "too long" in error["reason"]) == ("OUTPUT_UNWRITABLE", True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("which", ["source", "output"])
def test_a_name_that_is_no_utf_8_is_told(which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / os.fsdecode(b"fil\xff.mp4")
    film, out = (name, tmp_path / "out.mp4") if which == "source" else (sources.path("h264_mp4_silent"), name)
    if which == "source":
        shutil.copy(sources.path("h264_mp4_silent"), film)
    assert main(["convert", str(film), "-o", str(out), "--data", str(tmp_path / "data"), *WORDS]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], "fil\\udcff.mp4" in error["reason"]) == ("INVALID_OPTIONS", True)
    assert not (tmp_path / "data").exists()


def test_the_film_is_there_though_nobody_reads_how_far_it_is(tmp_path: Path) -> None:
    """`stereospot convert film.mp4 2>&1 | grep -m1 reading && rm film.mp4`: 0 must mean that there is a film."""
    reader, writer = os.pipe()
    os.close(reader)
    source, out = sources.path("h264_mp4_silent"), tmp_path / "out.mp4"
    words = [word for word in command(source, out, tmp_path / "data") if word != "--json"]
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=writer, text=True, timeout=100, check=False)
    finally:
        os.close(writer)
    assert out.exists()
    assert (done.returncode, str(out) in done.stdout) == (0, True)
