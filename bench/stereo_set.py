"""A synthetic stereo set with exact ground truth: scenes of textured planes and things at known disparity.

Each scene is a list of layers, drawn from far to near at any horizontal eye offset without resampling anything, so the
right view is the truth, not another warp. Depth is inverse distance, 0 (infinity) to 1 (nearest); the right eye sees a
layer shifted left by `parallax * (depth - convergence)` pixels. The scenes hold what 2D-to-3D conversion finds hard:
occlusions, thin structures, a sky without texture, a slanted ground, a moving camera, moving things, and cuts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 360
FRAMES = 24
RATE = Fraction(24)
"""Frames a second that the set is taken to have: which frames are estimated goes by it."""

PARALLAX = 0.03 * WIDTH
CONVERGENCE = 0.5
SCENES = ("field", "room", "fence", "crossing")
"""The scenes by which the warp's parameters were chosen."""


def held_out(count: int) -> tuple[str, ...]:
    """Names of scenes by lot, of other things at other depths with other textures, by which nothing was chosen."""
    return tuple(f"{_HELD_OUT}{number}" for number in range(1, count + 1))


_HELD_OUT = "held-"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing. Positions in pixels of the left view at time 0; speeds in pixels a frame.

    shape: sky, wall (whole picture), ground (below `y`), box, disc, or pole; for ground the depth rises from
    `depth` at the top to `near` at the bottom edge.
    """

    shape: str
    depth: float
    tone: float
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0
    near: float = 0.0
    speed: float = 0.0
    rough: float = 0.15
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """Layers from far to near and the camera's sideways speed, in pixels a frame of something at depth 1."""

    layers: tuple[Layer, ...]
    pan: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One frame: left and right luma codes [h, w] uint8 and the left view's depth [h, w]; `shot` counts the scenes."""

    shot: int
    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    depth: Floats = field(repr=False)


def scene(name: str) -> Scene:
    """One of SCENES or of `held_out`; the same every time."""
    if name.startswith(_HELD_OUT):
        return _by_lot(np.random.default_rng(6999 + int(name.removeprefix(_HELD_OUT))))
    rng = np.random.default_rng(SCENES.index(name))
    if name == "field":
        trees = tuple(
            Layer("disc", 0.15 + 0.08 * i, 90 - 6 * i, 60 + 130 * i, 150 + 5 * i, 60 + 14 * i, 60 + 14 * i, seed=i)
            for i in range(4)
        )
        return Scene(
            (
                Layer("sky", 0.0, 200, rough=0.0),
                Layer("wall", 0.05, 140, y=120, h=80, rough=0.1, seed=9),
                Layer("ground", 0.08, 100, y=180, near=0.95, rough=0.25, seed=5),
                *trees,
                Layer("box", 0.8, 60, 420, 170, 70, 150, speed=-1.5, seed=7),
            ),
            pan=1.5,
        )
    if name == "room":
        return Scene(
            (
                Layer("wall", 0.2, 150, rough=0.2, seed=1),
                Layer("ground", 0.2, 110, y=240, near=0.8, rough=0.2, seed=2),
                Layer("box", 0.35, 190, 90, 90, 140, 110, seed=3),
                Layer("box", 0.55, 70, 380, 190, 150, 120, seed=4),
                Layer("disc", 0.75, 170, 250, 210, 80, 150, speed=2.0, seed=5),
            )
        )
    if name == "fence":
        poles = tuple(
            Layer("pole", 0.85, 40 + 15 * (i % 3), 20 + 47 * i, 40, 3 + i % 3, 300, seed=i) for i in range(14)
        )
        return Scene(
            (
                Layer("wall", 0.15, 160, rough=0.3, seed=1),
                Layer("ground", 0.15, 120, y=230, near=0.7, rough=0.3, seed=2),
                Layer("disc", 0.4, 80, 200, 120, 130, 170, speed=1.0, seed=3),
                *poles,
            ),
            pan=-1.0,
        )
    things = tuple(
        Layer(
            "disc" if i % 2 else "box", 0.25 + 0.1 * i, float(rng.uniform(50, 210)), float(rng.uniform(0, 560)),
            float(rng.uniform(60, 220)), 70 + 10 * i, 70 + 12 * i, speed=(3.0 - i) * 1.2, seed=i,
        )
        for i in range(6)
    )  # fmt: skip
    return Scene((Layer("wall", 0.1, 128, rough=0.3, seed=8), *things))


def _by_lot(rng: np.random.Generator) -> Scene:
    """A wall or a sky, maybe ground, and some things in front of it, from far to near."""
    far = float(rng.uniform(0.0, 0.3))
    layers = [Layer("wall", far, float(rng.uniform(90, 200)), rough=float(rng.uniform(0.1, 0.35)), seed=50)]
    if rng.random() < 0.5:
        layers = [Layer("sky", 0.0, 205, rough=0.0)]
    horizon = float(rng.uniform(170, 260))
    if rng.random() < 0.75:
        near = float(rng.uniform(0.6, 1.0))
        layers.append(Layer("ground", max(far, 0.05), float(rng.uniform(70, 150)), y=horizon, near=near, seed=51))
    depths = np.sort(rng.uniform(far + 0.1, 1.0, int(rng.integers(4, 10))))
    for number, depth in enumerate(depths):
        shape = ("box", "disc", "pole")[int(rng.integers(0, 3))]
        width = float(rng.uniform(3, 8)) if shape == "pole" else float(rng.uniform(30, 170))
        height = float(rng.uniform(150, 300)) if shape == "pole" else float(rng.uniform(40, 190))
        layers.append(
            Layer(
                shape, float(depth), float(rng.uniform(40, 215)), float(rng.uniform(0, WIDTH - 40)),
                float(rng.uniform(20, 220)), width, height, speed=float(rng.uniform(-2.5, 2.5)),
                rough=float(rng.uniform(0.05, 0.3)), seed=60 + number,
            )
        )  # fmt: skip
    return Scene(tuple(layers), pan=float(rng.uniform(-2, 2)))


def views(frames: int = FRAMES, scenes: tuple[str, ...] = SCENES) -> Iterator[View]:
    """Every frame of every scene, one after the other; scenes are shots."""
    for shot, name in enumerate(scenes):
        made = scene(name)
        for time in range(frames):
            left, depth = _draw(made, time, 0.0)
            right, _ = _draw(made, time, PARALLAX)
            yield View(shot, left, right, depth)


def _draw(made: Scene, time: int, parallax: float) -> tuple[NDArray[np.uint8], Floats]:
    """Luma and depth; drawn at twice the width, then averaged, so that edges are smooth where they should be."""
    x = (np.arange(2 * WIDTH) + 0.5) / 2 - 0.5
    y = np.arange(HEIGHT, dtype=np.float64)[:, None]
    luma = np.zeros((HEIGHT, 2 * WIDTH))
    depth = np.zeros((HEIGHT, 2 * WIDTH))
    for layer in made.layers:
        own = np.full((HEIGHT, 1), layer.depth)
        if layer.shape == "ground":
            own = np.clip(layer.depth + (layer.near - layer.depth) * (y - layer.y) / (HEIGHT - layer.y), 0, 1)
        shift = parallax * (own - CONVERGENCE) if layer.shape != "sky" else parallax * (0.0 - CONVERGENCE) + 0 * own
        u = x[None] + shift - (layer.speed + made.pan * own) * time
        v = np.broadcast_to(y, u.shape)
        inside = _inside(layer, u, v)
        tone = layer.tone + layer.rough * 255 * _texture(u - layer.x, v - layer.y, layer.seed, own)
        if layer.shape == "sky":
            tone = layer.tone - 60 * v / HEIGHT + 0 * u
        luma = np.where(inside, tone, luma)
        depth = np.where(inside, np.broadcast_to(own, u.shape), depth)
    luma = np.clip(luma, 16, 235).reshape(HEIGHT, WIDTH, 2).mean(2)
    return np.round(luma).astype(np.uint8), depth[:, ::2].copy()


def _inside(layer: Layer, u: Floats, v: Floats) -> NDArray[np.bool_]:
    match layer.shape:
        case "sky":
            return np.ones(u.shape, bool)
        case "wall":
            return (v >= layer.y) & ((v < layer.y + layer.h) | (layer.h == 0))
        case "ground":
            return v >= layer.y
        case "disc":
            across, down = (u - layer.x - layer.w / 2) / (layer.w / 2), (v - layer.y - layer.h / 2) / (layer.h / 2)
            return across * across + down * down <= 1
        case _:
            return (u >= layer.x) & (u < layer.x + layer.w) & (v >= layer.y) & (v < layer.y + layer.h)


def _texture(u: Floats, v: Floats, seed: int, depth: Floats) -> Floats:
    """Sums of waves, -1 … 1, fixed to the thing; finer far away on a slanted ground, as perspective makes it."""
    rng = np.random.default_rng(1000 + seed)
    scale = 1.0 / (0.5 + np.max(depth))
    total = np.zeros(u.shape)
    for octave in range(5):
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        wave = 2 * np.pi * scale / (60 / 1.8**octave)
        total += np.sin((u * np.cos(angle) + v * np.sin(angle)) * wave + phase) / (1 + 0.5 * octave)
    return total / 2.9
