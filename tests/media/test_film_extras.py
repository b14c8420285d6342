"""What a film has beside pictures and sound: many subtitles, odd ones, covers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from stereospot.media import ebml
from stereospot.media.film import Edit, Filled, Track, header
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from stereospot.options import Container
from tests.media import films, sources

Said = tuple[tuple[int, int, str], ...]


def written(path: Path, seconds: int, tracks: list[Said], *, chapters: bool = False) -> Path:
    """A picture a second, and a track of SubRip for each list of (start, end, text)."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        texts = [output.add_mux_stream("subrip") for _ in tracks]
        for text in texts:
            text.time_base = Fraction(1, 1000)
        if chapters:
            base = Fraction(1, 1000)
            output.set_chapters(
                [{"id": 1, "start": 0, "end": seconds * 1000, "time_base": base, "metadata": {"title": "All"}}]
            )
        output.start_encoding()
        packets: list[Any] = []
        for number in range(seconds):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1)
            packets += video.encode(frame)
        packets += video.encode(None)
        for text, said in zip(texts, tracks, strict=True):
            for start, end, words in said:
                packet = av.Packet(words.encode())
                packet.stream, packet.time_base = text, Fraction(1, 1000)
                packet.pts = packet.dts = start
                packet.duration = end - start
                packets.append(packet)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            output.mux(packet)
    return path


def texts_of(path: Path) -> list[int]:
    """How many packets with a text each track of subtitles has."""
    with av.open(str(path), "r") as film:
        counts = {stream.index: 0 for stream in film.streams.subtitles}
        for packet in film.demux():
            if packet.size and packet.stream_index in counts:
                counts[packet.stream_index] += 1
    return list(counts.values())


def has_index(path: Path) -> bool:
    return ebml.find(path.read_bytes(), ebml.SEGMENT, 0x1C53BB6B) is not None


def test_the_index_has_room_for_many_tracks_of_subtitles(tmp_path: Path) -> None:
    said = tuple((second * 1000 + 100, second * 1000 + 900, f"Cue {second}") for second in range(120))
    job = films.job(written(tmp_path / "source.mkv", 120, [said] * 12), "mkv")
    out = tmp_path / "film.mkv"
    assert job.assemble(out).warnings == ()
    assert texts_of(out) == [120] * 12
    assert has_index(out)


def test_a_film_with_too_much_for_an_index_has_none(tmp_path: Path) -> None:
    """Karaoke has a cue for each syllable and colour: better a film that is sought slowly than none."""
    said = tuple((100 + 3 * number, 5000 + 3 * number, "la") for number in range(3000))
    job = films.job(written(tmp_path / "source.mkv", 10, [said]), "mkv")
    out = tmp_path / "film.mkv"
    (warning,) = job.assemble(out).warnings
    assert "no index" in warning
    assert texts_of(out) == [3000]
    assert not has_index(out)
    films.check_frames(job, out)
    with av.open(str(out), "r") as film:
        assert film.duration == pytest.approx(14_000_000, abs=100_000)


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_cover(container: Container, tmp_path: Path) -> None:
    path, out = tmp_path / "source.mp4", tmp_path / "film"
    sources.write(sources.Film(".mp4", frames=24, audio=(sources.Audio(),), attached_picture=True), path)
    job = films.job(path, container)
    report = job.assemble(out)
    films.check_frames(job, out)
    with av.open(str(out), "r") as film:
        covers = [stream.metadata for stream in film.streams.video[1:]]
        assert film.streams.audio
    assert covers == ([{"filename": "cover.jpg", "mimetype": "image/jpeg"}] if container == "mkv" else [])
    assert any("cover" in text for text in report.warnings) == (container != "mkv")


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_subtitles_that_never_last_are_left_out_alone(container: Container, tmp_path: Path) -> None:
    """The tracks behind them have their own texts, and chapters their titles."""
    tracks = [((500, 500, "Gone"),), ((1000, 2000, "Here"), (2500, 2900, "Still"))]
    job = films.job(written(tmp_path / "source.mkv", 4, tracks, chapters=True), container)
    out = tmp_path / "film"
    (warning,) = job.assemble(out).warnings
    assert "none of its texts lasts" in warning
    with av.open(str(out), "r") as film:
        said = [bytes(packet)[2:] for packet in film.demux(film.streams.subtitles[0]) if packet.size > 2]
        assert said == [b"Here", b"Still"]
        assert [chapter["metadata"]["title"] for chapter in film.chapters()] == ["All"]


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_tracks_keep_titles_and_languages(container: Container, tmp_path: Path) -> None:
    """Of an mp4, whose titles libavformat reads as `name`, in languages that the Macintosh had no number for."""
    path, out = tmp_path / "source.mp4", tmp_path / "film"
    told = [("Version", "zho"), ("Director", "deu"), ("Narrator", "swe"), ("Signs", "nld")]
    with av.open(str(sources.path_of("h264_mp4")), "r") as source, av.open(str(path), "w") as output:
        streams = source.streams.get(video=0, audio=(0, 1), subtitles=0)
        targets = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in streams}
        for target, (title, language) in zip(targets.values(), told, strict=True):
            target.metadata.update(title=title, language=language)
        for packet in source.demux(streams):
            if packet.size:
                packet.stream = targets[packet.stream_index]
                output.mux(packet)
    opened = FileSource(path)
    info = probe(opened)
    opened.close()
    assert [(track.title, track.language) for track in (*info.audio, *info.subtitles)] == told[1:]
    films.job(path, container).assemble(out)
    with av.open(str(out), "r") as film:
        found = [stream.metadata for stream in film.streams]
    key = "title" if container == "mkv" else "name"
    assert [(tags.get(key), tags.get("language")) for tags in found[:4]] == told


def test_a_header_has_every_track_or_is_none() -> None:
    track = Track(1000)
    track.add(1, 1)
    one = Filled(track, Edit(0, 0, 1))
    with pytest.raises(ValueError, match="lacks a track"):
        header(sources.path_of("one_frame_mp4").read_bytes(), [one, one], 1000)


def test_a_long_chapter_beside_a_late_sound(tmp_path: Path) -> None:
    """Their common clock must be able to count the chapter."""
    plain, path, out = tmp_path / "plain.mkv", tmp_path / "source.mkv", tmp_path / "film.mp4"
    sources.write(sources.Film(".mkv", frames=48, audio=(sources.Audio("aac", rate=44100, start_seconds=0.25),)), plain)
    with av.open(str(plain), "r") as source, av.open(str(path), "w") as output:
        streams = [output.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        base = Fraction(1, 1000)
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 10_000_000, "time_base": base, "metadata": {"title": "Long"}}]
        )
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    films.job(path, "mp4").assemble(out)
    with av.open(str(out), "r") as film:
        (chapter,) = film.chapters()
        assert chapter["time_base"] is not None
        assert float(chapter["end"] * chapter["time_base"]) == pytest.approx(10_000, abs=0.1)
