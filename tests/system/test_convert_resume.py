"""kill -9 in the middle of a film: the same command goes on, computes nothing twice, and nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.media import sources
from tests.system.test_convert_command import read


def command(source: Path, out: Path, data: Path) -> list[str]:
    words = [
        "convert",
        str(source),
        "-o",
        str(out),
        "--json",
        "--data",
        str(data),
        "--crf",
        "0",
        "--preset",
        "ultrafast",
    ]
    return [sys.executable, "-m", "services.cli", *words, "--segment-seconds", "0.4", "--engine", "flat"]


def stored(data: Path) -> dict[Path, int]:
    """Fragments that are stored, with the time each was made."""
    return {path: path.stat().st_mtime_ns for path in data.glob("convert/*/storage/jobs/*/*/segments/*.m4s")}


def family(pid: int) -> set[int]:
    """The process and all that descends from it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended meanwhile
            continue
        for child in children:
            found |= family(int(child))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.timeout(180)
def test_a_killed_conversion_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, out, data = sources.path("h264_mp4"), tmp_path / "out.mp4", tmp_path / "data"
    slow = os.environ | {"STEREOSPOT_CRASHPOINT": "converter.done_published:4"}
    first = subprocess.Popen(command(source, out, data), env=slow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: set[int] = set()

    def ended() -> bool:
        seen.update(family(first.pid))
        return first.poll() is not None

    support.wait_until(ended, seconds=100, every=0.1, what="the command kills itself at its fourth segment")
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    support.wait_until(lambda: not [pid for pid in seen if alive(pid)], what="broker and jail die with the command")
    before = stored(data)
    assert len(before) >= 4
    assert not out.exists()

    done = subprocess.run(command(source, out, data), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not any((data / "convert").iterdir())
    whole = read(source)
    film = read(out)
    assert (film.times, film.sound) == (whole.times, whole.sound)
    result = json.loads(done.stdout)
    assert result["frames"] == len(whole.times)
    assert result["frames_resumed"] > 0
    made = result["frames"] - result["frames_resumed"]
    assert result["fps"] == pytest.approx(made / result["seconds"], rel=0.01), "the rate is that of this run"


@pytest.mark.timeout(180)
def test_finished_segments_are_not_computed_again(tmp_path: Path) -> None:
    source, out, data = sources.path("h264_mp4"), tmp_path / "out.mp4", tmp_path / "data"
    kill_assembler = os.environ | {"STEREOSPOT_CRASHPOINT": "assembler.written"}
    first = subprocess.run(
        command(source, out, data), env=kill_assembler, capture_output=True, text=True, timeout=120, check=False
    )
    assert first.returncode == -signal.SIGKILL, first.stderr
    before = stored(data)
    assert before, "all fragments are stored when the assembler has done its work"
    # From here on, converting anything would kill the command.
    no_more = os.environ | {"STEREOSPOT_CRASHPOINT": "converter.converted"}
    done = subprocess.run(
        command(source, out, data), env=no_more, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert read(out).times == read(source).times


def test_the_same_folder_is_not_used_twice_at_once(tmp_path: Path) -> None:
    source, data = sources.path("h264_mp4"), tmp_path / "data"
    words = command(source, tmp_path / "out.mp4", data)
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        support.wait_until(
            lambda: list(data.glob("convert/*/broker/jetstream")), what="the first has started its broker"
        )
        second = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert "ALREADY_RUNNING" in second.stderr
    finally:
        _, said = first.communicate(timeout=100)
    assert first.returncode == 0, said
