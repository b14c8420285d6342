"""Letterbox and pillarbox bars, and what only looks like them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from inference import bars
from stereospot.media.model import Bars, Colour
from tests.unit import clips


def films(count: int = 4, **box: int) -> list[np.ndarray]:
    """Luma of `count` scenes of 320 x 180 with black bars."""
    found: list[np.ndarray] = []
    for seed in range(count):
        luma = clips.pictures(1, 320, 180, seed=seed)[0][0].copy()
        noise = np.random.default_rng(seed).integers(-3, 4, luma.shape)
        dark = np.clip(16 + noise, 0, 255).astype(np.uint8)
        top, bottom, left, right = (box.get(name, 0) for name in ("top", "bottom", "left", "right"))
        luma[:top], luma[180 - bottom :] = dark[:top], dark[180 - bottom :]
        luma[:, :left], luma[:, 320 - right :] = dark[:, :left], dark[:, 320 - right :]
        found.append(luma)
    return found


def find(lumas: Iterable[np.ndarray], pixel_format: str, colour: Colour) -> Bars:
    """Bars of a film from frames spread over it."""
    samples = bars.Samples(pixel_format, colour)
    for luma in lumas:
        samples.add(luma)
    return samples.bars()


@pytest.mark.parametrize("box", [{"top": 22, "bottom": 23}, {"left": 40, "right": 40}, {}])
def test_bars_are_found_exactly(box: dict[str, int]) -> None:
    assert find(films(**box), "yuv420p", Colour()) == Bars.model_validate(box)


def test_ten_bit_and_black_samples() -> None:
    lumas = [luma.astype(np.uint16) * 4 for luma in films(top=20, bottom=20)]
    lumas.insert(1, np.full_like(lumas[0], 64))
    assert find(lumas, "yuv420p10le", Colour()) == Bars(top=20, bottom=20)


def test_one_dark_side_is_no_bar() -> None:
    assert find(films(bottom=40), "yuv420p", Colour()) == Bars()


def test_too_little_to_judge_by_means_no_bars() -> None:
    assert find([], "yuv420p", Colour()) == Bars()
    assert find(films(1, top=20, bottom=20), "yuv420p", Colour()) == Bars()
    assert find([np.full((180, 320), 16, np.uint8)] * 4, "yuv420p", Colour()) == Bars()


def test_a_bar_that_is_not_always_there_is_none() -> None:
    lumas = [*films(2, top=20, bottom=20), *films(2)]
    assert find(lumas, "yuv420p", Colour()) == Bars()
