"""Things that stand about: trees, furniture, bottles, animals, wires.

Place in the flow: called by the scene kinds with a `World`; each call is one
group that a clip may move. `at` is the point on the ground below the thing.
"""

# ruff: noqa: RUF005 (a vector plus a list is a sum here, not a concatenation)
from __future__ import annotations

import math

import numpy as np

from inference.training.kernel import BOX, CONE, CYLINDER, ELLIPSOID, QUAD
from inference.training.people import person
from inference.training.vehicles import vehicle
from inference.training.world import Matrix, Vector, World, turn_x, turn_y, turn_z


def tree(w: World, at: Vector, height: float) -> None:
    rng, start, foot = w.rng, len(w.objects), np.asarray(at, float)
    bark = w.material(np.array([0.35, 0.25, 0.18]) * rng.uniform(0.3, 1.6), contrast=0.6, share=0.0, scale=1.5)
    leaf = w.green() if rng.random() < 0.8 else w.colour()
    if rng.random() < 0.3:  # a conifer
        needles = w.material(
            leaf, group="foliage", contrast=0.8, share=0.0, scale=6 / height, cutout=rng.choice([0, 0.25, 0.4])
        )
        w.rod(foot, foot + [0, 0.25 * height, 0], 0.03 * height, bark)
        tiers = int(rng.integers(1, 5))
        for tier in range(tiers):
            y, radius = 0.12 + 0.8 * tier / tiers, height * 0.28 * (1 - 0.75 * tier / tiers)
            w.add(
                CONE,
                foot + [0, height * (y + 0.55 / tiers), 0],
                (radius, height * 0.6 / tiers, 0),
                turn_y(rng.uniform(0, 6)),
                needles,
            )
    else:
        lean, crown = rng.normal(0, 0.05, 2), rng.uniform(0.25, 0.6) * height
        offset = np.array([lean[0] * height, 0, lean[1] * height])
        w.rod(foot, foot + offset + [0, crown * 1.2, 0], 0.03 * height * rng.uniform(0.5, 1.6), bark)
        foliage = w.material(
            leaf, group="foliage", contrast=0.9, share=0.0, scale=6 / height, cutout=rng.choice([0, 0.3, 0.45, 0.6])
        )
        bare = rng.random() < 0.12
        for _ in range(0 if bare else int(rng.integers(3, 9))):
            middle = (
                foot + offset + [rng.normal(0, 0.16 * height), rng.uniform(crown, height), rng.normal(0, 0.16 * height)]
            )
            radius = height * rng.uniform(0.1, 0.28)
            w.ball(middle, (radius, radius * rng.uniform(0.5, 1), radius), foliage, turn_y(rng.uniform(0, 6)))
        for _ in range(9 if bare else 3 * (rng.random() < 0.3)):
            tip = foot + [rng.normal(0, 0.25 * height), height * rng.uniform(0.6, 1), rng.normal(0, 0.2 * height)]
            w.rod(foot + [0, crown * rng.uniform(0.6, 1.1), 0], tip, 0.01 * height, bark)
    w.grouped(start)


def branch(w: World, depth: float) -> None:
    """Thin twigs that hang into the picture near the camera."""
    rng, start = w.rng, len(w.objects)
    bark, leaf = w.plain_material(w.colour(0.05, 0.4)), w.material(w.green(), group="")
    side, y = rng.choice([-1, 1]), w.eye[1] + rng.uniform(-0.2, 0.9) * w.half_height * depth
    root = np.array([side * w.half_width * depth * 1.2, y + rng.normal(0, 0.2) * depth, depth])
    for _ in range(int(rng.integers(1, 4))):
        tip = root + depth * np.array(
            [-side * rng.uniform(0.3, 1.6) * w.half_width, rng.normal(0, 0.15), rng.normal(0, 0.1)]
        )
        w.rod(root, tip, depth * rng.uniform(0.004, 0.012), bark)
        for _ in range(int(rng.integers(0, 7))):
            at = root + (tip - root) * rng.uniform(0.2, 1.05) + rng.normal(0, 0.02 * depth, 3)
            size = depth * rng.uniform(0.01, 0.035)
            w.ball(at, (size, size * 0.5, size * 0.3), leaf, turn_z(rng.uniform(0, 3)))
    w.grouped(start)


def building(w: World, at: Vector, half: Vector, yaw: float) -> None:
    x, y, z = np.asarray(at, float)
    hx, hy, hz = np.asarray(half, float)
    rng = w.rng
    wall = w.material(
        group="any" if rng.random() < 0.85 else "", contrast=rng.uniform(0.4, 1),
        share=1.0 if rng.random() < 0.6 else 0.0, scale=rng.choice([0.1, 0.2, 0.35, 0.6]),
    )  # fmt: skip
    w.box((x, y + hy, z), (hx, hy, hz), turn_y(yaw), wall)
    if rng.random() < 0.4:
        w.add(CONE, (x, y + 2 * hy + hx * 0.3, z), (max(hx, hz) * 1.2, hx * 0.3, 0), turn_y(yaw))


def table(w: World, at: Vector, size: float, yaw: float) -> None:
    """Round or square, thin-topped, with things on it."""
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    top = w.material(scale=1.5)
    thick = rng.uniform(0.01, 0.03)
    if rng.random() < 0.5:
        radius = size * rng.uniform(0.3, 0.6)
        w.add(CYLINDER, place(0, 0.74, 0), (radius, size * thick, radius), rotation, top)
        w.rod(foot, place(0, 0.74, 0), size * 0.03, w.material())
        for leg in range(3):
            w.rod(
                place(0, 0.1, 0), place(0.28 * math.cos(leg * 2.1), 0.02, 0.28 * math.sin(leg * 2.1)), size * 0.02, top
            )
    else:
        width, depth = rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.6)
        w.box(place(0, 0.73, 0), (size * width, size * thick, size * depth), rotation, top)
        for a in (-1, 1):
            for b in (-1, 1):
                w.box(
                    place(a * width * 0.92, 0.36, b * depth * 0.9),
                    (size * 0.025, size * 0.36, size * 0.025),
                    rotation,
                    top,
                )
    for _ in range(int(rng.integers(0, 4))):
        clutter(w, place(rng.uniform(-0.25, 0.25), 0.755, rng.uniform(-0.25, 0.25)), size * rng.uniform(0.06, 0.15))
    w.grouped(start)


def chair(w: World, at: Vector, size: float, yaw: float) -> None:
    start, foot, rotation, cloth = len(w.objects), np.asarray(at, float), turn_y(yaw), w.material(scale=2)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    w.box(place(0, 0.45, 0), (size * 0.24, size * w.rng.uniform(0.03, 0.1), size * 0.24), rotation, cloth)
    w.box(place(0, 0.75, 0.23), (size * 0.23, size * 0.28, size * 0.03), rotation @ turn_x(0.1), cloth)
    for a in (-1, 1):
        for b in (-1, 1):
            w.rod(place(a * 0.2, 0, b * 0.2), place(a * 0.2, 0.45, b * 0.2), size * 0.02, cloth)
    w.grouped(start)


def sofa(w: World, at: Vector, size: float, yaw: float) -> None:
    start, foot, rotation, cloth = len(w.objects), np.asarray(at, float), turn_y(yaw), w.material(scale=1)
    width = w.rng.uniform(0.5, 1.1)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    w.box(place(0, 0.22, 0), (size * width, size * 0.22, size * 0.42), rotation, cloth)
    w.box(place(0, 0.55, 0.35), (size * width, size * 0.35, size * 0.12), rotation, cloth)
    for side in (-1, 1):
        w.box(place(side * width, 0.35, 0), (size * 0.1, size * 0.35, size * 0.42), rotation, cloth)
    w.grouped(start)


def bottle(w: World, at: Vector, height: float) -> None:
    """Opaque or see-through, slender or stout, with cap and label, sometimes with something in it."""
    rng, start, foot = w.rng, len(w.objects), np.asarray(at, float)
    clear = rng.uniform(0.2, 0.85) if rng.random() < 0.45 else 1.0
    glass = w.material(specular=0.7, scale=3 / height, opacity=clear)
    width = height * rng.uniform(0.1, 0.24)
    shoulder, neck = rng.uniform(0.45, 0.72), width * rng.uniform(0.25, 0.6)
    up = lambda y: foot + [0, height * y, 0]  # noqa: E731
    w.rod(foot, up(shoulder), width, glass, CYLINDER)
    w.ball(up(shoulder), (width, rng.uniform(0.4, 1.4) * width, width), glass)
    w.rod(up(shoulder), up(0.92), neck, glass, CYLINDER)
    w.rod(up(0.9), up(1), neck * 1.12, w.material(group=""), CYLINDER)
    if clear < 1 and rng.random() < 0.6:
        w.rod(up(0.02), up(rng.uniform(0.15, shoulder)), width * 0.94, w.material(group=""), CYLINDER)
    if rng.random() < 0.6:
        label = w.material(group="any", share=1.0, scale=2 / height)
        w.rod(up(0.2), up(shoulder - 0.05), width * 1.01, label, CYLINDER)
    w.grouped(start)


def glass(w: World, at: Vector, height: float) -> None:
    """A tumbler or a wine glass: hardly there, but for its rim, its foot and what is in it."""
    rng, start, foot = w.rng, len(w.objects), np.asarray(at, float)
    clear = w.material(w.colour(0.6, 1), group="", specular=0.9, opacity=rng.uniform(0.12, 0.5))
    width, stem = height * rng.uniform(0.25, 0.42), 0.0
    drink = w.material(group="", specular=0.5, opacity=rng.choice([0.6, 1.0]))
    up = lambda y: foot + [0, height * y, 0]  # noqa: E731
    if rng.random() < 0.5:
        stem = rng.uniform(0.35, 0.55)
        w.rod(foot, up(0.02), width * 0.9, clear, CYLINDER)
        w.rod(foot, up(stem), width * 0.1, clear, CYLINDER)
        middle = (1 + stem) / 2
        w.ball(up(middle), (width, height * (1 - stem) / 2, width), clear)
        if rng.random() < 0.6:
            w.ball(up(stem + 0.35 * (1 - stem)), (width * 0.88, height * 0.28 * (1 - stem), width * 0.88), drink)
    else:
        w.rod(foot, up(1), width, clear, CYLINDER)
        if rng.random() < 0.6:
            w.rod(up(0.03), up(rng.uniform(0.2, 0.9)), width * 0.93, drink, CYLINDER)
    w.grouped(start)


def animal(w: World, at: Vector, size: float, yaw: float) -> None:
    rng, start, foot, rotation = w.rng, len(w.objects), np.asarray(at, float), turn_y(yaw)

    def place(x: float, y: float, z: float) -> Matrix:
        return foot + size * (rotation @ np.array([x, y, z]))

    fur, thick = w.material(scale=2 / size), rng.uniform(0.15, 0.4)
    eye = w.plain_material((0.9, 0.9, 0.9))
    w.ball(place(0, 0.5, 0), (size * thick, size * thick * rng.uniform(0.8, 1.3), size * 0.5), fur, rotation)
    w.ball(
        place(0, 0.5 + rng.uniform(0.2, 0.5), -0.5),
        (size * thick * 0.7, size * thick * 0.75, size * thick * 0.8),
        fur,
        rotation,
    )
    for side in (-1, 1):
        w.ball(
            place(side * 0.12, 1.05, -0.5),
            (size * 0.05, size * rng.uniform(0.08, 0.35), size * 0.04),
            fur,
            rotation @ turn_z(-side * 0.3),
        )
        w.ball(place(side * 0.1, 0.85, -0.5 - thick * 0.7), (size * 0.04, size * 0.05, size * 0.03), eye, rotation)
        for z in (-0.35, 0.35):
            w.rod(place(side * thick * 0.6, 0.45, z), place(side * thick * 0.6, 0.03, z), size * 0.06, fur)
    w.rod(place(0, 0.55, 0.45), place(0, 0.8 + rng.normal(0, 0.2), 0.8), size * 0.05, fur)
    w.grouped(start)


def bird(w: World, at: Vector, size: float) -> None:
    """In the air, in front of whatever is behind it."""
    start, middle, feather = len(w.objects), np.asarray(at, float), w.material(scale=2 / size)
    rotation = turn_y(w.rng.uniform(0, 6)) @ turn_x(w.rng.normal(0, 0.3))
    w.ball(middle, (size * 0.25, size * 0.25, size * 0.6), feather, rotation)
    w.ball(middle + size * (rotation @ np.array([0, 0.15, -0.6])), (size * 0.18,) * 3, feather, rotation)
    for side in (-1, 1):
        wing = rotation @ turn_z(side * w.rng.uniform(-0.6, 0.6))
        w.ball(
            middle + size * (wing @ np.array([side * 0.7, 0, 0])), (size * 0.7, size * 0.05, size * 0.3), feather, wing
        )
    w.grouped(start)


def clutter(w: World, at: Vector, size: float) -> None:
    """Any small solid."""
    rng, start, foot, thing = w.rng, len(w.objects), np.asarray(at, float), w.material(scale=1 / size)
    turned = turn_y(rng.uniform(0, 6.3))
    tumbled = turned @ turn_x(rng.normal(0, 0.6)) @ turn_z(rng.normal(0, 0.6)) if rng.random() < 0.3 else turned
    draw = int(rng.integers(0, 7))
    if draw < 2:
        half = size * rng.uniform(0.25, 1, 3)
        w.add(BOX, foot + [0, half[1], 0], half, tumbled, thing)
    elif draw == 2:
        half = size * rng.uniform(0.3, 1, 3) if rng.random() < 0.5 else np.full(3, size * 0.7)
        w.add(ELLIPSOID, foot + [0, half[1] * 0.95, 0], half, tumbled, thing)
    elif draw == 3:
        w.add(
            CYLINDER,
            foot + [0, size * 0.7, 0],
            (size * rng.uniform(0.2, 0.7), size * 0.7, size * rng.uniform(0.2, 0.7)),
            turned,
            thing,
        )
    elif draw == 4:
        w.add(CONE, foot + [0, size * 0.8, 0], (size * 0.6, size * 0.8, 0), turned, thing)
    elif draw == 5:
        bottle(w, foot, size * 1.8)
        return
    else:
        tip = foot + [rng.normal(0, size * 0.5), size * rng.uniform(0.5, 1.8), rng.normal(0, size * 0.5)]
        w.rod(foot + [0, size * 0.3, 0], tip, size * rng.uniform(0.1, 0.4), thing)
    w.grouped(start)


def bush(w: World, at: Vector, size: float) -> None:
    rng, start = w.rng, len(w.objects)
    foliage = w.material(
        w.green(), group="foliage", contrast=0.9, share=0.0, scale=3 / size, cutout=rng.choice([0, 0.3, 0.5])
    )
    for _ in range(int(rng.integers(1, 4))):
        radius = size * rng.uniform(0.5, 1)
        middle = np.asarray(at, float) + [rng.normal(0, size * 0.5), radius * 0.5, rng.normal(0, size * 0.5)]
        w.ball(middle, (radius, radius * 0.8, radius), foliage)
    w.grouped(start)


def tuft(w: World, at: Vector, size: float) -> None:
    """Blades of grass."""
    rng, start, foot, blade = w.rng, len(w.objects), np.asarray(at, float), w.material(w.green(), group="")
    for _ in range(int(rng.integers(3, 9))):
        root = foot + [rng.normal(0, size * 0.2), 0, rng.normal(0, size * 0.2)]
        tip = foot + [rng.normal(0, size * 0.5), size * rng.uniform(0.4, 1.2), rng.normal(0, size * 0.3)]
        w.rod(root, tip, size * rng.uniform(0.01, 0.05), blade)
    w.grouped(start)


def railing(w: World, depth: float, height: float = 1.0) -> None:
    """A fence of thin bars across the picture."""
    rng, metal = w.rng, w.plain_material(w.colour(0.05, 0.8))
    turned, reach = turn_y(rng.normal(0, 0.3)), w.half_width * depth * 1.4
    bars, thick = int(rng.integers(5, 16)), depth * rng.uniform(0.004, 0.012)
    line = lambda x, y: np.array([0, 0, depth]) + turned @ np.array([x, y, 0.0])  # noqa: E731
    for y in (0.1, height):
        w.rod(line(-reach, y), line(reach, y), thick * 1.4, metal)
    for bar in range(bars):
        x = -reach + 2 * reach * (bar + 0.5) / bars
        w.rod(line(x, 0.0), line(x, height), thick, metal)


def pole(w: World, at: Vector, height: float) -> None:
    """A lamp post or a sign on a post; sometimes a wire leads away from it."""
    rng, start, foot, metal = w.rng, len(w.objects), np.asarray(at, float), w.material()
    w.rod(foot, foot + [0, height, 0], rng.uniform(0.03, 0.1), metal, CYLINDER)
    if rng.random() < 0.4:
        half = rng.uniform(0.15, 0.6, 2)
        w.add(
            QUAD,
            foot + [0, height, -0.1],
            (*half, 1),
            turn_y(rng.normal(0, 0.5)),
            w.material(group="any", share=1.0, contrast=1.0),
        )
    if rng.random() < 0.3:
        w.rod(
            foot + [0, height, 0],
            foot + [rng.normal(0, 8), height * rng.uniform(0.9, 1.2), rng.uniform(-3, 12)],
            0.02,
            w.plain_material((0.03,) * 3),
        )
    w.grouped(start)


def picture(w: World, centre: Vector, half: tuple[float, float], rotation: Matrix) -> None:
    """Something flat on a wall: a poster, a screen (lit or dark), a window, a door leaf."""
    rng, kind = w.rng, w.rng.random()
    if kind < 0.3:  # dark and featureless: must not read as near
        surface = w.plain_material(np.full(3, rng.uniform(0.01, 0.12)), specular=rng.choice([0.0, 0.5]))
    elif kind < 0.45:
        surface = w.material(
            group="board", share=1.0, contrast=1.0, scale=0.5 / max(half), emission=rng.uniform(0.5, 1.3)
        )
    elif kind < 0.6:
        surface = w.plain_material(w.colour(0.3, 1), emission=rng.choice([0.0, 1.0]))
    else:
        surface = w.material(group="any", share=1.0, contrast=1.0, scale=0.5 / max(half))
    w.add(QUAD, centre, (*half, 1), rotation, surface, casts=False)


def board(w: World, centre: Vector, half: tuple[float, float], rotation: Matrix) -> None:
    """A board, a sheet, a book's page or a lit screen with something on it that is flat, at any angle."""
    glow = w.rng.choice([0.0, 0.0, 0.8])
    face = w.material(group="board", share=1.0, contrast=1.0, scale=0.5 / max(half), emission=glow)
    w.add(QUAD, centre, (*half, 1), rotation, face)


def anything(w: World, at: Vector, size: float = 1.0, yaw: float = 0.0, *, outdoors: bool = True) -> None:
    """One thing that could stand here."""
    rng, draw = w.rng, w.rng.random()
    if draw < 0.28:
        person(w, at, size * rng.uniform(0.9, 1.1), yaw, sitting=rng.random() < 0.1)
    elif outdoors and draw < 0.48:
        tree(w, at, size * rng.uniform(1.5, 7))
    elif outdoors and draw < 0.6:
        vehicle(w, at, size, rng.uniform(0, 6.3))
    elif draw < 0.68:
        clutter(w, at, size * rng.uniform(0.15, 0.9))
    elif draw < 0.74:
        animal(w, at, size * rng.uniform(0.3, 1.5), rng.uniform(0, 6.3))
    elif outdoors and draw < 0.82:
        bush(w, at, size * rng.uniform(0.3, 1.3))
    elif outdoors and draw < 0.88:
        pole(w, at, size * rng.uniform(1, 6))
    elif not outdoors and draw < 0.86:
        table(w, at, size, yaw)
    elif not outdoors and draw < 0.92:
        chair(w, at, size, yaw + rng.choice([0, 1.57, 3.14]))
    elif not outdoors and draw < 0.95:
        sofa(w, at, size, yaw)
    else:
        for _ in range(3):
            clutter(
                w,
                np.asarray(at, float) + [rng.normal(0, size * 0.5), 0, rng.normal(0, size * 0.5)],
                size * rng.uniform(0.1, 0.5),
            )
