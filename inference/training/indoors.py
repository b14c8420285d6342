"""Scene kinds between walls and on tables.

Place in the flow: declared here, listed and drawn by `scenes.py`.
"""

from __future__ import annotations

import math

import numpy as np

from inference.training import places, props
from inference.training.kernel import BOX, CYLINDER, ELLIPSOID, QUAD
from inference.training.people import arm, person
from inference.training.scenes import kind
from inference.training.world import World, turn_x, turn_y


def _foreground(w: World, count: int) -> None:
    for _ in range(count):
        z = w.rng.uniform(0.4, 1.2)
        at = (w.across(z, 1.2), w.eye[1] - w.half_width * z * w.rng.uniform(0.2, 0.9), z)
        props.clutter(w, at, w.rng.uniform(0.08, 0.3))


@kind(2.0)
def room(w: World) -> None:
    here = places.inside(w, (1.2, 4), (2, 8), w.rng.normal(0, 0.25))
    places.wall_things(w, here, int(w.rng.integers(0, 6)))
    places.furnish(w, here, int(w.rng.integers(0, 7)))
    if w.chance(0.4):
        z = w.rng.uniform(0.8, max(1.0, min(here.depth - 0.3, 4.0)))
        person(w, here.at(w.across(z, 0.9), 0, z), w.rng.uniform(0.9, 1.1), w.rng.normal(0, 0.8))
    _foreground(w, int(w.rng.integers(0, 3)))


@kind(0.8)
def corridor(w: World) -> None:
    here = places.inside(w, (0.8, 1.8), (6, 30), w.rng.normal(0, 0.25))
    places.wall_things(w, here, int(w.rng.integers(0, 5)))
    places.furnish(w, here, int(w.rng.integers(0, 5)))
    for _ in range(int(w.rng.integers(0, 8))):
        at = here.at(w.rng.choice([-1, 1]) * here.half_width, 1, w.rng.uniform(1.5, here.depth))
        w.box(at, (0.08, 1.0, 0.45), here.turn, w.material(scale=0.7))


@kind(1.3)
def wall(w: World) -> None:
    """Someone before a wall: the presenter, the passer-by, the interview."""
    rng = w.rng
    yaw = 0.0 if rng.random() < 0.5 else rng.normal(0, 0.15)
    here = places.inside(w, (8, 8.01), (1.2, 5), yaw, sides=False)
    places.wall_things(w, here, int(rng.integers(0, 5)), sides=False)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        z = rng.uniform(0.8, max(0.9, min(here.depth - 0.25, 3.5)))
        edge = rng.choice([-1, 1]) * w.half_width * z * rng.uniform(0.8, 1.1)  # cut by the frame
        x = edge if rng.random() < 0.25 else w.across(z, 0.8)
        person(w, here.at(x, 0, z), rng.uniform(0.9, 1.1), rng.normal(0, 0.6), gesture=rng.random() < 0.4)
    places.furnish(w, here, int(rng.integers(0, 3)))


@kind(1.0)
def panels(w: World) -> None:
    """Dark doors, screens, boards and pillars on or at a wall: dark is not near."""
    rng = w.rng
    here = places.inside(w, (1.8, 5), (2.5, 9), rng.normal(0, 0.3))
    places.wall_things(w, here, int(rng.integers(2, 9)))
    for _ in range(int(rng.integers(0, 4))):
        places.pillar(w, here, rng.uniform(-here.half_width, here.half_width), here.depth - rng.uniform(0, 0.4))
    if rng.random() < 0.3:
        places.pillar(w, here, rng.uniform(-here.half_width, here.half_width), rng.uniform(1.2, here.depth))
    places.furnish(w, here, int(rng.integers(0, 4)))


def _desk(w: World) -> tuple[float, float, float]:
    """A surface seen from near: returns the things' size, their depth and the wall's."""
    rng = w.rng
    w.outdoors = False
    size = rng.uniform(0.15, 0.5)
    w.eye[1], w.pitch = size * rng.uniform(0.3, 2.5), -rng.uniform(0, 0.6)
    wall_depth = rng.uniform(1.2, 6) * size * 3
    places.ground(w, 0, 60 if rng.random() < 0.6 else wall_depth)
    w.add(
        QUAD,
        turn_y(rng.normal(0, 0.15)) @ np.array([0, 0, wall_depth]),
        (60, 60, 1),
        turn_y(rng.normal(0, 0.15)),
        w.material(scale=0.5 / size, contrast=rng.uniform(0, 1)),
        casts=False,
    )
    depth = w.eye[1] / max(0.15, math.tan(max(0.12, -w.pitch)))
    return size, min(depth, wall_depth * 0.7), wall_depth


@kind(2.0)
def table_top(w: World) -> None:
    """Bottles, glasses and other things on a table, often with a hand."""
    rng = w.rng
    size, depth, wall_depth = _desk(w)
    for _ in range(int(rng.integers(1, 9))):
        z = max(size * 0.8, min(depth * rng.uniform(0.5, 1.6), wall_depth - size * 0.3))
        at = (w.across(z, 0.9), 0, z)
        draw = rng.random()
        if draw < 0.42:
            props.bottle(w, at, size * rng.uniform(0.7, 1.3))
        elif draw < 0.58:
            props.glass(w, at, size * rng.uniform(0.35, 0.8))
        else:
            props.clutter(w, at, size * rng.uniform(0.15, 0.6))
    if rng.random() < 0.4:
        z = max(size * 0.6, depth * rng.uniform(0.5, 1.1))
        arm(w, (w.across(z, 0.4), size * rng.uniform(0.2, 1), z), size * 2.2, int(rng.choice([-1, 1])))
    if rng.random() < 0.25:  # the table's own front edge, and darkness below it
        w.box((0, -size * 0.5, max(0.3 * size, depth * 0.35)), (5, size * 0.5, 0.02), material=w.material())


@kind(0.8)
def flat_lay(w: World) -> None:
    """Many like or unlike things spread on one ground, from above: sweets, tools, coins, a meal, a game."""
    rng = w.rng
    w.outdoors = False
    size = w.log_uniform(0.02, 0.3)
    w.eye[1], w.pitch, w.roll = size * w.log_uniform(3, 14), -rng.uniform(0.6, 1.57), rng.normal(0, 0.4)
    tone = np.full(3, rng.choice([0.95, 0.6, 0.06])) if rng.random() < 0.5 else w.colour()
    ground = w.plain_material(tone) if rng.random() < 0.6 else w.material(tone, scale=0.3 / size)
    w.add(QUAD, (0, 0, 0), (80, 80, 1), places.FLOOR, ground, casts=False)
    like = [w.material(scale=1 / size) for _ in range(int(rng.integers(1, 6)))] if rng.random() < 0.5 else []
    shape, half = int(rng.choice([ELLIPSOID, ELLIPSOID, CYLINDER, BOX])), size * rng.uniform(0.2, 1, 3) * [1, 0.5, 1]
    for _ in range(int(rng.integers(3, 40))):
        x, z = w.on_ground()
        if like:
            start, turned = len(w.objects), turn_y(rng.uniform(0, 6.3))
            w.add(shape, (x, 0.95 * half[1], z), half, turned, like[int(rng.integers(len(like)))])
            w.grouped(start)
        else:
            props.clutter(w, (x, 0, z), size * rng.uniform(0.2, 0.9))


@kind(1.0)
def abstract(w: World) -> None:
    """Solids in space: depth from occlusion, shading and perspective alone."""
    rng = w.rng
    depth = rng.uniform(4, 20)
    w.outdoors, w.pitch = rng.random() < 0.4, rng.normal(0, 0.3)
    if rng.random() < 0.7:
        w.add(
            QUAD,
            (0, 0, depth),
            (80, 80, 1),
            turn_y(rng.normal(0, 0.4)) @ turn_x(rng.normal(0, 0.4)),
            w.material(scale=0.3),
            casts=False,
        )
    if rng.random() < 0.4:
        places.ground(w, -rng.uniform(0.5, 2))
    for _ in range(int(rng.integers(1, 18))):
        z = rng.uniform(1, depth * 0.95)
        size, shape = z * rng.uniform(0.05, 0.35), int(rng.integers(0, 6))
        half = size * rng.uniform(0.3, 1, 3)
        rotation = (
            turn_y(rng.uniform(0, 6)) @ turn_x(rng.uniform(0, 6)) if shape != QUAD else turn_y(rng.normal(0, 0.4))
        )
        cut = rng.uniform(0.2, 0.7) if shape == QUAD and rng.random() < 0.6 else 0.0
        start = len(w.objects)
        w.add(
            shape,
            (w.across(z), w.eye[1] + w.across(z, 0.7), z),
            half,
            rotation,
            w.material(scale=0.5 / size, cutout=cut),
        )
        w.grouped(start)


@kind(1.0, held_out=True)
def shelf(w: World) -> None:
    """Boards full of boxes behind a table."""
    rng = w.rng
    size, depth, wall_depth = _desk(w)
    for board in range(4):
        w.box((0, board * size * 1.2 - 0.5, wall_depth), (5, 0.03, 0.5 * size), material=w.material())
    for board in range(3):
        for _ in range(6):
            w.box(
                (w.across(wall_depth), board * size * 1.2 - 0.5 + size * 0.4, wall_depth - 0.1 * size),
                (size * rng.uniform(0.05, 0.4), size * 0.35, size * 0.2),
            )
    for _ in range(int(rng.integers(1, 9))):
        z = max(size * 0.8, min(depth * rng.uniform(0.5, 1.6), wall_depth - size * 0.3))
        at = (w.across(z, 0.9), 0, z)
        if rng.random() < 0.4:
            props.bottle(w, at, size * rng.uniform(0.7, 1.3))
        else:
            props.clutter(w, at, size * rng.uniform(0.15, 0.6))


@kind(1.0, held_out=True)
def stairs(w: World) -> None:
    """A staircase in a room."""
    rng = w.rng
    here = places.inside(w, (1.2, 4), (2, 8), rng.normal(0, 0.25))
    steps, tread, stone = int(rng.integers(5, 12)), rng.uniform(0.25, 0.4), w.material(scale=1)
    for step in range(steps):
        w.box(
            (0, (step + 1) * 0.09, 1.5 + step * tread + tread * steps / 2),
            (here.half_width, (step + 1) * 0.09, tread * steps / 2),
            material=stone,
        )
    places.wall_things(w, here, int(rng.integers(0, 5)))
    places.furnish(w, here, int(rng.integers(0, 7)))
    _foreground(w, int(rng.integers(0, 3)))
