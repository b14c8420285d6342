"""Cars, vans, lorries and buses.

Place in the flow: called by the scene kinds with a `World`. A vehicle stands
on the ground at `at`, its front towards the camera at yaw 0; one call is one
group (`World.grouped`), so that a clip may move it as a whole.
"""

from __future__ import annotations

import math

import numpy as np

from inference.training.kernel import CYLINDER
from inference.training.world import Matrix, Vector, World, turn_y, turn_z


def car(w: World, at: Vector, size: float, yaw: float) -> None:
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    paint = w.material(group="", specular=rng.uniform(0.1, 0.9))
    glass = w.plain_material((0.06, 0.07, 0.09), specular=0.8)
    tyre = w.plain_material((0.04, 0.04, 0.04))
    length, half = rng.uniform(1.7, 2.4), rng.uniform(0.3, 0.5)
    cabin, back = length * rng.uniform(0.45, 0.8), rng.uniform(-0.2, 0.5)
    w.box(place(0, 0.3 + half, 0), (size * 0.85, size * half, size * length), rotation, paint)
    w.box(place(0, 0.55 + 2 * half, back), (size * 0.73, size * 0.28, size * cabin), rotation, glass)
    w.box(place(0, 0.85 + 2 * half, back), (size * 0.71, size * 0.05, size * cabin * 0.9), rotation, paint)
    w.ball(place(0, 0.3 + 1.9 * half, -0.5 * length), (size * 0.8, size * 0.15, size * length * 0.5), paint, rotation)
    if rng.random() < 0.2:  # a van
        w.box(place(0, 0.6 + 2 * half, 0.1), (size * 0.84, size * 0.5, size * length * 0.9), rotation, paint)
    for side in (-1, 1):
        for end in (-0.62, 0.62):
            w.add(
                CYLINDER,
                place(side * 0.85, 0.32, end * length),
                (size * 0.32, size * 0.12, size * 0.32),
                rotation @ turn_z(math.pi / 2),
                tyre,
            )
        w.ball(
            place(side * 0.6, 0.3 + half, -length),
            (size * 0.14, size * 0.09, size * 0.06),
            w.plain_material((1, 0.95, 0.8), emission=1.0),
            rotation,
        )
        w.ball(
            place(side * 0.65, 0.3 + half * 1.2, length),
            (size * 0.12, size * 0.09, size * 0.05),
            w.plain_material((0.6, 0.05, 0.05)),
            rotation,
        )
    w.grouped(start)


def lorry(w: World, at: Vector, size: float, yaw: float) -> None:
    """A van, a lorry with a box or an open bed, or a bus: tall, long, with windows in front and maybe at the sides."""
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def box(centre: tuple[float, float, float], half: tuple[float, float, float], material: list[float]) -> None:
        w.box(foot + size * (rotation @ np.array(centre)), size * np.array(half), rotation, material)

    paint = w.material(group="", specular=rng.uniform(0.0, 0.6))
    load = paint if rng.random() < 0.4 else w.material(scale=0.5 / size)
    glass = w.plain_material((0.06, 0.07, 0.09), specular=0.8)
    width, length, top = rng.uniform(0.9, 1.25), rng.uniform(2.3, 5.5), rng.uniform(1.9, 3.3)
    cab, bed = min(length * 0.4, rng.uniform(0.6, 1.1)), rng.uniform(0.5, 0.9)
    cab_top = top * rng.uniform(0.75, 1.0)
    box((0, (0.35 + cab_top) / 2, cab - length), (width * 0.95, (cab_top - 0.35) / 2, cab), paint)
    box((0, cab_top * 0.72, -length - 0.02), (width * 0.85, cab_top * 0.16, 0.03), glass)
    if rng.random() < 0.2:  # an open bed
        top = bed + 0.3
    box((0, (bed + top) / 2, cab), (width, (top - bed) / 2, length - cab), load)
    for side in (-1, 1):
        if rng.random() < 0.5:
            box((side * width, top * 0.72, cab * 0.5), (0.02, top * 0.14, length - cab * 0.8), glass)
        for end in (-0.7, 0.6):
            wheel = foot + size * (rotation @ np.array([side * width * 0.9, 0.42, end * length]))
            tyre = w.plain_material((0.04, 0.04, 0.04))
            w.add(CYLINDER, wheel, (size * 0.42, size * 0.14, size * 0.42), rotation @ turn_z(math.pi / 2), tyre)
    w.grouped(start)


def saloon(w: World, at: Vector, size: float, yaw: float) -> None:
    """A car without corners: a rounded body, a rounded cabin of glass under a rounded roof."""
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def ball(centre: tuple[float, float, float], half: tuple[float, float, float], material: list[float]) -> None:
        w.ball(foot + size * (rotation @ np.array(centre)), size * np.array(half), material, rotation)

    paint = w.material(group="", specular=rng.uniform(0.1, 0.9))
    glass = w.plain_material(np.full(3, rng.uniform(0.02, 0.25)), specular=0.8)
    dark = w.plain_material((0.04, 0.04, 0.04))
    width, length, belt = rng.uniform(0.8, 0.95), rng.uniform(1.8, 2.4), rng.uniform(0.8, 1.0)
    cabin, back, roof = length * rng.uniform(0.55, 0.75), length * rng.uniform(-0.05, 0.3), belt + rng.uniform(0.4, 0.7)
    body = (size * width * 0.92, size * (belt - 0.3) / 2, size * length * 0.86)
    w.box(foot + size * (rotation @ np.array([0, (belt + 0.3) / 2, 0])), body, rotation, paint)
    ball((0, (belt + 0.25) / 2, 0), (width * 1.08, (belt - 0.2) * 0.62, length), paint)
    ball((0, belt, back), (width * 0.88, roof - belt, cabin), glass)
    ball((0, belt + 0.12, back), (width * 0.8, roof - belt - 0.06, cabin * rng.uniform(0.55, 0.8)), paint)
    for side in (-1, 1):
        ball((side * (width + 0.08), belt + 0.08, back - cabin * 0.55), (0.1, 0.07, 0.06), paint)
        ball((side * width * 0.7, belt - 0.2, -length * 0.9), (0.2, 0.1, 0.12), w.plain_material((0.9, 0.9, 0.85)))
        ball((side * width * 0.7, belt - 0.1, length * 0.88), (0.2, 0.1, 0.1), w.plain_material((0.5, 0.05, 0.05)))
        for end in (-0.6, 0.6):
            ball((side * width * 0.93, 0.32, end * length), (0.12, 0.33, 0.33), dark)
    w.grouped(start)


def vehicle(w: World, at: Vector, size: float, yaw: float) -> None:
    draw = w.rng.random()
    (lorry if draw < 0.25 else saloon if draw < 0.65 else car)(w, at, size, yaw)
