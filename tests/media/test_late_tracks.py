"""Sources in which a track first appears behind what is looked at when they are opened."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from tests.media import films, sources, writing
from tests.media.test_audio import cut, played, segments

SECONDS = 17
"""More than the ten seconds that are looked at."""


def disc(path: Path, *, subtitle_seconds: float | None) -> Path:
    """A VOB with sound, and one drawn subtitle."""
    with av.open(str(path), "w", format="vob") as output:
        video: Any = output.add_stream("mpeg2video", rate=24, options={"g": "1", "qmax": "3"})
        video.width, video.height, video.pix_fmt = 192, 144, "yuv420p"  # each fills a pack, and has a time
        sound: Any = output.add_stream("ac3", rate=48000)
        drawings: Any = output.add_mux_stream("dvd_subtitle") if subtitle_seconds is not None else None
        output.start_encoding()
        packets: list[Any] = []
        for number in range(24 * SECONDS):
            frame = sources.frame(number, 192, 144)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            packets += video.encode(frame)
        packets += [*video.encode(None), *writing.sound(sound, writing.Audio("ac3"), SECONDS)]
        if subtitle_seconds is not None:
            made = av.Packet(bytes([0, 40, 0, 20]) + bytes(36))
            made.time_base = Fraction(1, 1000)
            made.pts = made.dts = round(subtitle_seconds * 1000)
            made.duration = 500
            made.stream = drawings
            packets.append(made)
        packets.sort(key=lambda packet: float((packet.dts or 0) * packet.time_base))
        output.mux(packets)
    return path


@pytest.fixture
def job(tmp_path: Path) -> films.Job:
    found = films.job(disc(tmp_path / "plain.vob", subtitle_seconds=None), "mp4")
    found.path = disc(tmp_path / "late.vob", subtitle_seconds=15)
    return found


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_the_film_is_whole_and_says_what_it_lacks(job: films.Job, container: Any, tmp_path: Path) -> None:
    job.plan = job.plan.model_copy(update={"container": container})
    out = tmp_path / f"film.{container}"
    report = job.assemble(out)
    films.check_frames(job, out)
    assert films.packets(out, 0) == films.packets(tmp_path / "plain.vob", 0)
    assert [text for text in report.warnings if "left out" in text] == [
        "A track of subtitles that begins in the middle of the source was left out."
    ]


def test_the_stream_has_its_sound(job: films.Job) -> None:
    chunks = cut(job, segments(job))
    heard, rate, _ = played(chunks)
    assert heard.shape[1] / rate == pytest.approx(SECONDS, abs=0.1)
    assert abs(heard[0, -rate : -rate // 2]).mean() > 0.1


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_late_sound_of_a_broadcast_is_kept(container: Any, tmp_path: Path) -> None:
    """It is opened without a form, which mp4 refuses in a track and Matroska in the whole film."""
    path = tmp_path / "source.ts"
    tracks = (sources.Audio("aac"), sources.Audio("aac", start_seconds=15))
    sources.write(sources.Film(".ts", frames=24 * SECONDS, size=(64, 48), audio=tracks), path)
    job = films.job(path, container)
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    first, second = films.sounds(tmp_path / "film")
    assert first.codec == "aac"
    assert second.start - first.start == pytest.approx(15, abs=0.05)
    assert second.pcm.shape[0] == 2
    assert second.pcm.shape[1] / 48000 == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_sound_that_never_comes_does_not_fail_the_film(container: Any, tmp_path: Path) -> None:
    path = tmp_path / "source.ts"
    with av.open(str(path), "w", format="mpegts") as output:
        video: Any = output.add_stream("libx264", rate=24, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        output.add_stream("aac", rate=48000)
        output.start_encoding()
        for number in range(24):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    job = films.job(path, container)
    report = job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    assert films.sounds(tmp_path / "film") == []
    assert [text for text in report.warnings if "left out" in text] == ["Track 1 holds no sound and was left out."]
