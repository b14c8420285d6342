"""The stream's sound where the clock is set back or its form changes: it goes on as far as a player can follow."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import pytest

from stereospot.media import audio
from stereospot.options import Container
from tests.media import films, sources
from tests.media.test_audio import cut, played, segments
from tests.media.test_sound_clock import changing, loudness, part


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_a_clock_that_is_set_back_does_not_silence_the_stream(codec: str, tmp_path: Path) -> None:
    (tmp_path / "whole.ts").write_bytes(part(tmp_path / "one.ts", codec, "stereo", 48000, 0, 100))
    job = films.job(tmp_path / "whole.ts")
    half = part(tmp_path / "half.ts", codec, "stereo", 48000, 0, 50)
    job.path = tmp_path / "twice.ts"
    job.path.write_bytes(half + half)
    heard, rate, _ = played(cut(job, segments(job, 25)))
    assert heard.shape[1] / rate == pytest.approx(4.0, abs=0.1)
    assert min(loudness(heard, rate)) > 0.1


@pytest.mark.parametrize("codec", ["aac", "mp2"])
@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_clock_that_is_set_back_does_not_silence_the_film(container: Container, codec: str, tmp_path: Path) -> None:
    """The sound of the second half comes after that of the first, in the order of the file too."""
    (tmp_path / "whole.ts").write_bytes(part(tmp_path / "one.ts", codec, "stereo", 48000, 0, 100))
    job = films.job(tmp_path / "whole.ts", container)
    half = part(tmp_path / "half.ts", codec, "stereo", 48000, 0, 50)
    job.path = tmp_path / "twice.ts"
    job.path.write_bytes(half + half)
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    with av.open(str(tmp_path / "film"), "r") as film:
        stream = film.streams.audio[0]
        ends = [float((packet.pts or 0) * packet.time_base) for packet in film.demux(stream) if packet.size]
    assert ends[-1] == pytest.approx(4.0, abs=0.1)
    assert max(after - before for before, after in itertools.pairwise(ends)) < 0.15
    with av.open(str(tmp_path / "film"), "r") as film:
        times = [float(packet.dts * packet.time_base) for packet in film.demux() if packet.dts is not None]
    assert max(before - after for before, after in itertools.pairwise(times)) < 1.1


def test_times_that_are_wrong_are_not_sought() -> None:
    job = films.job(sources.path_of("h264_ts"))
    wanted = segments(job)
    decode = job.plan.decode.model_copy(update={"synthesised": True})
    job.plan = job.plan.model_copy(update={"decode": decode})
    assert cut(job, wanted[2:], origin=wanted[0].start) == []
    assert cut(job, wanted) != []


def test_what_the_init_does_not_describe_is_silent(tmp_path: Path) -> None:
    job = films.job(changing(tmp_path, "aac", ("stereo", 48000), ("5.1", 48000), ("stereo", 48000)))
    heard, rate, _ = played(cut(job, segments(job, 25)))
    found = loudness(heard, rate)
    assert len(found) == 12
    assert min([*found[:3], *found[9:]]) > 0.1
    assert max(found[5:7]) < 0.01


@pytest.mark.parametrize(("codec", "layout", "count"), [("aac", "5.1", 6), ("aac", "mono", 1), ("ac3", "5.1(side)", 2)])
def test_the_playlist_tells_the_channels_of_the_stream(codec: str, layout: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "source.ts"
    part(path, codec, layout, 48000, 0, 25)
    job = films.job(path)
    heard, _, _ = played(cut(job, segments(job)))
    assert heard.shape[0] == audio.chunk_channels(job.plan.source.audio[0]) == count
