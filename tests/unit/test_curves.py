"""Curves: what any worker computes from the windows it needs is what one worker with all of them computes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import curves

TIME_BASE = Fraction(1, 90000)
GRID = curves.Grid.of(TIME_BASE)


def sampled(times: list[int], cuts: list[int], *, first: int = 0) -> list[curves.Sample]:
    """The samples that a pass over these frames takes; near depends on the frame alone."""
    found: list[curves.Sample] = []
    starts = {next((t for t in times if t >= cut), -1) for cut in cuts}
    for previous, pts in zip([None, *times], times, strict=False):
        if pts >= first and GRID.is_sample(pts, previous, starts=pts in starts):
            jitter = float(np.random.default_rng(abs(pts)).normal(1.0, 0.1))
            near = 10.0 * jitter
            found.append(curves.Sample(pts=pts, near=near, far=1.0, starts=pts in starts))
    return found


def windows(samples: list[curves.Sample]) -> dict[int, curves.Window]:
    found: dict[int, list[curves.Sample]] = {}
    for sample in samples:
        found.setdefault(sample.pts // (GRID.cell * curves.WINDOW_CELLS), []).append(sample)
    return {index: curves.Window(index=index, samples=tuple(items)) for index, items in found.items()}


def test_ticks() -> None:
    assert curves.Grid(45000, 270000) == GRID
    assert GRID.range_of(2) == (720000, 1080000)
    assert list(GRID.windows(0, 90000)) == [-1, 0]
    assert list(GRID.windows(360000, 720000)) == [0, 1, 2]
    assert curves.Grid.of(Fraction(1, 1)) == curves.Grid(1, 3)


def test_a_window_sampled_alone_has_the_films_samples() -> None:
    times = list(range(-1500, 90000 * 12, 3003))
    cuts = [90000, 400000]
    serial = sampled(times, cuts, first=-1500)
    alone: list[curves.Sample] = []
    for index in range(-1, 4):
        start, end = GRID.range_of(index)
        alone += sampled(
            [t for t in times if start <= t < end], [cut for cut in cuts if start <= cut < end], first=start
        )
    assert alone == serial
    assert len(serial) == 26


@given(
    rate=st.sampled_from([1001, 3003, 3600, 3750, 90000]),
    start=st.integers(0, 40),
    length=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 50 * 90000), max_size=8).map(sorted),
)
def test_parallel_equals_serial(rate: int, start: int, length: int, cuts: list[int]) -> None:
    times = list(range(0, 50 * 90000, rate))
    stored = windows(sampled(times, cuts))
    serial = curves.Curve(stored.values(), GRID)
    first, last = start * 90000, (start + length) * 90000
    mine = curves.Curve([stored[i] for i in GRID.windows(first, last) if i in stored], GRID)
    for pts in [t for t in times if first <= t < last][::7]:
        assert mine.at(pts) == serial.at(pts)


def test_one_shot_moves_smoothly() -> None:
    curve = curves.Curve(windows(sampled(list(range(0, 30 * 90000, 3000)), [])).values(), GRID)
    near = np.array([curve.at(pts)[0] for pts in range(0, 30 * 90000, 3000)])
    assert np.abs(np.diff(near)).max() / near.mean() < 0.01
    raw = np.array([sample.near for sample in curve.samples])
    assert np.abs(np.diff(raw)).max() / raw.mean() > 0.1


def test_a_shot_has_its_own_scale() -> None:
    """From the very first frame, even when the shot is shorter than a cell."""
    one, two = 10 * 90000 + 30000, 10 * 90000 + 36000
    samples = sampled(list(range(0, 20 * 90000, 3000)), [one, two])
    fixed = [
        sample.model_copy(update={"near": 10.0 if sample.pts < one else 100.0 if sample.pts < two else 50.0})
        for sample in samples
    ]
    curve = curves.Curve(windows(fixed).values(), GRID)
    found = [curve.at(pts)[0] for pts in (one - 3000, one, two - 3000, two, two + 90000)]
    assert found == pytest.approx([10.0, 100.0, 100.0, 50.0, 50.0])


def test_a_flat_scene_is_not_stretched() -> None:
    sample = curves.measure(0, np.full((9, 16), 4.0, np.float32), starts=True)
    curve = curves.Curve([curves.Window(index=0, samples=(sample,))], GRID)
    near, far = curve.at(0)
    assert (near, far) == (4.0, pytest.approx(2.8))
    assert curves.normalised(np.full((1, 1), 4.0, np.float32), near, far)[0, 0] == pytest.approx(1.0)


def test_measures_ignore_what_is_not_finite() -> None:
    depth = np.linspace(0, 1, 10000, dtype=np.float32).reshape(100, 100)
    depth[0, :20] = np.nan
    sample = curves.measure(5, depth, starts=False)
    assert sample.near == pytest.approx(0.99, abs=0.01)
    assert sample.far == pytest.approx(0.012, abs=0.01)
    nothing = curves.measure(5, np.full((2, 2), np.nan, np.float32), starts=False)
    assert (nothing.near, nothing.far) == (0.0, 0.0)


def test_far_from_every_sample() -> None:
    curve = curves.Curve(windows(sampled([0], [])).values(), GRID)
    assert curve.at(90000 * 60) == curve.at(-90000) == curve.at(0)
    with pytest.raises(ValueError, match="no sample"):
        curves.Curve([], GRID).at(0)
