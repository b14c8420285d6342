"""A scene kind of cartoon figures: big heads, big eyes, plain colours, before land, a room or a painted backdrop.

Place in the flow: declared here, drawn by `scenes.py`. One half is drawn flat, with ink outlines, as on paper; the
other is lit, as in computer animation. (Of all other kinds one scene in ten is drawn flat, too.)
"""

# ruff: noqa: RUF005 (a vector plus a list is a sum here, not a concatenation)
from __future__ import annotations

import math

import numpy as np

from inference.training import places, props
from inference.training.kernel import CONE, QUAD
from inference.training.scenes import kind
from inference.training.world import Matrix, Vector, World, turn_x, turn_y, turn_z


@kind(1.8)
def toons(w: World) -> None:
    """One to four of them, from a face that fills the frame to figures across the road."""
    rng = w.rng
    w.cartoon, w.plain, w.saturation = rng.random() < 0.5, True, rng.uniform(0.5, 1.6)
    w.outdoors = rng.random() < 0.6
    nearest = w.log_uniform(0.6, 4)
    w.eye[1], w.pitch = rng.uniform(0.5, 1.8), rng.normal(-0.05, 0.1)
    reach = nearest
    for index in range(int(rng.choice([1, 1, 2, 2, 3, 4]))):
        z = nearest * (w.log_uniform(1.0, 2.5) if index else 1.0)
        lift = w.eye[1] - rng.uniform(0.7, 1.4) if z < 1.6 else rng.choice([0.0, 0.0, 0.0, 0.4])
        _toon(w, (w.across(z, 0.7), lift, z), rng.uniform(0.7, 1.3), rng.normal(0, 0.7))
        reach = max(reach, z)
    _set(w, reach)


def _set(w: World, reach: float) -> None:
    """What is behind figures that stand no further than `reach`: land, a room, or one painted sheet."""
    rng, draw = w.rng, w.rng.random()
    behind = reach + w.log_uniform(0.8, 12)
    if draw < 0.25:
        sheet = w.material(share=1.0, contrast=rng.uniform(0, 0.6), scale=0.15, group="any", emission=0.5)
        w.add(QUAD, (0, 0, behind), (80, 80, 1), material=sheet, casts=False)
        return
    places.ground(w)
    if not w.outdoors:
        turned = turn_y(rng.normal(0, 0.25))
        paint = w.material(scale=0.4, contrast=rng.uniform(0, 0.5))
        w.add(QUAD, turned @ np.array([0, 0, behind]), (80, 80, 1), turned, paint, casts=False)
        here = places.Room(turned, 4, behind, 3)
        places.wall_things(w, here, int(rng.integers(0, 5)), sides=False)
        for _ in range(int(rng.integers(0, 4))):
            z = rng.uniform(0.6 * reach, behind - 0.1)
            props.anything(w, (w.across(z), 0, z), 1.0, rng.normal(0, 1), outdoors=False)
        return
    if rng.random() < 0.6:
        places.hills(w)
    for _ in range(int(rng.integers(0, 9))):  # trees like sweets, houses like boxes
        z, draw = w.log_uniform(reach + 1, reach + 40), rng.random()
        at = np.array([w.across(z, 1.2), 0, z])
        if draw < 0.5:
            start, size = len(w.objects), rng.uniform(1, 4)
            w.rod(at, at + [0, 1.2 * size, 0], 0.12 * size, w.plain_material(w.colour(0.1, 0.5)))
            crown, half = w.plain_material(w.green()), size * rng.uniform(0.5, 1, 3)
            if rng.random() < 0.6:
                w.ball(at + [0, 1.6 * size, 0], half, crown)
            else:
                w.add(CONE, at + [0, 1.8 * size, 0], (half[0], size, half[0]), material=crown)
            w.grouped(start)
        elif draw < 0.75:
            props.building(w, at, rng.uniform(1, 6, 3), rng.uniform(0, 6))
        else:
            props.bush(w, at, rng.uniform(0.4, 1.5))
    for _ in range(int(rng.integers(0, 5))):
        z = w.log_uniform(0.7 * reach, 1.5 * reach)
        props.anything(w, (w.across(z), 0, z), rng.uniform(0.4, 1), rng.uniform(0, 6))
    if rng.random() < 0.2:  # leaves, a post or a rock that frames the picture
        z = rng.uniform(0.4, 0.8) * reach
        side = rng.choice([-1, 1]) * w.half_width * z
        w.ball((side, w.eye[1] + rng.uniform(-0.5, 0.5), z), z * rng.uniform(0.1, 0.3, 3), w.plain_material(w.green()))


def _toon(w: World, at: Vector, size: float, yaw: float) -> None:
    """Someone or some animal on two legs, about 1.3 m tall times `size`: half of it may be head."""
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    skin = w.skin() if rng.random() < 0.4 else w.plain_material(w.colour(0.1, 1))
    cloth = w.plain_material(w.colour(0.1, 1)) if rng.random() < 0.75 else skin
    lower = w.plain_material(w.colour(0.1, 1)) if rng.random() < 0.6 else cloth
    big, wide, leg = rng.uniform(0.16, 0.36), rng.uniform(0.13, 0.32), rng.uniform(0.08, 0.45)
    trunk = rng.uniform(0.2, 0.45)
    w.ball(
        place(0, leg + trunk / 2, 0), size * np.array([wide, trunk * 0.62, wide * rng.uniform(0.6, 1)]), cloth, rotation
    )
    if rng.random() < 0.3:  # a belly, a bib
        w.ball(
            place(0, leg + trunk * 0.45, -wide * 0.35), size * np.array([wide * 0.7, trunk * 0.45, wide * 0.6]), lower
        )
    shoulder = leg + trunk * 0.85
    for side in (-1, 1):
        w.rod(place(side * wide * 0.5, leg, 0), place(side * wide * 0.6, 0.05, rng.normal(0, 0.1)), size * 0.06, lower)
        w.ball(place(side * wide * 0.6, 0.04, -0.07), size * np.array([0.08, 0.05, 0.14]), w.plain_material(w.colour()))
        elbow = (side * (wide + rng.uniform(0, 0.2)), shoulder - rng.uniform(-0.1, 0.25), -rng.uniform(-0.05, 0.2))
        reach = (
            elbow[0] + side * rng.uniform(-0.15, 0.1),
            elbow[1] + rng.uniform(-0.25, 0.3),
            elbow[2] - rng.uniform(0, 0.3),
        )
        w.rod(place(side * wide * 0.8, shoulder, 0), place(*elbow), size * 0.045, cloth)
        w.rod(place(*elbow), place(*reach), size * 0.045, skin)
        w.ball(place(*reach), size * np.full(3, rng.uniform(0.06, 0.1)), skin)
    neck = leg + trunk + rng.uniform(0.0, 0.08)
    turned = rotation @ turn_y(rng.normal(0, 0.35)) @ turn_x(rng.normal(0, 0.15)) @ turn_z(rng.normal(0, 0.15))
    _toon_head(w, place(0, neck + 0.7 * big, 0), size * big, turned, skin)
    w.grouped(start)


def _toon_head(w: World, centre: Matrix, radius: float, turned: Matrix, skin: list[float]) -> None:
    rng = w.rng
    shape = rng.uniform([0.8, 0.75, 0.75], [1.25, 1.1, 1.0])

    def part(at: tuple[float, float, float], half: tuple[float, float, float], material: list[float]) -> None:
        w.ball(centre + radius * (turned @ (np.array(at) * shape)), radius * np.array(half), material, turned)

    w.ball(centre, radius * shape, skin, turned)
    white, dark = w.plain_material((0.97, 0.97, 0.95)), w.plain_material((0.04, 0.03, 0.05))
    eye, apart = rng.uniform(0.14, 0.4), rng.uniform(0.26, 0.5)
    look = rng.normal(0, 0.25, 2) * eye
    for side in (-1, 1):
        depth = -math.sqrt(max(0.1, 1 - apart**2 - 0.04))
        part((side * apart, 0.2, depth), (eye, eye * rng.uniform(0.9, 1.4), 0.12), white)
        part((side * apart + look[0], 0.2 + look[1], depth - 0.12), (eye * 0.4, eye * 0.5, 0.06), dark)
    beak, tone = rng.uniform(0.08, 0.3), skin if rng.random() < 0.4 else w.plain_material(w.colour(0.1, 1))
    part((0, -0.12, -1.0), (beak, beak * rng.uniform(0.5, 1.2), beak * rng.uniform(0.6, 2.5)), tone)
    part((0, -0.5, -0.82), (rng.uniform(0.15, 0.5), rng.uniform(0.03, 0.18), 0.1), w.plain_material((0.35, 0.05, 0.06)))
    draw = rng.random()
    crown = w.plain_material(w.colour(0.03, 1))
    for side in (-1, 1):
        if draw < 0.3:  # the ears of a rabbit, a mouse, a bear
            tall = rng.choice([0.3, 0.45, 1.1])
            part((side * 0.6, 0.75 + 0.6 * tall, 0.1), (0.28, tall, 0.12), skin)
        elif draw < 0.5:
            part((side * 1.0, 0.05, 0.1), (0.12, 0.25, 0.2), skin)
    if draw > 0.4:  # hair, a cap
        part((0, 0.42, 0.25), (0.98, 0.9, 0.95), crown)
    if draw > 0.85:
        part((0, 0.5, -0.55), (0.8, 0.08, 0.6), crown)
