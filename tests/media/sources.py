"""Small films of every kind, made with PyAV on first use and kept for the session: `path("h264_mp4")`.

`TWELVE` are the kinds on which range decoding was proved (H.264 with B-frames, open GOP, VFR, HDR10, VP9, AV1, TS, AVI,
rotated, edit list, delayed video); `ZOO` is everything else that must come out with exactly its frames. The pictures
move, carry noise, and show their number as a row of blocks, so that no two frames are alike and every one can be told.
Pictures are 320x180 unless the kind is about size; GOPs are 31 with 2 or 3 B-frames, so that an open GOP really has
leading pictures.
"""

# ruff: noqa: E501 (the tables of films read best as tables)

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.stream
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("SVT_LOG", "1")  # errors only

WIDTH, HEIGHT, RATE, FRAMES = 320, 180, 24, 96


@functools.cache
def _noise(height: int, width: int) -> NDArray[np.int16]:
    return np.random.default_rng(7).integers(-6, 7, (height, width), dtype=np.int16)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Frame `number` as yuv420p in PyAV's layout: [height * 3 / 2, width] uint8; sides even."""
    x = np.mgrid[0:height, 0:width][1].astype(np.int32)
    luma = (x * 255 // width + 2 * number) % 200 + 20
    luma += np.roll(_noise(height, width), (number * 3, number * 5), (0, 1))
    box_x, box_y = (number * 5) % max(1, width - width // 5), (number * 3) % max(1, height - height // 4)
    luma[box_y : box_y + height // 4, box_x : box_x + width // 5] = 230
    side = max(2, width // 20)
    for bit in range(12):
        luma[:side, bit * side : (bit + 1) * side] = 235 if number >> bit & 1 else 16
    half_y, half_x = np.mgrid[0 : height // 2, 0 : width // 2].astype(np.int32)
    u = (half_x * 160 // width + number + 60) % 255
    v = (half_y * 160 // height + 2 * number + 40) % 255
    planes = [np.clip(plane, 0, 255).astype(np.uint8) for plane in (luma, u, v)]
    return np.concatenate([planes[0].ravel(), planes[1].ravel(), planes[2].ravel()]).reshape(height * 3 // 2, width)


def frame(number: int, width: int = WIDTH, height: int = HEIGHT, pixel_format: str = "yuv420p") -> av.VideoFrame:
    """Frame `number` in any pixel format and any size."""
    even = (width + width % 2, height + height % 2)
    made = av.VideoFrame.from_ndarray(picture(number, *even), format="yuv420p")
    return made if (*even, pixel_format) == (width, height, "yuv420p") else made.reformat(width, height, pixel_format)


def tone(start: int, samples: int, rate: int, hertz: float = 440.0) -> NDArray[np.float32]:
    """[2, samples] float32 planar stereo from sample `start` on: a tone and its fifth."""
    time = (np.arange(samples) + start) / rate
    left, right = np.sin(2 * np.pi * hertz * time), np.sin(2 * np.pi * hertz * 1.5 * time)
    return (np.stack([left, right]) * 0.3).astype(np.float32)


@dataclass
class Audio:
    codec: str = "aac"
    rate: int = 48000
    language: str = "eng"
    title: str | None = None
    hertz: float = 440.0
    start_seconds: float = 0.0


@dataclass
class Film:
    """What to write; `pts` are ticks of `time_base`, by default one frame each of `rate`."""

    suffix: str
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast", "g": "31", "bf": "2", "crf": "24"})
    container_options: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    frames: int = FRAMES
    size: tuple[int, int] = (WIDTH, HEIGHT)
    rate: Fraction = Fraction(RATE)
    time_base: Fraction | None = None
    pts: list[int] | None = None
    pixel_format: str = "yuv420p"
    stream_format: str | None = None
    audio: tuple[Audio, ...] = ()
    subtitles: str | None = None
    chapters: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    rotation: int | None = None
    matrix: tuple[int, ...] | None = None
    sample_aspect: Fraction | None = None
    colour: tuple[int, int, int, int] | None = None
    """primaries, transfer, matrix, range (1 limited, 2 full)"""
    picture: Callable[[int, int, int, str], av.VideoFrame] = frame
    attached_picture: bool = False
    language: str | None = None
    codec_tag: str | None = None

    @property
    def seconds(self) -> float:
        return float(self.frames / self.rate)


def write(film: Film, path: Path) -> None:
    """Encode and mux the film; packets of all streams interleaved by time."""
    with av.open(str(path), "w", format=film.format, options=film.container_options) as output:
        output.metadata.update(film.tags)
        packets: list[Any] = []
        video = output.add_stream(film.codec, rate=film.rate, options=film.options)
        context: Any = video.codec_context
        context.width, context.height = film.size
        context.pix_fmt = film.stream_format or film.pixel_format
        time_base = film.time_base or 1 / film.rate
        context.time_base = time_base
        if film.sample_aspect is not None:
            context.sample_aspect_ratio = film.sample_aspect
        if film.codec_tag is not None:
            context.codec_tag = film.codec_tag
        if film.colour is not None:
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = film.colour
        if film.rotation is not None:
            video.set_display_rotation(film.rotation)  # type: ignore[union-attr]
        if film.matrix is not None:
            video.set_display_matrix(film.matrix)  # type: ignore[union-attr]
        if film.language is not None:
            video.metadata["language"] = film.language
        sounds: list[Any] = []
        for spec in film.audio:
            sound: Any = output.add_stream(spec.codec, rate=spec.rate)
            sound.bit_rate = 128_000
            sound.metadata["language"] = spec.language
            if spec.title is not None:
                sound.metadata["title"] = spec.title
            sounds.append(sound)
        text = output.add_mux_stream(film.subtitles) if film.subtitles else None
        if text is not None:
            text.metadata["language"] = "deu"
            text.time_base = Fraction(1, 1000)
        cover = None
        if film.attached_picture:
            cover = output.add_stream("mjpeg")
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"  # type: ignore[union-attr]
            cover.disposition = av.stream.Disposition.attached_pic
        if film.chapters:
            half = int(film.seconds * 500)
            output.set_chapters(
                [
                    {"id": 1, "start": 0, "end": half, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
                    {
                        "id": 2,
                        "start": half,
                        "end": 2 * half,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": "Two"},
                    },
                ]
            )
        output.start_encoding()
        if cover is not None:
            for packet in cover.encode(frame(0, 64, 64, "yuvj420p")):  # type: ignore[union-attr]
                packets.append(packet)
        for number in range(film.frames):
            shown = film.picture(number, *film.size, film.pixel_format)
            shown.pts = film.pts[number] if film.pts else number * int(1 / film.rate / time_base)
            shown.time_base = time_base
            packets += video.encode(shown)  # type: ignore[union-attr]
        packets += video.encode(None)  # type: ignore[union-attr]
        for sound, spec in zip(sounds, film.audio, strict=True):
            packets += _sound(sound, spec, film.seconds)
        if text is not None:
            packets += _cues(text, film.subtitles or "", film.seconds)
        packets.sort(key=_seconds)
        for packet in packets:
            output.mux(packet)


def _seconds(packet: Any) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _sound(stream: Any, spec: Audio, seconds: float) -> Iterable[Any]:
    samples = int(seconds * spec.rate)
    wanted = stream.codec_context.format.name
    resampler = av.AudioResampler(format=wanted, layout="stereo", rate=spec.rate)
    for start in range(0, samples, 4096):
        count = min(4096, samples - start)
        made = av.AudioFrame.from_ndarray(tone(start, count, spec.rate, spec.hertz), format="fltp", layout="stereo")
        made.sample_rate = spec.rate
        made.pts = start + int(spec.start_seconds * spec.rate)
        made.time_base = Fraction(1, spec.rate)
        for part in resampler.resample(made):
            yield from stream.encode(part)
    for part in resampler.resample(None):
        yield from stream.encode(part)
    yield from stream.encode(None)


def _cues(stream: Any, codec: str, seconds: float) -> Iterable[Any]:
    for number in range(int(seconds)):
        text = f"Cue {number}".encode()
        if codec == "mov_text":
            text = struct.pack(">H", len(text)) + text
        if codec == "ass":
            text = f"{number},0,Default,,0,0,0,,Cue {number}".encode()
        packet = av.Packet(text)
        packet.stream = stream
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = number * 1000 + 100
        packet.duration = 800
        yield packet


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
    _retimed(path, path_of("h264_mp4_silent"), shift_frames=-20)


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


def _film(**values: Any) -> Callable[[Path], None]:
    return lambda path: write(Film(**values), path)


TWO_TRACKS = (Audio(), Audio(rate=44100, language="fra", title="Commentary", hertz=330.0))

TWELVE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "h264_mp4": (".mp4", _film(suffix=".mp4", audio=TWO_TRACKS, subtitles="mov_text", chapters=True, tags={"title": "A film"})),
    "h264_open_gop_mkv": (".mkv", _film(suffix=".mkv", options=OPEN, audio=(Audio("libopus"),), subtitles="subrip")),
    "vfr_mp4": (".mp4", _film(suffix=".mp4", frames=80, time_base=Fraction(1, 12288), pts=vfr_pts(80, 256), audio=(Audio(),))),
    "vfr_mkv": (".mkv", _film(suffix=".mkv", frames=80, time_base=Fraction(1, 1000), pts=vfr_pts(80, 21))),
    "hevc_hdr10_mp4": (
        ".mp4",
        _film(
            suffix=".mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": X265 + HDR10},
            pixel_format="yuv420p10le", colour=(9, 16, 9, 1),
        ),
    ),
    "vp9_webm": (".webm", _film(suffix=".webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "31"}, audio=(Audio("libopus"),))),
    "av1_mkv": (".mkv", _film(suffix=".mkv", codec="libsvtav1", options={"preset": "12", "g": "31", "svtav1-params": "lp=1"})),
    "h264_ts": (".ts", _film(suffix=".ts", audio=(Audio(),))),
    "mpeg4_avi": (".avi", _film(suffix=".avi", codec="mpeg4", options={"g": "31", "bf": "2", "b": "600k"}, audio=(Audio("libmp3lame"),))),
    "rotated_mov": (".mov", _film(suffix=".mov", rotation=90, audio=(Audio(),))),
    "edit_list_mp4": (".mp4", _edit_list),
    "delayed_mp4": (".mp4", _delayed),
}  # fmt: skip


# ---- the zoo ------------------------------------------------------------------------------------------------------


def interlaced(number: int, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """Two moments woven into one frame, bottom field first."""
    second, first = picture(2 * number, width, height), picture(2 * number + 1, width, height)
    woven = first.copy()
    woven[1:height:2] = second[1:height:2]
    return av.VideoFrame.from_ndarray(woven, format="yuv420p").reformat(format=pixel_format)


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
MIRROR = (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)

ZOO: dict[str, tuple[str, Callable[[Path], None]]] = {
    "h264_mp4_silent": (".mp4", _film(suffix=".mp4")),
    "h264_pyramid_mkv": (".mkv", _film(suffix=".mkv", options={"preset": "ultrafast", "crf": "24", "x264-params": "keyint=48:bframes=7:b-pyramid=normal:b-adapt=0:scenecut=0"})),
    "h264_faststart_mp4": (".mp4", _film(suffix=".mp4", container_options={"movflags": "faststart"}, audio=(Audio(),))),
    "fragmented_mp4": (".mp4", _film(suffix=".mp4", container_options=FRAGMENTED, audio=(Audio(),))),
    "fragmented_cmaf_mp4": (".mp4", _film(suffix=".mp4", container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof+cmaf+delay_moov"})),
    "hevc_mp4": (".mp4", _film(suffix=".mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": X265}, codec_tag="hvc1")),
    "hevc_ts": (".ts", _film(suffix=".ts", codec="libx265", options={"preset": "ultrafast", "x265-params": X265})),
    "hlg_mp4": (".mp4", _film(suffix=".mp4", codec="libx265", frames=24, options={"preset": "ultrafast", "x265-params": X265}, pixel_format="yuv420p10le", colour=(9, 18, 9, 1))),
    "vp8_webm": (".webm", _film(suffix=".webm", codec="libvpx", options={"deadline": "realtime", "cpu-used": "8", "g": "31", "b": "500k", "auto-alt-ref": "1"}, audio=(Audio("libopus"),))),
    "vp9_altref_webm": (".webm", _film(suffix=".webm", codec="libvpx-vp9", frames=60, options={"deadline": "good", "cpu-used": "5", "g": "31", "auto-alt-ref": "1", "lag-in-frames": "16"})),
    "av1_mp4": (".mp4", _film(suffix=".mp4", codec="libsvtav1", frames=48, options={"preset": "12", "g": "31", "svtav1-params": "lp=1"})),
    "mpeg2_ts": (".ts", _film(suffix=".ts", codec="mpeg2video", options={"g": "15", "bf": "2", "b": "2M"}, audio=(Audio("mp2"),))),
    "mpeg2_mpg": (".mpg", _film(suffix=".mpg", codec="mpeg2video", format="vob", options={"g": "15", "bf": "2", "b": "2M"}, audio=(Audio("mp2"),), size=(352, 288), rate=Fraction(25))),
    "mpeg1_mpg": (".mpg", _film(suffix=".mpg", codec="mpeg1video", format="mpeg", options={"g": "15", "bf": "2", "b": "1M"}, size=(352, 288), rate=Fraction(25))),
    "mpeg2_interlaced_ts": (
        ".ts",
        _film(suffix=".ts", codec="mpeg2video", options={"g": "12", "bf": "2", "b": "3M", "flags": "+ildct+ilme", "top": "1"}, size=(352, 288), rate=Fraction(25), picture=interlaced, sample_aspect=Fraction(16, 11)),
    ),
    "mpeg4_mp4": (".mp4", _film(suffix=".mp4", codec="mpeg4", options={"g": "31", "bf": "1", "b": "600k"})),
    "mpeg4_packed_avi": (".avi", _film(suffix=".avi", codec="mpeg4", options={"g": "31", "b": "600k"}, rate=Fraction(30000, 1001))),
    "h264_avi": (".avi", _film(suffix=".avi", options={"preset": "ultrafast", "g": "31", "bf": "2"})),
    "mjpeg_avi": (".avi", _film(suffix=".avi", codec="mjpeg", pixel_format="yuvj420p", options={"q": "5"}, frames=30)),
    "h263_3gp": (".3gp", _film(suffix=".3gp", codec="h263", options={"g": "31", "b": "300k"}, size=(176, 144), rate=Fraction(15), audio=())),
    "flv1_flv": (".flv", _film(suffix=".flv", codec="flv", options={"g": "31", "b": "500k"}, audio=(Audio("libmp3lame", rate=44100),))),
    "h264_flv": (".flv", _film(suffix=".flv", audio=(Audio(),))),
    "wmv2_wmv": (".wmv", _film(suffix=".wmv", codec="wmv2", format="asf", options={"g": "31", "b": "500k"}, audio=(Audio("wmav2"),))),
    "msmpeg4v3_avi": (".avi", _film(suffix=".avi", codec="msmpeg4", options={"g": "31", "b": "500k"})),
    "prores_mov": (".mov", _film(suffix=".mov", codec="prores_ks", pixel_format="yuv422p10le", options={"profile": "1"}, frames=24, audio=(Audio("pcm_s16le"),))),
    "prores4444_mov": (".mov", _film(suffix=".mov", codec="prores_ks", pixel_format="yuva444p10le", options={"profile": "4"}, frames=12)),
    "dnxhd_mov": (".mov", _film(suffix=".mov", codec="dnxhd", pixel_format="yuv422p", options={"profile": "dnxhr_lb"}, frames=12, size=(640, 360))),
    "ffv1_mkv": (".mkv", _film(suffix=".mkv", codec="ffv1", pixel_format="yuv444p", options={}, frames=24, audio=(Audio("flac"),))),
    "h264_nut": (".nut", _film(suffix=".nut", frames=48)),
    "mirrored_mov": (".mov", _film(suffix=".mov", frames=24, matrix=MIRROR)),
    "upside_down_mp4": (".mp4", _film(suffix=".mp4", frames=24, rotation=180)),
    "rotated_270_mp4": (".mp4", _film(suffix=".mp4", frames=24, rotation=-90)),
    "portrait_mp4": (".mp4", _film(suffix=".mp4", size=(180, 320))),
    "odd_size_mkv": (".mkv", _film(suffix=".mkv", codec="ffv1", options={}, size=(321, 181), frames=24)),
    "odd_vp9_webm": (".webm", _film(suffix=".webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "31"}, size=(319, 179), frames=40)),
    "one_frame_mp4": (".mp4", _film(suffix=".mp4", frames=1)),
    "one_frame_mkv": (".mkv", _film(suffix=".mkv", frames=1)),
    "two_frames_ts": (".ts", _film(suffix=".ts", frames=2)),
    "slow_motion_mp4": (".mp4", _film(suffix=".mp4", frames=120, rate=Fraction(240), time_base=Fraction(1, 2400), pts=[n * 10 if n < 40 else 400 + (n - 40) * 100 for n in range(120)])),
    "gray_mkv": (".mkv", _film(suffix=".mkv", codec="ffv1", options={}, pixel_format="gray", frames=24)),
    "yuv444_mp4": (".mp4", _film(suffix=".mp4", pixel_format="yuv444p", frames=48)),
    "yuv422_10_mp4": (".mp4", _film(suffix=".mp4", pixel_format="yuv422p10le", frames=48)),
    "h264_10_mkv": (".mkv", _film(suffix=".mkv", pixel_format="yuv420p10le", frames=48)),
    "yuv420p12_mp4": (".mp4", _film(suffix=".mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": X265}, pixel_format="yuv420p12le", frames=24)),
    "full_range_mp4": (".mp4", _film(suffix=".mp4", pixel_format="yuvj420p", frames=24)),
    "rgb_mkv": (".mkv", _film(suffix=".mkv", codec="ffv1", options={}, pixel_format="bgr0", frames=12)),
    "anamorphic_mp4": (".mp4", _film(suffix=".mp4", size=(352, 288), sample_aspect=Fraction(16, 11), frames=48, rate=Fraction(25))),
    "ntsc_mp4": (".mp4", _film(suffix=".mp4", rate=Fraction(24000, 1001))),
    "ntsc_mkv": (".mkv", _film(suffix=".mkv", rate=Fraction(30000, 1001))),
    "no_pts_mkv": (".mkv", _film(suffix=".mkv", frames=48, time_base=Fraction(1, 1000), pts=[round(n * 1000 / 24) - 500 for n in range(48)], container_options={"avoid_negative_ts": "disabled"})),
    "late_start_mkv": (".mkv", _film(suffix=".mkv", frames=48, time_base=Fraction(1, 1000), pts=[3_600_000 + n * 40 for n in range(48)])),
    "long_gop_mp4": (".mp4", _film(suffix=".mp4", frames=144, options={"preset": "ultrafast", "g": "600", "bf": "3", "crf": "28", "sc_threshold": "0"})),
    "live_webm": (".webm", _film(suffix=".webm", codec="libvpx", options={"deadline": "realtime", "cpu-used": "8", "g": "31", "b": "500k"}, container_options={"live": "1"})),
    "h264_interlaced_ts": (".ts", _film(suffix=".ts", options={"preset": "ultrafast", "x264-params": "keyint=24:bframes=2:bff=1:scenecut=0"}, size=(352, 288), rate=Fraction(25), picture=interlaced)),
    "h264_interlaced_mp4": (".mp4", _film(suffix=".mp4", options={"preset": "ultrafast", "x264-params": "keyint=24:bframes=2:bff=1:scenecut=0"}, size=(352, 288), rate=Fraction(25), picture=interlaced)),
    "intra_refresh_mkv": (".mkv", _film(suffix=".mkv", options={"preset": "ultrafast", "x264-params": "keyint=24:intra-refresh=1:bframes=0"})),
    "intra_refresh_ts": (".ts", _film(suffix=".ts", options={"preset": "ultrafast", "x264-params": "keyint=24:intra-refresh=1:bframes=0"})),
    "unmarked_keys_mp4": (".mp4", lambda target: _unmarked_keys(target)),
    "endless_mdat_mp4": (".mp4", lambda target: _endless_mdat(target)),
    "late_index_mp4": (".mp4", _film(suffix=".mp4", frames=48, container_options={"use_editlist": "0"})),
    "av1_10_mkv": (".mkv", _film(suffix=".mkv", codec="libsvtav1", options={"preset": "12", "g": "31", "svtav1-params": "lp=1"}, pixel_format="yuv420p10le", frames=40)),
    "high_rate_ts": (".ts", _film(suffix=".ts", rate=Fraction(60000, 1001), frames=120)),
    "two_videos_mkv": (".mkv", lambda target: _two_videos(target)),
    "cover_and_video_mp4": (".mp4", _film(suffix=".mp4", frames=48, audio=(Audio(),), attached_picture=True)),
    "sparse_mp4": (".mp4", _film(suffix=".mp4", frames=12, rate=Fraction(1, 2), time_base=Fraction(1, 90000))),
}  # fmt: skip


def _unmarked_keys(path: Path) -> None:
    """An mp4 without its list of sync samples: every sample then counts as one."""
    data = path_of("h264_mp4_silent").read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))


def _endless_mdat(path: Path) -> None:
    """Index first, and a payload of size 0, which means to the end of the file."""
    data = bytearray(path_of("h264_faststart_mp4").read_bytes())
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


# ---- bad input ----------------------------------------------------------------------------------------------------


def _cut(origin: str, keep: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = path_of(origin).read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return make


def _bytes(content: Callable[[], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content())

    return make


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        output.start_encoding()
        for packet in _sound(stream, Audio(), 1.0):
            output.mux(packet)


def _cover_only(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        cover: Any = output.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        output.mux(cover.encode(frame(0, 64, 64, "yuvj420p")))
        for packet in _sound(stream, Audio(), 1.0):
            output.mux(packet)


def _encrypted(path: Path) -> None:
    """Common encryption by the muxer itself: the sample entry says encv."""
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    write(Film(".mp4", frames=24, container_options=key), path)


def _encrypted_mkv(path: Path) -> None:
    """A Matroska whose video track carries ContentEncodings with encryption (type 1), put in by hand."""
    data = bytearray(path_of("one_frame_mkv").read_bytes())
    encodings = _ebml(0x6D80, _ebml(0x6240, _ebml(0x5033, b"\x01") + _ebml(0x5035, _ebml(0x47E1, b"\x05"))))
    # Sizes of the parents change, so the elements are rewritten from Tracks on with sizes of eight bytes.
    tracks = data.rindex(b"\x16\x54\xae\x6b")  # the first one is the seek head's
    tracks_size, tracks_body = _ebml_size(data, tracks + 4)
    start = tracks_body + 6 if data[tracks_body] == 0xBF else tracks_body  # the entry, behind a checksum
    assert data[start] == 0xAE
    entry_size, entry_body = _ebml_size(data, start + 1)
    entry = _ebml(0xAE, bytes(data[entry_body : entry_body + entry_size]) + encodings)
    inner = bytes(data[tracks_body:start]) + entry + bytes(data[entry_body + entry_size : tracks_body + tracks_size])
    rebuilt = bytes(data[:tracks]) + _ebml(0x1654AE6B, inner) + bytes(data[tracks_body + tracks_size :])
    segment = rebuilt.index(b"\x18\x53\x80\x67")
    _, body = _ebml_size(bytearray(rebuilt), segment + 4)
    path.write_bytes(rebuilt[: segment + 4] + b"\x01\xff\xff\xff\xff\xff\xff\xff" + rebuilt[body:])


def _ebml(identifier: int, body: bytes) -> bytes:
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _ebml_size(data: bytearray, at: int) -> tuple[int, int]:
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << (7 * length)) - 1)
    return value, at + length


def _no_frames(path: Path) -> None:
    """A track with a header and not one picture."""
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        output.start_encoding()


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile sibling.mp4\n")


def _noise_file(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(1_000_000))


def _damaged_middle(path: Path) -> None:
    """A TS with a hole of noise in its middle third: decodes around it."""
    data = bytearray(path_of("h264_ts").read_bytes())
    third = len(data) // 3
    data[third : third + 20_000] = np.random.default_rng(2).bytes(20_000)
    path.write_bytes(data)


def _sound_mp3(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libmp3lame", rate=44100)
        output.start_encoding()
        for packet in _sound(stream, Audio(rate=44100), 1.0):
            output.mux(packet)


def _picture(path: Path) -> None:
    """A JPEG, whatever its name says."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 64, "yuvj420p", Fraction(1, 25)
    path.write_bytes(b"".join(bytes(packet) for packet in context.encode(frame(0, 64, 64, "yuvj420p"))))


def _payload_missing(path: Path) -> None:
    """A whole index, and not one byte of the pictures it promises."""
    data = path_of("h264_faststart_mp4").read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])


def _open_start(path: Path) -> None:
    """An mp4 cut out of a film with open GOPs at a keyframe: its first pictures refer to what was cut away."""
    with av.open(str(path_of("h264_open_gop_mkv"))) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        keys = 0
        for packet in source.demux(stream):
            keys += bool(packet.size) and packet.is_keyframe
            if packet.size and keys >= 2:
                packet.stream = copy
                output.mux(packet)


def _mid_gop_mp4(path: Path) -> None:
    """An mp4 that begins in the middle of a GOP, at a picture that is marked as a keyframe and is none."""
    with av.open(str(path_of("h264_mp4_silent"))) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(source.demux(stream)):
            if packet.size and number >= 20:
                packet.is_keyframe = packet.is_keyframe or number == 20
                packet.stream = copy
                output.mux(packet)


def _mid_gop(path: Path) -> None:
    """A recording that starts in the middle of a GOP: the first pictures have no reference."""
    with av.open(str(path_of("h264_ts"))) as source:
        keys = [packet.pos for packet in source.demux(video=0) if packet.is_keyframe and packet.pos is not None]
    data = path_of("h264_ts").read_bytes()
    start = data.index(b"\x47", keys[0] + (keys[1] - keys[0]) // 2)
    start = next(at for at in range(start, start + 188) if data[at] == data[at + 188] == data[at + 376] == 0x47)
    path.write_bytes(data[: 3 * 188] + data[start:])


BAD: dict[str, tuple[str, Callable[[Path], None]]] = {
    "empty": (".mp4", _bytes(lambda: b"")),
    "text_named_mp4": (".mp4", _bytes(lambda: b"This is no film.\n" * 100)),
    "playlist_m3u8": (".m3u8", _playlist),
    "playlist_named_mp4": (".mp4", _playlist),
    "concat_named_mp4": (".mp4", _concat),
    "noise": (".mp4", _noise_file),
    "audio_only": (".mp4", _audio_only),
    "cover_only": (".mp4", _cover_only),
    "encrypted": (".mp4", _encrypted),
    "encrypted_mkv": (".mkv", _encrypted_mkv),
    "moov_missing": (".mp4", _cut("h264_mp4", 0.7)),
    "moov_cut": (".mp4", _cut("h264_faststart_mp4", 0.01)),
    "header_cut_mkv": (".mkv", _bytes(lambda: path_of("vfr_mkv").read_bytes()[:100])),
    "tail_cut_mp4": (".mp4", _cut("h264_faststart_mp4", 0.6)),
    "tail_cut_mkv": (".mkv", _cut("vfr_mkv", 0.6)),
    "tail_cut_ts": (".ts", _cut("h264_ts", 0.6)),
    "open_start_mp4": (".mp4", _open_start),
    "mid_gop_mp4": (".mp4", _mid_gop_mp4),
    "mid_gop_ts": (".ts", _mid_gop),
    "tail_cut_avi": (".avi", _cut("mpeg4_avi", 0.6)),
    "header_cut_avi": (".avi", _bytes(lambda: path_of("mpeg4_avi").read_bytes()[:200])),
    "payload_missing_mp4": (".mp4", _payload_missing),
    "sound_mp3": (".mp3", _sound_mp3),
    "picture_named_mp4": (".mp4", _picture),
    "no_frames": (".mp4", _no_frames),
    "forbidden_codec": (".avi", _film(suffix=".avi", codec="utvideo", options={}, frames=4)),
    "damaged_middle_ts": (".ts", _damaged_middle),
}  # fmt: skip

ALL = TWELVE | ZOO | BAD

_folder: Path | None = None


@functools.cache
def path(name: str) -> Path:
    """The film of that name; made on first use, shared by the session: do not change it."""
    global _folder
    if _folder is None:
        _folder = Path(tempfile.mkdtemp(prefix="stereospot-sources-"))
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    suffix, make = ALL[name]
    target = _folder / f"{name}{suffix}"
    make(target)
    return target


path_of = path
