"""What the probe says of good films."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from stereospot.media import pixels
from stereospot.media.inspect import interlacing
from stereospot.media.model import SourceInfo
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media import reading, sources

MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"

EXPECTED: dict[str, dict[str, Any]] = {
    "h264_mp4": {"codec": "h264", "width": 320, "height": 180, "average_rate": Fraction(24), "frames_declared": 96},
    "ntsc_mkv": {"average_rate": Fraction(30000, 1001), "time_base": Fraction(1, 1000)},
    "av1_mkv": {"codec": "av1", "pixel_format": "yuv420p"},
    "rotated_mov": {"width": 180, "height": 320, "coded_width": 320, "rotation": 270, "mirrored": False},
    "rotated_270_mp4": {"width": 180, "height": 320, "rotation": 90},
    "upside_down_mp4": {"width": 320, "height": 180, "rotation": 180},
    "mirrored_mov": {"width": 320, "rotation": 0, "mirrored": True},
    "anamorphic_mp4": {"sample_aspect": Fraction(16, 11), "width": 352, "interlaced": "no"},
    "mpeg2_interlaced_ts": {"interlaced": "bottom", "sample_aspect": Fraction(16, 11)},
    "delayed_mp4": {"first_pts": 8602},
    "edit_list_mp4": {"first_pts": 0},
    "two_videos_mkv": {"stream_index": 1, "width": 320},
    "cover_and_video_mp4": {"codec": "h264", "width": 320},
    "odd_size_mkv": {"width": 321, "height": 181},
    "gray_mkv": {"source_pixel_format": "gray", "pixel_format": "yuv420p"},
    "rgb_mkv": {"source_pixel_format": "bgr0", "pixel_format": "yuv444p"},
    "yuv420p12_mp4": {"pixel_format": "yuv420p10le"},
    "prores4444_mov": {"pixel_format": "yuv444p10le"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_picture(name: str) -> None:
    video = reading.planned(name).info.video
    assert {key: getattr(video, key) for key in EXPECTED[name]} == EXPECTED[name]


def test_colour_and_hdr10() -> None:
    colour = reading.planned("hevc_hdr10_mp4").info.video.colour
    assert (colour.primaries, colour.transfer, colour.matrix, colour.full_range) == (9, 16, 9, False)
    assert (colour.mastering, colour.content_light) == (MASTERING, (1000, 400))
    assert colour.is_hdr
    assert reading.planned("hlg_mp4").info.video.colour.is_hdr
    assert reading.planned("full_range_mp4").info.video.colour.full_range
    assert not reading.planned("h264_mp4").info.video.colour.is_hdr


def test_the_other_tracks() -> None:
    info = reading.planned("h264_mp4").info
    assert [(track.codec, track.sample_rate, track.channels) for track in info.audio] == [
        ("aac", 48000, 2),
        ("aac", 44100, 2),
    ]
    assert [track.language for track in info.audio] == ["eng", "fra"]
    assert [(track.codec, track.language, track.bitmap) for track in info.subtitles] == [("mov_text", "deu", False)]
    assert [(chapter.start_seconds, chapter.title) for chapter in info.chapters] == [(0.0, "One"), (2.0, "Two")]
    assert info.tags["title"] == "A film"
    assert info.duration_seconds == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("unheard", [b"ac-4", b"apac"])
def test_a_track_without_a_decoder_is_left_out_and_named(unheard: bytes, tmp_path: Path) -> None:
    """As a phone's spatial sound beside the plain one: it would give nothing, and the stream waits for every track."""
    data = bytearray(sources.path("h264_mp4").read_bytes())
    for name, changed in ((b"mp4a", unheard), (b"esds", b"free")):  # esds would tell its codec, too
        place = data.rindex(name)
        data[place : place + 4] = changed
    path = tmp_path / "spatial.mp4"
    path.write_bytes(data)
    info = probed(path)
    assert [(track.codec, track.language) for track in info.audio] == [("aac", "eng")]
    assert [text for text in info.warnings if "(fra)" in text and "decodes" in text]


def test_fonts_are_no_tracks(tmp_path: Path) -> None:
    path = tmp_path / "fonts.mkv"
    remuxed(path, fonts=70)
    assert probed(path).video.codec == "h264"


def test_captions_inside_the_pictures_are_told_of(tmp_path: Path) -> None:
    """CEA-608 in H.264, as broadcasts have it (ATSC A/53 part 4, 6.2.3)."""
    path = tmp_path / "captions.mkv"
    pair = b"\xfc\x94\x20"
    payload = b"\xb5\x00\x31GA94\x03\xc1\xff" + pair + b"\xff"
    message = b"\x06\x04" + bytes([len(payload)]) + payload + b"\x80"
    remuxed(path, before=len(message).to_bytes(4, "big") + message)
    assert [text for text in probed(path).warnings if "closed captions" in text]
    remuxed(path)
    assert probed(path).warnings == ()


def remuxed(path: Path, *, fonts: int = 0, before: bytes = b"") -> None:
    """A film with attachments, and with bytes before each picture."""
    with av.open(str(sources.path("delayed_mp4")), "r") as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for number in range(fonts):
            output.add_attachment(f"{number}.ttf", "font/ttf", b"a font, nearly")
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                made = av.Packet(before + bytes(packet))
                made.time_base, made.pts, made.dts = packet.time_base, packet.pts, packet.dts
                made.is_keyframe, made.stream = packet.is_keyframe, stream
                output.mux(made)


def probed(path: Path) -> SourceInfo:
    source = FileSource(path)
    try:
        return probe(source)
    finally:
        source.close()


@pytest.mark.parametrize("name", ["h264_mp4", "rotated_mov", "h263_3gp", "fragmented_mp4"])
def test_mp4_and_its_kin_are_indexed(name: str) -> None:
    assert reading.planned(name).info.indexed


@pytest.mark.parametrize("name", ["vfr_mkv", "h264_ts", "mpeg4_avi", "flv1_flv"])
def test_others_are_not(name: str) -> None:
    assert not reading.planned(name).info.indexed


def test_every_film_has_a_rate_a_base_and_a_size() -> None:
    for name in sources.TWELVE:
        video = reading.planned(name).info.video
        assert video.average_rate > 0
        assert video.time_base > 0
        assert min(video.width, video.height) > 0


@pytest.mark.parametrize(
    ("source", "form", "turned"),
    [
        ("yuv420p", "yuv420p", "yuv420p"),
        ("yuvj422p", "yuv422p", "yuv444p"),
        ("nv12", "yuv420p", "yuv420p"),
        ("nv16", "yuv422p", "yuv444p"),
        ("p010le", "yuv420p10le", "yuv420p10le"),
        ("yuv410p", "yuv420p", "yuv420p"),
        ("yuv411p", "yuv422p", "yuv444p"),
        ("yuv440p", "yuv444p", "yuv444p"),
        ("yuyv422", "yuv422p", "yuv444p"),
        ("yuva444p12le", "yuv444p10le", "yuv444p10le"),
        ("yuv422p9le", "yuv422p10le", "yuv444p10le"),
        ("gray", "yuv420p", "yuv420p"),
        ("gray12le", "yuv420p10le", "yuv420p10le"),
        ("monob", "yuv420p", "yuv420p"),
        ("rgb24", "yuv444p", "yuv444p"),
        ("pal8", "yuv444p", "yuv444p"),
        ("gbrp10le", "yuv444p10le", "yuv444p10le"),
        ("rgb48le", "yuv444p10le", "yuv444p10le"),
    ],
)
def test_normal_forms(source: str, form: str, turned: str) -> None:
    assert pixels.normal_form(source) == form
    assert pixels.normal_form(source, turned=True) == turned


@pytest.mark.parametrize(
    ("order", "shown"), [(0, "no"), (1, "no"), (2, "top"), (3, "bottom"), (4, "bottom"), (5, "top")]
)
def test_field_orders(order: int, shown: str) -> None:
    assert interlacing(order, [], 288) == shown
