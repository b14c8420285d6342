"""Procedural textures: the paint box of the scene renderer.

Place in the flow: `make_atlas` runs once per render process, before any scene
is drawn. The ray caster (`kernel.py`) samples the atlas with mip mapping; a
material (`world.py`) names a texture by its index.

Every texture tiles, has 128 x 128 texels and four channels: red, green, blue
and a "mask" channel (a noise field with a flat histogram) that cut-out
materials threshold to make foliage, lace and torn edges. Nothing here is a
photograph and no palette was taken from one: all of it comes from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from inference.training import slides

SIZE = 128
LEVELS = 6

Floats = NDArray[np.float32]
Painter = Callable[[np.random.Generator, Floats], Floats]

_v, _u = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE


def hsv_to_rgb(hue: NDArray, saturation: NDArray, value: NDArray) -> Floats:
    """Colours in 0..1 for arrays of hue (turns), saturation and value; shape [..., 3]."""
    channel = np.array([5.0, 3.0, 1.0])
    k = (channel + np.asarray(hue)[..., None] * 6.0) % 6.0
    value = np.asarray(value)[..., None]
    fall = np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (value - value * np.asarray(saturation)[..., None] * fall).astype(np.float32)


def noise(
    rng: np.random.Generator,
    slope: float,
    stretch: tuple[float, float] = (1.0, 1.0),
    channels: int = 1,
) -> Floats:
    """Tileable noise with amplitude 1/f**slope, unit variance; [SIZE, SIZE, channels]."""
    fy = np.fft.fftfreq(SIZE)[:, None] * SIZE * stretch[1]
    fx = np.fft.rfftfreq(SIZE)[None] * SIZE * stretch[0]
    frequency = np.sqrt(fx * fx + fy * fy)
    frequency[0, 0] = 1.0
    layers = []
    for _ in range(channels):
        phase = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
        spectrum = phase / frequency**slope
        spectrum[0, 0] = 0.0
        field = np.fft.irfft2(spectrum, (SIZE, SIZE))
        layers.append(field / (field.std() + 1e-9))
    return np.stack(layers, -1).astype(np.float32)


def palette(rng: np.random.Generator, count: int) -> Floats:
    """Colours that belong together: one hue with a narrow or a wide spread; [count, 3]."""
    hue = (rng.random() + rng.normal(0, rng.choice([0.04, 0.17, 0.5]), count)) % 1.0
    saturation = np.clip(rng.beta(1.2, 2.2, count) * rng.choice([0.5, 1.0, 1.3]), 0, 1)
    value = np.clip(rng.beta(2, 1.6, count), 0.04, 1)
    return hsv_to_rgb(hue, saturation, value)


def _logistic(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


def cloudy(rng: np.random.Generator, colours: Floats) -> Floats:
    """Plaster, cloth, dirt: two colours mixed by noise."""
    mix = _logistic(1.3 * noise(rng, rng.uniform(0.7, 1.9)))
    grain = rng.uniform(0, 0.12) * noise(rng, rng.uniform(1, 2), channels=3)
    return colours[0] * (1 - mix) + colours[1] * mix + grain


def camouflage(rng: np.random.Generator, colours: Floats) -> Floats:
    """Patches with hard borders."""
    field = noise(rng, rng.uniform(1.2, 2))[..., 0]
    return colours[np.digitize(field, np.sort(rng.normal(0, 0.8, 4)))]


def cells(rng: np.random.Generator, colours: Floats) -> Floats:
    """Voronoi cells: gravel, pebbles, stained glass."""
    points = rng.random((int(rng.integers(8, 50)), 2)).astype(np.float32)
    dx = np.abs(_u[None] - points[:, 0, None, None])
    dy = np.abs(_v[None] - points[:, 1, None, None])
    distance = np.hypot(np.minimum(dx, 1 - dx), np.minimum(dy, 1 - dy))
    nearest = distance.argmin(0)
    ordered = np.partition(distance, 1, axis=0)
    image = colours[nearest % 8]
    if rng.random() < 0.6:
        image = colours[nearest % 2] * (0.8 + 0.06 * (nearest % 7)[..., None])
    border = (ordered[1] - ordered[0]) < rng.uniform(0.005, 0.03)
    return np.where(border[..., None], colours[7] * 0.5, image)


def stripes(rng: np.random.Generator, colours: Floats) -> Floats:
    count = int(rng.integers(2, 14))
    along = _u if rng.random() < 0.5 else _v
    if rng.random() < 0.6:
        return colours[np.floor(along * count * 2).astype(int) % int(rng.choice([2, 3]))]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * count * along)
    return colours[0] + (colours[1] - colours[0]) * wave[..., None]


def checks(rng: np.random.Generator, colours: Floats) -> Floats:
    count = int(rng.integers(2, 10)) * 2
    return colours[((_u * count).astype(int) + (_v * count).astype(int)) % 2]


def masonry(rng: np.random.Generator, colours: Floats) -> Floats:
    """Bricks, tiles and floor boards."""
    boards = rng.random() < 0.5
    rows, columns = int(rng.choice([4, 8, 16])), 1 if boards else int(rng.choice([2, 4]))
    row = (_v * rows).astype(int)
    shift = rng.random(64)[row] if boards else (row % 2) * 0.5 / columns
    along = (_u + shift) % 1 * columns
    tone = rng.random((64, 8))[row, along.astype(int)]
    image = colours[0] * (0.6 + 0.6 * tone[..., None])
    joint = ((_v * rows) % 1 < 0.08) | (along % 1 < 0.024 * columns)
    image = np.where(joint[..., None], colours[1] * rng.uniform(0.3, 1), image)
    return image * (1 + 0.15 * noise(rng, 1.2, (0.15, 1))) if boards else image


def lettering(rng: np.random.Generator, colours: Floats) -> Floats:
    """Lines of text: posters, labels, signs, pages."""
    ink = (0, 0, 0) if colours[0].mean() > 0.5 else (255, 255, 255)
    if rng.random() < 0.3:
        ink = tuple(int(c * 255) for c in colours[1])
    image = Image.new("RGB", (SIZE, SIZE), tuple(int(c * 255) for c in colours[0]))
    draw = ImageDraw.Draw(image)
    lines = int(rng.choice([3, 5, 8, 12]))
    font = ImageFont.load_default(size=max(7, int(0.8 * SIZE / lines)))
    for line in range(lines):
        length = int(rng.integers(4, 6 + 4 * lines))
        text = "".join(chr(rng.integers(33, 120)) if rng.random() > 0.15 else " " for _ in range(length))
        draw.text((int(rng.integers(0, 20)), int(line * SIZE / lines)), text, fill=ink, font=font)
    return np.asarray(image, np.float32) / 255


def windows(rng: np.random.Generator, colours: Floats) -> Floats:
    """A facade: rows of windows, some of them lit."""
    across, up = (int(n) for n in rng.integers(2, 7, 2))
    edge = rng.uniform(0.1, 0.3, 2)
    u, v = (_u * across) % 1, (_v * up) % 1
    inside = (u > edge[0]) & (u < 1 - edge[0]) & (v > edge[1]) & (v < 1 - edge[1])
    lit = rng.random((8, 8))[(_v * up).astype(int), (_u * across).astype(int)]
    image = np.where(inside[..., None], colours[1] * (0.2 + 0.8 * lit[..., None]), colours[0])
    return image * (1 + 0.05 * noise(rng, 1.5))


def grass(rng: np.random.Generator, colours: Floats) -> Floats:
    """Fine streaks with patches; mostly green."""
    streak = noise(rng, rng.uniform(0.6, 1.2), (1, 0.25)) + 0.6 * noise(rng, 1.6)
    mix = _logistic(streak)
    image = colours[0] * (1 - mix) + colours[1] * mix
    return image * np.array([0.7, 1, 0.4], np.float32) if rng.random() < 0.6 else image


def wood(rng: np.random.Generator, colours: Floats) -> Floats:
    rings = _v * int(rng.integers(3, 12)) + 0.25 * noise(rng, 2)[..., 0]
    image = colours[0] * (0.6 + 0.5 * (0.5 + 0.5 * np.sin(2 * np.pi * rings))[..., None])
    grain = 1 + 0.1 * noise(rng, 0.9, (0.2, 1))
    return image * np.array([1, 0.75, 0.5], np.float32) * grain


def leaves(rng: np.random.Generator, colours: Floats) -> Floats:
    """Dead leaves: discs and blades of a power-law size that cover each other."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(int(c * 255) for c in colours[0]))
    draw = ImageDraw.Draw(image)
    green = rng.random() < 0.35
    for index in range(int(rng.integers(30, 220))):
        radius = min(60.0, 2.5 * rng.pareto(1.3) + 1.5)
        colour = colours[rng.integers(0, 8)] * rng.uniform(0.5, 1.3)
        if green:
            colour = np.array([0.45, 0.75, 0.25]) * rng.uniform(0.2, 1.2) * rng.uniform(0.8, 1.2, 3)
        ink = tuple(int(c) for c in np.clip(colour * 255, 0, 255))
        cx, cy = rng.integers(0, SIZE, 2)
        turn, flat = rng.random() * math.pi, (1.0, 0.6, 0.3)[index % 3]
        angle = np.linspace(0, 2 * math.pi, 10, endpoint=False)
        x, y = radius * np.cos(angle), radius * flat * np.sin(angle)
        px, py = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
        for ox in (-SIZE, 0, SIZE):
            for oy in (-SIZE, 0, SIZE):
                if -radius < cx + ox < SIZE + radius and -radius < cy + oy < SIZE + radius:
                    draw.polygon(list(zip(px + cx + ox, py + cy + oy, strict=True)), fill=ink)
    return np.asarray(image, np.float32) / 255


def collage(rng: np.random.Generator, colours: Floats) -> Floats:
    """Rectangles and lines: posters, screens, shop fronts."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(int(c * 255) for c in colours[0]))
    draw = ImageDraw.Draw(image)
    for index in range(int(rng.integers(3, 40))):
        a = rng.integers(0, SIZE, 2)
        b = a + rng.integers(3, 60, 2)
        ink = tuple(int(c * 255) for c in colours[index % 8])
        if rng.random() < 0.7:
            draw.rectangle((int(a[0]), int(a[1]), int(b[0]), int(b[1])), fill=ink)
        else:
            draw.line((int(a[0]), int(a[1]), int(b[0]), int(b[1])), ink, int(rng.integers(1, 5)))
    return np.asarray(image, np.float32) / 255


def dots(rng: np.random.Generator, colours: Floats) -> Floats:
    count = int(rng.integers(2, 10))
    u, v = (_u * count) % 1 - 0.5, (_v * count) % 1 - 0.5
    return np.where((u * u + v * v < rng.uniform(0.02, 0.15))[..., None], colours[0], colours[1])


def slide(rng: np.random.Generator, colours: Floats) -> Floats:
    """A page, a slide, a screen: what somebody holds, or what hangs in a room."""
    ground = np.broadcast_to(colours[0], (SIZE, SIZE, 3))
    return slides.draw(rng, str(rng.choice(list(slides.KINDS))), ground)


# Painter and how often the mixed group draws it.
PAINTERS: dict[Painter, int] = {
    cloudy: 3, camouflage: 1, cells: 1, stripes: 1, checks: 1, masonry: 2, lettering: 1,
    windows: 1, grass: 1, wood: 1, leaves: 3, collage: 1, dots: 1, slide: 1,
}  # fmt: skip
BOARDS: tuple[Painter, ...] = (checks, checks, dots, lettering, collage, slide, slide, slide)
"""What boards, sheets and screens show, which could be taken for a card."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """All textures of one run.

    `texels` is uint8 [count, SIZE, SIZE * 3 // 2, 4]: level 0 on the left, the
    smaller levels stacked in the column to its right. `groups` gives, for each
    family of materials, the half-open range of indices it may draw from.
    """

    texels: NDArray[np.uint8]
    groups: dict[str, tuple[int, int]]

    def pick(self, rng: np.random.Generator, group: str = "any") -> int:
        low, high = self.groups[group]
        return int(rng.integers(low, high))


def _halve(image: Floats) -> Floats:
    return 0.25 * (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2])


def make_atlas(seed: int, count: int = 320) -> Atlas:
    """Paint `count` (16 or more) textures; the same seed gives the same texels."""
    rng = np.random.default_rng(seed)
    groups = {
        "grass": (0, count // 16),
        "foliage": (0, count // 4),
        "noise": (count // 8, count // 4),
        "any": (0, count),
        "board": (count - count // 8, count),
    }
    painters = list(PAINTERS)
    chance = np.array(list(PAINTERS.values()), float)
    chance /= chance.sum()
    texels = np.zeros((count, SIZE, SIZE * 3 // 2, 4), np.uint8)
    for index in range(count):
        painter = painters[int(rng.choice(len(painters), p=chance))]
        if index < count // 4:
            painter = grass if index < count // 16 else leaves if index < count // 8 else cloudy
        if index >= groups["board"][0]:
            painter = BOARDS[index % len(BOARDS)]
        image = painter(rng, palette(rng, 8))
        if rng.random() < 0.5:
            image = image * (1 + rng.uniform(0.02, 0.25) * noise(rng, rng.uniform(0.8, 1.8)))
        field = noise(rng, rng.uniform(0.9, 1.6))[..., 0]
        rank = field.ravel().argsort().argsort().reshape(SIZE, SIZE) / (SIZE * SIZE)
        level = np.dstack([np.clip(image, 0, 1), rank]).astype(np.float32)
        texels[index, :, :SIZE] = np.rint(level * 255)
        row = 0
        for _ in range(LEVELS - 1):
            level = _halve(level)
            side = level.shape[0]
            texels[index, row : row + side, SIZE : SIZE + side] = np.rint(level * 255)
            row += side
    return Atlas(texels, groups)
