"""The film: every frame at its time, every sound sample for sample, in every container."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot.media import boxes, ebml
from stereospot.options import Codec, Container, Layout
from tests.media import films, sources
from tests.media.edits import with_edits


def check_sounds(job: films.Job, out: Path, *, kept: bool = True) -> None:
    """The same samples at the same time, track by track."""
    source, film = films.sounds(job.path), films.sounds(out)
    assert len(source) == len(film)
    for before, after in zip(source, film, strict=True):
        if kept:
            assert after.codec == before.codec
        np.testing.assert_array_equal(before.pcm, after.pcm)
        assert after.start == pytest.approx(before.start, abs=0.001)
        if before.language not in (None, "und"):
            assert after.language == before.language


@pytest.mark.parametrize("container", films.CONTAINERS)
@pytest.mark.parametrize("kind", [kind for kind in sources.TWELVE if kind not in ("h264_open_gop_mkv", "vp9_webm")])
def test_the_kinds(kind: str, container: Container, tmp_path: Path) -> None:
    job = films.job(sources.path_of(kind), container)
    out = tmp_path / f"film.{container}"
    report = job.assemble(out)
    films.check_frames(job, out)
    check_sounds(job, out)
    assert report.frames == len(job.pts)
    assert report.size_bytes == out.stat().st_size
    assert report.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert report.duration_seconds == pytest.approx(
        float((job.total.end_pts - job.total.first_pts) * job.plan.encode.time_base)
    )
    assert report.index_in_front == (container != "mkv")


@pytest.mark.parametrize("kind", ["h264_open_gop_mkv", "vp9_webm"])
def test_opus(kind: str, tmp_path: Path) -> None:
    """Matroska and mov give the very samples; in mp4 the edit list cuts the end of Opus, and libavformat plays on."""
    for container in films.CONTAINERS:
        job = films.job(sources.path_of(kind), container)
        out = tmp_path / f"film.{container}"
        job.assemble(out)
        films.check_frames(job, out)
        if container == "mp4":
            (before,), (after,) = films.sounds(job.path), films.sounds(out)
            heard = before.pcm.shape[1]
            np.testing.assert_array_equal(before.pcm, after.pcm[:, :heard])
            assert edit_length(out) == pytest.approx(heard / 48000, abs=1e-6)
        else:
            check_sounds(job, out, kept=container == "mkv")


@pytest.mark.parametrize(
    "edits",
    [
        [(3500, 2112)],  # as Apple's encoders begin: no whole number of packets
        [(3500, 1000)],
        [(700, -1), (3000, 1024)],  # late, with priming
        [(700, -1), (3000, 2112)],
    ],
)
@pytest.mark.parametrize("container", films.CONTAINERS)
def test_priming_is_told_to_the_sample(container: Container, edits: list[tuple[int, int]], tmp_path: Path) -> None:
    path = with_edits(sources.path_of("h264_mp4"), tmp_path / "edited.mp4", *edits)
    job = films.job(path, container)
    out = tmp_path / "film"
    job.assemble(out)
    check_sounds(job, out)


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_sound_that_an_edit_list_took_out_stays_out(container: Container, tmp_path: Path) -> None:
    edits = ((1000, 1024), (1000, 1024 + 2 * 48_000))
    job = films.job(with_edits(sources.path_of("h264_mp4"), tmp_path / "cut.mp4", *edits), container)
    out = tmp_path / "film"
    job.assemble(out)
    before, after = films.sounds(job.path)[0], films.sounds(out)[0]
    assert after.pcm.shape == before.pcm.shape
    # The source's decoder went on behind its cut with what it knew from before it; the film's has nothing before it.
    for part in (slice(0, 47_000), slice(51_000, None)):
        np.testing.assert_allclose(before.pcm[:, part], after.pcm[:, part], atol=1e-3)


@pytest.mark.parametrize("edits", [[(400, 0), (300, 30_000)], [(200, -1), (300, 24_000)]])
def test_pcm_that_an_edit_list_took_out_stays_out(edits: list[tuple[int, int]], tmp_path: Path) -> None:
    path = with_edits(sources.path_of("prores_mov"), tmp_path / "cut.mov", *edits)
    job = films.job(path, "mov")
    out = tmp_path / "film.mov"
    job.assemble(out)
    check_sounds(job, out)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_vorbis_with_priming_in_matroska(rate: int, tmp_path: Path) -> None:
    """Its first packet, which gives no sound, lasts a tick less by its clock than is to be dropped."""
    path = sound_file("vorbis", rate=rate, options={"strict": "experimental"})(tmp_path)
    out = tmp_path / "film.mp4"
    films.job(path).assemble(out)
    (before,), (after,) = films.sounds(path), films.sounds(out)
    assert (before.start, after.start) == (0, 0)
    np.testing.assert_array_equal(before.pcm, after.pcm[:, : before.pcm.shape[1]])


def edit_length(path: Path) -> float:
    """Seconds that the edit list of the first sound shows."""
    data = path.read_bytes()
    moov = boxes.find(data, "moov")
    assert moov is not None
    mvhd = boxes.find(data, "mvhd", moov)
    sound = [item for item in boxes.children(data, moov) if item.kind == b"trak"][1]
    elst = boxes.find(data, "edts/elst", sound)
    assert mvhd is not None
    assert elst is not None
    version, count = data[elst.body], int.from_bytes(data[elst.body + 4 : elst.body + 8], "big")
    assert version == 0
    (length,) = struct.unpack_from(">I", data, elst.body + 8 + 12 * (count - 1))
    return length / int.from_bytes(data[mvhd.body + 12 : mvhd.body + 16], "big")


def sound_file(codec: str, *, rate: int = 48000, suffix: str = ".mkv", **more: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"source{suffix}"
        options: dict[str, Any] = {"codec": "mpeg4", "options": {"g": "31"}} if suffix == ".avi" else {}
        sources.write(
            sources.Film(suffix=suffix, frames=30, audio=(sources.Audio(codec, rate=rate, **more),), **options), path
        )
        return path

    return make


@pytest.mark.parametrize(
    ("make", "mp4", "mov", "mkv"),
    [
        (sound_file("pcm_s16le"), "flac", "pcm_s16le", "pcm_s16le"),
        (sound_file("pcm_s24le", rate=96000), "flac", "pcm_s24le", "pcm_s24le"),
        (sound_file("pcm_s32le"), "flac", "pcm_s32le", "pcm_s32le"),
        (sound_file("pcm_f32le", rate=44100), "pcm_f32le", "pcm_f32le", "pcm_f32le"),
        (sound_file("pcm_alaw", rate=8000, suffix=".mov"), "flac", "pcm_alaw", "flac"),
        (sound_file("flac"), "flac", "pcm_s16le", "flac"),
        (sound_file("alac"), "alac", "alac", "alac"),
        (sound_file("ac3"), "ac3", "ac3", "ac3"),
        (sound_file("eac3"), "eac3", "eac3", "eac3"),
        (sound_file("ac3", suffix=".ts"), "ac3", "ac3", "ac3"),
        (sound_file("mp2", suffix=".ts"), "flac", "pcm_s16le", "mp2"),
        (sound_file("libmp3lame", suffix=".mp4", rate=44100), "mp3", "mp3", "mp3"),
        (sound_file("libmp3lame", suffix=".avi", rate=44100), "mp3", "mp3", "mp3"),
        (sound_file("adpcm_ms", suffix=".avi", rate=44100), "flac", "pcm_s16le", "flac"),
        (sound_file("aac", rate=44100), "aac", "aac", "aac"),
        (sound_file("aac", start_seconds=0.5, suffix=".mp4"), "aac", "aac", "aac"),
        (sound_file("aac", start_seconds=0.25), "aac", "aac", "aac"),
        (sound_file("pcm_s16le", start_seconds=0.5, suffix=".mov"), "flac", "pcm_s16le", "pcm_s16le"),
    ],
)
def test_every_sound(make: Callable[[Path], Path], mp4: str, mov: str, mkv: str, tmp_path: Path) -> None:
    """Stream copy where the container can hold it, else FLAC or PCM: never another sample."""
    path = make(tmp_path)
    for container, codec in (("mp4", mp4), ("mov", mov), ("mkv", mkv)):
        job = films.job(path, container)  # pyright: ignore[reportArgumentType]
        out = tmp_path / f"film.{container}"
        report = job.assemble(out)
        check_sounds(job, out, kept=False)
        found = films.sounds(out)[0].codec
        assert found == codec
        assert any("without loss" in text for text in report.warnings) == (found != films.sounds(path)[0].codec)


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_packets_are_copied(container: Container, tmp_path: Path) -> None:
    job = films.job(sources.path_of("h264_mp4"), container)
    job.assemble(tmp_path / "film")
    found = [films.packets(tmp_path / "film", number) for number in range(2)]
    assert found == [films.packets(job.path, number) for number in range(2)]


@pytest.mark.parametrize("container", films.CONTAINERS)
@pytest.mark.parametrize("kind", ["h264_mp4", "h264_open_gop_mkv"])
def test_subtitles_chapters_tags(kind: str, container: Container, tmp_path: Path) -> None:
    job = films.job(sources.path_of(kind), container)
    out = tmp_path / "film"
    job.assemble(out)
    assert cues(out) == cues(job.path) == [(n * 1000 + 100, 800, f"Cue {n}") for n in range(4)]
    with av.open(str(out), "r") as film, av.open(str(job.path), "r") as source:
        assert film.metadata.get("title") == source.metadata.get("title")
        assert len(film.chapters()) == len(source.chapters())
        for new, old in zip(film.chapters(), source.chapters(), strict=True):
            assert new["metadata"] == old["metadata"]
            assert new["time_base"] is not None
            assert old["time_base"] is not None
            assert new["start"] * new["time_base"] == old["start"] * old["time_base"]
        assert film.streams.subtitles[0].language == "deu"


def cues(path: Path) -> list[tuple[int, int, str]]:
    """(start and length in milliseconds, text) of the first subtitle track."""
    found: list[tuple[int, int, str]] = []
    with av.open(str(path), "r") as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            lines: list[Any] = list(packet.decode()) if packet.size > 2 else []
            for line in lines:
                assert packet.pts is not None
                text = line.ass.decode().split(",", 8)[-1]
                start = round(packet.pts * packet.time_base * 1000)
                found.append((start, round((packet.duration or 0) * packet.time_base * 1000), text))
    return found


@pytest.mark.parametrize("subtitles", ["ass", "webvtt"])
def test_other_text_subtitles(subtitles: str, tmp_path: Path) -> None:
    path = tmp_path / "source.mkv"
    sources.write(sources.Film(".mkv", frames=72, subtitles=subtitles), path)
    for container in films.CONTAINERS:
        job = films.job(path, container)
        job.assemble(tmp_path / "film")
        assert cues(tmp_path / "film") == [(n * 1000 + 100, 800, f"Cue {n}") for n in range(3)]


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_subtitles_that_overlap(container: Container, tmp_path: Path) -> None:
    """A text of such a film stands alone: where a sign comes up during a line, both are in it."""
    path, out = tmp_path / "source.mkv", tmp_path / "film"
    said = ((500, 2500, "A line"), (1000, 1500, "SIGN"), (2600, 2900, "Both A"), (2600, 2900, "Both B"))
    sources.write(sources.Film(".mkv", frames=72, subtitles="ass", cues=said), path)
    films.job(path, container).assemble(out)
    assert cues(out) == [
        (500, 500, "A line"), (1000, 500, "A line\\NSIGN"), (1500, 1000, "A line"), (2600, 300, "Both A\\NBoth B"),
    ]  # fmt: skip


def test_attachments_in_matroska(tmp_path: Path) -> None:
    """A cover as it was, too, which libavformat shows as a track of pictures."""
    path, picture = tmp_path / "source.mkv", sources.path_of("picture_named_mp4").read_bytes()
    with av.open(str(sources.path_of("vfr_mkv")), "r") as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        output.add_attachment("small_cover.jpg", "image/jpeg", picture)
        output.add_attachment("font.ttf", "font/ttf", b"a font, nearly")
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    warnings = [films.job(path, kind).assemble(tmp_path / f"film.{kind}").warnings for kind in films.CONTAINERS]
    said = "Attached files (1) were left out: only mkv films keep them."
    assert [said in texts for texts in warnings] == [kind != "mkv" for kind in films.CONTAINERS]
    with av.open(str(tmp_path / "film.mkv"), "r") as film:
        (attachment,) = [stream for stream in film.streams if stream.type == "attachment"]
        assert (attachment.metadata["filename"], attachment.metadata["mimetype"]) == ("font.ttf", "font/ttf")
        cover = film.streams.video[1]
        assert cover.metadata == {"filename": "small_cover.jpg", "mimetype": "image/jpeg"}
        assert bytes(next(film.demux(cover))) == picture


@pytest.mark.parametrize(("layout", "mode"), [(Layout.HALF_SBS, "right_left"), (Layout.FULL_TB, "bottom_top")])
def test_a_film_with_the_right_eye_first_says_so(layout: Layout, mode: str, tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"), "mkv", layout=layout, swapped=True)
    job.assemble(tmp_path / "film.mkv")
    with av.open(str(tmp_path / "film.mkv"), "r") as film:
        assert film.streams.video[0].metadata.get("stereo_mode") == mode
        assert film.streams.video[0].sample_aspect_ratio == 1


@pytest.mark.parametrize("layout", [Layout.FULL_SBS, Layout.HALF_TB, Layout.ANAGLYPH])
@pytest.mark.parametrize("container", films.CONTAINERS)
def test_signals(layout: Layout, container: Container, tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"), container, layout=layout)
    out = tmp_path / "film"
    job.assemble(out)
    data = out.read_bytes()
    wanted = {Layout.FULL_SBS: b"side", Layout.HALF_TB: b"over"}.get(layout)
    if container == "mkv":
        mode = {Layout.FULL_SBS: "left_right", Layout.HALF_TB: "top_bottom"}.get(layout)
        with av.open(str(out), "r") as film:
            assert film.streams.video[0].metadata.get("stereo_mode") == mode
    else:
        assert (b"vexu" in data) == (b"st3d" in data) == (wanted is not None)
        assert wanted is None or b"pkin\0\0\0\0" + wanted in data


@pytest.mark.parametrize("aspect", [Fraction(16, 11), Fraction(8, 9)])
@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.FULL_SBS, Layout.HALF_TB, Layout.ANAGLYPH])
@pytest.mark.parametrize("container", films.CONTAINERS)
def test_samples_keep_their_shape(layout: Layout, container: Container, aspect: Fraction, tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"), container, layout=layout, sample_aspect=aspect)
    out = tmp_path / "film"
    job.assemble(out)
    with av.open(str(out), "r") as film:
        found = film.streams.video[0].sample_aspect_ratio
    assert found is not None
    assert float(found) == pytest.approx(float(aspect), rel=0.01)  # Matroska tells a display size in whole pixels
    films.check_frames(job, out)
    if container == "mkv":
        data = out.read_bytes()
        tracks = ebml.find(data, ebml.SEGMENT, ebml.TRACKS)
        assert tracks is not None
        check = next(ebml.walk(data, tracks.body, tracks.end))
        if check.kind == ebml.CRC:
            told = int.from_bytes(data[check.body : check.end], "little")
            assert told == zlib.crc32(data[check.end : tracks.end])


@pytest.mark.parametrize("codec", [Codec.X265, Codec.SVTAV1])
@pytest.mark.parametrize("container", films.CONTAINERS)
def test_codecs(codec: Codec, container: Container, tmp_path: Path) -> None:
    job = films.job(sources.path_of("delayed_mp4"), container, codec=codec)
    out = tmp_path / "film"
    job.assemble(out)
    films.check_frames(job, out)
    check_sounds(job, out)


@pytest.mark.parametrize("container", films.CONTAINERS)
@pytest.mark.parametrize("kind", ["one_frame_mp4", "late_start_mkv", "sparse_mp4", "slow_motion_mp4", "two_frames_ts"])
def test_odd_films(kind: str, container: Container, tmp_path: Path) -> None:
    job = films.job(sources.path_of(kind), container)
    out = tmp_path / "film"
    job.assemble(out)
    films.check_frames(job, out)


def test_negative_start(tmp_path: Path) -> None:
    """Matroska can begin before 0; mp4 cannot, so everything moves alike, and the report says so."""
    path = tmp_path / "source.mkv"
    pts = [round(n * 1000 / 24) - 500 for n in range(48)]
    film = sources.Film(
        ".mkv", frames=48, time_base=Fraction(1, 1000), pts=pts, options={"preset": "ultrafast", "bf": "0"},
        container_options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    sources.write(film, path)
    job = films.job(path, "mp4")
    if job.pts[0] >= 0:
        pytest.skip("this libavformat drops pictures before 0")
    report = job.assemble(tmp_path / "film.mp4")
    assert [found for found, _, _ in films.frames(tmp_path / "film.mp4")] == [pts - job.pts[0] for pts in job.pts]
    assert "moved" in report.warnings[0]


def test_the_index_moves_to_the_end_when_it_does_not_fit(tmp_path: Path) -> None:
    """A source whose sound comes in far smaller packets than its length tells."""
    path = tmp_path / "source.mkv"
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("libopus", rate=48000, options={"frame_duration": "2.5"})
        output.start_encoding()
        for number in range(1200):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            output.mux(video.encode(frame))
            made = av.AudioFrame.from_ndarray(sources.tone(number * 2000, 2000, 48000), format="fltp", layout="stereo")
            made.sample_rate, made.pts, made.time_base = 48000, number * 2000, Fraction(1, 48000)
            for part in av.AudioResampler(format="flt", layout="stereo", rate=48000).resample(made):
                output.mux(sound.encode(part))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    job = films.job(path, "mp4", frames=400)
    report = job.assemble(tmp_path / "film.mp4")
    films.check_frames(job, tmp_path / "film.mp4")
    assert [item.kind for item in boxes.walk((tmp_path / "film.mp4").read_bytes())][-1] == (
        b"mdat" if report.index_in_front else b"moov"
    )


def test_the_index_is_in_front(tmp_path: Path) -> None:
    job = films.job(sources.path_of("h264_mp4"), "mp4")
    job.assemble(tmp_path / "film.mp4")
    kinds = [item.kind for item in boxes.walk((tmp_path / "film.mp4").read_bytes())]
    assert kinds[:2] == [b"ftyp", b"moov"]
    assert kinds[-1] == b"mdat"
