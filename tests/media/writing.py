"""Writes small films with PyAV: what to write is a `Film`, its pictures are those of `picture`.

The pictures move, carry noise, and show their number as a row of blocks, so that no two frames are alike and every one
can be told.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.stream
import numpy as np
from numpy.typing import NDArray

from stereospot.media import threads

os.environ.setdefault("SVT_LOG", "1")  # errors only

WIDTH, HEIGHT, RATE, FRAMES = 320, 180, 24, 96

X264_THREADS = 2
"""x264 writes other bytes with another number of threads: films are to be the same on every machine."""


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
    options: dict[str, str] = field(default_factory=dict[str, str])


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
    cues: tuple[tuple[int, int, str], ...] = ()
    """start, end in milliseconds and text of each subtitle; by default one a second"""
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
        if film.codec == "libx264":
            context.thread_count = X264_THREADS
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
        tracks: list[Any] = []
        for spec in film.audio:
            track: Any = output.add_stream(spec.codec, rate=spec.rate, options=spec.options)
            track.bit_rate = 128_000
            track.metadata["language"] = spec.language
            if spec.title is not None:
                track.metadata["title"] = spec.title
            tracks.append(track)
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
            begin, half = int((film.pts or [0])[0] * time_base * 1000), int(film.seconds * 500)
            spans = (("One", begin, begin + half), ("Two", begin + half, begin + 2 * half))
            output.set_chapters(
                [
                    {
                        "id": number,
                        "start": start,
                        "end": end,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": name},
                    }
                    for number, (name, start, end) in enumerate(spans, 1)
                ]
            )
        with threads.ordinary():
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
        for track, spec in zip(tracks, film.audio, strict=True):
            packets += sound(track, spec, film.seconds)
        if text is not None:
            packets += _cues(text, film)
        packets.sort(key=_seconds)
        for packet in packets:
            output.mux(packet)


def _seconds(packet: Any) -> float:
    return float((packet.dts or 0) * packet.time_base)


def sound(stream: Any, spec: Audio, seconds: float) -> Iterable[Any]:
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


def _cues(stream: Any, film: Film) -> Iterable[Any]:
    usual = tuple((number * 1000 + 100, number * 1000 + 900, f"Cue {number}") for number in range(int(film.seconds)))
    for number, (start, end, words) in enumerate(film.cues or usual):
        text = words.encode()
        if film.subtitles == "mov_text":
            text = struct.pack(">H", len(text)) + text
        if film.subtitles == "ass":
            text = f"{number},0,Default,,0,0,0,,{words}".encode()
        packet = av.Packet(text)
        packet.stream = stream
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = start
        packet.duration = end - start
        yield packet


def film(**values: Any) -> Callable[[Path], None]:
    """Writes the film of these values to a path."""
    return lambda path: write(Film(**values), path)
