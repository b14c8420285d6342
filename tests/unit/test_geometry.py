"""Output sizes, the places of the eyes and the disparity grid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import geometry
from stereospot.options import Layout

SIZES = st.integers(1, 9000)


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (Layout.HALF_SBS, (1920, 1080)),
        (Layout.FULL_SBS, (3840, 1080)),
        (Layout.CROSS_EYED, (3840, 1080)),
        (Layout.DEPTH, (3840, 1080)),
        (Layout.HALF_TB, (1920, 1080)),
        (Layout.FULL_TB, (1920, 2160)),
        (Layout.ANAGLYPH, (1920, 1080)),
        (Layout.LEFT, (1920, 1080)),
    ],
)
def test_sizes_of_a_full_hd_source(layout: Layout, size: tuple[int, int]) -> None:
    place = geometry.arrange(1920, 1080, layout)
    assert (place.width, place.height) == size


@given(width=SIZES, height=SIZES, layout=st.sampled_from(list(Layout)))
def test_every_eye_is_even_and_inside(width: int, height: int, layout: Layout) -> None:
    place = geometry.arrange(width, height, layout)
    assert place.width % 2 == place.height % 2 == place.eye_width % 2 == place.eye_height % 2 == 0
    for x, y in (place.left, place.right):
        assert x % 2 == y % 2 == 0
        assert x + place.eye_width <= place.width
        assert y + place.eye_height <= place.height
    assert width <= place.eye_width * (2 if place.half_width else 1) < width + 4
    assert height <= place.eye_height * (2 if place.half_height else 1) < height + 4


@given(width=SIZES, height=SIZES)
def test_grid_covers_the_picture(width: int, height: int) -> None:
    grid = geometry.grid(width, height)
    assert max(grid.columns, grid.rows) <= geometry.GRID_CELLS
    assert (grid.columns - 1) * grid.step < width <= grid.columns * grid.step
    assert (grid.rows - 1) * grid.step < height <= grid.rows * grid.step


def test_identity_keeps_the_size_whatever_the_layout() -> None:
    for layout in Layout:
        place = geometry.arrange(1279, 719, layout, engine="identity")
        assert (place.width, place.height) == (1280, 720)


def test_swapped_eyes_change_places() -> None:
    plain = geometry.arrange(640, 360, Layout.HALF_SBS)
    swapped = geometry.arrange(640, 360, Layout.HALF_SBS, swap_eyes=True)
    assert (plain.left, plain.right) == (swapped.right, swapped.left)
    assert geometry.arrange(640, 360, Layout.CROSS_EYED).left == (640, 0)
