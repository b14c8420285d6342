"""The device's pictures are the CPU's, byte for byte; here on torch's CPU device, with a GPU by marker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference import layouts
from inference.gpu import compositor
from stereospot.options import Layout
from tests.unit import clips

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra gpu)")


def equal(layout: Layout, form: str, size: tuple[int, int], device: str, **stereo: Any) -> None:
    width, height = size
    plan = clips.plan(width, height, form, layout=layout, engine="depth-anything", divergence=6.0, **stereo)
    colour = plan.source.video.colour
    one = layouts.Compositor(width, height, form, plan.stereo, colour)
    other = layouts.Compositor(width, height, form, plan.stereo, colour)
    pictures = clips.pictures(5, width, height, form, cuts=(2,))
    grid = one.field.grid
    random = np.random.default_rng(5)
    depths = [np.kron(random.random((6, 8)), np.ones((grid.rows, grid.columns)))[::6, ::8] for _ in pictures]
    shaped = [np.ascontiguousarray(d[: grid.rows, : grid.columns], np.float32) for d in depths]
    wanted = [one.compose(planes, depth) for planes, depth in zip(pictures, shaped, strict=True)]
    assert compositor.fits(plan)
    found = compositor.DeviceCompositor(other, plan, device).compose(pictures, shaped)
    for a, b in zip(found, wanted, strict=True):
        for plane, expected in zip(a, b, strict=True):
            np.testing.assert_array_equal(plane, expected)
    np.testing.assert_array_equal(one.stretch, other.stretch)
    np.testing.assert_array_equal(one.disparity.histogram, other.disparity.histogram)


CASES = [
    (Layout.HALF_SBS, "yuv420p", (320, 180), {}),
    (Layout.FULL_SBS, "yuv422p", (320, 180), {"synthesise": "right"}),
    (Layout.HALF_TB, "yuv420p10le", (320, 180), {"swap_eyes": True}),
    (Layout.CROSS_EYED, "yuv444p", (322, 182), {}),
    (Layout.HALF_SBS, "yuv420p", (321, 181), {}),
    (Layout.LEFT, "yuv420p", (1024, 96), {}),
]


@pytest.mark.parametrize(("layout", "form", "size", "stereo"), CASES)
def test_the_same_bytes(layout: Layout, form: str, size: tuple[int, int], stereo: dict[str, Any]) -> None:
    equal(layout, form, size, "cpu", **stereo)


@pytest.mark.gpu
@pytest.mark.parametrize(("layout", "form", "size", "stereo"), CASES)
def test_the_same_bytes_on_a_gpu(layout: Layout, form: str, size: tuple[int, int], stereo: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU answers")
    equal(layout, form, size, "cuda", **stereo)


def test_other_layouts_stay_on_the_cpu() -> None:
    for layout in (Layout.ANAGLYPH, Layout.DEPTH):
        assert not compositor.fits(clips.plan(320, 180, layout=layout))
