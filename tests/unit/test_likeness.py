"""What is taken for an answer to a segment: all that our own warp makes, and not its pictures in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from inference import layouts
from inference.backends import likeness
from inference.tonemap import ToneMapper
from stereospot import errors
from stereospot.media.model import Colour, Plan
from stereospot.options import Layout
from tests.unit import clips

WIDTH, HEIGHT, COUNT = 320, 180, 30

Frame = tuple[np.ndarray, ...]


def frame(luma: np.ndarray, blue: int, red: int, dtype: Any = np.uint8) -> Frame:
    return luma.astype(dtype), *(np.full((HEIGHT // 2, WIDTH // 2), code, dtype) for code in (blue, red))


def pan(percent: float, count: int = COUNT) -> list[Frame]:
    """A street of bright and dark houses that goes by, so many percent of the width a frame."""
    rng = np.random.default_rng(5)
    street = np.zeros((HEIGHT, 6 * WIDTH))
    left = 0
    while left < street.shape[1]:
        width = int(rng.integers(30, 100))
        street[:, left : left + width] = rng.uniform(20, 230)
        left += width
    street = np.clip(street + 20 * np.sin(np.arange(HEIGHT) / 15)[:, None], 16, 235)
    starts = [round(2 * WIDTH + percent / 100 * WIDTH * number) for number in range(count)]
    return [frame(street[:, start : start + WIDTH], 128, 128) for start in starts]


def fade(blue: int, red: int, luma: int, count: int = COUNT) -> list[Frame]:
    """A card of one colour with writing on it that comes out of the black."""
    found: list[Frame] = []
    for number in range(count):
        part = min(1.0, (number + 1) / count)
        card = np.full((HEIGHT, WIDTH), 16 + (luma - 16) * part)
        card[70:110, 60:260:7] = 16 + 200 * part
        found.append(frame(card, round(128 + (blue - 128) * part), round(128 + (red - 128) * part)))
    return found


def answered(plan: Plan, film: Sequence[Frame]) -> list[list[likeness.Thumbnail]]:
    """What our own warp makes of it, with depth that rises to the lower border, made small."""
    look = likeness.Look(plan)
    compositor = layouts.Compositor(WIDTH, HEIGHT, plan.encode.pixel_format, plan.stereo, plan.encode.colour)
    grid = compositor.field.grid
    depth = np.repeat(np.linspace(0.2, 0.8, grid.rows, dtype=np.float32)[:, None], grid.columns, 1)
    return [look.shown(compositor.compose(planes, depth)[0]) for planes in film]


def judge(plan: Plan, film: Sequence[Frame], answer: Sequence[Sequence[likeness.Thumbnail]]) -> None:
    look = likeness.Look(plan)
    order = likeness.Order([look.expected(planes) for planes in film])
    for eyes in answer:
        order.add(eyes)
    order.check()


@pytest.mark.parametrize("percent", [0.4, 1.0, -1.0, 1.5])
@pytest.mark.parametrize(
    ("divergence", "convergence", "synthesise"),
    [(1.6, 0.5, "both"), (6.0, 1.0, "both"), (10.0, 0.0, "both"), (4.0, 1.0, "left"), (10.0, 0.0, "right")],
)
def test_a_pan_is_in_order_whatever_the_parallax(
    percent: float, divergence: float, convergence: float, synthesise: str
) -> None:
    film = pan(percent)
    for layout in (Layout.HALF_SBS, Layout.HALF_TB, Layout.LEFT):
        plan = clips.plan(
            WIDTH, HEIGHT, layout=layout, divergence=divergence, convergence=convergence, synthesise=synthesise
        )
        judge(plan, film, answered(plan, film))


@pytest.mark.parametrize(
    "layout", [Layout.ANAGLYPH, Layout.ANAGLYPH_AMBER_BLUE, Layout.ANAGLYPH_GREEN_MAGENTA, Layout.ANAGLYPH_GREY]
)
@pytest.mark.parametrize(("blue", "red", "luma"), [(102, 240, 63), (240, 118, 32), (110, 180, 50), (128, 128, 200)])
def test_anaglyphs_of_strong_colours_are_known(layout: Layout, blue: int, red: int, luma: int) -> None:
    """Red, blue, dark red, white: the glasses' colours make another luma of each."""
    plan = clips.plan(WIDTH, HEIGHT, layout=layout, divergence=2.0)
    still = [fade(blue, red, luma)[-1]] * COUNT
    for film in (fade(blue, red, luma), still):
        judge(plan, film, answered(plan, film))


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.ANAGLYPH])
def test_hdr_is_compared_as_it_is_mapped(transfer: int, layout: Layout) -> None:
    film = [tuple((plane.astype(np.uint16) * 4) for plane in planes) for planes in fade(118, 140, 220, 12)]
    plan = clips.plan(WIDTH, HEIGHT, "yuv420p10le", layout=layout, divergence=2.0)
    colour = Colour(matrix=9, primaries=9, transfer=transfer)
    video = plan.source.video.model_copy(update={"colour": colour})
    encode = plan.encode.model_copy(
        update={"pixel_format": "yuv420p", "colour": Colour(matrix=1, primaries=1, transfer=1)}
    )
    plan = plan.model_copy(update={"source": plan.source.model_copy(update={"video": video}), "encode": encode})
    tones = ToneMapper(WIDTH, HEIGHT, "yuv420p10le", colour)
    mapped = [tuple(plane.copy() for plane in tones.map(planes)) for planes in film]
    answer = answered(plan, mapped)
    judge(plan, film, answer)
    with pytest.raises(errors.Transient, match="out of order"):
        judge(plan, film, swapped(answer))


def swapped(answer: Sequence[Any]) -> list[Any]:
    found = list(answer)
    for number in range(2, len(found) - 1, 9):
        found[number], found[number + 1] = found[number + 1], found[number]
    return found


def doubled(answer: Sequence[Any]) -> list[Any]:
    """Every ninth picture is lost, the one before it stands in its place."""
    return [answer[number - (number % 9 == 4)] for number in range(len(answer))]


def turned(answer: Sequence[Any]) -> list[Any]:
    return list(answer)[::-1]


@pytest.mark.parametrize("wrong", [swapped, doubled, turned])
@pytest.mark.parametrize(("divergence", "convergence"), [(1.6, 0.5), (6.0, 1.0)])
def test_another_order_is_found_in_a_pan(wrong: Callable[..., Any], divergence: float, convergence: float) -> None:
    film = pan(1.0)
    plan = clips.plan(WIDTH, HEIGHT, divergence=divergence, convergence=convergence)
    answer = answered(plan, film)
    with pytest.raises(errors.Transient, match="out of order"):
        judge(plan, film, wrong(answer))


@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.ANAGLYPH, Layout.DEPTH])
def test_another_film_is_found(layout: Layout) -> None:
    plan = clips.plan(WIDTH, HEIGHT, layout=layout)
    bright, dark = ([frame(np.full((HEIGHT, WIDTH), code), 128, 128)] * 5 for code in (190, 60))
    with pytest.raises(errors.Transient, match="something else"):
        judge(plan, bright, answered(plan, dark))


def test_a_still_scene_has_no_order() -> None:
    plan = clips.plan(WIDTH, HEIGHT)
    film = [pan(0.0, 1)[0]] * COUNT
    judge(plan, film, swapped(answered(plan, film)))


@pytest.mark.parametrize(("width", "height"), [(161, 91), (1, 9), (9, 1), (35, 2000)])
@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.HALF_TB, Layout.ANAGLYPH, Layout.CROSS_EYED])
def test_odd_sizes_are_compared_as_they_are_padded(width: int, height: int, layout: Layout) -> None:
    plan = clips.plan(width, height, layout=layout, divergence=0.0)
    film = clips.pictures(6, width, height)
    look = likeness.Look(plan)
    compositor = layouts.Compositor(width, height, "yuv420p", plan.stereo, plan.encode.colour)
    grid = compositor.field.grid
    for planes in film:
        shown = look.shown(compositor.compose(planes, np.zeros((grid.rows, grid.columns), np.float32))[0])
        assert look.expected(planes).distance(shown) < 1.0


def test_an_endpoint_that_chooses_the_parallax_is_free_to() -> None:
    film = pan(1.0)
    asked, made = clips.plan(WIDTH, HEIGHT, divergence=0.0), clips.plan(WIDTH, HEIGHT, divergence=6.0, convergence=0.0)
    look = likeness.Look(asked, free=True)
    for planes, eyes in zip(film, answered(made, film), strict=True):
        assert look.expected(planes).distance(eyes) < 1.0
