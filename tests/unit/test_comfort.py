"""The comfort report: percentiles of the whole film, the suggestion, and the warnings."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from inference import comfort
from inference.report import (
    BIN_PERCENT,
    BINS,
    LOWEST_PERCENT,
    NARROW_BINS,
    EngineUsed,
    SegmentReport,
    merged,
    percentile,
)
from inference.warp import disparity


def part(index: int, near: float, far: float, **changes: object) -> SegmentReport:
    """A segment whose grid lies half at `near` and half at `far` percent."""
    histogram = [0] * BINS
    for value in (near, far):
        histogram[int((value - LOWEST_PERCENT) / BIN_PERCENT)] += 1000
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
    assert percentile(np.zeros(BINS, np.int64), 0.5, lowest=-6.0, width=0.05) == 0.0


@pytest.mark.parametrize("value", [-10.0, -6.0, -5.99, 0.0, 0.02, 5.99, 7.5, 10.0])
def test_what_the_warp_counted_is_told_where_it_lies(value: float) -> None:
    """Both histograms have a bin whose middle is 0, and hold all that a divergence of 10 % can give."""
    fine = np.zeros(disparity.BINS, np.int64)
    fine[round((value - disparity.LOWEST_PERCENT) / disparity.BIN_PERCENT - 0.5)] = 1000
    own = percentile(fine, 0.5, lowest=disparity.LOWEST_PERCENT, width=disparity.BIN_PERCENT)
    assert own == pytest.approx(value, abs=0.0051)
    found = comfort.merge([part(0, 0, 0, histogram=tuple(int(n) for n in merged(fine)))], divergence=10.0)
    assert found.disparity_p50 == pytest.approx(value, abs=0.0251)


def narrow(*values: float) -> tuple[int, ...]:
    """A histogram of an older version."""
    counts = [0] * NARROW_BINS
    for value in values:
        counts[min(max(int((value + 6.005) / BIN_PERCENT), 0), NARROW_BINS - 1)] += 1000
    return tuple(counts)


def test_older_reports_are_read_beside_new_ones() -> None:
    for value in (-5.5, -1.01, 0.0, 0.52, 5.5):
        found = comfort.merge([part(0, value, value), part(1, 0, 0, histogram=narrow(value, value))], divergence=8.0)
        for told in (found.disparity_p1, found.disparity_p50, found.disparity_p99):
            assert told == pytest.approx(value, abs=0.051), "either is where it was"


def test_an_older_report_that_saw_its_end_promises_nothing() -> None:
    """Where it lay beyond 6 % nobody knows: what is suggested has to fit all the same."""
    for others in ([], [part(0, 0.2, 0.0)]):
        found = comfort.merge([*others, part(1, 0, 0, histogram=narrow(9.0, 0.0))], divergence=10.0)
        assert not found.within_budget
        assert found.disparity_p99 == pytest.approx(10.0, abs=0.03)
        assert found.suggested_divergence == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"histogram": (10**30,) * BINS}, {"histogram": (-1,) * BINS}, {"histogram": (1,) * 100_000},
        {"histogram": (1,) * (BINS - 1)}, {"folds": 10**400}, {"violation_ratio": float("inf")},
        {"first_mean": float("nan")}, {"device": "x" * 10_000}, {"stages": {str(n): 1.0 for n in range(1000)}},
    ],
)  # fmt: skip
def test_a_report_that_no_converter_makes_does_not_parse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        part(0, 0.2, -0.2, **wrong)


def test_the_largest_reports_do_not_overflow() -> None:
    full = [part(index, 0, 0, histogram=(2**53 - 1,) * BINS) for index in range(100)]
    found = comfort.merge(full, divergence=1.0)
    assert found.disparity_p50 == pytest.approx(0.0, abs=0.051)
    assert found.disparity_p99 == pytest.approx(9.8, abs=0.1)


def test_a_remote_cannot_fill_the_jobs_record() -> None:
    parts = [part(n, 0, 0, device=f"{n:0200}", stages={f"{n}-{m}": 1.0 for m in range(60)}) for n in range(200)]
    assert len(comfort.merge(parts, divergence=1.0).model_dump_json()) < 50_000
