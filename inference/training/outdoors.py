"""Scene kinds under the sky.

Place in the flow: declared here, listed and drawn by `scenes.py`.
"""

from __future__ import annotations

import math

import numpy as np

from inference.training import places, props
from inference.training.kernel import ELLIPSOID, QUAD
from inference.training.people import crowd, person, thing_box
from inference.training.scenes import kind
from inference.training.vehicles import car, saloon, vehicle
from inference.training.world import World, turn_x, turn_y, turn_z


def _camera_over_land(w: World) -> float:
    """A camera from knee height to a roof; returns a scale for the nearest things."""
    rng = w.rng
    w.eye[1] = height = math.exp(rng.uniform(-1, 2.3))
    w.pitch = -abs(rng.normal(0.03, 0.15)) if rng.random() < 0.7 else rng.uniform(-0.7, 0.2)
    return min(1.0, height / 1.5) * 0.6 + 0.4


def _land(w: World) -> float:
    rng, near = w.rng, _camera_over_land(w)
    places.ground(w)
    if rng.random() < 0.3:
        path = w.material(scale=0.4)
        w.add(
            QUAD,
            (w.across(5, 0.5), 0.01, 0),
            (rng.uniform(1, 4), 400, 1),
            turn_y(rng.normal(0, 0.5)) @ places.FLOOR,
            path,
            casts=False,
        )
    elif rng.random() < 0.2:
        places.road(w, rng.uniform(4, 14), rng.normal(0, 0.4))
    if rng.random() < 0.35:
        places.hills(w)
    if rng.random() < 0.3:
        z = rng.uniform(25, 90)
        for _ in range(int(rng.integers(4, 12))):
            props.tree(w, (w.across(z), 0, z + rng.normal(0, 4)), rng.uniform(5, 14))
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 6))):
            z = rng.uniform(12, 90)
            props.building(w, (w.across(z, 1.3), 0, z), rng.uniform(2, 12, 3) * [1, 1.2, 1], rng.uniform(0, 6))
    if rng.random() < 0.15:
        props.railing(w, rng.uniform(1.2, 8) * near)
    return near


def _near_foreground(w: World, near: float) -> None:
    z = w.rng.uniform(0.6, 1.5) * near
    props.anything(w, (w.across(z), w.eye[1] - w.rng.uniform(0.5, 1.5), z), 0.8, w.rng.normal(0, 1))


@kind(2.0)
def field(w: World) -> None:
    """Open land with anything on it."""
    rng, near = w.rng, _land(w)
    for _ in range(int(rng.integers(1, 14))):
        z = w.log_uniform(1.5 * near + w.eye[1] * 0.5, 45)
        props.anything(w, (w.across(z), 0, z), 1.0, rng.uniform(0, 6.3))
    if rng.random() < 0.25:
        _near_foreground(w, near)
    if rng.random() < 0.15:
        z = rng.uniform(1.5, 30)
        props.bird(
            w, (w.across(z), w.eye[1] + z * w.half_height * rng.uniform(-0.2, 0.9), z), z * rng.uniform(0.04, 0.25)
        )


@kind(1.2)
def forest(w: World) -> None:
    rng, near = w.rng, _land(w)
    for _ in range(int(rng.integers(6, 14))):
        z = w.log_uniform(3, 40)
        props.tree(w, (w.across(z), 0, z), rng.uniform(3, 12))
    for _ in range(int(rng.integers(3, 10))):
        z = w.log_uniform(1.5, 15)
        (props.bush if rng.random() < 0.5 else props.tuft)(w, (w.across(z), 0, z), rng.uniform(0.2, 1))
    for _ in range(int(rng.integers(0, 4))):
        z = w.log_uniform(1.5 * near, 20)
        props.anything(w, (w.across(z), 0, z), 1.0, rng.uniform(0, 6.3))
    if rng.random() < 0.35:
        props.branch(w, rng.uniform(0.5, 2))


@kind(1.2)
def terrain(w: World) -> None:
    """Slopes, banks and meadows from near: much ground, little sky, spots that are not relief."""
    rng = w.rng
    w.eye[1] = rng.uniform(0.3, 2.5)
    w.pitch = -rng.uniform(0.05, 0.8)
    slope = turn_z(rng.normal(0, 0.22)) @ turn_x(rng.normal(-0.1, 0.25))
    surface = places.ground(w, 0, 300, slope)
    for spot in range(int(rng.integers(1, 8))):
        z = w.log_uniform(0.8, 20)
        half = (rng.uniform(0.1, 1.2) * z * 0.4, rng.uniform(0.1, 0.8) * z * 0.4)
        places.marking(w, w.across(z), z, half, rng.uniform(0, 6), 0.004 + 0.002 * spot, slope)
    for _ in range(int(rng.integers(0, 6))):  # mounds and hollows of the same ground
        z = w.log_uniform(1.5, 40)
        size = z * rng.uniform(0.1, 0.6)
        w.add(
            ELLIPSOID, slope @ np.array([w.across(z), 0, z]), (size, size * rng.uniform(0.1, 0.5), size), slope, surface
        )
    for _ in range(int(rng.integers(2, 14))):
        z = w.log_uniform(0.7, 12)
        at = slope @ np.array([w.across(z), 0, z])
        (props.tuft if rng.random() < 0.7 else props.bush)(w, at, rng.uniform(0.08, 0.5))
    for _ in range(int(rng.integers(0, 5))):
        z = w.log_uniform(1.5, 30)
        props.anything(w, slope @ np.array([w.across(z), 0, z]), rng.uniform(0.3, 1), rng.uniform(0, 6))
    if rng.random() < 0.3:
        places.hills(w)


@kind(1.4)
def plain_ground(w: World) -> None:
    """An empty road, yard or floor, with at most a few things: relief must be a calm ramp."""
    rng = w.rng
    w.outdoors = rng.random() < 0.6
    w.eye[1] = w.log_uniform(1.0, 9)
    w.pitch = -rng.uniform(0.1, 1.1)
    if rng.random() < 0.5:
        places.ground(w)
        if rng.random() < 0.7:
            places.road(w, rng.uniform(5, 20) * max(1.0, w.eye[1] / 4), rng.normal(0, 0.7))
    else:
        grey = np.full(3, rng.uniform(0.1, 0.9))
        smooth = w.material(grey, share=0.0, contrast=rng.uniform(0, 0.4), scale=rng.choice([0.1, 0.3, 1]))
        w.add(QUAD, (0, 0, 0), (300, 300, 1), places.FLOOR @ turn_z(rng.uniform(0, 6)), smooth, casts=False)
    reach = w.eye[1] / max(0.15, math.tan(-w.pitch))
    for spot in range(int(rng.integers(0, 5))):
        z = reach * rng.uniform(0.5, 2.5)
        places.marking(
            w,
            w.across(z),
            z,
            (reach * rng.uniform(0.02, 0.2), reach * rng.uniform(0.02, 0.5)),
            rng.uniform(0, 6),
            0.03 + 0.004 * spot,
        )
    for _ in range(int(rng.choice([0, 0, 1, 1, 1, 2, 3]))):
        z = reach * rng.uniform(0.5, 2.4)
        at, draw = (w.across(z, 1.1), 0, z), rng.random()
        if draw < 0.4:
            vehicle(w, at, 1.0, rng.uniform(0, 6.3))
        elif draw < 0.7:
            person(w, at, 1.0, rng.uniform(0, 6.3))
        elif draw < 0.8:
            props.animal(w, at, rng.uniform(0.3, 1.2), rng.uniform(0, 6.3))
        else:
            thing_box(w, at, rng.uniform(0.1, 0.6))


def _vehicle_below(w: World, at: tuple[float, float, float], size: float, yaw: float) -> None:
    """Any vehicle, but none that is so tall that the camera would be in it."""
    fits = vehicle if w.eye[1] > 3.4 * size or math.hypot(at[0], at[2]) > 7 * size else saloon
    fits(w, at, size, yaw)


@kind(2.2)
def traffic(w: World) -> None:
    """A road from a bridge or a mast, through any lens: vehicles, large in the picture, on a ground that stays."""
    rng = w.rng
    w.eye[1] = height = w.log_uniform(2.5, 9)
    w.pitch = -rng.uniform(0.2, 1.2)
    reach = height / math.tan(-w.pitch)
    far = math.hypot(height, reach)
    w.half_width = min(0.8, 2.2 / (far * rng.uniform(0.15, 0.6)))  # a car takes up to two thirds of the width
    places.ground(w)
    yaw = rng.uniform(0, 6.3)
    if rng.random() < 0.8:
        places.road(w, max(3.0 * far * w.half_width, 5.0) * rng.uniform(0.7, 3), yaw)
    for spot in range(int(rng.integers(0, 4))):
        z = reach + rng.uniform(-1, 1) * far * w.half_width
        half = (rng.uniform(0.05, 0.6), rng.uniform(0.2, 3))
        places.marking(w, w.across(far), z, half, yaw + rng.normal(0, 0.1), 0.03 + 0.004 * spot)
    for _ in range(int(rng.choice([0, 1, 1, 1, 2, 2, 3, 5]))):
        x, z = w.on_ground()  # in every row alike, also where the frame cuts them
        at, draw = (x, 0, z), rng.random()
        if draw < 0.8:
            turned = yaw + rng.normal(0, 0.12) + math.pi * (rng.random() < 0.5)
            _vehicle_below(w, at, rng.uniform(0.85, 1.15), turned)
        elif draw < 0.92:
            person(w, at, 1.0, rng.uniform(0, 6.3))
        else:
            props.animal(w, at, rng.uniform(0.4, 1.2), rng.uniform(0, 6.3))


@kind(1.5)
def above(w: World) -> None:
    """From a roof, a drone, a desk lamp: straight or steeply down."""
    rng = w.rng
    w.eye[1] = height = math.exp(rng.uniform(0.7, 3))
    w.pitch, w.roll = -rng.uniform(0.6, 1.57), rng.normal(0, 0.3)
    places.ground(w)
    middle = height / max(0.3, math.tan(-w.pitch))
    size = rng.choice([1.0, height / 6])
    for _ in range(int(rng.integers(0, 9))):
        x, z = w.on_ground(1.2)
        at, draw = (x, 0, z), rng.random()
        if draw < 0.4:
            _vehicle_below(w, at, size, rng.uniform(0, 6.3))
        elif draw < 0.6:
            person(w, at, size, rng.uniform(0, 6))
        elif draw < 0.75:
            props.tree(w, at, min(size * rng.uniform(1, 3.5), 0.8 * height))
        else:
            props.clutter(w, at, size * rng.uniform(0.1, 0.8))
    for mark in range(int(rng.integers(0, 7))):
        half = (rng.uniform(0.03, 0.4) * size * 2, rng.uniform(0.3, 4) * size)
        places.marking(
            w, w.across(height, 1.5), middle + rng.uniform(-1, 1) * height, half, rng.uniform(0, 6), 0.01 + 0.001 * mark
        )


@kind(0.8)
def crowds(w: World) -> None:
    """Many people, outdoors or in a hall."""
    rng = w.rng
    w.outdoors = rng.random() < 0.6
    w.eye[1], w.pitch = rng.uniform(1.2, 3.0), rng.normal(-0.1, 0.1)
    if w.outdoors:
        _land_height = w.eye[1]
        places.ground(w)
        for _ in range(int(rng.integers(0, 4))):
            z = rng.uniform(20, 60)
            props.building(w, (w.across(z), 0, z), rng.uniform(3, 10, 3), rng.uniform(0, 6))
        w.eye[1] = _land_height
    else:
        places.wall_things(
            w, places.room(w, rng.uniform(4, 9), rng.uniform(9, 20), rng.uniform(3, 6), rng.normal(0, 0.2)), 3
        )
    crowd(w, rng.uniform(0.9, 3), rng.uniform(8, 18), int(rng.integers(5, 16)))


@kind(2.2)
def blocks(w: World) -> None:
    """Boxes in rows and piles, turned and sized by chance: crates, containers, sheds, books, bricks.

    What they are says nothing of how far they are; outlines, shadows and what hides what do.
    """
    rng = w.rng
    size = w.log_uniform(0.1, 4.0)
    w.outdoors = rng.random() < (0.8 if size > 0.7 else 0.35)
    w.eye[1] = size * w.log_uniform(0.5, 6.0)
    w.pitch = -abs(rng.normal(0.05, 0.25))
    places.ground(w)
    reach = size * rng.uniform(6, 25)
    if not w.outdoors or rng.random() < 0.3:
        wall = w.material(scale=0.4 / size, contrast=rng.uniform(0, 1))
        turned = turn_y(rng.normal(0, 0.3))
        w.add(QUAD, (0, 0, reach), (80 * size, rng.uniform(2, 9) * w.eye[1], 1), turned, wall, casts=False)
    for _ in range(int(rng.integers(1, 5))):
        like = w.material(scale=0.7 / size) if rng.random() < 0.5 else None
        half = 0.5 * size * rng.uniform(0.4, 1.6, 3)
        z = w.log_uniform(1.5 * size, 0.9 * reach)
        first, yaw = np.array([w.across(z, 1.2), 0, z]), rng.uniform(0, 6.3)
        along = turn_y(yaw) @ np.array([2 * half[0] * w.log_uniform(1.01, 2.5), 0, 0])
        count = int(rng.integers(1, 9))
        for place in range(count):
            at = first + (place - count // 2) * along
            if at[2] < 1.2 * size:
                continue  # the camera stands here
            floor = 0.0
            for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
                one = half * (1.0 if like is not None else rng.uniform(0.6, 1.1, 3))
                turned = turn_y(yaw + rng.normal(0, rng.choice([0.0, 0.0, 0.1])))
                w.box(at + np.array([0, floor + one[1], 0]), one, turned, like)
                floor += 2 * one[1]
    for _ in range(int(rng.integers(0, 5))):
        z = w.log_uniform(1.2 * size, 0.8 * reach)
        props.anything(w, (w.across(z), 0, z), min(1.0, size), rng.uniform(0, 6.3), outdoors=w.outdoors)


@kind(0.8)
def flight(w: World) -> None:
    """Things before the open sky: birds, balloons, twigs, poles, roofs."""
    rng = w.rng
    w.pitch, w.eye[1] = rng.uniform(0.0, 0.6), rng.uniform(0.8, 3)
    places.ground(w)
    if rng.random() < 0.4:
        places.hills(w)
    for _ in range(int(rng.integers(0, 4))):
        z = w.log_uniform(1.0, 25)
        at = (w.across(z, 0.9), w.eye[1] + z * (math.tan(w.pitch) + w.half_height * rng.uniform(-0.7, 0.7)), z)
        if rng.random() < 0.6:
            props.bird(w, at, z * rng.uniform(0.04, 0.3))
        else:
            props.clutter(w, at, z * rng.uniform(0.03, 0.15))
    if rng.random() < 0.4:
        props.branch(w, rng.uniform(0.5, 3))
    for _ in range(int(rng.integers(0, 5))):
        z = w.log_uniform(2, 30)
        at = (w.across(z), 0, z)
        (props.pole if rng.random() < 0.4 else props.tree)(w, at, rng.uniform(2, 9))


@kind(1.0, held_out=True)
def street(w: World) -> None:
    """A street between houses."""
    rng, width = w.rng, w.rng.uniform(4, 9)
    w.eye[1], w.pitch = rng.uniform(1.2, 5), rng.normal(-0.02, 0.05)
    places.ground(w)
    w.add(
        QUAD, (0, 0.01, 0), (width * 0.6, 300, 1), places.FLOOR, w.material((0.25, 0.25, 0.27), scale=0.3), casts=False
    )
    for block in range(9):
        for side in (-1, 1):
            depth = rng.uniform(3, 8)
            props.building(w, (side * (width + 4), 0, 4 + 13 * block + depth), (4, rng.uniform(3, 12), depth * 0.95), 0)
    for _ in range(int(rng.integers(2, 9))):
        z = math.exp(rng.uniform(1.3, 4))
        if rng.random() < 0.6:
            car(w, (rng.choice([-1, 1]) * width * 0.35, 0, z), 1, rng.choice([0, 3.14]))
        else:
            person(w, (rng.choice([-1, 1]) * width * 0.85, 0, z), 1, rng.uniform(0, 6))
