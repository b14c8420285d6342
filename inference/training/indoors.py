"""Scene kinds between walls, and people seen from near.

Place in the flow: declared here, listed and drawn by `scenes.py`.
"""

from __future__ import annotations

import math

import numpy as np

from inference.training import places, props
from inference.training.kernel import QUAD
from inference.training.people import arm, crowd, person
from inference.training.scenes import kind
from inference.training.world import World, turn_x, turn_y


def _inside(
    w: World, half_width: tuple[float, float], depth: tuple[float, float], yaw: float, *, sides: bool = True
) -> places.Room:
    rng = w.rng
    w.outdoors = False
    height = rng.uniform(2.2, 4)
    w.eye[1] = rng.uniform(0.5, height * 0.85) if rng.random() < 0.8 else height * 0.95
    w.pitch = rng.normal(-0.12, 0.18)
    return places.room(w, rng.uniform(*half_width), rng.uniform(*depth), height, yaw, sides=sides)


def _furnish(w: World, here: places.Room, count: int) -> None:
    for _ in range(count):
        z = w.rng.uniform(0.9, here.depth)
        x = w.rng.uniform(-0.95, 0.95) * min(here.half_width, w.half_width * z)
        props.anything(w, here.at(x, 0, z), 1.0, w.rng.normal(0, 0.8), outdoors=False)


def _foreground(w: World, count: int) -> None:
    for _ in range(count):
        z = w.rng.uniform(0.4, 1.2)
        at = (w.across(z, 1.2), w.eye[1] - w.half_width * z * w.rng.uniform(0.2, 0.9), z)
        props.clutter(w, at, w.rng.uniform(0.08, 0.3))


@kind(2.0)
def room(w: World) -> None:
    here = _inside(w, (1.2, 4), (2, 8), w.rng.normal(0, 0.25))
    places.wall_things(w, here, int(w.rng.integers(0, 6)))
    _furnish(w, here, int(w.rng.integers(0, 7)))
    if w.chance(0.4):
        z = w.rng.uniform(0.8, max(1.0, min(here.depth - 0.3, 4.0)))
        person(w, here.at(w.across(z, 0.9), 0, z), w.rng.uniform(0.9, 1.1), w.rng.normal(0, 0.8))
    _foreground(w, int(w.rng.integers(0, 3)))


@kind(0.8)
def corridor(w: World) -> None:
    here = _inside(w, (0.8, 1.8), (6, 30), w.rng.normal(0, 0.25))
    places.wall_things(w, here, int(w.rng.integers(0, 5)))
    _furnish(w, here, int(w.rng.integers(0, 5)))
    for _ in range(int(w.rng.integers(0, 8))):
        at = here.at(w.rng.choice([-1, 1]) * here.half_width, 1, w.rng.uniform(1.5, here.depth))
        w.box(at, (0.08, 1.0, 0.45), here.turn, w.material(scale=0.7))


@kind(1.3)
def wall(w: World) -> None:
    """Someone before a wall: the presenter, the passer-by, the interview."""
    rng = w.rng
    yaw = 0.0 if rng.random() < 0.5 else rng.normal(0, 0.15)
    here = _inside(w, (8, 8.01), (1.2, 5), yaw, sides=False)
    places.wall_things(w, here, int(rng.integers(0, 5)), sides=False)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        z = rng.uniform(0.8, max(0.9, min(here.depth - 0.25, 3.5)))
        edge = rng.choice([-1, 1]) * w.half_width * z * rng.uniform(0.8, 1.1)  # cut by the frame
        x = edge if rng.random() < 0.25 else w.across(z, 0.8)
        person(w, here.at(x, 0, z), rng.uniform(0.9, 1.1), rng.normal(0, 0.6), gesture=rng.random() < 0.4)
    _furnish(w, here, int(rng.integers(0, 3)))


@kind(1.0)
def panels(w: World) -> None:
    """Dark doors, screens, boards and pillars on or at a wall: dark is not near."""
    rng = w.rng
    here = _inside(w, (1.8, 5), (2.5, 9), rng.normal(0, 0.3))
    places.wall_things(w, here, int(rng.integers(2, 9)))
    for _ in range(int(rng.integers(0, 4))):
        places.pillar(w, here, rng.uniform(-here.half_width, here.half_width), here.depth - rng.uniform(0, 0.4))
    if rng.random() < 0.3:
        places.pillar(w, here, rng.uniform(-here.half_width, here.half_width), rng.uniform(1.2, here.depth))
    _furnish(w, here, int(rng.integers(0, 4)))


@kind(2.2)
def portrait(w: World) -> None:
    """One to three people from the knees or the chest up."""
    rng = w.rng
    depth = rng.uniform(0.7, 2.6)
    w.eye[1], w.pitch, w.outdoors = rng.uniform(1.1, 1.7), rng.normal(-0.03, 0.08), rng.random() < 0.4
    count = int(rng.choice([1, 1, 1, 2, 3]))
    for index in range(count):
        z = depth + (rng.uniform(0, 1.5) if index else 0)
        spread = 0.15 if count == 1 and rng.random() < 0.6 else 0.95
        person(
            w,
            (w.across(z, spread), rng.normal(0, 0.06), z),
            1.0,
            rng.normal(0, 0.5),
            legs=rng.random() < 0.7,
            gesture=rng.random() < 0.35,
        )
    _backdrop(w, depth)
    if rng.random() < 0.25:
        props.table(w, (0, w.eye[1] - 0.35 - 0.74, depth * 0.6), 1.0, 0)


@kind(1.0)
def face(w: World) -> None:
    """A head that fills the frame, often cut by it; sometimes a hand before it."""
    rng = w.rng
    depth = rng.uniform(0.25, 0.7)
    w.eye[1], w.pitch, w.outdoors = rng.uniform(1.5, 1.75), rng.normal(0, 0.08), rng.random() < 0.4
    x = w.across(depth, 0.5)
    person(
        w,
        (x, w.eye[1] - 1.66 + rng.normal(0, 0.06), depth),
        1.0,
        rng.normal(0, 0.4),
        legs=False,
        gesture=rng.random() < 0.3,
    )
    if rng.random() < 0.25:
        z = depth * rng.uniform(0.5, 0.8)
        arm(
            w,
            (w.across(z, 0.7), w.eye[1] + z * w.half_height * rng.uniform(-0.9, 0.3), z),
            0.9,
            int(rng.choice([-1, 1])),
        )
    if rng.random() < 0.35:  # over the shoulder: the back of another head at the edge
        z = depth * rng.uniform(0.5, 0.9)
        person(
            w,
            (rng.choice([-1, 1]) * w.half_width * z, w.eye[1] - 1.6, z),
            1.0,
            math.pi + rng.normal(0, 0.4),
            legs=False,
            simple=True,
        )
    _backdrop(w, depth + 0.3)


def _backdrop(w: World, depth: float) -> None:
    """Land or a wall behind people at `depth`."""
    rng = w.rng
    if w.outdoors:
        places.ground(w)
        for _ in range(int(rng.integers(2, 10))):
            z = w.log_uniform(depth + 1.5, 50)
            props.anything(w, (w.across(z), 0, z), 1.0, rng.uniform(0, 6))
        return
    distance, turned = depth + rng.uniform(0.25, 4), turn_y(rng.normal(0, 0.12))
    back = w.material(scale=0.4, contrast=rng.uniform(0.02, 1))
    w.add(QUAD, turned @ np.array([0, 0, distance]), (80, 80, 1), turned, back, casts=False)
    if rng.random() < 0.5:
        places.ground(w, 0, 60)
    if rng.random() < 0.5:
        ceiling = w.material(w.colour(0.5, 1), scale=0.4, contrast=0.1)
        w.add(QUAD, (0, rng.uniform(2.1, 3), 0), (60, 60, 1), places.FLOOR, ceiling, casts=False)
    here = places.Room(turned, 8, distance, 3)
    places.wall_things(w, here, int(rng.integers(0, 5)), sides=False)
    for _ in range(int(rng.integers(0, 3))):
        z = rng.uniform(depth, distance - 0.1)
        props.anything(w, (w.across(z), 0, z), 1.0, rng.normal(0, 1), outdoors=False)
    if rng.random() < 0.2 and distance > depth + 1.5:
        crowd(w, depth + 1, distance - 0.3, 4)
    if rng.random() < 0.25:
        z = depth * rng.uniform(0.4, 0.8)
        w.box(
            (rng.choice([-1, 1]) * w.half_width * z, rng.uniform(0.3, 1.3), z),
            rng.uniform(0.05, 0.35, 3),
            turn_y(rng.normal(0, 0.3)),
        )


@kind(1.2)
def studio(w: World) -> None:
    """People, or wares, before one colour without a seam: the team in rows, the guest, the advertisement."""
    rng = w.rng
    w.outdoors = False
    wares = rng.random() < 0.35
    size = rng.uniform(0.15, 0.5) if wares else 1.0
    depth = size * rng.uniform(1.0, 3.0) if wares else rng.uniform(0.8, 4.5)
    w.eye[1] = size * rng.uniform(0.6, 2.0) if wares else rng.uniform(1.0, 1.7)
    w.pitch = -rng.uniform(0.0, 0.5) if wares else rng.normal(-0.02, 0.06)
    tone = w.colour(0.75, 1) if rng.random() < 0.35 else w.colour(0.02, 0.95)
    if rng.random() < 0.4:
        tone = np.full(3, rng.choice([0.95, 0.95, 0.5, 0.06]))  # white, grey, black
    glow = rng.choice([0.0, 0.5, 1.0])
    cloth = w.plain_material(tone, emission=glow)
    w.add(QUAD, (0, 0, depth * rng.uniform(1.4, 3.5)), (80, 80, 1), material=cloth, casts=False)
    if glow < 1 and (wares or rng.random() < 0.4):  # without a shadow nobody could see a floor
        w.add(QUAD, (0, 0, 0), (80, 80, 1), places.FLOOR, cloth, casts=False)
    if wares:
        for _ in range(int(rng.choice([1, 1, 2, 3, 6, 12]))):
            at = (w.across(depth, 0.7), 0, depth * rng.uniform(0.85, 1.25))
            if rng.random() < 0.35:
                props.bottle(w, at, size * rng.uniform(0.6, 1.3))
            else:
                props.clutter(w, at, size * rng.uniform(0.2, 0.7))
        return
    rows = int(rng.choice([1, 1, 1, 2, 3]))
    apart = rng.uniform(0.45, 0.9)
    for row in range(rows):
        z = depth + 0.55 * row
        across = max(1, int(rng.integers(1, 2 + int(1.6 * w.half_width * z / apart))))
        start = rng.uniform(-0.3, 0.3) - apart * (across - 1) / 2
        for place in range(min(across, 9)):
            at = (start + apart * place + rng.normal(0, 0.05), 0.12 * row, z + rng.normal(0, 0.06))
            person(
                w,
                at,
                rng.uniform(0.92, 1.08),
                rng.normal(0, 0.3),
                simple=z > 3 and across > 4,
                gesture=rng.random() < 0.15,
            )


@kind(0.7)
def podium(w: World) -> None:
    """Someone before curtains and flags, often behind a desk: the speaker, the singer, the newsreader."""
    rng = w.rng
    w.outdoors = False
    depth = rng.uniform(0.8, 3.0)
    w.eye[1], w.pitch = rng.uniform(1.2, 1.8), rng.normal(-0.03, 0.06)
    behind = depth + rng.uniform(0.4, 2.5)
    fold = rng.uniform(0.06, 0.25)
    cloth = w.material(share=0.0, contrast=rng.uniform(0, 0.3))
    reach = 1.3 * w.half_width * behind
    for index in range(min(40, int(2 * reach / fold))):
        x = -reach + fold * index
        w.rod(
            (x, -0.5, behind + fold * rng.uniform(0.3, 0.9)), (x + rng.normal(0, 0.02), 4, behind + fold), fold, cloth
        )
    w.add(QUAD, (0, 0, behind + 2 * fold), (80, 80, 1), material=cloth, casts=False)
    for _ in range(int(rng.choice([0, 0, 1, 2, 3]))):  # a flag hangs down its pole in folds
        x, z = w.across(behind, 0.8), rng.uniform(depth + 0.2, behind)
        w.rod((x, 0, z), (x, 2.4, z), 0.02, w.plain_material(w.colour(0.1, 0.9)))
        for strip in range(3):
            side = x + 0.09 * strip
            w.rod((side, rng.uniform(0.5, 1.2), z), (side - 0.05, 2.2, z), 0.07, w.plain_material(w.colour(0.05, 1)))
    for index in range(int(rng.choice([1, 1, 1, 2]))):
        person(w, (w.across(depth, 0.35), 0, depth + 0.4 * index), 1.0, rng.normal(0, 0.3), gesture=rng.random() < 0.3)
    if rng.random() < 0.5:
        z = depth - rng.uniform(0.25, 0.45)
        half = (rng.uniform(0.25, 1.2), rng.uniform(0.45, 0.6), 0.12)
        w.box((rng.normal(0, 0.15), half[1], z), half, turn_y(rng.normal(0, 0.15)))
        if rng.random() < 0.5:
            w.rod(
                (rng.normal(0, 0.1), 2 * half[1], z), (0, w.eye[1] - 0.2, z + 0.1), 0.01, w.plain_material((0.05,) * 3)
            )


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
        if rng.random() < 0.45:
            props.bottle(w, at, size * rng.uniform(0.7, 1.3))
        else:
            props.clutter(w, at, size * rng.uniform(0.15, 0.6))
    if rng.random() < 0.4:
        z = max(size * 0.6, depth * rng.uniform(0.5, 1.1))
        arm(w, (w.across(z, 0.4), size * rng.uniform(0.2, 1), z), size * 2.2, int(rng.choice([-1, 1])))
    if rng.random() < 0.25:  # the table's own front edge, and darkness below it
        w.box((0, -size * 0.5, max(0.3 * size, depth * 0.35)), (5, size * 0.5, 0.02), material=w.material())


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
    here = _inside(w, (1.2, 4), (2, 8), rng.normal(0, 0.25))
    steps, tread, stone = int(rng.integers(5, 12)), rng.uniform(0.25, 0.4), w.material(scale=1)
    for step in range(steps):
        w.box(
            (0, (step + 1) * 0.09, 1.5 + step * tread + tread * steps / 2),
            (here.half_width, (step + 1) * 0.09, tread * steps / 2),
            material=stone,
        )
    places.wall_things(w, here, int(rng.integers(0, 5)))
    _furnish(w, here, int(rng.integers(0, 7)))
    _foreground(w, int(rng.integers(0, 3)))
