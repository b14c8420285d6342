"""The films that must come out with exactly their frames: `TWELVE`, on which range decoding was proved (H.264 with
B-frames, open GOP, VFR, HDR10, VP9, AV1, TS, AVI, rotated, edit list, delayed video), and `ZOO`, everything else.

Pictures are 320x180 unless the kind is about size; GOPs are 31 with 2 or 3 B-frames, so that an open GOP really has
leading pictures.
"""

# ruff: noqa: E501 (the tables of films read best as tables)

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.media import shelf
from tests.media.writing import HEIGHT, RATE, WIDTH, Audio, Film, film, frame, picture, write

# ---- the twelve ---------------------------------------------------------------------------------------------------

VFR_GAPS = (1, 1, 2, 1, 3, 1, 1, 5, 2, 1)
"""In 1/48 s, repeated."""


def vfr_pts(count: int, unit: int) -> list[int]:
    """A variable-rate time list: gaps of `VFR_GAPS` times `unit` ticks."""
    pts, now = [], 0
    for number in range(count):
        pts.append(now)
        now += VFR_GAPS[number % len(VFR_GAPS)] * unit
    return pts


X265 = "log-level=none:keyint=31:min-keyint=31:scenecut=0:bframes=3:open-gop=1:pools=1:frame-threads=1"
OPEN = {
    "preset": "ultrafast",
    "crf": "24",
    "x264-params": "keyint=31:min-keyint=31:scenecut=0:bframes=3:b-adapt=0:open-gop=1",
}
HDR10 = (
    ":hdr10=1:repeat-headers=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,400"
    ":master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
)


def _edit_list(path: Path) -> None:
    """An mp4 cut in the middle of a GOP without re-encoding: its edit list hides the first pictures."""
    _retimed(path, shelf.path("h264_mp4_silent"), shift_frames=-20)


def _delayed(path: Path) -> None:
    film = Film(".mp4", audio=(Audio(),), time_base=Fraction(1, 12288))
    film.pts = [8602 + 512 * number for number in range(film.frames)]
    write(film, path)


def _retimed(path: Path, origin: Path, *, shift_frames: int) -> None:
    """Stream-copy with all times moved by whole frames; negative ones end up behind the edit list."""
    with av.open(str(origin)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        assert stream.time_base is not None
        shift = int(shift_frames / RATE / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts = packet.pts + shift if packet.pts is not None else None
                packet.dts = packet.dts + shift if packet.dts is not None else None
                packet.stream = copy
                output.mux(packet)


TWO_TRACKS = (Audio(), Audio(rate=44100, language="fra", title="Commentary", hertz=330.0))

TWELVE = shelf.shelved({
    "h264_mp4": (".mp4", film(suffix=".mp4", audio=TWO_TRACKS, subtitles="mov_text", chapters=True, tags={"title": "A film"})),
    "h264_open_gop_mkv": (".mkv", film(suffix=".mkv", options=OPEN, audio=(Audio("libopus"),), subtitles="subrip")),
    "vfr_mp4": (".mp4", film(suffix=".mp4", frames=80, time_base=Fraction(1, 12288), pts=vfr_pts(80, 256), audio=(Audio(),))),
    "vfr_mkv": (".mkv", film(suffix=".mkv", frames=80, time_base=Fraction(1, 1000), pts=vfr_pts(80, 21))),
    "hevc_hdr10_mp4": (
        ".mp4",
        film(
            suffix=".mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": X265 + HDR10},
            pixel_format="yuv420p10le", colour=(9, 16, 9, 1),
        ),
    ),
    "vp9_webm": (".webm", film(suffix=".webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "31"}, audio=(Audio("libopus"),))),
    "av1_mkv": (".mkv", film(suffix=".mkv", codec="libsvtav1", options={"preset": "12", "g": "31", "svtav1-params": "lp=1"})),
    "h264_ts": (".ts", film(suffix=".ts", audio=(Audio(),))),
    "mpeg4_avi": (".avi", film(suffix=".avi", codec="mpeg4", options={"g": "31", "bf": "2", "b": "600k"}, audio=(Audio("libmp3lame"),))),
    "rotated_mov": (".mov", film(suffix=".mov", rotation=90, audio=(Audio(),))),
    "edit_list_mp4": (".mp4", _edit_list),
    "delayed_mp4": (".mp4", _delayed),
})  # fmt: skip


# ---- the zoo ------------------------------------------------------------------------------------------------------


def interlaced(number: int, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """Two moments woven into one frame, bottom field first."""
    second, first = picture(2 * number, width, height), picture(2 * number + 1, width, height)
    woven = first.copy()
    woven[1:height:2] = second[1:height:2]
    return av.VideoFrame.from_ndarray(woven, format="yuv420p").reformat(format=pixel_format)


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
MIRROR = (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)

ZOO = shelf.shelved({
    "h264_mp4_silent": (".mp4", film(suffix=".mp4")),
    "h264_pyramid_mkv": (".mkv", film(suffix=".mkv", options={"preset": "ultrafast", "crf": "24", "x264-params": "keyint=48:bframes=7:b-pyramid=normal:b-adapt=0:scenecut=0"})),
    "h264_faststart_mp4": (".mp4", film(suffix=".mp4", container_options={"movflags": "faststart"}, audio=(Audio(),))),
    "fragmented_mp4": (".mp4", film(suffix=".mp4", container_options=FRAGMENTED, audio=(Audio(),))),
    "fragmented_cmaf_mp4": (".mp4", film(suffix=".mp4", container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof+cmaf+delay_moov"})),
    "hevc_mp4": (".mp4", film(suffix=".mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": X265}, codec_tag="hvc1")),
    "hevc_ts": (".ts", film(suffix=".ts", codec="libx265", options={"preset": "ultrafast", "x265-params": X265})),
    "hlg_mp4": (".mp4", film(suffix=".mp4", codec="libx265", frames=24, options={"preset": "ultrafast", "x265-params": X265}, pixel_format="yuv420p10le", colour=(9, 18, 9, 1))),
    "vp8_webm": (".webm", film(suffix=".webm", codec="libvpx", options={"deadline": "realtime", "cpu-used": "8", "g": "31", "b": "500k", "auto-alt-ref": "1"}, audio=(Audio("libopus"),))),
    "vp9_altref_webm": (".webm", film(suffix=".webm", codec="libvpx-vp9", frames=60, options={"deadline": "good", "cpu-used": "5", "g": "31", "auto-alt-ref": "1", "lag-in-frames": "16"})),
    "av1_mp4": (".mp4", film(suffix=".mp4", codec="libsvtav1", frames=48, options={"preset": "12", "g": "31", "svtav1-params": "lp=1"})),
    "mpeg2_ts": (".ts", film(suffix=".ts", codec="mpeg2video", options={"g": "15", "bf": "2", "b": "2M"}, audio=(Audio("mp2"),))),
    "mpeg2_mpg": (".mpg", film(suffix=".mpg", codec="mpeg2video", format="vob", options={"g": "15", "bf": "2", "b": "2M"}, audio=(Audio("mp2"),), size=(352, 288), rate=Fraction(25))),
    "mpeg1_mpg": (".mpg", film(suffix=".mpg", codec="mpeg1video", format="mpeg", options={"g": "15", "bf": "2", "b": "1M"}, size=(352, 288), rate=Fraction(25))),
    "mpeg2_interlaced_ts": (
        ".ts",
        film(suffix=".ts", codec="mpeg2video", options={"g": "12", "bf": "2", "b": "3M", "flags": "+ildct+ilme", "top": "1"}, size=(352, 288), rate=Fraction(25), picture=interlaced, sample_aspect=Fraction(16, 11)),
    ),
    "mpeg4_mp4": (".mp4", film(suffix=".mp4", codec="mpeg4", options={"g": "31", "bf": "1", "b": "600k"})),
    "mpeg4_packed_avi": (".avi", film(suffix=".avi", codec="mpeg4", options={"g": "31", "b": "600k"}, rate=Fraction(30000, 1001))),
    "h264_avi": (".avi", film(suffix=".avi", options={"preset": "ultrafast", "g": "31", "bf": "2"})),
    "mjpeg_avi": (".avi", film(suffix=".avi", codec="mjpeg", pixel_format="yuvj420p", options={"q": "5"}, frames=30)),
    "h263_3gp": (".3gp", film(suffix=".3gp", codec="h263", options={"g": "31", "b": "300k"}, size=(176, 144), rate=Fraction(15), audio=())),
    "flv1_flv": (".flv", film(suffix=".flv", codec="flv", options={"g": "31", "b": "500k"}, audio=(Audio("libmp3lame", rate=44100),))),
    "h264_flv": (".flv", film(suffix=".flv", audio=(Audio(),))),
    "wmv2_wmv": (".wmv", film(suffix=".wmv", codec="wmv2", format="asf", options={"g": "31", "b": "500k"}, audio=(Audio("wmav2"),))),
    "msmpeg4v3_avi": (".avi", film(suffix=".avi", codec="msmpeg4", options={"g": "31", "b": "500k"})),
    "prores_mov": (".mov", film(suffix=".mov", codec="prores_ks", pixel_format="yuv422p10le", options={"profile": "1"}, frames=24, audio=(Audio("pcm_s16le"),))),
    "prores4444_mov": (".mov", film(suffix=".mov", codec="prores_ks", pixel_format="yuva444p10le", options={"profile": "4"}, frames=12)),
    "dnxhd_mov": (".mov", film(suffix=".mov", codec="dnxhd", pixel_format="yuv422p", options={"profile": "dnxhr_lb"}, frames=12, size=(640, 360))),
    "ffv1_mkv": (".mkv", film(suffix=".mkv", codec="ffv1", pixel_format="yuv444p", options={}, frames=24, audio=(Audio("flac"),))),
    "h264_nut": (".nut", film(suffix=".nut", frames=48)),
    "mirrored_mov": (".mov", film(suffix=".mov", frames=24, matrix=MIRROR)),
    "upside_down_mp4": (".mp4", film(suffix=".mp4", frames=24, rotation=180)),
    "rotated_270_mp4": (".mp4", film(suffix=".mp4", frames=24, rotation=-90)),
    "portrait_mp4": (".mp4", film(suffix=".mp4", size=(180, 320))),
    "odd_size_mkv": (".mkv", film(suffix=".mkv", codec="ffv1", options={}, size=(321, 181), frames=24)),
    "odd_vp9_webm": (".webm", film(suffix=".webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "31"}, size=(319, 179), frames=40)),
    "one_frame_mp4": (".mp4", film(suffix=".mp4", frames=1)),
    "one_frame_mkv": (".mkv", film(suffix=".mkv", frames=1)),
    "two_frames_ts": (".ts", film(suffix=".ts", frames=2)),
    "slow_motion_mp4": (".mp4", film(suffix=".mp4", frames=120, rate=Fraction(240), time_base=Fraction(1, 2400), pts=[n * 10 if n < 40 else 400 + (n - 40) * 100 for n in range(120)])),
    "gray_mkv": (".mkv", film(suffix=".mkv", codec="ffv1", options={}, pixel_format="gray", frames=24)),
    "yuv444_mp4": (".mp4", film(suffix=".mp4", pixel_format="yuv444p", frames=48)),
    "yuv422_10_mp4": (".mp4", film(suffix=".mp4", pixel_format="yuv422p10le", frames=48)),
    "h264_10_mkv": (".mkv", film(suffix=".mkv", pixel_format="yuv420p10le", frames=48)),
    "yuv420p12_mp4": (".mp4", film(suffix=".mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": X265}, pixel_format="yuv420p12le", frames=24)),
    "full_range_mp4": (".mp4", film(suffix=".mp4", pixel_format="yuvj420p", frames=24)),
    "rgb_mkv": (".mkv", film(suffix=".mkv", codec="ffv1", options={}, pixel_format="bgr0", frames=12)),
    "anamorphic_mp4": (".mp4", film(suffix=".mp4", size=(352, 288), sample_aspect=Fraction(16, 11), frames=48, rate=Fraction(25))),
    "ntsc_mp4": (".mp4", film(suffix=".mp4", rate=Fraction(24000, 1001))),
    "ntsc_mkv": (".mkv", film(suffix=".mkv", rate=Fraction(30000, 1001))),
    "no_pts_mkv": (".mkv", film(suffix=".mkv", frames=48, time_base=Fraction(1, 1000), pts=[round(n * 1000 / 24) - 500 for n in range(48)], container_options={"avoid_negative_ts": "disabled"})),
    "late_start_mkv": (".mkv", film(suffix=".mkv", frames=48, time_base=Fraction(1, 1000), pts=[3_600_000 + n * 40 for n in range(48)])),
    "long_gop_mp4": (".mp4", film(suffix=".mp4", frames=144, options={"preset": "ultrafast", "g": "600", "bf": "3", "crf": "28", "sc_threshold": "0"})),
    "live_webm": (".webm", film(suffix=".webm", codec="libvpx", options={"deadline": "realtime", "cpu-used": "8", "g": "31", "b": "500k"}, container_options={"live": "1"})),
    "h264_interlaced_ts": (".ts", film(suffix=".ts", options={"preset": "ultrafast", "x264-params": "keyint=24:bframes=2:bff=1:scenecut=0"}, size=(352, 288), rate=Fraction(25), picture=interlaced)),
    "h264_interlaced_mp4": (".mp4", film(suffix=".mp4", options={"preset": "ultrafast", "x264-params": "keyint=24:bframes=2:bff=1:scenecut=0"}, size=(352, 288), rate=Fraction(25), picture=interlaced)),
    "intra_refresh_mkv": (".mkv", film(suffix=".mkv", options={"preset": "ultrafast", "x264-params": "keyint=24:intra-refresh=1:bframes=0"})),
    "intra_refresh_ts": (".ts", film(suffix=".ts", options={"preset": "ultrafast", "x264-params": "keyint=24:intra-refresh=1:bframes=0"})),
    "unmarked_keys_mp4": (".mp4", lambda target: _unmarked_keys(target)),
    "endless_mdat_mp4": (".mp4", lambda target: _endless_mdat(target)),
    "late_index_mp4": (".mp4", film(suffix=".mp4", frames=48, container_options={"use_editlist": "0"})),
    "av1_10_mkv": (".mkv", film(suffix=".mkv", codec="libsvtav1", options={"preset": "12", "g": "31", "svtav1-params": "lp=1"}, pixel_format="yuv420p10le", frames=40)),
    "high_rate_ts": (".ts", film(suffix=".ts", rate=Fraction(60000, 1001), frames=120)),
    "two_videos_mkv": (".mkv", lambda target: _two_videos(target)),
    "cover_and_video_mp4": (".mp4", film(suffix=".mp4", frames=48, audio=(Audio(),), attached_picture=True)),
    "sparse_mp4": (".mp4", film(suffix=".mp4", frames=12, rate=Fraction(1, 2), time_base=Fraction(1, 90000))),
})  # fmt: skip


def _unmarked_keys(path: Path) -> None:
    """An mp4 without its list of sync samples: every sample then counts as one."""
    data = shelf.path("h264_mp4_silent").read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))


def _endless_mdat(path: Path) -> None:
    """Index first, and a payload of size 0, which means to the end of the file."""
    data = bytearray(shelf.path("h264_faststart_mp4").read_bytes())
    at = data.index(b"mdat") - 4
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)


def _two_videos(path: Path) -> None:
    """A small default-less video first, the larger one second."""
    with av.open(str(path), "w") as output:
        streams: list[Any] = []
        for size in ((160, 90), (WIDTH, HEIGHT)):
            stream = output.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = (*size, "yuv420p")  # type: ignore[union-attr]
            streams.append((stream, size))
        output.start_encoding()
        for number in range(24):
            for stream, size in streams:
                shown = frame(number, *size)
                shown.pts, shown.time_base = number, Fraction(1, RATE)
                output.mux(stream.encode(shown))
        for stream, _ in streams:
            output.mux(stream.encode(None))
