"""Where a film begins: at its source's own time, or at 0 where that time is a sender's clock or too late to hold."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import pytest

from stereospot.media import audio, boxes, clocks, subtitles
from stereospot.media.model import Segment
from stereospot.media.source import FileSource
from stereospot.options import Container
from tests.media import films, sources

FRAMES = 48


def broadcast(path: Path, seconds: int) -> Path:
    """A transport stream whose clock shows `seconds` at its first picture."""
    pts = [seconds * 90_000 + number * 3600 for number in range(FRAMES)]
    film = sources.Film(
        ".ts", format="mpegts", frames=FRAMES, rate=Fraction(25), time_base=Fraction(1, 90_000), pts=pts,
        audio=(sources.Audio(start_seconds=seconds),), container_options={"muxdelay": "0"},
    )  # fmt: skip
    sources.write(film, path)
    return path


@pytest.mark.parametrize("container", films.CONTAINERS)
@pytest.mark.parametrize("seconds", [50_000, 90_000])
def test_a_broadcast_begins_with_its_first_picture(seconds: int, container: Container, tmp_path: Path) -> None:
    """Not after hours of nothing; its sound goes with it."""
    out = tmp_path / "film"
    job = films.job(broadcast(tmp_path / "source.ts", seconds), container)
    report = job.assemble(out)
    assert "clock" in report.warnings[0]
    assert [pts * base for pts, base, _ in films.frames(out)] == [Fraction(number, 25) for number in range(FRAMES)]
    (sound,), (heard,) = films.sounds(out), films.sounds(job.path)
    assert -0.03 < sound.start < 0.03
    assert sound.pcm.shape[1] >= heard.pcm.shape[1] - 1024, "what lies before the first picture is over by then"
    with av.open(str(out), "r") as film:
        assert film.duration is not None
        assert 1.9 < film.duration / av.time_base < 2.1


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_clock_that_starts_anew_during_the_film(container: Container, tmp_path: Path) -> None:
    """33 bits of 90 kHz end a second after the first picture, so libavformat counts from below 0. `tfdt` cannot."""
    out = tmp_path / "film"
    job = films.job(broadcast(tmp_path / "source.ts", (1 << 33) // 90_000 - 1), container)
    assert job.pts[0] < 0
    pictures = [sample for media in job.fragments for sample in boxes.read_fragment(media)]
    assert all(sample.offset == 0 for sample in pictures)
    assert [sample.time - pictures[0].time for sample in pictures] == [pts - job.pts[0] for pts in job.pts]
    sound = [boxes.read_fragment(chunk.data)[0].time / 48_000 for chunk in _cut(job) if chunk.index is not None]
    assert len(sound) == len(job.fragments)
    for media, time in zip(job.fragments, sound, strict=True):
        assert abs(boxes.read_fragment(media)[0].time / 90_000 - time) < 1024 / 48_000
    job.assemble(out)
    assert [pts * base for pts, base, _ in films.frames(out)] == [Fraction(number, 25) for number in range(FRAMES)]


def _cut(job: films.Job) -> list[audio.AudioChunk]:
    starts = [*job.pts[::24], job.total.end_pts]
    wanted = [
        Segment(index=index, start=start, end=None, frames=1, last=start, duration=end - start)
        for index, (start, end) in enumerate(itertools.pairwise(starts))
    ]
    source = FileSource(job.path)
    try:
        return list(audio.cut(source, job.plan.source, job.plan, films.parts(wanted)))
    finally:
        source.close()


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_what_an_encoder_puts_before_the_first_picture_stays(container: Container, tmp_path: Path) -> None:
    job = films.job(broadcast(tmp_path / "source.ts", 2), container)
    job.assemble(tmp_path / "film")
    assert job.pts[0] == 180_000
    films.check_frames(job, tmp_path / "film")


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_everything_moves_with_the_pictures(container: Container, tmp_path: Path) -> None:
    """A clock that counts from 1970, or for days: pictures, sound, subtitles and chapters begin at 0 together."""
    path, out, start = tmp_path / "source.mkv", tmp_path / "film", 90_000
    pts = [start * 1000 + number * 40 for number in range(FRAMES)]
    film = sources.Film(
        ".mkv", frames=FRAMES, rate=Fraction(25), time_base=Fraction(1, 1000), pts=pts,
        audio=(sources.Audio("libopus", start_seconds=start),), subtitles="subrip",
        chapters=True,
        cues=((start * 1000 - 500, start * 1000 + 300, "Early"), (start * 1000 + 500, start * 1000 + 900, "Late")),
    )  # fmt: skip
    sources.write(film, path)
    job = films.job(path, container)
    job.assemble(out)
    assert [pts * base for pts, base, _ in films.frames(out)] == [Fraction(number, 25) for number in range(FRAMES)]
    (sound,) = films.sounds(out)
    assert -0.03 < sound.start < 0.03
    with av.open(str(out), "r") as made:
        assert [float(item["start"] * (item["time_base"] or 0)) for item in made.chapters()] == [0, 0.96]
        stream = made.streams.subtitles[0]
        times = [
            (packet.pts * packet.time_base, packet.duration * packet.time_base)
            for packet in made.demux(stream)
            if packet.size > 2 and packet.pts is not None and packet.duration is not None
        ]
    assert times == [(0, Fraction(3, 10)), (Fraction(1, 2), Fraction(2, 5))]
    source = FileSource(path)
    try:
        (cues,) = subtitles.read(source, job.plan.source, origin=clocks.origin_seconds(job.plan)).values()
    finally:
        source.close()
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [(0, 300, "Early"), (500, 900, "Late")]


@pytest.mark.parametrize("container", ["mp4", "mov"])
@pytest.mark.parametrize("codec", ["mp2", "aac"])
def test_a_sound_that_is_over_before_the_film_begins(codec: str, container: Container, tmp_path: Path) -> None:
    """As where a clock is set back behind the first pictures: the film is whole, and says that it lacks the sound."""
    path = broadcast(tmp_path / "source.ts", 20)
    job = films.job(path, container)
    silent = sources.Film(
        ".ts", format="mpegts", frames=FRAMES, rate=Fraction(25), time_base=Fraction(1, 90_000), pts=job.pts,
        audio=(sources.Audio(codec, start_seconds=10),),
    )  # fmt: skip
    sources.write(silent, path)
    report = job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    assert films.sounds(tmp_path / "film") == []
    assert any("holds no sound" in text for text in report.warnings)
