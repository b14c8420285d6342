"""Slides and screens: pictures made of writing, lines, boxes and plots, with no depth of their own.

Place in the flow: `overlay.draw` asks for one where a card's kind is one of
these (`graphics.py`). They are drawn twice as large and made smaller, as films
of such things are. A piece is a function that fills a box; write one more to
teach the network one more kind of drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from inference.training.words import words

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
LARGER = 2


class Pen:
    """A drawing, its chance, and the colours that it is held in."""

    def __init__(self, rng: np.random.Generator, canvas: Image.Image, photo: Image.Image, *, dark: bool) -> None:
        """photo: a picture that may be put into a box."""
        self.rng, self.canvas, self.photo = rng, canvas, photo
        self.draw = ImageDraw.Draw(canvas)
        low, high = (0, 60) if dark else (215, 256)
        grey = int(rng.integers(low, high))
        tint = rng.integers(-12, 13, 3) if rng.random() < 0.5 else np.zeros(3, int)
        self.ground: Colour = _colour(np.full(3, grey) + tint)
        self.ink: Colour = _colour(rng.integers(150, 256, 3) if dark else rng.integers(0, 110, 3))
        self.accents = [_colour(rng.integers(0, 256, 3)) for _ in range(int(rng.integers(1, 6)))]

    def accent(self) -> Colour:
        return self.accents[int(self.rng.integers(len(self.accents)))]

    def any(self) -> Colour:
        return self.ink if self.rng.random() < 0.5 else self.accent()

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def write(self, at: tuple[float, float], size: float, count: int, colour: Colour, anchor: str = "lm") -> None:
        font = ImageFont.load_default(size=max(5, size))
        self.draw.text(at, words(self.rng, count), fill=colour, font=font, anchor=anchor)


def _colour(values: NDArray) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def _lines(p: Pen, box: Box) -> None:
    """Lines of writing, with bullets, indents or colours now and then."""
    x0, y0, x1, y1 = box
    size, bullets, coloured = p.between(6, 20), p.chance(0.4), p.chance(0.3)
    y = y0 + size
    while y < y1 - size / 2:
        indent = size * (p.rng.integers(0, 4) if coloured or p.chance(0.1) else 0)
        if p.chance(0.85):
            if bullets:
                p.draw.ellipse((x0, y - size / 6, x0 + size / 3, y + size / 3), fill=p.any())
            count = 1 + int(p.between(0.2, 1) * (x1 - x0) / (size * 3))
            p.write((x0 + indent + size * bullets, y), size, count, p.any() if coloured else p.ink)
        y += size * 1.4


def _plot(p: Pen, box: Box) -> None:
    """Axes with curves, bars or points."""
    x0, y0, x1, y1 = box
    wide, kind = int(p.rng.integers(1, 4)), p.rng.integers(4)
    if p.chance(0.8):
        p.draw.line((x0, y0, x0, y1, x1, y1), fill=p.ink, width=wide)
    if p.chance(0.3):
        for y in np.linspace(y0, y1, int(p.rng.integers(4, 9))):
            p.draw.line((x0, y, x1, y), fill=_colour(np.array(p.ground) // 2 + 64))
    count = int(p.rng.integers(5, 40))
    x = np.linspace(x0 + 2, x1 - 2, count)
    for _ in range(int(p.rng.integers(1, 4))):
        walk = np.cumsum(p.rng.normal(0, 1, count)) if p.chance(0.5) else np.exp(-(np.linspace(-2, 2, count) ** 2))
        walk = (walk - walk.min()) / (np.ptp(walk) + 1e-6)
        y, colour = y1 - (0.05 + 0.85 * walk) * (y1 - y0), p.accent()
        if kind == 0:
            for left, top in zip(x, y, strict=True):
                p.draw.rectangle((left, top, left + 0.8 * (x1 - x0) / count, y1), fill=colour)
        elif kind == 1:
            for left, top in zip(x, p.rng.permutation(y), strict=True):
                p.draw.ellipse((left - 2, top - 2, left + 2, top + 2), fill=colour)
        else:
            p.draw.line(np.stack([x, y], 1).flatten().tolist(), fill=colour, width=wide)


def _boxes(p: Pen, box: Box) -> None:
    """Boxes and circles with a word in each, and lines from one to the next."""
    x0, y0, x1, y1 = box
    columns, rows = int(p.rng.integers(1, 6)), int(p.rng.integers(1, 5))
    w, h = (x1 - x0) / columns, (y1 - y0) / rows
    fill, round_, last = p.accent() if p.chance(0.6) else None, p.chance(0.3), (x0, y0)
    for row in range(rows):
        for column in range(columns):
            if p.chance(0.15):
                continue
            middle = x0 + (column + 0.5) * w, y0 + (row + 0.5) * h
            if p.chance(0.5):
                p.draw.line((*last, *middle), fill=p.ink, width=int(p.rng.integers(1, 4)))
            last = middle
            place = (middle[0] - 0.4 * w, middle[1] - 0.35 * h, middle[0] + 0.4 * w, middle[1] + 0.35 * h)
            (p.draw.ellipse if round_ else p.draw.rectangle)(place, fill=fill, outline=p.ink, width=1)
            if p.chance(0.7):
                p.write(middle, min(w / 5, h / 2), 1, p.ink, "mm")


def _grid(p: Pen, box: Box) -> None:
    """A table, a board of squares, a code of black and white cells, an array of like marks."""
    x0, y0, x1, y1 = box
    columns, rows, kind = int(p.rng.integers(3, 16)), int(p.rng.integers(3, 12)), p.rng.integers(4)
    w, h, colour = (x1 - x0) / columns, (y1 - y0) / rows, p.any()
    for row in range(rows):
        for column in range(columns):
            place = (x0 + column * w, y0 + row * h, x0 + (column + 1) * w, y0 + (row + 1) * h)
            if kind == 0:
                p.draw.rectangle(place, outline=p.ink)
                if p.chance(0.5):
                    p.write((place[0] + 2, (place[1] + place[3]) / 2), h * 0.6, 1, p.ink)
            elif (kind == 1 and (row + column) % 2) or (kind == 2 and p.chance(0.5)):
                p.draw.rectangle(place, fill=colour)
            elif kind == 3:
                p.draw.ellipse((place[0] + w / 5, place[1] + h / 5, place[2] - w / 5, place[3] - h / 5), fill=colour)


def _sign(p: Pen, box: Box) -> None:
    """A logo or an icon: large letters, rings, blobs, polygons."""
    x0, y0, x1, y1 = box
    x, y, r = (x0 + x1) / 2, (y0 + y1) / 2, min(x1 - x0, y1 - y0) / 2
    for _ in range(int(p.rng.integers(1, 5))):
        kind, colour, size = p.rng.integers(4), p.accent(), r * p.between(0.3, 1)
        dx, dy = x + p.between(-1, 1) * (r - size), y + p.between(-1, 1) * (r - size)
        place = (dx - size, dy - size, dx + size, dy + size)
        if kind == 0:
            start = p.between(0, 360)
            p.draw.arc(place, start, start + p.between(90, 360), fill=colour, width=max(1, int(size / 3)))
        elif kind == 1:
            p.draw.ellipse(place, fill=colour)
        elif kind == 2:
            turns = np.sort(p.rng.uniform(0, 2 * math.pi, int(p.rng.integers(3, 12))))
            far = size * p.rng.uniform(0.5, 1, len(turns))
            p.draw.polygon(np.stack([dx + far * np.cos(turns), dy + far * np.sin(turns)], 1).flatten().tolist(), colour)
        else:
            p.write((dx, dy), size * p.between(0.7, 1.4), 1, colour, "mm")


def _strokes(p: Pen, box: Box) -> None:
    """A drawing of lines."""
    x0, y0, x1, y1 = box
    wide, colour = int(p.rng.integers(1, 5)), p.any()
    for _ in range(int(p.rng.integers(1, 9))):
        steps = p.rng.normal(0, (x1 - x0) / 8, (int(p.rng.integers(3, 20)), 2)).cumsum(0)
        steps += np.array([p.between(x0, x1), p.between(y0, y1)])
        p.draw.line(steps.clip((x0, y0), (x1, y1)).flatten().tolist(), fill=colour, width=wide, joint="curve")


def _picture(p: Pen, box: Box) -> None:
    """A picture of something, which is as flat as the slide."""
    x0, y0, x1, y1 = (round(v) for v in box)
    size = max(4, x1 - x0), max(4, y1 - y0)
    p.canvas.paste(p.photo.resize(size), (x0, y0))


PIECES: tuple[tuple[float, Callable[[Pen, Box], None]], ...] = (
    (3, _lines), (1, _plot), (1, _boxes), (1, _grid), (1, _sign), (0.5, _strokes), (0.5, _picture),
)  # fmt: skip


def _fill(p: Pen, box: Box) -> None:
    shares = np.array([share for share, _ in PIECES])
    PIECES[int(p.rng.choice(len(PIECES), p=shares / shares.sum()))][1](p, box)


def _parts(p: Pen, box: Box, depth: int) -> None:
    """Split a box side by side or one below the other, and fill what comes of it."""
    x0, y0, x1, y1 = box
    if depth and p.chance(0.7):
        if x1 - x0 > y1 - y0:
            cut = x0 + p.between(0.3, 0.7) * (x1 - x0)
            first, second = (x0, y0, cut - 6, y1), (cut + 6, y0, x1, y1)
        else:
            cut = y0 + p.between(0.3, 0.7) * (y1 - y0)
            first, second = (x0, y0, x1, cut - 6), (x0, cut + 6, x1, y1)
        _parts(p, first, depth - 1)
        _parts(p, second, depth - 1)
    elif p.chance(0.9):
        _fill(p, box)


def _slide(p: Pen, width: int, height: int) -> None:
    """A heading or none, and one to four pieces below."""
    edge, top = p.between(0, 0.12) * width, p.between(0, 0.1) * height
    if p.chance(0.6):
        size = p.between(14, 36)
        if p.chance(0.3):
            p.draw.rectangle((0, 0, width, top + size * 1.3), fill=p.accent())
        centred = p.chance(0.5)
        p.write((width / 2 if centred else edge, top + size / 2), size, int(p.rng.integers(1, 6)), p.any(),
                "mm" if centred else "lm")  # fmt: skip
        top += size * 1.5
    _parts(p, (edge, top, width - edge, height * p.between(0.85, 1)), int(p.rng.integers(0, 3)))


def _window(p: Pen, box: Box) -> None:
    """A title bar, perhaps a row of buttons and a list at one side, and something inside."""
    x0, y0, x1, y1 = box
    bar, grey = p.between(6, 18), _colour(np.array(p.ground) * p.between(0.7, 1.0))
    p.draw.rectangle(box, fill=p.ground, outline=p.ink)
    p.draw.rectangle((x0, y0, x1, y0 + bar), fill=p.accent() if p.chance(0.5) else grey)
    p.write((x0 + 4, y0 + bar / 2), bar * 0.7, int(p.rng.integers(1, 5)), p.ink)
    y0 += bar
    if p.chance(0.5):
        for x in np.arange(x0 + 4, x0 + p.between(0.2, 0.9) * (x1 - x0), bar * 1.3):
            p.draw.rectangle((x, y0 + 3, x + bar * 0.8, y0 + 3 + bar * 0.8), fill=p.any(), outline=p.ink)
        y0 += bar * 1.2
    if p.chance(0.4):
        cut = x0 + p.between(0.15, 0.4) * (x1 - x0)
        p.draw.rectangle((x0, y0, cut, y1), fill=grey)
        _lines(p, (x0 + 3, y0, cut - 3, y1))
        x0 = cut + 2
    _parts(p, (x0 + 5, y0 + 4, x1 - 5, y1 - 4), 1)


def _screen(p: Pen, width: int, height: int) -> None:
    """One window that fills the screen, or a few on a desktop."""
    if p.chance(0.5):
        p.canvas.paste(p.photo if p.chance(0.5) else p.accent(), (0, 0, width, height))
        for _ in range(int(p.rng.integers(1, 4))):
            x, y = p.between(-0.1, 0.5) * width, p.between(-0.1, 0.5) * height
            _window(p, (x, y, x + p.between(0.3, 0.9) * width, y + p.between(0.3, 0.9) * height))
    else:
        _window(p, (-2, -2, width + 2, height + 2))
    if p.chance(0.3):
        p.draw.rectangle((0, height * 0.94, width, height), fill=p.any())


KINDS: dict[str, Callable[[Pen, int, int], None]] = {"slide": _slide, "screen": _screen}


def draw(rng: np.random.Generator, kind: str, rgb: Floats) -> Floats:
    """A slide or a screen over all of `rgb` [h, w, 3] in 0..1, which may be seen as a picture in it."""
    height, width = rgb.shape[0] * LARGER, rgb.shape[1] * LARGER
    photo = Image.fromarray((rgb.clip(0, 1) * 255).astype(np.uint8)).resize((width, height))
    canvas = Image.new("RGB", (width, height))
    pen = Pen(rng, canvas, photo, dark=bool(rng.random() < 0.3))
    canvas.paste(pen.accent() if rng.random() < 0.15 else pen.ground, (0, 0, width, height))
    KINDS[kind](pen, width, height)
    return np.asarray(canvas.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.BOX), np.float32) / 255
