"""The command line's own duties: usage and exit codes, names that match the options, no heavy imports for --help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from services.cli import app, clip, convert, main
from stereospot.options import Codec, Layout


def test_the_command_line_offers_exactly_the_layouts_and_codecs_that_exist() -> None:
    assert set(get_args(convert.LayoutName)) == {str(layout) for layout in Layout}
    assert set(get_args(convert.CodecName)) == {str(codec) for codec in Codec}


@pytest.mark.parametrize(
    "words",
    [["convert"], ["convert", "x", "--crf", "many"], ["frobnicate"], ["convert", "x", "--layout", "sideways"]],
)
def test_usage_errors_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "stereospot:" in capsys.readouterr().err


def test_a_usage_error_is_json_too_and_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "x", "--json", "--layout", "sideways"]) == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert error["code"] == "INVALID_OPTIONS"
    assert "sideways" in error["reason"]
    assert "`stereospot convert --help`" in error["advice"]
    assert error["advice"] in said.err


def test_a_missing_file_is_told_with_code_and_advice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["convert", str(tmp_path / "no.mp4"), "--json", "--data", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "error SOURCE_MISSING" in said.err
    error = json.loads(said.out)["error"]
    assert (error["code"], bool(error["advice"])) == ("SOURCE_MISSING", True)


def test_options_out_of_range_name_the_flag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["convert", str(tmp_path / "no.mp4"), "--crf", "99"]) == 2
    assert "--crf" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "no.mp4"), "-o", "x.avi"]) == 2
    assert ".avi" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "no.mp4"), "--workers", "0"]) == 2
    assert "--workers" in capsys.readouterr().err
    for seconds in ("0", "-1", "nan", "inf"):
        assert main(["demo", "--seconds", seconds, "--data", str(tmp_path / "data")]) == 2
        assert "--seconds" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    assert main(["up", "--port", "99999"]) == 2
    assert "port" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "no.mp4"), "--nats", "nats://127.0.0.1:1"]) == 2
    assert "broker of its own" in capsys.readouterr().err


def test_a_name_that_begins_with_a_tilde_is_nobody_s_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data = ["--data", str(tmp_path / "data")]
    assert main(["convert", "~film.mp4", "-o", "~q.mp4", "--export-depth", "~d.mkv", *data]) == 1
    assert "SOURCE_MISSING" in capsys.readouterr().err
    Path("~film.mp4").write_bytes(b"x")
    assert main(["convert", "~film.mp4", "-o", "~root/q.mp4", "--depth", "~d/*.png", *data]) == 1
    said = capsys.readouterr().err
    assert "SOURCE_MISSING" in said
    assert f"{tmp_path}/~d/*.png" in said
    assert Path("~root").is_dir()
    assert app.at_home(Path("~/q.mp4")) == tmp_path / "home" / "q.mp4"
    assert app.at_home(Path("d/*.png")) == Path("d/*.png")


def test_what_exists_is_told_without_a_page_to_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("film.mp4", "q.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    words = [str(tmp_path / "film.mp4"), "-o", str(tmp_path / "q.mp4"), "--data", str(tmp_path / "data")]
    assert main(["convert", *words]) == 1
    said = capsys.readouterr().err
    assert "--overwrite" in said
    assert "Reload" not in said


@pytest.mark.parametrize("command", list(app.app))
def test_help_has_a_text_for_everything_and_names_no_page_of_the_sources(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "docs/" not in said
    assert not re.findall(r"^│ [* ] {1,3}[A-Z]+ +│$|^│ -\S+(?: [A-Z]+)? +│$", said, re.MULTILINE)


def test_help_does_not_import_what_only_work_needs() -> None:
    code = (
        "import sys; from services.cli import main; main(['--help']);"
        "heavy = {'numba', 'av', 'onnxruntime', 'litestar', 'aioboto3', 'torch', 'nats'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_demo_clip_has_picture_and_sound_of_one_length(tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mp4"
    clip.write_clip(path, 1.0)
    with av.open(str(path)) as film:
        assert sum(1 for _ in film.decode(video=0)) == clip.RATE
    with av.open(str(path)) as film:
        samples = sum(frame.samples for frame in film.decode(audio=0))
    assert abs(samples - clip.SAMPLE_RATE) < 2 * 1024


def test_a_broker_s_password_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--nats", "nats://v:hunter2@127.0.0.1:1", "--data", str(tmp_path)]
    for words in (["jobs", "list", "--json"], ["doctor"]):
        assert main([*words, *where]) == 1
        said = capsys.readouterr()
        assert "127.0.0.1:1" in said.out
        assert "hunter2" not in said.out + said.err


def test_a_phase_that_is_none_is_told_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "list", "--phase", "bogus"]) == 2
    assert "completed" in capsys.readouterr().err
