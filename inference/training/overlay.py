"""Writing and logos over a picture.

Place in the flow: `render.py` calls `draw` on the finished picture, before the
film effects. Over a scene, graphics are in front of all they cover, as one
block at one depth; on a card (`World.flat_truth`) they lie in its plane.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from inference.training import slides
from inference.training.words import words

Floats = NDArray[np.float32]


def _text(draw: ImageDraw.ImageDraw, centre: tuple[float, float], size: int, line: str, stroke: int) -> None:
    font = ImageFont.load_default(size=max(6, size))
    draw.text(centre, line, fill=255, font=font, anchor="mm", stroke_width=stroke)


def _ink(rng: np.random.Generator) -> Floats:
    if rng.random() < 0.6:
        return np.full(3, rng.uniform(0.75, 1.0), np.float32)
    return rng.random(3).astype(np.float32)


def _gradient(rng: np.random.Generator, rgb: Floats) -> Floats:
    """Fade a card [h, w, 3] to another colour along a line or around a point."""
    y, x = np.mgrid[-1 : 1 : rgb.shape[0] * 1j, -1 : 1 : rgb.shape[1] * 1j]
    angle = rng.uniform(0, 6.3)
    along = x * np.cos(angle) + y * np.sin(angle)
    if rng.random() < 0.4:
        along = np.hypot(x - rng.uniform(-0.6, 0.6), y - rng.uniform(-0.6, 0.6)) * 1.4 - 1
    share = np.clip(along * 0.5 + 0.5, 0, 1)[..., None].astype(np.float32) * np.float32(rng.uniform(0.3, 1))
    return rgb * (1 - share) + _ink(rng) * np.float32(rng.uniform(0, 1)) * share


def draw(rng: np.random.Generator, kind: str, rgb: Floats, inverse: Floats, *, flat: bool) -> tuple[Floats, Floats]:
    """Picture [h, w, 3] in 0..1 and inverse depth [h, w] with graphics of this kind on top.

    Kinds: subtitle, title, logo, badge (a small see-through mark), card (lines anywhere), slide and screen (`slides`).
    """
    if kind in slides.KINDS:
        return slides.draw(rng, kind, rgb), inverse
    height, width = inverse.shape
    mask = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(mask)
    box = Image.new("L", (width, height), 0)
    opacity = 1.0
    if kind == "subtitle":
        size, y = int(rng.integers(6, 12)), height * rng.uniform(0.8, 0.93)
        for line in range(int(rng.integers(1, 3))):
            _text(pen, (width / 2, y - line * size * 1.2), size, words(rng, int(rng.integers(2, 8))), 0)
        if rng.random() < 0.3:
            ImageDraw.Draw(box).rectangle((width * 0.1, y - size * 1.8, width * 0.9, y + size * 0.7), fill=255)
    elif kind == "title":
        size = int(rng.integers(12, 34))
        centre = (width * rng.uniform(0.35, 0.65), height * rng.uniform(0.2, 0.8))
        _text(pen, centre, size, words(rng, int(rng.integers(1, 4))), int(rng.integers(0, 2)))
        if rng.random() < 0.4:
            _text(pen, (centre[0], centre[1] + size), size // 2, words(rng, int(rng.integers(1, 5))), 0)
    elif kind in ("logo", "badge"):
        x, y = width * rng.choice([0.1, 0.88, 0.5]), height * rng.choice([0.12, 0.88])
        r = rng.uniform(4, 12)
        if rng.random() < 0.5:
            pen.ellipse((x - r, y - r * 0.8, x + r, y + r * 0.8), fill=255)
        else:
            _text(pen, (x, y), int(r * 1.3), words(rng, 1)[:5], 0)
        opacity = rng.uniform(0.3, 0.8) if kind == "badge" else 1.0
    else:
        size = int(rng.integers(6, 26))
        for line in range(int(rng.integers(1, max(2, 90 // size)))):
            x, y = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.1, 0.9)
            if size < 12:
                x, y = width / 2, height * 0.12 + line * size * 1.25
            _text(pen, (x, y), size, words(rng, int(rng.integers(1, 6))), 0)
    if rng.random() < 0.15:  # a glitch: slices of the writing are shifted
        pixels = np.asarray(mask).copy()
        for _ in range(6):
            top = int(rng.integers(0, height - 4))
            pixels[top : top + 4] = np.roll(pixels[top : top + 4], int(rng.integers(-12, 12)), axis=1)
        mask = Image.fromarray(pixels)
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    out = _gradient(rng, rgb) if flat and rng.random() < 0.35 else rgb
    backing = np.asarray(box, np.float32)[..., None] / 255
    if backing.any():
        out = out * (1 - 0.75 * backing)
    if rng.random() < 0.4:  # a dark rim around the letters
        rim = np.asarray(mask.filter(ImageFilter.MaxFilter(3)), np.float32)[..., None] / 255
        out = out * (1 - rim)
    ink = _ink(rng)
    out = out * (1 - alpha * opacity) + ink * alpha * opacity
    if flat:
        return out.astype(np.float32), inverse
    block = np.asarray(mask.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(3))) > 100
    block |= np.asarray(box) > 100
    if not block.any():
        return out.astype(np.float32), inverse
    rows, columns = np.nonzero(block)
    covered = inverse[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    depth = np.float32(np.percentile(covered, 95))
    return out.astype(np.float32), np.where(block, np.maximum(inverse, depth), inverse)
