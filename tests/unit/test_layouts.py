"""Layouts: what must be exact without divergence, where the eyes lie, and the anaglyph mixes."""

from __future__ import annotations

import numpy as np
import pytest

from inference import anaglyph, geometry, layouts
from stereospot.media.model import Colour, StereoSpec
from stereospot.options import Layout

FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")


def compositor(width: int, height: int, pixel_format: str, **changes: object) -> layouts.Compositor:
    values = {"engine": "cues", "layout": Layout.HALF_SBS, "divergence": 0.0, "convergence": 0.5, **changes}
    return layouts.Compositor(width, height, pixel_format, StereoSpec.model_validate(values), Colour(matrix=1))


def noise(width: int, height: int, pixel_format: str, seed: int = 3) -> layouts.Planes:
    rng = np.random.default_rng(seed)
    high, dtype = (1024, np.uint16) if pixel_format.endswith("10le") else (256, np.uint8)
    return tuple(
        rng.integers(0, high, size).astype(dtype) for size in geometry.plane_sizes(width, height, pixel_format)
    )


def padded(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.pad(plane, ((0, height - plane.shape[0]), (0, width - plane.shape[1])), mode="edge")


def ramp(made: layouts.Compositor) -> np.ndarray:
    grid = made.field.grid
    return np.linspace(0, 1, grid.rows * grid.columns, dtype=np.float32).reshape(grid.rows, grid.columns)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(64, 36), (2, 2), (51, 33), (1, 1)])
@pytest.mark.parametrize("layout", [Layout.FULL_SBS, Layout.CROSS_EYED, Layout.FULL_TB, Layout.LEFT])
def test_full_layouts_without_divergence_are_the_source(
    pixel_format: str, size: tuple[int, int], layout: Layout
) -> None:
    made = compositor(*size, pixel_format, layout=layout)
    planes = noise(*size, pixel_format)
    out = made.compose(planes, ramp(made))
    place = made.arrangement
    for index, (plane, result) in enumerate(zip(planes, out, strict=True)):
        x, y = geometry.subsampling(pixel_format) if index else (0, 0)
        eye = padded(plane, place.eye_height >> y, place.eye_width >> x)
        for left, top in (place.left, place.right):
            found = result[top >> y : (top + place.eye_height) >> y, left >> x : (left + place.eye_width) >> x]
            assert np.array_equal(found, eye)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size", [(64, 36), (2, 2), (51, 33)])
def test_half_layouts_without_divergence_are_the_area_downscale(pixel_format: str, size: tuple[int, int]) -> None:
    planes = noise(*size, pixel_format)
    for layout, down in ((Layout.HALF_SBS, (1, 2)), (Layout.HALF_TB, (2, 1))):
        made = compositor(*size, pixel_format, layout=layout)
        out = made.compose(planes, ramp(made))
        place = made.arrangement
        for index, (plane, result) in enumerate(zip(planes, out, strict=True)):
            x, y = geometry.subsampling(pixel_format) if index else (0, 0)
            height, width = place.eye_height >> y, place.eye_width >> x
            whole = padded(plane, height * down[0], width * down[1]).astype(int)
            pairs = whole.reshape(height, down[0], width, down[1]).sum((1, 3))
            for left, top in (place.left, place.right):
                found = result[top >> y : (top >> y) + height, left >> x : (left >> x) + width]
                assert np.array_equal(found, (pairs + 1) >> 1)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("size", [(64, 36), (33, 17)])
def test_identity_copies_the_source(layout: Layout, size: tuple[int, int]) -> None:
    made = compositor(*size, "yuv420p", layout=layout, engine="identity")
    planes = noise(*size, "yuv420p")
    for index, (plane, result) in enumerate(zip(planes, made.compose(planes, None), strict=True)):
        scale = 2 if index else 1
        assert np.array_equal(result, padded(plane, made.arrangement.height // scale, made.arrangement.width // scale))


def test_swapping_exchanges_the_halves() -> None:
    planes = noise(128, 64, "yuv420p")
    plain = compositor(128, 64, "yuv420p", divergence=5.0)
    swapped = compositor(128, 64, "yuv420p", divergence=5.0, swap_eyes=True)
    a, b = plain.compose(planes, ramp(plain)), swapped.compose(planes, ramp(plain))
    assert not np.array_equal(a[0], b[0])
    assert np.array_equal(a[0], np.roll(b[0], 64, axis=1))


def test_one_sided_leaves_the_other_eye_alone() -> None:
    planes = noise(128, 64, "yuv420p")
    made = compositor(128, 64, "yuv420p", divergence=5.0, layout=Layout.FULL_SBS, synthesise="left")
    out = made.compose(planes, ramp(made))
    assert np.array_equal(out[0][:, 128:], planes[0])
    assert not np.array_equal(out[0][:, :128], planes[0])


def test_depth_layout_shows_depth_beside_the_source() -> None:
    planes = noise(128, 64, "yuv420p")
    made = compositor(128, 64, "yuv420p", layout=Layout.DEPTH)
    depth = np.zeros((made.field.grid.rows, made.field.grid.columns), np.float32)
    depth[:, made.field.grid.columns // 2 :] = 1.0
    out = made.compose(planes, depth)
    assert np.array_equal(out[0][:, :128], planes[0])
    assert out[0][32, 130] == 16
    assert out[0][32, 254] == 235
    assert (out[1][:, 64:] == 128).all()


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("layout", sorted(geometry.ANAGLYPHS))
def test_anaglyph_of_a_grey_picture_is_balanced(pixel_format: str, layout: Layout) -> None:
    """Grey at the screen plane stays nearly grey in every mix, and no code leaves the legal range."""
    made = compositor(64, 36, pixel_format, layout=layout)
    scale = 4 if pixel_format.endswith("10le") else 1
    planes = tuple(np.full_like(plane, 128 * scale) for plane in noise(64, 36, pixel_format))
    out = made.compose(planes, ramp(made))
    assert abs(int(out[0][10, 10]) - 128 * scale) <= 8 * scale
    assert abs(int(out[1][5, 5]) - 128 * scale) <= 8 * scale
    assert abs(int(out[2][5, 5]) - 128 * scale) <= 8 * scale


def test_half_colour_takes_red_from_the_left_eye() -> None:
    mixer = anaglyph.Mixer(Layout.ANAGLYPH_HALF_COLOUR, "yuv444p", Colour(matrix=1), 4, 4)
    for plane, value in zip(mixer.eyes[0], (235, 128, 128), strict=True):
        plane[:] = value
    for plane, value in zip(mixer.eyes[1], (16, 128, 128), strict=True):
        plane[:] = value
    out = tuple(np.zeros((4, 4), np.uint8) for _ in range(3))
    mixer.mix(out)
    luma = 16 + 219 * 0.2126
    assert abs(float(out[0][0, 0]) - luma) <= 1
    assert out[2][0, 0] == 240  # the largest Cr: pure red


def test_a_picture_with_row_padding_is_taken_as_it_is() -> None:
    planes = noise(64, 36, "yuv420p")
    wide = tuple(np.pad(plane, ((0, 0), (0, 32)))[:, : plane.shape[1]] for plane in planes)
    for plane in wide:
        plane.flags.writeable = False
    made = compositor(64, 36, "yuv420p", divergence=3.0)
    assert np.array_equal(made.compose(planes, ramp(made))[0], made.compose(wide, ramp(made))[0])
