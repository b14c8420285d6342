"""Scene kinds of people: portraits, faces, guests round a table, speakers, teams, who shows something.

Place in the flow: declared here, drawn by `scenes.py`. What most films show most of the time: someone, from near,
before a wall, a room, a street or leaves.
"""

from __future__ import annotations

import math

import numpy as np

from inference.training import places, props
from inference.training.kernel import CENTRE, QUAD
from inference.training.people import arm, crowd, person
from inference.training.scenes import kind
from inference.training.world import World, turn_x, turn_y, turn_z


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
    """Land or a wall behind people at `depth` and a little further."""
    rng = w.rng
    if w.outdoors:
        far = max(row[CENTRE + 2] for row in w.objects)
        places.ground(w)
        for _ in range(int(rng.integers(2, 10))):
            z = w.log_uniform(depth + 1.5, 50)
            props.anything(w, (w.across(z), 0, z), 1.0, rng.uniform(0, 6))
        if rng.random() < 0.4:
            _leaves(w, far)
        return
    distance, turned = depth + rng.uniform(0.25, 4), turn_y(rng.normal(0, 0.12))
    if rng.random() < 0.15:
        w.dark = distance - 0.15
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


def _leaves(w: World, far: float) -> None:
    """A hedge, the edge of a wood, ivy on a wall: busy, and close behind the farthest of the people."""
    rng = w.rng
    behind, turned = far + w.log_uniform(0.8, 8), turn_y(rng.normal(0, 0.12))
    green = w.material(w.green(), group="foliage", scale=rng.choice([0.3, 0.6, 1.5]), contrast=rng.uniform(0.3, 1))
    w.add(QUAD, (0, 0, behind), (80, rng.choice([2.0, 80.0]), 1), turned, green, casts=False)
    for _ in range(int(rng.integers(0, 6))):
        size = rng.uniform(0.2, 0.8)
        z = far + 1.5 * size + w.log_uniform(0.2, 6)
        props.bush(w, (w.across(z), rng.uniform(0, 1.5), z), size)
    for _ in range(int(rng.integers(0, 3))):
        z = far + w.log_uniform(2, 12)
        props.tree(w, (w.across(z), 0, z), rng.uniform(3, 9))


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
    _rows(w, depth, int(rng.choice([1, 1, 1, 2, 3])), rng.uniform(0.3, 0.9))


def _rows(w: World, depth: float, rows: int, apart: float) -> None:
    """People side by side, each row a little higher behind the one before it."""
    rng = w.rng
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


@kind(0.5)
def team(w: World) -> None:
    """A team, a class, a choir in rows, outdoors or before a wall."""
    rng = w.rng
    depth = rng.uniform(2.5, 6.0)
    w.eye[1], w.pitch, w.outdoors = rng.uniform(1.1, 2.0), rng.normal(-0.05, 0.04), rng.random() < 0.6
    rows = int(rng.integers(2, 5))
    _rows(w, depth, rows, rng.uniform(0.35, 0.6))
    _backdrop(w, depth + 0.6 * rows)


@kind(1.0)
def showing(w: World) -> None:
    """Someone who holds a board or a sheet before the camera, or stands at a screen."""
    rng = w.rng
    depth = rng.uniform(0.7, 2.2)
    w.eye[1], w.pitch, w.outdoors = rng.uniform(1.1, 1.7), rng.normal(-0.03, 0.08), rng.random() < 0.2
    person(w, (w.across(depth, 0.7), rng.normal(0, 0.06), depth), 1.0, rng.normal(0, 0.5), gesture=rng.random() < 0.5)
    held = rng.random() < 0.65
    z = depth - rng.uniform(0.25, 0.45) if held else depth + rng.uniform(0.2, 1.5)
    width = z * w.half_width * rng.uniform(0.2, 0.95 if held else 1.2)
    turned = turn_y(rng.normal(0, 0.3)) @ turn_x(rng.normal(0, 0.25)) @ turn_z(rng.normal(0, 0.3))
    if not held:
        turned = turn_y(rng.normal(0, 0.12))
    at = (w.across(z, 0.6), w.eye[1] + z * rng.uniform(-0.5, 0.5) * w.half_height, z)
    props.board(w, at, (width, width * rng.uniform(0.5, 1.1)), turned)
    _backdrop(w, max(depth, z) + 0.4)


@kind(1.0)
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


def _laid_table(w: World, here: places.Room, x: float, z: float) -> tuple[float, float]:
    """A table with bottles and plates at (x, z) of a room; returns its half width and half depth."""
    rng, start, top = w.rng, len(w.objects), w.material(scale=1.5)
    half = (rng.uniform(0.4, 1.0), rng.uniform(0.3, 0.5))
    w.box(here.at(x, 0.73, z), (half[0], 0.02, half[1]), here.turn, top)
    for a in (-0.9, 0.9):
        for b in (-0.9, 0.9):
            w.rod(
                here.at(x + a * half[0], 0, z + b * half[1]), here.at(x + a * half[0], 0.73, z + b * half[1]), 0.03, top
            )
    for _ in range(int(rng.integers(0, 8))):
        at = here.at(x + rng.uniform(-0.85, 0.85) * half[0], 0.75, z + rng.uniform(-0.8, 0.8) * half[1])
        size, draw = rng.uniform(0.04, 0.12), rng.random()
        if draw < 0.4:
            props.bottle(w, at, 2.5 * size)
        elif draw < 0.6:
            props.glass(w, at, 1.8 * size)
        else:
            props.clutter(w, at, size)
    w.grouped(start)
    return half


@kind(2.0)
def gathering(w: World) -> None:
    """People who sit and stand round a table: the meal, the meeting, the candle-lit evening."""
    rng, yaw = w.rng, w.rng.normal(0, 0.2)
    here = places.inside(w, (1.8, 4.5), (3, 9), yaw)
    w.eye[1], w.pitch = rng.uniform(0.95, 1.8), rng.normal(-0.12, 0.1)
    places.wall_things(w, here, int(rng.integers(0, 6)))
    away = rng.uniform(0.9, min(3.2, here.depth - 1.4))
    x, _, z = here.turn.T @ np.array([w.across(away, 0.5), 0, away])
    x = float(np.clip(x, 1.1 - here.half_width, here.half_width - 1.1))
    half = _laid_table(w, here, x, z)
    if rng.random() < 0.3:
        w.dark = away + 0.5
    for _ in range(int(rng.integers(1, 6))):
        draw, gap = rng.random(), rng.uniform(0.22, 0.6)
        along, across = x + rng.uniform(-1, 1) * half[0], z + rng.uniform(-1, 1) * half[1]
        end = rng.choice([-1, 1]) * (half[0] + gap)
        # Mostly behind the table or at its ends; now and then someone's back is before it.
        at = (
            (along, z + half[1] + gap)
            if draw < 0.5
            else (x + end, across)
            if draw < 0.88
            else (along, z - half[1] - gap)
        )
        if at[1] < 0.5 or at[1] > here.depth - 0.35 or abs(at[0]) > here.half_width - 0.3:
            continue
        faces = math.atan2(at[0] - x, at[1] - z) + yaw + rng.normal(0, 0.4)
        sits = rng.random() < 0.75
        if sits:
            props.chair(w, here.at(at[0], 0, at[1]), 1.0, faces)
        size = rng.uniform(0.92, 1.08)
        person(w, here.at(at[0], 0, at[1]), size, faces, sitting=sits, gesture=rng.random() < 0.3)
    places.furnish(w, here, int(rng.integers(0, 3)))
