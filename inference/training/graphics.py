"""Scene kinds that are no scene: title cards, captions, test pictures, credits.

Place in the flow: declared here, drawn by `scenes.py`. Their truth is one
plane at the middle of the range (`World.flat_truth`); the writing itself comes
from `overlay.py`. Graphics OVER a scene are not here: those are an overlay
with a depth of its own.
"""

from __future__ import annotations

from inference.training.kernel import ELLIPSOID, QUAD
from inference.training.scenes import kind
from inference.training.world import World, turn_z


def _card(w: World, low: float, high: float, contrast: float) -> None:
    w.pitch = w.roll = 0.0
    w.outdoors, w.flat_truth = False, True
    group = None if contrast > 0 else ""
    back = w.material(w.colour(low, high), group=group, scale=w.rng.uniform(0.1, 0.5), contrast=contrast, emission=1.0)
    w.add(QUAD, (0, w.eye[1], 3.0), (50, 50, 1), material=back, casts=False)


@kind(1.3)
def caption_card(w: World) -> None:
    """Letters on black or on one colour."""
    dark = w.chance(0.7)
    _card(w, 0.0, 0.03 if dark else 0.6, 0.0)
    w.overlay = "card"


def _shapes(w: World) -> None:
    """Shapes on a pattern or a gradient."""
    rng = w.rng
    _card(w, 0.0, 0.9, rng.uniform(0, 0.9))
    for _ in range(int(rng.integers(0, 9))):
        shape = w.plain_material(w.colour(0.1, 1), emission=1.0)
        at = (w.across(3, 0.9), w.eye[1] + w.across(3, 0.5), 3.0 - 1e-3 * len(w.objects))
        half = (rng.uniform(0.02, 0.5), rng.uniform(0.02, 0.3))
        if rng.random() < 0.4:
            w.add(ELLIPSOID, at, (*half, 1e-3), material=shape, casts=False)
        else:
            w.add(QUAD, at, (*half, 1), turn_z(rng.choice([0.0, 0.0, rng.normal(0, 0.6)])), shape, casts=False)


@kind(1.8)
def title_card(w: World) -> None:
    """A title, or lines of writing, among shapes on a pattern or a gradient."""
    _shapes(w)
    w.overlay = str(w.rng.choice(["card", "title"]))


@kind(0.6)
def graphic_card(w: World) -> None:
    """The same with a logo at most: a slide's ground, a pause picture. Some of it nobody could tell from a wall."""
    _shapes(w)
    w.overlay = str(w.rng.choice(["logo", ""]))


@kind(0.8)
def slide_card(w: World) -> None:
    """A slide of a talk: headings, lines, plots, diagrams, logos."""
    _shapes(w)
    w.overlay = "slide"


@kind(0.6)
def screen_card(w: World) -> None:
    """What a computer shows: windows, lists, dialogs, code."""
    _shapes(w)
    w.overlay = "screen"
