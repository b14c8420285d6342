"""The comfort report: percentiles of the whole film, the suggestion, and the warnings."""

from __future__ import annotations

import pytest

from inference import comfort
from inference.report import EngineUsed, SegmentReport, percentile

BINS = 240


def part(index: int, near: float, far: float, **changes: object) -> SegmentReport:
    """A segment whose grid lies half at `near` and half at `far` percent."""
    histogram = [0] * BINS
    for value in (near, far):
        histogram[int((value + 6.0) / 0.05)] += 1000
    values = {
        "index": index, "frames": 10, "seconds": 1.0, "engine": EngineUsed(name="cues", version="1"),
        "histogram": tuple(histogram), **changes,
    }  # fmt: skip
    return SegmentReport.model_validate(values)


def codes(found: comfort.Comfort) -> list[str]:
    return [item.code for item in found.warnings]


def test_percentiles_are_of_the_whole_film_in_any_order() -> None:
    found = comfort.merge([part(1, 0.51, -0.49), part(0, 0.11, -1.01)], divergence=1.6)
    assert found.frames == 20
    assert found.disparity_p99 == pytest.approx(0.525, abs=0.03)
    assert found.disparity_p1 == pytest.approx(-1.0, abs=0.03)
    assert found.within_budget
    assert codes(found) == []


def test_too_much_parallax_suggests_what_fits() -> None:
    found = comfort.merge([part(0, 2.01, -2.01)], divergence=4.0)
    assert not found.within_budget
    assert found.suggested_divergence == pytest.approx(2.0, abs=0.1)
    assert codes(found) == ["DISPARITY_OVER_BUDGET"]
    assert "divergence of 2" in found.warnings[0].text


def test_a_flat_film_needs_no_suggestion() -> None:
    found = comfort.merge([part(0, 0.0, 0.0)], divergence=0.0)
    assert found.suggested_divergence is None
    assert codes(found) == []
    assert comfort.merge([], divergence=1.0).segments == 0


def test_seams_count_only_between_neighbours_of_one_shot() -> None:
    quiet = {"first_mean": 0.0, "last_mean": 0.0, "step_p95": 0.01}
    step = {**quiet, "first_mean": 0.5}
    assert codes(comfort.merge([part(0, 0, 0, **quiet), part(1, 0, 0, **step)], divergence=1.0)) == ["SEAM_STEP"]
    cut = {**step, "cut_at_start": True}
    assert codes(comfort.merge([part(0, 0, 0, **quiet), part(1, 0, 0, **cut)], divergence=1.0)) == []
    assert codes(comfort.merge([part(0, 0, 0, **quiet), part(2, 0, 0, **step)], divergence=1.0)) == []


def test_each_measure_has_its_warning() -> None:
    found = comfort.merge([part(0, 0.2, -0.2, violation_ratio=0.5, stretch_ratio=0.2, not_finite=3)], divergence=1.0)
    assert codes(found) == ["WINDOW_VIOLATIONS", "STRETCHED", "DEPTH_NOT_FINITE"]


def test_the_worst_places_are_named_in_the_order_of_the_film() -> None:
    ratios = (0.2, 0.0, 0.9, 0.11, 0.5)
    parts = [part(index, 0.2, -0.2, violation_ratio=ratio) for index, ratio in enumerate(ratios)]
    assert comfort.merge(reversed(parts), divergence=1.0).violation_places == (0.0, 0.4, 0.8)
    assert comfort.merge([part(0, 0.2, -0.2)], divergence=1.0).violation_places == ()


def test_percentile_of_nothing_is_nothing() -> None:
    import numpy as np

    assert percentile(np.zeros(BINS, np.int64), 0.5, lowest=-6.0, width=0.05) == 0.0
