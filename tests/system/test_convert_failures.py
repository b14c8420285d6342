"""`stereospot convert` after what can be mended: finished segments stay, and the same command goes on with them.

In this process, as in `test_convert_command.py`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from services.assembler import Assembler
from services.cli import main
from services.cli.convert import _deliver  # pyright: ignore[reportPrivateUsage]
from services.converter import Converter
from stereospot import errors
from tests.media import sources
from tests.system.test_convert_command import read
from tests.system.test_convert_resume import stored

WORDS = ["--json", "--engine", "flat", "--crf", "0", "--preset", "ultrafast", "--segment-seconds", "0.7"]


def convert(folder: Path) -> int:
    out, data = folder / "out.mp4", folder / "data"
    return main(["convert", str(sources.path("h264_mp4_silent")), "-o", str(out), "--data", str(data), *WORDS])


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


def test_a_film_is_delivered_whole_whatever_a_killed_run_has_left(tmp_path: Path) -> None:
    film, target, part = tmp_path / "final.mp4", tmp_path / "out.mp4", tmp_path / ".out.mp4.part"
    film.write_bytes(b"x" * 1000)
    os.link(film, part)
    _deliver(film, target)
    assert (target.stat().st_size, film.stat().st_size, part.exists()) == (1000, 1000, False)

    _deliver(film, target)  # both are one file already
    assert (target.stat().st_size, part.exists()) == (1000, False)

    target.unlink()
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        _deliver(film, target)
    assert not part.exists()
    target.rmdir()
    _deliver(film, target)
    assert (target.read_bytes(), film.stat().st_size) == (b"x" * 1000, 1000)
