"""The warp: the CPU kernel against the slow reference, and what must hold exactly."""

from __future__ import annotations

import numpy as np
import pytest

from inference import geometry, warp
from inference.warp import cpu, disparity, reference
from stereospot.media.model import Bars, StereoSpec
from stereospot.options import Layout


def spec(**changes: object) -> StereoSpec:
    values = {"engine": "cues", "layout": Layout.HALF_SBS, "divergence": 2.0, "convergence": 0.5, **changes}
    return StereoSpec.model_validate(values)


def scene(height: int, width: int, ten_bit: bool, seed: int) -> np.ndarray:
    """A smooth picture with edges, since sampling noise between neighbours is what fixed point may round."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    picture = 0.5 + 0.2 * np.sin(x / 7) + 0.2 * np.cos(y / 5) + 0.1 * rng.random((height, width))
    return (picture * (1023 if ten_bit else 255)).astype(np.uint16 if ten_bit else np.uint8)


def depth_steps(grid: geometry.Grid, seed: int) -> np.ndarray:
    """Depth with boxes in front of a slope: folds and gaps for both eyes."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(0, 0.4, grid.rows, dtype=np.float32)[:, None].repeat(grid.columns, 1)
    for _ in range(6):
        y, x = rng.integers(0, grid.rows), rng.integers(0, grid.columns)
        depth[y : y + grid.rows // 3, x : x + grid.columns // 4] = rng.random()
    return depth


@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.HALF_TB, Layout.FULL_SBS])
@pytest.mark.parametrize("size", [(64, 36), (2, 2), (3, 5), (131, 77), (1030, 22)])
@pytest.mark.parametrize("ten_bit", [False, True])
@pytest.mark.parametrize("synthesise", ["both", "left", "right"])
@pytest.mark.parametrize("grid_step", [None, 1])
def test_kernel_follows_the_reference(
    layout: Layout, size: tuple[int, int], ten_bit: bool, synthesise: str, grid_step: int | None
) -> None:
    width, height = size
    stereo = spec(layout=layout, divergence=6.0, synthesise=synthesise, grid_step=grid_step)
    field = warp.Field.of(width, height, stereo)
    place = geometry.arrange(width, height, layout)
    plane = scene(height, width, ten_bit, 1)
    knot = warp.knot(field.grid.step)
    moved = disparity.Disparity(field).convert(depth_steps(field.grid, 2))
    count = warp.knots(place.eye_width * (2 if place.half_width else 1), field.grid.step)
    moves = np.empty((2, field.grid.rows, count), np.int32)
    eyes = warp.eyes(stereo)
    cpu.invert(moved, field.grid.step, width, knot, eyes.left, eyes.right, moves, np.zeros(2, np.int64))
    out = np.zeros((place.height, place.width), plane.dtype)
    cpu.render(
        plane, width, moves, field.grid.step, knot, 0, 0, int(place.half_width), int(place.half_height), out,
        place.eye_width, place.eye_height, *place.left, *place.right,
    )  # fmt: skip
    for share, (x, y) in ((eyes.left / 256, place.left), (eyes.right / 256, place.right)):
        expected_moves = reference.displacement(moved / 65536, field.grid.step, width, knot, share, count)
        expected = reference.eye(
            plane, expected_moves, field.grid.step, knot, place.eye_width, place.eye_height,
            half_width=place.half_width, half_height=place.half_height,
        )  # fmt: skip
        got = out[y : y + place.eye_height, x : x + place.eye_width].astype(float)
        # A knot whose target falls on the very edge of a fold may take either side, so a few pixels may differ.
        difference = np.abs(got - expected)
        assert np.mean(difference > (2.5 if ten_bit else 1.01)) < 0.002
        assert difference.mean() < (0.8 if ten_bit else 0.4)


@pytest.mark.parametrize("size", [(2, 2), (64, 48), (55, 33), (1922, 8)])
def test_nothing_folds_and_every_output_has_a_source(size: tuple[int, int]) -> None:
    width, height = size
    field = warp.Field.of(width, height, spec(divergence=10.0))
    moved = disparity.Disparity(field).convert(depth_steps(field.grid, 5))
    moves = np.empty((2, field.grid.rows, warp.knots(width, field.grid.step)), np.int32)
    cpu.invert(moved, field.grid.step, width, warp.knot(field.grid.step), 128, -128, moves, np.zeros(2, np.int64))
    positions = moves.astype(np.int64) + (np.arange(moves.shape[2], dtype=np.int64) * warp.knot(field.grid.step) << 16)
    assert (np.diff(positions, axis=2) >= 0).all()
    inside = np.arange(moves.shape[2]) * warp.knot(field.grid.step) <= width - 1
    assert (positions[:, :, inside] >= -65536).all()
    assert (positions[:, :, inside] <= width << 16).all()


def test_near_things_lie_in_front() -> None:
    """What is near moves right for the left eye and left for the right eye, and covers what is behind."""
    width, height = 320, 16
    field = warp.Field.of(width, height, spec(divergence=5.0))
    depth = np.zeros((field.grid.rows, field.grid.columns), np.float32)
    depth[:, 136:184] = 1.0  # a little wider than the thing itself, as the upsampling makes it
    plane = np.full((height, width), 50, np.uint8)
    plane[:, 140:180] = 200
    moves = np.empty((2, field.grid.rows, warp.knots(width, field.grid.step)), np.int32)
    moved = disparity.Disparity(field).convert(depth)
    cpu.invert(moved, field.grid.step, width, warp.knot(field.grid.step), 128, -128, moves, np.zeros(2, np.int64))
    out = np.zeros((height, 2 * width), np.uint8)
    cpu.render(
        plane, width, moves, field.grid.step, warp.knot(field.grid.step), 0, 0, 0, 0, out, width, height, 0, 0, width, 0
    )
    left, right = out[8, :width], out[8, width:]
    left_centre = np.flatnonzero(left > 125).mean()
    right_centre = np.flatnonzero(right > 125).mean()
    # 5 % of 320 pixels at depth 1 - 0.5: 8 pixels, 4 for each eye.
    assert left_centre - 159.5 == pytest.approx(4, abs=0.6)
    assert 159.5 - right_centre == pytest.approx(4, abs=0.6)
    assert np.count_nonzero(left > 125) == pytest.approx(40, abs=2)


def test_depth_that_is_not_a_number_lies_at_the_screen() -> None:
    field = warp.Field.of(64, 32, spec())
    converter = disparity.Disparity(field)
    depth = np.full((field.grid.rows, field.grid.columns), np.nan, np.float32)
    depth[3, 3] = np.inf
    assert not converter.convert(depth).any()
    assert converter.tally[1] == depth.size


def test_bars_and_borders_have_no_disparity() -> None:
    field = warp.Field.of(320, 180, spec(bars=Bars(top=20, bottom=22, left=8, right=0)))
    moved = disparity.Disparity(field).convert(np.ones((field.grid.rows, field.grid.columns), np.float32))
    assert not moved[:20].any()
    assert not moved[158:].any()
    assert not moved[:, :8].any()
    assert moved[90, 160] == round(0.02 * 320 * 0.5 * 65536 * 32767 / 32767.5)  # depth has 16 bits
    assert 0 < moved[90, 318] < moved[90, 300]


def test_what_is_near_covers_one_cell_more() -> None:
    field = warp.Field.of(320, 180, spec(synthesise="right"))
    depth = np.full((field.grid.rows, field.grid.columns), 0.25, np.float32)
    depth[90, 100:104] = 0.75
    moved = disparity.Disparity(field).convert(depth)
    assert np.flatnonzero(moved[90] > 0).tolist() == list(range(99, 105))
    assert not (moved[91] > 0).any()


def test_depth_and_its_codes_give_the_same_disparity() -> None:
    field = warp.Field.of(320, 180, spec())
    depth = np.random.default_rng(4).random((field.grid.rows, field.grid.columns)).astype(np.float32)
    depth[3, 4:6] = np.nan
    made = disparity.Disparity(field)
    codes = made.codes(depth)
    assert made.tally[1] == 2
    assert np.array_equal(made.convert(codes), disparity.Disparity(field).convert(depth))
    half = np.full(depth.shape, 0.5, np.float32)
    assert not made.convert(half).any(), "what lies at the screen lies there exactly"


def test_true_depth_of_every_pixel_comes_close_to_the_true_view() -> None:
    """A floor under `bench.quality`: on one frame of each scene the warp stays within a decibel of what it reached."""
    from bench import quality, stereo_set

    views = list(stereo_set.views(1))
    made = quality.Ours(*quality.COARSE, grid_step=1)
    found = [quality.psnr(made.right(view, view.depth.astype(np.float32)), view.right) for view in views]
    assert np.mean(found) > 36.5


def test_violations_and_percentiles_are_counted() -> None:
    field = warp.Field.of(320, 180, spec())
    converter = disparity.Disparity(field)
    converter.convert(np.ones((field.grid.rows, field.grid.columns), np.float32))
    assert converter.tally[0] == converter.tally[2] == field.grid.rows
    assert converter.mean_percent == pytest.approx(1.0, abs=0.05)
    assert np.flatnonzero(converter.histogram).tolist() == [disparity.BINS // 2 + 100]


def test_what_lies_in_bars_violates_nothing() -> None:
    field = warp.Field.of(320, 180, spec(bars=Bars(left=40, right=40)))
    depth = np.full((field.grid.rows, field.grid.columns), 0.5, np.float32)
    inner = 40 // field.grid.step - 2  # a near cell grows by one
    depth[:, :inner] = depth[:, -inner:] = 1.0
    converter = disparity.Disparity(field)
    assert not converter.convert(depth).any()
    assert converter.tally[0] == 0
    depth[:, 40 // field.grid.step] = 1.0
    converter.convert(depth)
    assert converter.tally[0] == field.grid.rows, "the picture's own border still counts"


@pytest.mark.parametrize("layout", [Layout.HALF_SBS, Layout.HALF_TB, Layout.FULL_SBS])
@pytest.mark.parametrize("size", [(64, 36), (2, 2), (131, 77), (1030, 22)])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("synthesise", ["both", "left", "right"])
@pytest.mark.parametrize("grid_step", [None, 1])
def test_torch_gives_the_same_bytes(
    layout: Layout, size: tuple[int, int], shift: int, synthesise: str, grid_step: int | None
) -> None:
    """The golden test between the two kernels; on a GPU too where torch sees one."""
    torch = pytest.importorskip("torch")
    from inference.warp import torch_kernel

    width, height = size
    stereo = spec(layout=layout, divergence=7.0, synthesise=synthesise, grid_step=grid_step)
    field = warp.Field.of(width, height, stereo)
    place = geometry.arrange(width, height, layout)
    eyes, step, knot = warp.eyes(stereo), field.grid.step, warp.knot(field.grid.step)
    count = warp.knots(place.eye_width * (2 if place.half_width else 1), step)
    inner = (-(-height // (1 << shift)), -(-width // (1 << shift)))
    planes = np.stack([scene(*inner, False, seed) for seed in (1, 2)])
    moved = np.stack([disparity.Disparity(field).convert(depth_steps(field.grid, seed)) for seed in (3, 4)])
    half = (int(place.half_width), int(place.half_height))
    eye = (place.eye_width >> shift, place.eye_height >> shift)
    corners = [(x >> shift, y >> shift) for x, y in (place.left, place.right)]
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        moves = torch_kernel.invert(torch.from_numpy(moved).to(device), step, width, knot, count, eyes.left, eyes.right)
        out = torch.zeros((2, place.height >> shift, place.width >> shift), dtype=torch.uint8, device=device)
        torch_kernel.render(
            torch.from_numpy(planes).to(device), moves, step, knot, shift, shift, *half, out, *eye, *corners
        )
        for index in range(2):
            expected_moves = np.empty((2, field.grid.rows, count), np.int32)
            cpu.invert(moved[index], step, width, knot, eyes.left, eyes.right, expected_moves, np.zeros(2, np.int64))
            assert np.array_equal(moves[index].cpu().numpy(), expected_moves)
            expected = np.zeros((place.height >> shift, place.width >> shift), np.uint8)
            cpu.render(
                planes[index], inner[1], expected_moves, step, knot, shift, shift, *half, expected, *eye,
                *corners[0], *corners[1],
            )  # fmt: skip
            assert np.array_equal(out[index].cpu().numpy(), expected)
