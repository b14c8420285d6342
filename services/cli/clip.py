"""The demo's film: a little landscape with sound that we draw ourselves, so that nothing has to be downloaded.

Layers scroll at speeds that fit their distance, balls bounce on a receding floor, clouds drift, and there is one cut in
the middle: enough for depth to be seen, for parallax to be judged, and for a shot change to be found.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE = 960, 540, 24
SAMPLE_RATE = 48_000

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def write_clip(path: Path, seconds: float = 24.0) -> None:
    """Write an mp4 (H.264, AAC) of `seconds` to `path`; the same bytes of picture every time."""
    frames = round(seconds * RATE)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "20", "g": "96"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, RATE)
        audio = out.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", bit_rate=128_000)
        sound = _melody(frames / RATE)
        scene = _Scene()
        sent = 0
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_stack(scene.draw(number, number >= frames // 2)), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(frame))
            until = round((number + 1) * SAMPLE_RATE / RATE)
            chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[:, sent:until]), "fltp", "stereo")
            chunk.sample_rate, chunk.pts, chunk.time_base = SAMPLE_RATE, sent, Fraction(1, SAMPLE_RATE)
            out.mux(audio.encode(chunk))
            sent = until
        out.mux(video.encode(None))
        out.mux(audio.encode(None))


def _stack(planes: Planes) -> NDArray[np.uint8]:
    """Planes as the single [3h/2, w] array that PyAV takes for yuv420p."""
    luma, u, v = planes
    return np.concatenate([luma.reshape(-1), u.reshape(-1), v.reshape(-1)]).reshape(HEIGHT * 3 // 2, WIDTH)


class _Scene:
    """Everything that does not change from frame to frame, drawn once and scrolled afterwards."""

    def __init__(self) -> None:
        random = np.random.default_rng(8)
        rows = np.linspace(0, 1, HEIGHT)[:, None]
        self.horizon = HEIGHT * 11 // 20
        self.sky = (
            (205 - 70 * (1 - rows) + np.zeros((1, WIDTH))).astype(np.uint8),
            np.broadcast_to((150 - 18 * rows[::2]), (HEIGHT // 2, WIDTH // 2)).astype(np.uint8),
            np.broadcast_to((112 + 26 * rows[::2]), (HEIGHT // 2, WIDTH // 2)).astype(np.uint8),
        )
        self.hills = [
            (_ridge(random, base, swing), speed, colour)
            for base, swing, speed, colour in (
                (0.46, 0.10, 0.7, (150, 138, 118)),
                (0.52, 0.07, 1.6, (112, 124, 120)),
                (0.57, 0.05, 3.2, (78, 116, 118)),
            )
        ]
        depth = (1 / np.linspace(0.06, 1, HEIGHT - self.horizon)).astype(np.float32)
        self.floor_columns = (np.arange(WIDTH, dtype=np.float32) / WIDTH - 0.5) * depth[:, None] * 4
        self.floor_rows = np.floor(depth * 3).astype(np.int16)[:, None]
        fade = np.clip(1.2 - depth[:, None] / 14, 0.35, 1)
        self.floor_tiles = np.stack([(tile * fade + 110 * (1 - fade))[:, 0] for tile in (92, 150)]).astype(np.uint8)
        self.rows = np.arange(HEIGHT)[:, None]
        self.columns = np.arange(WIDTH)[None, :]

    def draw(self, number: int, second_shot: bool) -> Planes:
        """Frame `number` as planes of 4:2:0; the second shot walks the other way, at dusk."""
        time = number / RATE * (-1 if second_shot else 1)
        luma, u, v = (plane.copy() for plane in self.sky)
        for ridge, speed, colour in self.hills:
            shift = int(time * speed * RATE) % ridge.size
            height = np.take(ridge, np.arange(shift, shift + WIDTH), mode="wrap")
            top = int(height.min()) // 2 * 2
            band = slice(top, self.horizon // 2 * 2 + 2), slice(top // 2, self.horizon // 2 + 1)
            mask = self.rows[band[0]] >= height[None, :]
            luma[band[0]][mask] = colour[0]
            u[band[1]][mask[::2, ::2]], v[band[1]][mask[::2, ::2]] = colour[1], colour[2]
        self._floor(luma, u, v, time)
        for phase, distance, colour in (
            (0.0, 3.0, (170, 90, 200)),
            (1.1, 1.7, (150, 170, 90)),
            (2.3, 1.0, (190, 60, 160)),
        ):
            self._ball(luma, u, v, time, phase, distance, colour)
        if second_shot:
            luma[:] = (luma * 0.62).astype(np.uint8)
        return luma, u, v

    def _floor(self, luma: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8], time: float) -> None:
        """A tiled floor in perspective: further rows are wider and greyer."""
        tiles = (np.floor(self.floor_columns + np.float32(time * 1.3)).astype(np.int16) + self.floor_rows) & 1
        luma[self.horizon :] = np.where(tiles, self.floor_tiles[1][:, None], self.floor_tiles[0][:, None])
        u[self.horizon // 2 :], v[self.horizon // 2 :] = 120, 136

    def _ball(
        self, luma: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8],
        time: float, phase: float, distance: float, colour: tuple[int, int, int],
    ) -> None:  # fmt: skip
        radius = HEIGHT * 0.13 / distance
        ground = self.horizon + (HEIGHT - self.horizon) * min(0.94, 0.98 / distance)
        bounce = abs(math.sin(time * 2.1 + phase))
        x = WIDTH / 2 + WIDTH * 0.36 * math.sin(time * 0.5 + phase * 2) / math.sqrt(distance)
        y = ground - radius - bounce * HEIGHT * 0.3 / distance
        box = _box(x, ground, radius, radius * 0.25)
        shadow = ((self.columns[:, box[1]] - x) / radius) ** 2 + (
            (self.rows[box[0]] - ground) / (radius * 0.25)
        ) ** 2 < 1
        luma[box][shadow] = (luma[box][shadow] * (0.45 + 0.3 * bounce)).astype(np.uint8)
        box = _box(x, y, radius, radius)
        across, down = (self.columns[:, box[1]] - x) / radius, (self.rows[box[0]] - y) / radius
        inside = across**2 + down**2 < 1
        shine = (across + 0.4) ** 2 + (down + 0.4) ** 2
        luma[box][inside] = np.clip(colour[0] * (1.15 - 0.55 * shine[inside]), 16, 235).astype(np.uint8)
        half = tuple(slice(side.start // 2, side.stop // 2) for side in box)
        u[half][inside[::2, ::2]], v[half][inside[::2, ::2]] = colour[1], colour[2]


def _box(x: float, y: float, across: float, down: float) -> tuple[slice, slice]:
    """Rows and columns, on even borders, around an ellipse."""
    return (
        slice(max(0, int(y - down) // 2 * 2), min(HEIGHT, int(y + down) // 2 * 2 + 2)),
        slice(max(0, int(x - across) // 2 * 2), min(WIDTH, int(x + across) // 2 * 2 + 2)),
    )


def _ridge(random: np.random.Generator, base: float, swing: float) -> NDArray[np.int64]:
    """A closed ridge line, two screens long, as rows from the top."""
    angle = np.linspace(0, 2 * math.pi, 2 * WIDTH, endpoint=False)
    line = sum(np.sin(k * angle + random.uniform(0, 6)) / k for k in (2, 3, 5, 8, 13, 21))
    return ((base - swing * np.asarray(line) / 2) * HEIGHT).astype(np.int64)


def _melody(seconds: float) -> NDArray[np.float32]:
    """A pentatonic arpeggio with an echo, [2, samples] float32 in -1..1."""
    total = math.ceil(seconds * SAMPLE_RATE)
    sound = np.zeros((2, total + SAMPLE_RATE * 2), np.float32)
    scale = (0, 2, 4, 7, 9, 12, 14, 16)
    order = (0, 3, 5, 2, 4, 6, 3, 7)
    length = int(0.9 * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    decay = np.exp(-4 * time) * np.minimum(1, time * 200)
    for step in range(int(seconds / 0.25)):
        note = scale[(order[step % 8] + step // 16) % 8]
        pitch = 220 * 2 ** (note / 12)
        tone = (np.sin(2 * math.pi * pitch * time) + 0.3 * np.sin(4 * math.pi * pitch * time)) * decay * 0.18
        start = int(step * 0.25 * SAMPLE_RATE)
        pan = 0.5 + 0.4 * math.sin(step * 0.7)
        sound[0, start : start + length] += (tone * (1 - pan)).astype(np.float32)
        sound[1, start : start + length] += (tone * pan).astype(np.float32)
    return sound[:, :total]
