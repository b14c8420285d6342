"""A film whose every picture shows its number and whose sound is never twice the same, and what reads both back.

The number stands in the picture as ten columns, black or white, with their opposites below: a picture that is torn or
mixed of two reads as none. Its times are irregular, so that no two of them can be taken for each other. The sound is a
sweep: a sample that is missing or doubled anywhere moves all that follows against the source.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, BITS = 160, 96, 10
TICK = Fraction(1, 24_000)
FRAME = 1001
SOUND_RATE = 48_000

READ = f"""
self.numberIn = (source, left, width, height) => {{
  const copy = (self.numberCopy ??= new OffscreenCanvas(1, 1));
  copy.width = {BITS};
  copy.height = 2;
  const context = copy.getContext("2d", {{ willReadFrequently: true }});
  for (let bit = 0; bit < {BITS}; bit += 1) {{
    for (let row = 0; row < 2; row += 1) {{
      const [x, y] = [left + ((bit + 0.5) * width) / {BITS}, ((row + 0.5) * height) / 2];
      context.drawImage(source, x - 1, y - 1, 2, 2, bit, row, 1, 1);
    }}
  }}
  const {{ data }} = context.getImageData(0, 0, {BITS}, 2);
  let number = 0;
  for (let bit = 0; bit < {BITS}; bit += 1) {{
    const [above, below] = [data[4 * bit], data[4 * ({BITS} + bit)]];
    if (Math.abs(above - below) < 120) return -1;
    if (above > below) number |= 1 << bit;
  }}
  return number;
}};
// Of both halves of a picture that holds two eyes side by side. A film that plays goes on while it is looked at, so one
// picture of it is taken first.
self.numbersIn = (video) => {{
  const still = (self.numberStill ??= new OffscreenCanvas(1, 1));
  [still.width, still.height] = [video.videoWidth, video.videoHeight];
  still.getContext("2d", {{ willReadFrequently: true }}).drawImage(video, 0, 0);
  const half = still.width / 2;
  return [0, half].map((left) => numberIn(still, left, half, still.height));
}};
"""
"""Defines `numberIn(source, left, width, height)` and `numbersIn(video)` in a page; -1 is no number."""


def picture(number: int) -> np.ndarray[Any, Any]:
    """yuv420p in PyAV's layout."""
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    column = WIDTH // BITS
    for bit in range(BITS):
        white = number >> bit & 1
        planes[: HEIGHT // 2, bit * column : (bit + 1) * column] = 235 if white else 16
        planes[HEIGHT // 2 : HEIGHT, bit * column : (bit + 1) * column] = 16 if white else 235
    return planes


def sweep(samples: int, start: int = 0) -> np.ndarray[Any, Any]:
    """[2, samples] float32 from sample `start` on: from 2 kHz on, 900 Hz a second more; the second an octave lower.

    So high that one sample more or less is an error as loud as a fifth of the sound.
    """
    time = (np.arange(samples) + start) / SOUND_RATE
    phase = 2 * np.pi * (2000 * time + 450 * time**2)
    return (0.4 * np.stack([np.sin(phase), np.sin(phase / 2)])).astype(np.float32)


@dataclass(frozen=True)
class Counted:
    """A film that was written: its pictures' times in seconds, by number, and its sound."""

    path: Path
    times: list[float]
    seconds: float

    def number(self, time: float) -> int:
        """Which picture has this time; fails where none has."""
        nearest = int(np.argmin(np.abs(np.array(self.times) - time)))
        assert abs(self.times[nearest] - time) < 2e-3, f"no picture of the film is shown at {time}"
        return nearest


def write(path: Path, frames: int, *, sound: str | None = "aac") -> Counted:
    """A film of so many pictures, a keyframe each second; some pictures last one and a half times as long."""
    durations = [FRAME * 3 // 2 if number % 7 == 3 else FRAME for number in range(frames)]
    starts = [sum(durations[:number]) for number in range(frames + 1)]
    seconds = float(starts[-1] * TICK)
    options = {"video_track_timescale": "24000"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as out:
        video: Any = out.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "24", "bf": "2"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = TICK
        track: Any = out.add_stream(sound, rate=SOUND_RATE, layout="stereo") if sound else None
        out.start_encoding()
        packets: list[Any] = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="yuv420p")
            frame.pts, frame.time_base = starts[number], TICK
            packets += video.encode(frame)
        packets += video.encode(None)
        if track is not None:
            packets += _sung(track, round(seconds * SOUND_RATE))
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            out.mux(packet)
    return Counted(path, [float(start * TICK) for start in starts[:-1]], seconds)


def _sung(track: Any, samples: int) -> list[Any]:
    packets: list[Any] = []
    resampler = av.AudioResampler(format=track.codec_context.format.name, layout="stereo", rate=SOUND_RATE)
    wave = sweep(samples)
    size = track.codec_context.frame_size or 1024
    for start in range(0, samples, size):
        block = np.ascontiguousarray(wave[:, start : start + size])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        for part in resampler.resample(frame):
            packets += track.encode(part)
    return packets + track.encode(None)


def pictures(data: str | io.BytesIO) -> list[tuple[float, int]]:
    """(seconds, number in the left half) of every picture of a side-by-side film."""
    found: list[tuple[float, int]] = []
    with av.open(data, "r") as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            assert frame.time is not None
            luma = frame.to_ndarray(format="gray")
            found.append((frame.time, _number(luma[:, : luma.shape[1] // 2])))
    return found


def _number(luma: np.ndarray[Any, Any]) -> int:
    height, width = luma.shape
    number = 0
    for bit in range(BITS):
        x = int((bit + 0.5) * width / BITS)
        above, below = int(luma[height // 4, x]), int(luma[3 * height // 4, x])
        if abs(above - below) < 120:
            return -1
        number |= (above > below) << bit
    return number


def samples(data: str | io.BytesIO) -> tuple[np.ndarray[Any, Any], float]:
    """([channels, samples] float32, seconds of the first) of a file's first sound; fails where times leave a hole."""
    parts: list[np.ndarray[Any, Any]] = []
    start: float | None = None
    count = 0
    with av.open(data, "r") as container:
        stream = container.streams.audio[0]
        for frame in container.decode(stream):
            assert frame.time is not None
            if start is None:
                start = frame.time
            # Half a millisecond: Matroska's own rounding.
            assert abs(frame.time - start - count / SOUND_RATE) < 1e-3, f"a hole or an overlap at {frame.time}"
            block = frame.to_ndarray()
            if not frame.format.is_planar:
                block = block.reshape(-1, 2).T
            scale = {"int16": 1 << 15, "int32": 1 << 31}.get(block.dtype.name, 1)
            parts.append((block / scale).astype(np.float32))
            count += block.shape[1]
    assert start is not None
    return np.concatenate(parts, axis=1), start


def units(path: Path) -> list[bytes]:
    """The encoded units of a file's first sound, but for the encoder's priming, which is before the film."""
    with av.open(str(path), "r") as container:
        stream = container.streams.audio[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size and (packet.pts or 0) >= 0]
