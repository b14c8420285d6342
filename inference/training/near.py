"""A scene kind of one living or made thing seen from near, before leaves, grass or bars.

Place in the flow: declared here, drawn by `scenes.py`. What a photographer goes near to fills a third of
the picture or more, is in focus, and what is behind it is busy: here outlines, focus and what hides what tell depth,
and the place in the picture tells little.
"""

# ruff: noqa: RUF005 (a vector plus a list is a sum here, not a concatenation)
from __future__ import annotations

import math

import numpy as np

from inference.training import places, props
from inference.training.kernel import CENTRE, QUAD
from inference.training.people import person
from inference.training.scenes import kind
from inference.training.world import Matrix, Vector, World, turn_x, turn_y, turn_z


@kind(2.4)
def close_up(w: World) -> None:
    """An animal, a flower, an insect, a bicycle or someone, as near as a photographer goes."""
    rng = w.rng
    w.close_up = True
    draw = rng.random()
    size = 0.1 if draw < 0.2 else rng.uniform(0.5, 1.6) if draw < 0.6 else 1.0
    w.eye[1], w.pitch = size * rng.uniform(0.5, 1.3), rng.normal(-0.05, 0.12)
    depth = max(0.6 * size, size * rng.uniform(0.3, 1.3) / w.half_width)
    at = np.array([w.across(depth, 0.45), 0.0, depth])
    if draw < 0.2:
        at[1] = w.eye[1] - size * rng.uniform(0.1, 0.8)
        (_flower if draw < 0.12 else _insect)(w, at, size)
    elif draw < 0.6:
        w.eye[1] = size * rng.uniform(0.6, 1.2)
        _beast(w, at, size, rng.normal(0, 1.0))
    elif draw < 0.78:
        _bicycle(w, at, rng.normal(math.pi / 2, 0.5))
        if rng.random() < 0.5:
            person(w, at + [rng.normal(0, 0.2), 0, rng.uniform(-0.4, 0.5)], 1.0, rng.normal(0, 1.0))
    else:
        w.eye[1] = rng.uniform(1.2, 1.7)
        side = at + [w.across(depth, 0.3), 0, 0]
        person(w, side, 1.0, rng.normal(0, 0.6), gesture=True)
        if rng.random() < 0.3:
            aside = rng.choice([-1, 1]) * rng.uniform(0.55, 1.0)
            person(w, side + [aside, 0, rng.uniform(0, 0.8)], 1.0, rng.normal(0, 0.6), gesture=True)
    _behind(w, depth, size)


def _behind(w: World, depth: float, size: float) -> None:
    """Leaves, trees, a meadow, bars or one tone, from just behind the thing to far away."""
    rng, draw = w.rng, w.rng.random()
    far = max(row[CENTRE + 2] for row in w.objects) + 0.3 * size  # the tail, too, is before what is behind
    grounded = size > 0.3 or rng.random() < 0.5
    if grounded:
        places.ground(w)
    wall = far + size * w.log_uniform(0.3, 8)
    turned = turn_y(rng.normal(0, 0.25))
    if draw < 0.3:  # a hedge, a wall, a fence of boards
        surface = w.material(
            w.green() if rng.random() < 0.6 else None,
            group="foliage" if rng.random() < 0.6 else "any",
            contrast=rng.uniform(0.2, 1),
            scale=rng.choice([0.15, 0.4, 1.0]) / size,
        )
        w.add(QUAD, (0, 0, wall), (80, rng.choice([1.5, 80.0]) * size, 1), turned, surface, casts=False)
    elif draw < 0.4:
        tone = w.plain_material(w.colour(0.05, 1), emission=rng.choice([0.0, 0.7]))
        w.add(QUAD, (0, 0, wall), (80, 80, 1), turned, tone, casts=False)
    elif draw < 0.5:
        props.railing(w, far + size * rng.uniform(0.3, 1), size * rng.uniform(0.8, 2))
    if grounded and draw > 0.45:
        for _ in range(int(rng.integers(2, 9))):
            z = w.log_uniform(far + 0.7 * size, far + 40 * size)
            props.tree(w, (w.across(z), 0, z), size * rng.uniform(2, 8))
    for _ in range(int(rng.integers(0, 9))):
        z = w.log_uniform(far + 0.3 * size, far + 12 * size)
        (props.bush if rng.random() < 0.6 else props.tuft)(w, (w.across(z), 0, z), size * rng.uniform(0.2, 1))
    if rng.random() < 0.3:  # blades between the thing and the camera
        z = depth * rng.uniform(0.6, 0.95)
        props.tuft(w, (w.across(z), w.eye[1] - w.half_height * z, z), 0.5 * w.half_height * z)


def _beast(w: World, at: Vector, size: float, yaw: float) -> None:
    """A four-legged animal with a muzzle; with a mane or horns now and then. `size`: metres to about its back.

    `props.animal` is for those further off: from near its head would be a ball on a ball.
    """
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    coat = w.colour(0.05, 0.9) if rng.random() < 0.4 else np.array([0.6, 0.42, 0.24]) * rng.uniform(0.15, 1.5)
    group = str(rng.choice(["noise", "noise", "foliage", "any", ""]))
    fur = w.material(np.clip(coat, 0.02, 1), group=group, share=0.0, contrast=rng.uniform(0.1, 0.9), scale=2 / size)
    dark, eye = w.plain_material((0.04, 0.03, 0.03)), w.plain_material(w.colour(0.1, 0.9), specular=0.6)
    thick, length, neck = rng.uniform(0.14, 0.24), rng.uniform(0.35, 0.6), rng.uniform(0.0, 0.35)
    w.ball(place(0, 0.58, 0), (size * thick, size * thick * 1.2, size * length), fur, rotation)
    w.ball(place(0, 0.6, -0.7 * length), (size * thick, size * thick * 1.3, size * thick * 1.2), fur, rotation)
    head_at, radius = np.array([0, 0.78 + neck, -length - 0.5 * neck]), rng.uniform(0.1, 0.17)
    w.rod(place(0, 0.65, -0.8 * length), place(*head_at), size * radius * rng.uniform(0.7, 1.1), fur)
    turned = rotation @ turn_y(rng.normal(0, 0.5)) @ turn_x(rng.normal(0.1, 0.25))

    def on_head(x: float, y: float, z: float) -> Matrix:
        return place(*head_at) + size * radius * (turned @ np.array([x, y, z]))

    def part(x: float, y: float, z: float, half: tuple[float, float, float], material: list[float]) -> None:
        w.ball(on_head(x, y, z), tuple(size * radius * h for h in half), material, turned)

    part(0, 0, 0, (0.9, 1.0, 1.0), fur)
    muzzle = rng.uniform(0.5, 1.3)
    part(0, -0.3, -0.6 - 0.4 * muzzle, (0.5, 0.42, muzzle), fur)
    part(0, -0.2, -0.6 - 1.35 * muzzle, (0.24, 0.18, 0.15), dark)
    if rng.random() < 0.3:
        w.ball(
            on_head(0, -0.2, 0.5),
            size * radius * np.array([1.6, 1.9, 0.9]) * rng.uniform(0.9, 1.3),
            w.material(np.clip(coat * rng.uniform(0.3, 1), 0.02, 1), group="foliage", share=0.0, scale=3 / size),
            turned,
        )
    ears, horned = rng.uniform(0.2, 0.9), rng.random() < 0.2
    for side in (-1, 1):
        part(side * 0.65, 0.75 + 0.4 * ears, 0.1, (0.25, ears * 0.6, 0.12), fur)
        part(side * 0.42, 0.25, -0.85, (0.16, 0.17, 0.12), eye)
        part(side * 0.42, 0.25, -0.95, (0.08, 0.1, 0.06), dark)
        if horned:
            w.rod(on_head(side * 0.4, 0.8, 0), on_head(side * rng.uniform(0.5, 2), 2.5, 0.4), size * 0.03, dark)
        for z in (-0.7 * length, 0.7 * length):
            step = rng.normal(0, 0.08)
            w.rod(place(side * thick * 0.6, 0.5, z), place(side * thick * 0.6, 0.03, z + step), size * 0.06, fur)
    w.rod(place(0, 0.62, length), place(rng.normal(0, 0.2), 0.5, length + 0.3), size * 0.04, fur)
    w.grouped(start)


def _flower(w: World, at: Vector, size: float) -> None:
    """A stem with petals round a middle, turned anywhere in front; sometimes several."""
    rng, stem = w.rng, w.plain_material(w.green())
    petal, middle = w.material(w.colour(0.4, 1), contrast=0.3, share=0.0), w.material(w.colour(0.1, 0.9))
    for which in range(int(rng.choice([1, 1, 2, 4]))):
        start, radius = len(w.objects), size * rng.uniform(0.25, 0.6)
        head = np.asarray(at, float) + [0, size * 0.4, 0]
        if which:
            head = head + [rng.normal(0, size), rng.normal(0, 0.4 * size), rng.uniform(0, 2 * size)]
        w.rod(head, head + [rng.normal(0, 0.3 * size), -3 * size, 0.2 * size], 0.05 * size, stem)
        turned = turn_y(rng.normal(0, 0.7)) @ turn_x(rng.normal(-0.4, 0.5))
        count = int(rng.integers(5, 14))
        for leaf in range(count):
            spin = turned @ turn_z(2 * math.pi * leaf / count) @ turn_x(rng.normal(-0.25, 0.1))
            w.ball(head + radius * 0.55 * spin[:, 1], (radius * 0.22, radius * 0.5, radius * 0.06), petal, spin)
        w.ball(head - 0.08 * radius * turned[:, 2], (radius * 0.24, radius * 0.24, radius * 0.12), middle, turned)
        w.grouped(start)


def _insect(w: World, at: Vector, size: float) -> None:
    """A butterfly or a dragonfly, sitting on a twig."""
    rng, start = w.rng, len(w.objects)
    middle = np.asarray(at, float) + [0, size * 0.4, 0]
    turned = turn_y(rng.uniform(0, 6.3)) @ turn_x(rng.uniform(-1.2, 0.3)) @ turn_z(rng.normal(0, 0.3))
    wing = w.material(group="any", contrast=1.0, scale=2 / size, share=float(rng.random() < 0.6))
    body, lift = w.plain_material(w.colour(0.02, 0.4)), rng.uniform(-0.2, 1.2)
    w.ball(middle, (size * 0.05, size * 0.05, size * 0.35), body, turned)
    for side in (-1, 1):
        spread = turned @ turn_z(side * lift)
        for z, length, wide in ((-0.12, 0.5, 0.24), (0.18, 0.38, 0.22)):
            where = middle + size * (spread @ np.array([side * length, 0.02, z]))
            w.ball(where, (size * length, size * 0.015, size * wide), wing, spread @ turn_y(side * rng.normal(0, 0.2)))
        tip = middle + size * (turned @ np.array([side * 0.15, 0.15, -0.6]))
        w.rod(middle + size * (turned @ np.array([0, 0, -0.3])), tip, size * 0.01, body)
    w.grouped(start)
    twig = w.material(w.green(), group="")
    w.rod(middle - [0, 0.08 * size, 0], middle + [rng.normal(0, size), -2.5 * size, size], size * 0.06, twig)


def _bicycle(w: World, at: Vector, yaw: float) -> None:
    """Two wheels of rods and a frame; one sees through them what is behind."""
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)
    tyre, metal = w.plain_material(np.full(3, rng.uniform(0.02, 0.15))), w.plain_material(w.colour(), specular=0.5)
    radius, thick = rng.uniform(0.28, 0.36), rng.uniform(0.018, 0.045)

    def place(y: float, z: float, x: float = 0.0) -> Matrix:
        return foot + rotation @ np.array([x, y, z])

    for hub in (-0.52, 0.52):
        rim = [(radius * (1 + math.sin(a)), hub + radius * math.cos(a)) for a in np.arange(11) * 2 * math.pi / 11]
        for here, there in zip(rim, rim[1:] + rim[:1], strict=True):
            w.rod(place(*here), place(*there), thick, tyre)
        for spoke in rim[::3]:
            w.rod(place(radius, hub), place(*spoke), 0.006, metal)
    crank, saddle, bar = (0.3, 0.05), (0.85, 0.2), (0.95, -0.38)
    back, front, head = (radius, 0.52), (radius, -0.52), (0.78, -0.34)
    for a, b in ((crank, saddle), (crank, back), (saddle, back), (crank, head), (saddle, head), (bar, front)):
        w.rod(place(*a), place(*b), thick * 0.8, metal)
    w.rod(place(*bar, -0.27), place(*bar, 0.27), thick * 0.7, tyre)
    w.ball(place(saddle[0] + 0.05, saddle[1]), (0.08, 0.03, 0.13), tyre, rotation)
    w.grouped(start)
