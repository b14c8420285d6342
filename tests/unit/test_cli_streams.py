"""What the command line says when nobody reads it, and that it prints titles as they are."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.cli import conversion, main, tables
from services.cli.progress import Bar
from services.follow import Snapshot
from tests.system.rig import a_job

LIST = """
import sys
from services.cli import app, tables
app._run = lambda _: tables.show(["title"], [["x" * 50]] * int(sys.argv[1])) or 0
sys.exit(app.main([]))
"""


def unread(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a stdout whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, *words], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("rows", ["1", "5000"])
def test_a_list_that_nobody_reads_to_its_end_is_no_failure(
    rows: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stereospot jobs list | head`, also where all of it is still in the buffer at the end."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = unread("-c", LIST, rows)
    assert (done.returncode, done.stderr) == (0, "")


def test_work_that_failed_has_failed_also_where_nobody_reads_it(tmp_path: Path) -> None:
    words = ["convert", str(tmp_path / "no.mp4"), "--json", "--data", str(tmp_path)]
    done = unread("-u", "-m", "services.cli", *words)
    assert done.returncode == 1
    assert "error SOURCE_MISSING" in done.stderr


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("rows", ["1", "5000"])
def test_a_result_that_cannot_be_written_is_told(rows: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", LIST, rows], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "the result could not be written: No space left" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_converted_film_is_named_where_the_result_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(_: object, order: conversion.Order, **__: object) -> dict[str, object]:
        return {"output": str(order.target)}

    (tmp_path / "film.mp4").write_bytes(b"x")
    monkeypatch.setattr("services.cli.conversion.run", run)
    with monkeypatch.context() as full, FULL.open("w") as stdout:
        full.setattr("sys.stdout", stdout)
        full.setattr("stereospot.stdio.drop", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
        words = ["convert", str(tmp_path / "film.mp4"), "-o", str(tmp_path / "q.mp4"), "--json"]
        assert main([*words, "--data", str(tmp_path / "data")]) == 1
        with contextlib.suppress(OSError):
            stdout.close()
    assert f"The film is at {tmp_path / 'q.mp4'}." in capsys.readouterr().err


CLOSED = """
import os, sys
for number in map(int, sys.argv[1:]):
    os.close(number)
os.execv(sys.executable, [sys.executable, "-c", "import os, sys;"
    "from services.cli import app;"
    "app._run = lambda _: print('out') or print('err', file=sys.stderr) or 3;"
    "code = app.main([]);"
    "assert all(os.path.samestat(os.fstat(int(n)), os.stat(os.devnull)) for n in sys.argv[1:]);"
    "assert all(os.get_inheritable(int(n)) for n in sys.argv[1:]);"
    "sys.exit(code)", *sys.argv[1:]])
"""


@pytest.mark.parametrize("closed", ["1", "2", "12"])
def test_a_stream_that_was_closed_before_the_start_is_silent(closed: str) -> None:
    """`2>&-`: and no other file gets its number."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, *closed], capture_output=True, text=True, timeout=60, check=False
    )
    said = ("" if "1" in closed else "out\n", "" if "2" in closed else "err\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, *said)


def test_a_pipe_that_breaks_elsewhere_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[str]) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(sys.modules["services.cli.app"], "_run", broken)
    with pytest.raises(BrokenPipeError):
        main([])


def test_titles_and_reasons_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(("job", "title"), [("J1", "Film [x265] [eng].mkv"), ("J2", "[/b]")])
    said = capsys.readouterr().out
    assert "Film [x265] [eng].mkv" in said
    assert "[/b]" in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of what draws it meanwhile
def test_a_bar_on_a_terminal_that_is_gone_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        bar = Bar("Film [/b].mkv")
        os.close(ours)
        with pytest.raises(OSError, match="Input/output"):
            os.write(theirs, b"x")
        bar.show(Snapshot(a_job(), 1, 2, None))
        bar.close()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), theirs)


def test_a_line_about_progress_that_cannot_be_written_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        bar = Bar("film.mkv")
        bar.show(Snapshot(a_job(), 1, 2, None))
        bar.close()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


@pytest.mark.parametrize("made", [True, False])
def test_the_demo_ends_with_1_where_it_has_no_film(made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def show(*_: object) -> bool:
        return made

    async def run(*_: object, ready: Callable[[None], Awaitable[None]], **__: object) -> int:
        await ready(None)
        return 0

    monkeypatch.setattr("services.cli.demo._draw", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr("services.cli.demo._show", show)
    monkeypatch.setattr("services.daemon.run", run)
    assert main(["demo", "--once", "--json", "--data", str(tmp_path)]) == (0 if made else 1)


def test_a_folder_where_no_clip_can_be_drawn_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert main(["demo", "--once", "--data", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert "OUTPUT_UNWRITABLE" in said
    assert "--data" in said
