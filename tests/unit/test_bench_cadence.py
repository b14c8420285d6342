"""The benches give depth as a conversion does: estimated where the cadence says, else from the frames beside it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import quality, stereo_set
from inference import prepare, temporal


def test_frames_are_estimated_at_the_product_s_cadence() -> None:
    assert quality.keys("relief", 6) == [True, False] * 3
    assert quality.keys("relief", 6, Fraction(60)) == [True, False, False] * 2
    assert quality.keys("cues", 4) == [True] * 4
    assert quality.keys("relief", 9)[3:] == quality.keys("relief", 6, first=3), "a range has the film's"


def test_what_is_not_estimated_is_not_asked_for() -> None:
    views = list(stereo_set.views(6, ("field",)))
    made = quality.Ours(*quality.COARSE)
    asked: list[int] = []

    def estimate(view: stereo_set.View, small: prepare.Small) -> NDArray[np.float32]:
        asked.append(views.index(view))
        return quality.small_oracle(view, *quality.COARSE)

    assert len(made.grids(views, estimate, quality.keys("relief", 6))) == 6
    assert asked == [0, 2, 4]


def test_the_filter_has_only_what_was_estimated() -> None:
    pytest.importorskip("PIL")
    from bench import relief

    rng = np.random.default_rng(3)
    reliefs = rng.random((5, 12, 20), np.float32)
    lumas = [temporal.soften(np.full((12, 20), 90, np.uint8))] * 5
    found = relief.smoothed(reliefs, lumas, [True, False, True, False, True])
    wanted = temporal.smooth([reliefs[0], None, reliefs[2], None, reliefs[4]], lumas, 1)
    assert np.array_equal(found[1], wanted)
