"""Where scenes happen: grounds, slopes, rooms.

Place in the flow: the first thing a scene kind calls; props are put on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from inference.training import props
from inference.training.kernel import BOX, CYLINDER, ELLIPSOID, QUAD
from inference.training.world import Matrix, World, turn_x, turn_y, turn_z

FLOOR = turn_x(math.pi / 2)


def ground(w: World, height: float = 0.0, size: float = 400.0, slope: Matrix | None = None) -> list[float]:
    """An endless plane; returns its material. `slope` turns it (terrain)."""
    rng = w.rng
    colour = w.green() if rng.random() < 0.35 else w.colour(0.1, 0.8)
    draw = rng.random()
    material = w.material(
        colour, group="" if draw < 0.12 else "grass" if draw < 0.4 else "any",
        scale=rng.choice([0.05, 0.15, 0.4, 1.0]), share=0.0 if rng.random() < 0.6 else 1.0,
    )  # fmt: skip
    turned = FLOOR if slope is None else slope @ FLOOR
    w.add(QUAD, (0, height, 0), (size, size, 1), turned @ turn_z(rng.uniform(0, 6)), material, casts=False)
    return material


def marking(
    w: World, x: float, z: float, half: tuple[float, float], yaw: float, lift: float, slope: Matrix | None = None
) -> None:
    """Paint, a puddle, a shadow, a path: flat on the ground, however dark or bright."""
    draw = w.rng.random()
    if draw < 0.25:
        surface = w.plain_material(np.full(3, w.rng.uniform(0.02, 0.1)))
    elif draw < 0.5:
        surface = w.plain_material(np.full(3, w.rng.uniform(0.7, 1.0)))
    else:
        surface = w.material(scale=0.5)
    centre, turned = np.array([x, lift, z]), turn_y(yaw) @ FLOOR
    if slope is not None:
        centre, turned = slope @ centre, slope @ turned
    w.add(QUAD, centre, (*half, 1), turned, surface, casts=False)


def road(w: World, width: float, yaw: float = 0.0) -> None:
    """A strip of asphalt with lines."""
    grey = np.full(3, w.rng.uniform(0.12, 0.5))
    w.add(
        QUAD,
        (0, 0.01, 0),
        (width / 2, 300, 1),
        turn_y(yaw) @ FLOOR,
        w.material(grey, scale=0.3, share=0.0),
        casts=False,
    )
    paint = w.plain_material((0.85, 0.85, 0.8))
    for lane in range(1, int(w.rng.integers(2, 5))):
        x = -width / 2 + lane * width / 4
        for dash in range(14):
            z = 2.0 + dash * 5
            centre = turn_y(yaw) @ np.array([x, 0.02, z])
            w.add(QUAD, centre, (0.07, 1.2, 1), turn_y(yaw) @ FLOOR, paint, casts=False)


def hills(w: World) -> None:
    """Far ridges."""
    rng = w.rng
    for _ in range(int(rng.integers(1, 5))):
        z = rng.uniform(60, 300)
        e = z * rng.uniform(0.1, 0.6)
        half = (e * rng.uniform(1, 3), e * rng.uniform(0.15, 0.6), e)
        w.add(ELLIPSOID, (w.across(z), 0, z), half, material=w.material(scale=0.03, share=0.0))


@dataclass(frozen=True, slots=True)
class Room:
    """A room's frame: the camera stands inside, the back wall is at `depth` along its axis."""

    turn: Matrix
    half_width: float
    depth: float
    height: float

    def at(self, x: float, y: float, z: float) -> Matrix:
        """World position of a point in room coordinates."""
        return self.turn @ np.array([x, y, z])


def room(w: World, half_width: float, depth: float, height: float, yaw: float, *, sides: bool = True) -> Room:
    """Floor, mostly a ceiling, the back wall, mostly the side walls; skirting and pillars."""
    rng, turned = w.rng, turn_y(yaw)
    here = Room(turned, half_width, depth, height)
    ground(w, 0, 60)
    contrast = rng.uniform(0.02, 0.9) if rng.random() < 0.5 else 0.08
    common = w.material(scale=0.4, contrast=contrast)

    def paint() -> list[float]:
        return common if rng.random() < 0.6 else w.material(scale=0.5)

    if rng.random() < 0.85:
        ceiling = w.material(w.colour(0.5, 1), scale=0.4, contrast=rng.uniform(0, 0.4))
        w.add(QUAD, (0, height, 0), (60, 60, 1), FLOOR, ceiling, casts=False)
    w.add(QUAD, here.at(0, height / 2, depth), (60, height / 2, 1), turned, paint(), casts=False)
    if sides:
        for side in (-1, 1):
            if rng.random() < 0.85:
                w.add(
                    QUAD,
                    here.at(side * half_width, height / 2, 0),
                    (60, height / 2, 1),
                    turned @ turn_y(math.pi / 2),
                    paint(),
                    casts=False,
                )
    if rng.random() < 0.4:
        w.box(here.at(0, 0.06, depth), (60, 0.06, 0.02), turned, w.material(group=""))
    if rng.random() < 0.3:
        pillar(w, here, rng.uniform(-half_width, half_width), depth - 0.1)
    return here


def pillar(w: World, here: Room, x: float, z: float) -> None:
    """Round or square, of any brightness, from floor to ceiling."""
    rng = w.rng
    tone = np.full(3, rng.uniform(0.03, 0.2)) if rng.random() < 0.5 else None
    surface = w.material(tone, share=0.0, contrast=rng.uniform(0, 0.5), scale=0.6)
    half = (rng.uniform(0.1, 0.35), here.height / 2, rng.uniform(0.05, 0.3))
    kind = CYLINDER if rng.random() < 0.3 else BOX
    w.add(kind, here.at(x, here.height / 2, z), half, here.turn, surface)


def wall_things(w: World, here: Room, count: int, *, sides: bool = True) -> None:
    """Pictures, screens, doors and panels flat on the walls; a door reaches the floor."""
    rng = w.rng
    for _ in range(count):
        half = (rng.uniform(0.15, 1), rng.uniform(0.15, 0.8))
        y = rng.uniform(0.6, max(0.7, here.height - 0.2))
        if rng.random() < 0.25:  # a door or a tall panel
            half = (rng.uniform(0.35, 0.8), rng.uniform(0.9, here.height / 2))
            y = half[1]
        if not sides or rng.random() < 0.6:
            x = w.across(here.depth) if not sides else rng.uniform(-here.half_width, here.half_width)
            props.picture(w, here.at(x, y, here.depth - 0.02), half, here.turn)
        else:
            side = rng.choice([-1, 1])
            at = here.at(side * (here.half_width - 0.02), y, rng.uniform(0.5, here.depth))
            props.picture(w, at, half, here.turn @ turn_y(math.pi / 2))


def inside(
    w: World, half_width: tuple[float, float], depth: tuple[float, float], yaw: float, *, sides: bool = True
) -> Room:
    """A room with the camera in it, somewhere between the floor and the ceiling."""
    rng = w.rng
    w.outdoors = False
    height = rng.uniform(2.2, 4)
    w.eye[1] = rng.uniform(0.5, height * 0.85) if rng.random() < 0.8 else height * 0.95
    w.pitch = rng.normal(-0.12, 0.18)
    return room(w, rng.uniform(*half_width), rng.uniform(*depth), height, yaw, sides=sides)


def furnish(w: World, here: Room, count: int) -> None:
    """Things and people that stand about."""
    for _ in range(count):
        z = w.rng.uniform(0.9, here.depth)
        x = w.rng.uniform(-0.95, 0.95) * min(here.half_width, w.half_width * z)
        props.anything(w, here.at(x, 0, z), 1.0, w.rng.normal(0, 0.8), outdoors=False)
