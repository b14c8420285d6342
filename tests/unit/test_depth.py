"""The engines without a network, and the small pictures that they see."""

from __future__ import annotations

import numpy as np
import pytest

from inference import depth, geometry, prepare, upsample
from stereospot import errors
from stereospot.media.model import Bars, Colour
from tests.unit import clips


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["cues", "flat", "identity"])
def test_each_frame_is_estimated_alone(name: str) -> None:
    engine = depth.load(name)
    assert engine.info.name == name
    frames = np.stack([picture(engine.info.height, engine.info.width, seed) for seed in range(3)])
    together = engine.infer(frames)
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1
    for index in range(3):
        assert np.array_equal(engine.infer(frames[index : index + 1])[0], together[index])
    engine.close()


def test_cues_put_the_ground_before_the_sky() -> None:
    engine = depth.load("cues")
    frame = np.zeros((engine.info.height, engine.info.width, 3), np.uint8)
    frame[:60] = (190, 205, 235)
    frame[60:] = (90, 110, 60)
    found = engine.infer(frame[None])[0]
    assert found[-10:].mean() > found[:20].mean() + 0.3


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(errors.Misconfigured) as caught:
        depth.load("oracle")
    assert caught.value.code == "ENGINE_UNAVAILABLE"


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p"])
def test_small_pictures_show_the_source(pixel_format: str) -> None:
    """A red picture with a blue half comes out red and blue, at any bit depth."""
    width, height = 301, 203
    colour = Colour(matrix=1)
    scale = 4 if pixel_format.endswith("10le") else 1
    dtype = np.uint16 if scale == 4 else np.uint8
    planes: list[np.ndarray] = []
    for size, red, blue in zip(
        geometry.plane_sizes(width, height, pixel_format), (63, 102, 240), (32, 240, 118), strict=True
    ):
        plane = np.full(size, red * scale, dtype)
        plane[:, size[1] // 2 :] = blue * scale
        planes.append(plane)
    small = prepare.Preparer(width, height, pixel_format, colour, Bars(), 96, 54).prepare(tuple(planes))
    assert np.abs(small.rgb[20, 10].astype(int) - (255, 0, 0)).max() <= 3
    assert np.abs(small.rgb[20, 85].astype(int) - (0, 0, 255)).max() <= 3
    assert small.grid.shape == (geometry.grid(width, height).rows, geometry.grid(width, height).columns)
    assert small.grid[10, 10] == 63


def test_block_means_are_means() -> None:
    """Against numpy, at sizes that the blocks do not divide."""
    rng = np.random.default_rng(1)
    for height, width, across, down, shift in (
        (37, 53, 4, 4, 0),
        (20, 31, 2, 1, 0),
        (33, 70, 8, 8, 2),
        (5, 3, 16, 16, 0),
    ):
        plane = rng.integers(0, 256 << shift, (height, width)).astype(np.uint16 if shift else np.uint8)
        out = np.zeros((-(-height // down), -(-width // across)), np.uint8)
        prepare.block_means(plane, width, height, across, down, shift, out)
        for y in range(out.shape[0]):
            for x in range(out.shape[1]):
                mean = plane[y * down : (y + 1) * down, x * across : (x + 1) * across].mean() / (1 << shift)
                assert abs(int(out[y, x]) - mean) <= 0.51


def test_bars_are_cropped_before_the_engine_sees_anything() -> None:
    planes = clips.pictures(1, 320, 180)[0]
    barred = tuple(plane.copy() for plane in planes)
    barred[0][:20], barred[0][160:] = 16, 16
    bars = Bars(top=20, bottom=20)
    made = prepare.Preparer(320, 180, "yuv420p", Colour(), bars, 192, 112)
    changed = tuple(plane.copy() for plane in barred)
    changed[0][:20] = 90
    assert np.array_equal(made.prepare(barred).rgb, made.prepare(changed).rgb)
    assert made.prepare(barred).luma.min() > 16


def test_upsampling_follows_the_edges_of_the_picture() -> None:
    """A soft depth edge beside a sharp edge of the picture moves onto it."""
    width, height = 960, 540
    upsampler = upsample.Upsampler(width, height, Bars(), 192, 112)
    grid = upsampler.grid
    guide = np.full((grid.rows, grid.columns), 60, np.uint8)
    guide[:, grid.columns // 2 :] = 180
    luma = np.full((112, 192), 60, np.uint8)
    luma[:, 96:] = 180
    ramp = np.clip((np.arange(192) - 90) / 12, 0, 1).astype(np.float32)
    soft = ramp[None].repeat(112, 0).copy()
    found = upsampler.upsample(soft, luma, guide)
    step = np.diff(found[grid.rows // 2])
    assert found.shape == guide.shape
    assert abs(int(step.argmax()) - (grid.columns // 2 - 1)) <= 1
    assert step.max() > 3 * np.diff(soft[0]).max() * 192 / grid.columns


def test_upsampling_keeps_a_constant() -> None:
    upsampler = upsample.Upsampler(640, 360, Bars(top=40, bottom=40), 192, 112)
    noise = np.random.default_rng(2).integers(0, 255, (112, 192), dtype=np.uint8)
    guide = np.random.default_rng(3).integers(0, 255, (upsampler.grid.rows, upsampler.grid.columns), dtype=np.uint8)
    found = upsampler.upsample(np.full((112, 192), 0.3, np.float32), noise, guide)
    assert np.abs(found - 0.3).max() < 1e-4
