"""People, hands and faces: the things that stereo must not get wrong.

Place in the flow: called by the scene kinds with a `World`. Every figure
stands with its feet at `at`, is about 1.75 m tall times `size`, and looks
towards the camera at yaw 0. One call is one group (`World.grouped`), so that
a clip may move it as a whole.
"""

# ruff: noqa: RUF005 (a vector plus a list is a sum here, not a concatenation)
from __future__ import annotations

import math

import numpy as np

from inference.training.kernel import BOX, CAPSULE, ELLIPSOID, QUAD
from inference.training.world import Matrix, Vector, World, turn_x, turn_y, turn_z


def _head(w: World, centre: Matrix, size: float, rotation: Matrix, skin: list[float], detail: bool) -> None:
    """Head with hair; with eyes, brows, nose, mouth and ears when it is seen from near."""
    rng = w.rng
    radius = size * rng.uniform(0.085, 0.1)

    def place(x: float, y: float, z: float) -> Matrix:
        return centre + radius * (rotation @ np.array([x, y, z]))

    w.ball(centre, (radius * 0.85, radius * 1.25, radius), skin, rotation)
    hair_colour = w.colour(0.03, 0.6) * rng.choice([0.3, 1])
    hair = w.material(hair_colour, contrast=0.5, share=0.0, scale=2 / size)
    style = rng.random()
    if style < 0.9:
        w.ball(place(0, 0.37, 0.3), (radius * 0.98, radius * 1.15, radius * 0.98), hair, rotation)
    if style < 0.35:
        w.ball(place(0, -1.0, 0.6), (radius * 1.3, radius * 2.1, radius * 0.8), hair, rotation)
    elif style > 0.9:  # a hat
        hat = w.material()
        w.ball(place(0, 0.7, 0.1), (radius * 1.05, radius * 0.9, radius * 1.1), hat, rotation)
        w.ball(place(0, 0.5, -0.3), (radius * 1.4, radius * 0.15, radius * 1.5), hat, rotation)
    if not detail:
        return
    dark = w.plain_material((0.05, 0.04, 0.04))
    white = w.plain_material((0.85, 0.83, 0.8))
    for side in (-1, 1):
        w.ball(place(side * 0.38, 0.2, -0.86), (radius * 0.17, radius * 0.1, radius * 0.1), white, rotation)
        w.ball(place(side * 0.38, 0.2, -0.93), (radius * 0.08, radius * 0.09, radius * 0.06), dark, rotation)
        w.ball(place(side * 0.38, 0.42, -0.86), (radius * 0.22, radius * 0.05, radius * 0.1), hair, rotation)
        w.ball(place(side * 0.87, 0.05, 0.1), (radius * 0.1, radius * 0.28, radius * 0.2), skin, rotation)
    lips = w.plain_material(np.array(skin[:3]) * [0.8, 0.45, 0.45])
    w.ball(place(0, -0.55, -0.85), (radius * 0.3, radius * rng.uniform(0.06, 0.2), radius * 0.12), lips, rotation)
    w.ball(place(0, -0.05, -0.98), (radius * 0.14, radius * 0.28, radius * 0.24), skin, rotation)
    if rng.random() < 0.2:  # glasses
        for side in (-1, 1):
            w.add(
                QUAD, place(side * 0.4, 0.18, -1.05), (radius * 0.32, radius * 0.22, 1), rotation,
                w.plain_material((0.05, 0.05, 0.06), specular=0.6, opacity=rng.choice([0.5, 1.0])),
            )  # fmt: skip


def hand(w: World, at: Vector, size: float, rotation: Matrix, skin: list[float], fingers: bool) -> None:
    """A palm, with a thumb and four fingers along the rotation's y axis when wanted."""
    centre = np.asarray(at, float)
    w.ball(centre, (size * 0.045, size * 0.055, size * 0.03), skin, rotation)
    if not fingers:
        return
    curl = w.rng.uniform(-0.06, 0.01)
    for finger in range(5):
        spread = (finger - 1.8) * 0.022
        reach = 0.1 if 0 < finger < 4 else 0.075
        root = centre + size * (rotation @ np.array([spread, 0.035 if finger else 0.0, 0.0]))
        tip_x = spread * 1.4 - (0.04 if finger == 0 else 0.0)
        tip = centre + size * (rotation @ np.array([tip_x, reach if finger else 0.04, curl]))
        w.rod(root, tip, size * 0.011, skin)


def person(
    w: World,
    at: Vector,
    size: float = 1.0,
    yaw: float = 0.0,
    *,
    legs: bool = True,
    sitting: bool = False,
    simple: bool = False,
    gesture: bool = False,
) -> None:
    """A person. `simple`: few primitives, for crowds; `gesture`: hands in front of the body."""
    rng, start = w.rng, len(w.objects)
    feet, rotation = np.asarray(at, float), turn_y(yaw)

    def place(x: float, y: float, z: float) -> Matrix:
        return feet + size * (rotation @ np.array([x, y, z]))

    skin = w.skin()
    shirt = w.material(scale=1.6 / size)
    trousers = w.material(scale=1.5 / size) if rng.random() < 0.7 else shirt
    width, depth = rng.uniform(0.15, 0.24), rng.uniform(0.09, 0.17)
    lift = -0.4 if sitting else 0.0
    hip, shoulder = 0.9 + lift, 1.42 + lift
    middle, half = (hip + shoulder) / 2, (shoulder - hip) / 2
    if simple or rng.random() < 0.4:
        kind = ELLIPSOID if rng.random() < 0.5 else CAPSULE
        half_height = half * (1.16 if kind == ELLIPSOID else 0.7)
        w.add(kind, place(0, middle, 0), (size * width, size * half_height, size * depth), rotation, shirt)
    else:
        w.box(place(0, middle, 0), (size * width * 0.93, size * half, size * depth * 0.8), rotation, shirt)
        w.rod(place(-width * 0.8, shoulder - 0.03, 0), place(width * 0.8, shoulder - 0.03, 0), size * 0.075, shirt)
        w.ball(place(0, middle, 0), (size * width * 0.9, size * half, size * depth * 1.25), shirt, rotation)
    if not simple and rng.random() < 0.25:  # a badge, a print
        patch = w.material(group="any", share=1.0, contrast=1.0, scale=3 / size)
        half_size = (size * rng.uniform(0.04, 0.12), size * rng.uniform(0.04, 0.14), 1)
        w.add(QUAD, place(rng.normal(0, 0.04), shoulder - 0.22, -depth * 1.3), half_size, rotation, patch)
    w.rod(place(0, shoulder, 0), place(0, shoulder + 0.12, 0), size * 0.055, skin)
    distance = math.hypot(*(feet - w.eye)[[0, 2]]) + 1e-6
    near = not simple and size / distance > 0.22
    head_at = place(rng.normal(0, 0.02), shoulder + 0.24, -0.02)
    if simple:
        w.ball(head_at, (size * 0.08, size * 0.12, size * 0.09), skin, rotation)
        if rng.random() < 0.85:
            hair = w.plain_material(w.colour(0.03, 0.5))
            w.ball(head_at + [0, size * 0.035, 0], (size * 0.088, size * 0.1, size * 0.095), hair)
    else:
        _head(w, head_at, size, rotation @ turn_y(rng.normal(0, 0.25)) @ turn_x(rng.normal(0, 0.15)), skin, near)
    sleeve = shirt if rng.random() < 0.6 else skin
    for side in (-1, 1):
        top = place(side * (width + 0.03), shoulder - 0.04, 0)
        elbow = np.array([
            side * (width + rng.uniform(0.02, 0.22)), shoulder - rng.uniform(0.2, 0.32), -rng.uniform(-0.05, 0.2)
        ])  # fmt: skip
        forward = gesture and rng.random() < 0.8
        if forward:
            to_hand = [-side * rng.uniform(0, 0.25), rng.uniform(0, 0.3), -rng.uniform(0.15, 0.4)]
        elif rng.random() < 0.5:
            to_hand = [rng.normal(0, 0.05), -0.26, -0.05]
        else:
            to_hand = [-side * rng.uniform(0, 0.3), rng.uniform(-0.1, 0.28), -rng.uniform(0.05, 0.25)]
        wrist = elbow + np.array(to_hand)
        if simple:
            w.rod(top, place(*wrist), size * 0.05, shirt)
            continue
        w.rod(top, place(*elbow), size * 0.05, shirt)
        w.rod(place(*elbow), place(*wrist), size * 0.038, sleeve)
        palm = rotation @ turn_z(rng.normal(0, 0.8)) @ turn_x(rng.normal(0, 0.4))
        hand(w, place(*wrist), size, palm, skin, fingers=near)
        if forward and rng.random() < 0.35:  # something held towards the camera
            held = w.material(specular=0.3)
            w.box(
                place(*(wrist + [0, 0.03, -0.05])),
                size * rng.uniform([0.03, 0.05, 0.005], [0.12, 0.12, 0.03]),
                palm,
                held,
            )
    _legs(w, place, rotation, size, hip, trousers, legs=legs, sitting=sitting, simple=simple)
    w.grouped(start)


def _legs(
    w: World,
    place,
    rotation: Matrix,
    size: float,
    hip: float,
    cloth: list[float],
    *,
    legs: bool,
    sitting: bool,
    simple: bool,
) -> None:
    if simple:
        w.rod(place(0, 0.08, 0), place(0, hip, 0), size * 0.12, cloth)
        return
    if not legs:
        for side in (-1, 1):
            w.rod(place(side * 0.08, hip - 0.3, 0), place(side * 0.06, hip, 0), size * 0.12, cloth)
        return
    shoe = w.material(w.colour(0.03, 0.7))
    for side in (-1, 1):
        step = w.rng.normal(0, 0.12)
        knee, foot = (side * 0.1, 0.48, -abs(step) * 0.5), (side * 0.11, 0.06, step)
        if sitting:
            knee, foot = (side * 0.12, hip, -0.42), (side * 0.12, hip - 0.42, -0.42)
        w.rod(place(side * 0.09, hip, 0), place(*knee), size * 0.085, cloth)
        w.rod(place(*knee), place(*foot), size * 0.06, cloth)
        w.ball(place(foot[0], foot[1] - 0.02, foot[2] - 0.06), (size * 0.05, size * 0.04, size * 0.13), shoe, rotation)


def crowd(w: World, nearest: float, farthest: float, count: int) -> None:
    """People in depth, each smaller one behind a larger one."""
    for _ in range(count):
        z = w.log_uniform(nearest, farthest)
        person(w, (w.across(z), 0.0, z), w.rng.uniform(0.9, 1.08), w.rng.normal(0, 0.9), simple=z > 2.5 or count > 8)


def arm(w: World, at: Vector, size: float, side: int) -> None:
    """A forearm and hand that reach into the picture from one side, `size` in hand lengths of 0.2 m."""
    start, palm = len(w.objects), np.asarray(at, float)
    rng, skin, unit = w.rng, w.skin(), size * 0.2
    elbow = palm + unit * np.array([side * rng.uniform(1.5, 3), -rng.uniform(0.2, 2), -rng.uniform(-0.4, 0.8)])
    sleeve = w.material() if rng.random() < 0.6 else skin
    w.rod(elbow, palm + (elbow - palm) * 0.35, unit * 0.26, sleeve)
    w.rod(palm + (elbow - palm) * 0.4, palm, unit * 0.18, skin)
    direction = math.atan2(palm[1] - elbow[1], palm[0] - elbow[0]) - math.pi / 2
    hand(w, palm, size * 1.15, turn_z(direction + rng.normal(0, 0.3)) @ turn_y(rng.uniform(-0.8, 0.8)), skin, True)
    w.grouped(start)


def thing_box(w: World, at: Vector, size: float) -> None:
    """A parcel, a book, a bag: what people carry or put down."""
    start = len(w.objects)
    half = size * w.rng.uniform(0.25, 1, 3)
    w.add(BOX, np.asarray(at, float) + [0, half[1], 0], half, turn_y(w.rng.uniform(0, 6)))
    w.grouped(start)
