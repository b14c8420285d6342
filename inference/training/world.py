"""A scene under construction: objects, materials, camera and light as rows of numbers.

Place in the flow: the scene kinds (`scenes.py`) and props (`props.py`) add
objects to a `World`; `render.py` hands its arrays to the ray caster. A `World`
owns the random generator, so that one seed decides everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.training.kernel import (
    BOX,
    CAPSULE,
    CONE,
    ELLIPSOID,
    MATERIAL_COLUMNS,
    OBJECT_COLUMNS,
    QUAD,
    Light,
    View,
)
from inference.training.textures import Atlas, hsv_to_rgb

Vector: TypeAlias = ArrayLike
Matrix: TypeAlias = NDArray[np.float64]

IDENTITY = np.eye(3)
SHAPES = (16 / 9, 16 / 9, 16 / 9, 16 / 9, 1.85, 2.39, 4 / 3, 9 / 16)
"""Picture shapes (width by height); all are squeezed to the network's input size."""


def turn_x(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def turn_y(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def turn_z(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@dataclass
class World:
    """One scene. Heights are above the ground plane y = 0; the camera looks along +z."""

    rng: np.random.Generator
    atlas: Atlas
    objects: list[list[float]] = field(default_factory=list)
    materials: list[list[float]] = field(default_factory=list)
    groups: list[slice] = field(default_factory=list)
    """Rows that move together in a clip: one entry per person, car or thing."""
    eye: Matrix = field(default_factory=lambda: np.array([0.0, 1.5, 0.0]))
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    half_width: float = 0.5
    """Tangent of half the horizontal view angle."""
    outdoors: bool = True
    flat_truth: bool = False
    """A title card or caption: whatever is drawn on it, its truth is one plane."""
    overlay: str = ""
    """A kind of graphics that `overlay.py` puts over the picture."""
    cartoon: bool = False
    close_up: bool = False
    """Seen through a lens that holds mostly the nearest thing in focus."""
    dark: float = 0.0
    """Above 0: lit by one candle, lamp or screen, which stands no further than this many metres, and left dark."""

    def __post_init__(self) -> None:
        rng = self.rng
        self.plain = rng.random() < 0.15
        self.saturation = rng.choice([0.25, 0.5, 0.5, 0.8, 1.2])
        self.hue = rng.random()
        self.half_width = math.tan(math.radians(rng.uniform(28, 80)) / 2)
        self.pitch, self.roll = rng.normal(-0.06, 0.12), rng.normal(0, 0.05)
        self.eye[1] = rng.uniform(0.5, 2.2)
        self.shape = float(rng.choice(SHAPES, p=(0.2, 0.2, 0.2, 0.15, 0.08, 0.07, 0.07, 0.03)))
        if self.shape < 1:
            self.half_width *= 0.55

    @property
    def half_height(self) -> float:
        return self.half_width / self.shape

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def across(self, depth: float, margin: float = 1.1) -> float:
        """A random x that the camera sees at this depth (up to `margin` half widths)."""
        return self.rng.uniform(-1, 1) * self.half_width * depth * margin

    def on_ground(self, margin: float = 1.1) -> tuple[float, float]:
        """x and z of a place on the ground, in every row below the horizon alike (to `margin` of the half height)."""
        edge = margin * self.half_height
        horizon = (-math.sin(self.pitch) - 0.04) / math.cos(self.pitch)
        row = self.rng.uniform(-edge, max(-edge, min(edge, horizon)))
        depth = self.eye[1] / max(0.04, -math.sin(self.pitch) - row * math.cos(self.pitch))
        return self.across(depth, margin), depth * (math.cos(self.pitch) - row * math.sin(self.pitch))

    def log_uniform(self, low: float, high: float) -> float:
        return math.exp(self.rng.uniform(math.log(low), math.log(high)))

    def colour(self, low: float = 0.08, high: float = 0.95) -> Matrix:
        """A colour of brightness low..high in the mood of this scene."""
        rng = self.rng
        hue = (self.hue + rng.normal(0, 0.25)) % 1 if rng.random() < 0.6 else rng.random()
        saturation = min(1.0, rng.beta(1.3, 2.2) * 2 * self.saturation)
        return hsv_to_rgb(hue, saturation, rng.uniform(low, high)).astype(float)

    def green(self) -> Matrix:
        """A leaf or grass colour."""
        base = np.array([0.28, 0.46, 0.13]) * self.rng.uniform(0.3, 1.65)
        return np.clip(base + self.rng.normal(0, 0.06, 3), 0.02, 1)

    def skin(self) -> list[float]:
        rng = self.rng
        tone = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.35, 1.1) * (1 + rng.normal(0, 0.05, 3))
        group = None if rng.random() < 0.3 else ""
        return self.material(np.clip(tone, 0.05, 1), group=group, contrast=0.15, specular=0.08, share=0)

    def material(
        self,
        colour: ArrayLike | None = None,
        *,
        group: str | None = None,
        scale: float = 1.0,
        share: float | None = None,
        contrast: float | None = None,
        specular: float | None = None,
        emission: float = 0.0,
        cutout: float = 0.0,
        opacity: float = 1.0,
    ) -> list[float]:
        """A material row; what is None is drawn by chance.

        group: a texture group of the atlas, "" for no texture. scale: texture
        repeats a metre. share: 1 takes the texture's colours, 0 its brightness.
        """
        rng = self.rng
        rgb = self.colour() if colour is None else np.asarray(colour, float)
        if group is None:
            group = "any" if rng.random() < (0.3 if self.plain else 0.72) else ""
        texture = self.atlas.pick(rng, group) if group else -1
        if share is None:
            share = 1.0 if rng.random() < 0.45 else 0.0
        if contrast is None:
            contrast = rng.uniform(0.1, 1)
        if specular is None:
            specular = rng.uniform(0.05, 0.8) if rng.random() < 0.25 else 0.0
        row = [
            *rgb, texture, scale * math.exp(rng.normal(0, 0.4)), share, contrast, specular,
            math.exp(rng.uniform(1.5, 4.5)), emission, cutout, rng.random(), rng.random(), opacity,
        ]  # fmt: skip
        assert len(row) == MATERIAL_COLUMNS
        return [float(value) for value in row]

    def plain_material(self, colour: ArrayLike, **options: float) -> list[float]:
        return self.material(colour, group="", specular=options.pop("specular", 0.0), **options)

    def add(
        self,
        kind: int,
        centre: Vector,
        half: Vector,
        rotation: Matrix = IDENTITY,
        material: list[float] | None = None,
        *,
        casts: bool = True,
    ) -> None:
        """Add one primitive. `half`: half sizes; the radius of a cone or capsule is half[0]."""
        hx, hy, hz = (float(v) for v in half)  # type: ignore[union-attr]
        bound = math.sqrt(hx * hx + hy * hy + hz * hz)
        mean = (hx * hy * max(hz, 0.01)) ** (1 / 3)
        if kind == QUAD:
            bound, mean = math.hypot(hx, hy), 0.3 * min(hx, hy)
        elif kind in (CAPSULE, CONE):
            bound, hz = hx + hy, hx
        row = [kind, *np.asarray(centre, float), *rotation.ravel(), hx, hy, hz, bound, casts, mean]
        self.objects.append([float(value) for value in row])
        self.materials.append(self.material() if material is None else material)

    def rod(self, a: Vector, b: Vector, radius: float, material: list[float], kind: int = CAPSULE) -> None:
        """A capsule (or cylinder) from point a to point b."""
        start, end = np.asarray(a, float), np.asarray(b, float)
        length = float(np.linalg.norm(end - start)) + 1e-6
        y = (end - start) / length
        size = math.hypot(y[0], y[1])
        x = np.array([y[1], -y[0], 0.0]) / size if size > 1e-3 else np.array([1.0, 0.0, 0.0])
        z = np.array([x[1] * y[2], -x[0] * y[2], x[0] * y[1] - x[1] * y[0]])  # x cross y
        rotation = np.stack([x, y, z], 1)
        self.add(kind, (start + end) / 2, (radius, length / 2, radius), rotation, material)

    def ball(self, centre: Vector, half: Vector, material: list[float], rotation: Matrix = IDENTITY) -> None:
        self.add(ELLIPSOID, centre, half, rotation, material)

    def box(
        self, centre: Vector, half: Vector, rotation: Matrix = IDENTITY, material: list[float] | None = None
    ) -> None:
        self.add(BOX, centre, half, rotation, material)

    def grouped(self, start: int) -> None:
        """Rows from `start` to now are one thing that may move or vanish in a clip."""
        if len(self.objects) > start:
            self.groups.append(slice(start, len(self.objects)))

    def object_rows(self) -> Matrix:
        return np.array(self.objects, np.float64).reshape(-1, OBJECT_COLUMNS)

    def material_rows(self) -> Matrix:
        return np.array(self.materials, np.float64).reshape(-1, MATERIAL_COLUMNS)

    def view(self) -> View:
        rotation = turn_y(self.yaw) @ turn_x(-self.pitch) @ turn_z(self.roll)
        return View(self.eye.copy(), rotation, np.array([self.half_width, self.half_height]))

    def light(self) -> Light:
        """Draw sun, lamp, sky, clouds and fog for this place."""
        rng, outdoors = self.rng, self.outdoors
        azimuth, height = rng.uniform(0, 6.3), rng.uniform(0.15, 1.5)
        sun = np.array([
            math.cos(azimuth) * math.cos(height), math.sin(height), math.sin(azimuth) * math.cos(height)
        ])  # fmt: skip
        warm = np.array([1, rng.uniform(0.75, 1), rng.uniform(0.5, 1)])
        if rng.random() < 0.3:
            warm = np.array([rng.uniform(0.6, 1), rng.uniform(0.7, 1), 1])
        sun_colour = warm * (rng.uniform(0, 1.6) if rng.random() < 0.8 else 0.0)
        ambient = np.ones(3) * rng.uniform(0.25, 0.9) * (1 + rng.normal(0, 0.1, 3))
        lamp = np.zeros(5)
        if not outdoors and rng.random() < 0.75:
            lamp[:] = [
                rng.normal(0, 1.2), self.eye[1] + rng.uniform(-0.2, 2.0), rng.uniform(-0.5, 4),
                rng.uniform(0.4, 1.6), rng.choice([0.02, 0.1, 0.3]),
            ]  # fmt: skip
        elif not outdoors and rng.random() < 0.6:
            sun[2] = -abs(sun[2])  # light from behind the camera
        if self.plain:
            sun_colour, ambient = sun_colour * 0.3, np.full(3, 0.9)
        draw = rng.random()
        high = np.array([0.3, 0.5, 0.9]) * rng.uniform(0.3, 1.2)
        if draw > 0.8:
            high = self.colour(0.2, 1)
        elif draw > 0.5:
            high = np.array([0.8, 0.8, 0.82]) * rng.uniform(0.2, 1.2)
        low = self.colour(0.4, 1)
        if rng.random() < 0.7:
            low = np.clip(high * rng.uniform(0.8, 1.3) + rng.uniform(0, 0.5), 0, 1.1)
        cloud = np.array([
            rng.uniform(0.2, 1) if rng.random() < 0.5 else 0, rng.uniform(0.05, 0.5), rng.random(),
            self.atlas.pick(rng), rng.uniform(1, 3), rng.uniform(0.5, 1.1),
            rng.uniform(0, 0.6) if rng.random() < 0.4 else 0,
        ])  # fmt: skip
        density = 0.0
        if outdoors and rng.random() < 0.6:
            density = self.log_uniform(0.002, 0.06)
        elif rng.random() < 0.06:
            density = rng.uniform(0.01, 0.12)
        if self.dark:
            at = (rng.normal(0, 0.8), self.eye[1] + rng.uniform(-0.6, 0.9), rng.uniform(0.2, self.dark))
            lamp = np.array([*at, self.log_uniform(0.8, 4), self.log_uniform(0.3, 4)])
            sun_colour = np.array([1, rng.uniform(0.5, 1), rng.uniform(0.2, 1)])
            ambient, high, low, density = ambient * rng.uniform(0.02, 0.3), high * 0.05, low * 0.05, 0.0
            cloud[[0, 6]] = 0
        haze = low if outdoors else self.colour(0.3, 0.9)
        fog = np.array([density, *haze, 1.0 if rng.random() < 0.7 or not outdoors else 0.0])
        return Light(sun, sun_colour, ambient, lamp, low, high, cloud, fog)
