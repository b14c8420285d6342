"""The list of scene kinds: what the network gets to see, and how often.

Place in the flow: `build` is called by `render.py` for each sample. A scene
kind is a function that takes a `World` and puts things into it, declared with
`@kind(weight)`; `held_out=True` keeps it away from training for good, it is
only evaluated. To teach the network something new, write one more kind in
`outdoors.py`, `indoors.py`, `portraits.py`, `near.py`, `cartoons.py` or `graphics.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inference.training.textures import Atlas
from inference.training.world import World

Builder = Callable[[World], None]


@dataclass(frozen=True, slots=True)
class SceneKind:
    name: str
    weight: float
    held_out: bool
    build: Builder


KINDS: dict[str, SceneKind] = {}

COVERED = 0.07
"""Share of scenes with writing or a logo on them."""


def kind(weight: float, *, held_out: bool = False) -> Callable[[Builder], Builder]:
    """Declare a scene kind; its name is the function's."""

    def declare(build: Builder) -> Builder:
        KINDS[build.__name__] = SceneKind(build.__name__, weight, held_out, build)
        return build

    return declare


def names(*, held_out: bool = False) -> list[str]:
    _load()
    return [k.name for k in KINDS.values() if k.held_out == held_out]


def drawn(rng: np.random.Generator, among: Sequence[str]) -> str:
    """One of these kinds, by its weight."""
    _load()
    weights = np.array([KINDS[name].weight for name in among])
    return among[int(rng.choice(len(among), p=weights / weights.sum()))]


def _load() -> None:
    from inference.training import (  # noqa: F401  (they declare kinds)
        cartoons,
        graphics,
        indoors,
        near,
        outdoors,
        portraits,
    )


def build(
    rng: np.random.Generator, atlas: Atlas, name: str | None = None, *, held_out: bool = False, covered: float = COVERED
) -> tuple[str, World]:
    """A scene of the named kind, or of a kind drawn by weight; `covered`: how many have writing or a logo on them."""
    name = name or drawn(rng, names(held_out=held_out))
    _load()
    world = World(rng, atlas)
    KINDS[name].build(world)
    if not world.flat_truth:
        world.cartoon = world.cartoon or world.chance(0.1)
        if not world.overlay and world.chance(covered):
            world.overlay = str(rng.choice(["subtitle", "logo", "title", "badge"]))
    return name, world
