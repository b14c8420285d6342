"""From linear light to a frame of some film: what lenses, sensors and codecs do.

Place in the flow: the last step of `render.py`. The effects are drawn once a
clip (`Film`), so that its frames look alike; noise, a little exposure drift
and the codec differ from frame to frame, as in real footage.
"""

from __future__ import annotations

import io
import math

import numba
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


@numba.njit(fastmath=True, cache=True, nogil=True)
def blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of [h, w, c] with replicated borders."""
    height, width, channels = image.shape
    radius = max(1, math.ceil(2.5 * sigma))
    weight = np.zeros(2 * radius + 1, np.float32)
    for k in range(2 * radius + 1):
        weight[k] = math.exp(-0.5 * ((k - radius) / sigma) ** 2)
    weight /= weight.sum()
    rows, out = np.empty_like(image), np.empty_like(image)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                total = np.float32(0)
                for k in range(2 * radius + 1):
                    total += weight[k] * image[y, min(max(x + k - radius, 0), width - 1), c]
                rows[y, x, c] = total
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                total = np.float32(0)
                for k in range(2 * radius + 1):
                    total += weight[k] * rows[min(max(y + k - radius, 0), height - 1), x, c]
                out[y, x, c] = total
    return out


def _out_of_focus(image: Floats, inverse: Floats, focus: float, strength: float) -> Floats:
    """Blur each pixel by its distance (in inverse depth) from the plane in focus."""
    circle = np.abs(inverse - focus) / max(float(inverse.max()), 1e-6) * strength
    circle = blur(circle[..., None].astype(np.float32), 1.5)[..., 0]
    levels = (0.0, 0.9, 1.8, 3.6, 6.0)
    stack = [image] + [blur(image, level) for level in levels[1:]]
    out = stack[-1].copy()
    for k in range(4):
        share = np.clip((circle - levels[k]) / (levels[k + 1] - levels[k]), 0, 1)[..., None]
        here = ((circle >= levels[k]) & (circle < levels[k + 1]))[..., None]
        out = np.where(here, stack[k] * (1 - share) + stack[k + 1] * share, out)
    return out


@numba.njit(fastmath=True, cache=True, nogil=True)
def smear(image: Floats, dx: float, dy: float) -> Floats:
    """Mean of [h, w, c] along a line of (dx, dy) pixels through each pixel, borders replicated."""
    height, width, channels = image.shape
    steps = math.ceil(max(abs(dx), abs(dy))) + 1
    out = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                total = np.float32(0)
                for k in range(steps):
                    t = (k + 0.5) / steps - 0.5
                    v = min(max(round(y + t * dy), 0), height - 1)
                    u = min(max(round(x + t * dx), 0), width - 1)
                    total += image[v, u, c]
                out[y, x, c] = total / steps
    return out


def _moving(image: Floats, inverse: Floats, line: tuple[float, float], followed: float | None) -> Floats:
    """Smeared by the camera's own movement; what lies at the inverse depth that it follows stays sharp."""
    smeared = smear(np.ascontiguousarray(image, np.float32), *line)
    if followed is None:
        return smeared
    share = np.clip(4 * np.abs(inverse - followed) / max(float(inverse.max()), 1e-6) - 0.2, 0, 1)
    share = blur(share[..., None].astype(np.float32), 1.0)
    return image + share * (smeared - image)


class Film:
    """The look of one clip."""

    def __init__(self, rng: np.random.Generator, *, flat: bool, close_up: bool = False, dark: bool = False) -> None:
        """flat: of a card, which no lens sees; close_up: what is nearest is mostly in focus, and alone so; dark: not
        exposed to the middle of the range."""
        self.focus = rng.uniform(20, 99) if rng.random() < 0.18 and not flat else None
        if close_up and rng.random() < 0.65:
            self.focus = rng.uniform(80, 99)
        self.focus_strength = rng.uniform(2, 6)
        self.line, self.followed = None, None
        if not flat and rng.random() < 0.12:  # a camera that moves, mostly sideways, half of the time with someone
            length, angle = math.exp(rng.uniform(math.log(2), math.log(20))), rng.normal(0, 0.35)
            self.line = (length * math.cos(angle), length * math.sin(angle))
            self.followed = rng.uniform(80, 99) if length > 6 or rng.random() < 0.5 else None
        self.bloom = 0.25 * rng.random() if rng.random() < 0.3 else 0.0
        self.middle = rng.uniform(0.25, 0.6) if rng.random() < 0.85 and not flat else None
        self.exposure = rng.uniform(0.7, 1.4)
        if dark:
            self.middle = rng.uniform(0.08, 0.25)
        self.gamma = rng.uniform(0.6, 1.25)
        self.vignette = rng.uniform(0, 0.6) if rng.random() < 0.5 else 0.0
        self.tint = rng.normal(0, 0.08, 3) if rng.random() < 0.5 else np.zeros(3)
        self.saturation = rng.uniform(0, 1.5) if rng.random() < 0.5 else 1.0
        if rng.random() < 0.05:
            self.saturation = 0.0  # black and white
        self.gain, self.lift = rng.uniform(0.7, 1.05), rng.uniform(-0.02, 0.12)
        if flat and rng.random() < 0.7:
            self.lift = 0.0
        self.soft = rng.uniform(0.3, 1.1) if rng.random() < 0.4 else 0.0
        self.sharpen = rng.uniform(0.2, 1.0) if rng.random() < 0.25 else 0.0
        self.noise = rng.uniform(0.002, 0.04) if rng.random() < 0.6 else 0.0
        self.quality = int(rng.integers(25, 95)) if rng.random() < 0.5 else None
        self.bars = self._draw_bars(rng) if rng.random() < 0.04 else (0, 0)

    @staticmethod
    def _draw_bars(rng: np.random.Generator) -> tuple[int, int]:
        return (int(rng.integers(4, 20)), 0) if rng.random() < 0.6 else (0, int(rng.integers(8, 40)))

    def expose(self, rng: np.random.Generator, image: Floats, inverse: Floats) -> Floats:
        """Linear light [h, w, 3] to display values around 0..1, before graphics are laid over."""
        if self.focus is not None:
            image = _out_of_focus(image, inverse, float(np.percentile(inverse, self.focus)), self.focus_strength)
        if self.line is not None:
            at = None if self.followed is None else float(np.percentile(inverse, self.followed))
            image = _moving(image, inverse, self.line, at)
        if self.bloom:
            image = image + self.bloom * blur(np.maximum(image - 0.7, 0).astype(np.float32), 8.0)
        exposure = self.exposure
        if self.middle is not None:
            exposure = min(9.0, self.middle / max(float(np.median(image)), 0.05))
            self.middle, self.exposure = None, exposure  # the clip's later frames keep it
        x = image * exposure * math.exp(rng.normal(0, 0.02))
        x = x / (1 + 0.3 * np.maximum(x - 0.7, 0))
        x = np.clip(x, 0, None) ** self.gamma
        if self.vignette:
            height, width = x.shape[:2]
            v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
            x = x * (1 - self.vignette * (u * u + v * v) * 0.5)[..., None]
        x = x * (1 + self.tint)
        grey = x.mean(-1, keepdims=True)
        return (grey + (x - grey) * self.saturation) * self.gain + self.lift

    def develop(self, rng: np.random.Generator, x: Floats) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Display values to 8 bits; also which pixels are picture (False: bars)."""
        x = np.ascontiguousarray(x, np.float32)
        if self.soft:
            x = blur(x, self.soft)
        if self.sharpen:
            x = x + self.sharpen * (x - blur(x, 1.0))
        if self.noise:
            x = x + rng.normal(0, self.noise, x.shape)
        frame = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
        valid = np.ones(frame.shape[:2], bool)
        if self.quality is not None:
            packed = io.BytesIO()
            Image.fromarray(frame).save(packed, "JPEG", quality=self.quality)
            frame = np.asarray(Image.open(packed).convert("RGB")).copy()
        rows, columns = self.bars
        if rows:
            frame[:rows] = frame[-rows:] = 0
            valid[:rows] = valid[-rows:] = False
        if columns:
            frame[:, :columns] = frame[:, -columns:] = 0
            valid[:, :columns] = valid[:, -columns:] = False
        return frame, valid
