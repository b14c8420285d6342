"""Curves: what any worker computes from the windows it needs is what one worker with all of them computes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import curves

TIME_BASE = Fraction(1, 90000)
GRID = curves.Grid.of(TIME_BASE)


@dataclass(frozen=True)
class Frame:
    pts: int


def tone(shot: int) -> tuple[int, ...]:
    """A signature that all frames of one shot share and that neighbours do not."""
    bins = [0] * 8
    bins[shot % 8] = 255
    return tuple(bins) * 16


def film(times: list[int], cuts: list[int] | None = None) -> list[curves.Sample]:
    random = np.random.default_rng(1)
    jitter = random.normal(1.0, 0.1, len(times))
    return [
        curves.Sample(
            pts=pts, near=10.0 * float(jitter[i]), far=1.0, signature=tone(sum(pts >= cut for cut in cuts or []))
        )
        for i, pts in enumerate(times)
    ]


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
    frames = [Frame(pts) for pts in range(-1500, 90000 * 12, 3003)]
    serial = list(curves.sampled(frames, GRID))
    alone: list[Frame] = []
    for index in range(-1, 4):
        start, end = GRID.range_of(index)
        alone += curves.sampled([f for f in frames if start <= f.pts < end], GRID)
    assert alone == serial
    assert len(serial) == 25


@given(
    rate=st.sampled_from([1001, 3003, 3600, 3750, 90000]),
    start=st.integers(-2, 40),
    length=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 60 * 90000), max_size=8).map(sorted),
)
def test_parallel_equals_serial(rate: int, start: int, length: int, cuts: list[int]) -> None:
    frames = [Frame(pts) for pts in range(0, 50 * 90000, rate)]
    samples = film([f.pts for f in curves.sampled(frames, GRID)], cuts)
    stored = windows(samples)
    serial = curves.Curve(stored.values(), GRID)
    first, last = start * 90000, (start + length) * 90000
    mine = curves.Curve([stored[i] for i in GRID.windows(first, last) if i in stored], GRID)
    # A worker knows the cuts of its own range only.
    known = [cut for cut in cuts if first <= cut < last]
    for frame in [f for f in frames if first <= f.pts < last][::7]:
        assert mine.at(frame.pts) == serial.at(frame.pts)
        assert mine.at(frame.pts, known)[0] > mine.at(frame.pts, known)[1]


def test_one_shot_moves_smoothly() -> None:
    times = list(range(0, 30 * 90000, GRID.cell))
    curve = curves.Curve(windows(film(times)).values(), GRID)
    near = np.array([curve.at(pts)[0] for pts in range(0, 30 * 90000, 3003)])
    assert np.abs(np.diff(near)).max() / near.mean() < 0.01
    raw = np.array([sample.near for sample in curve.samples])
    assert np.abs(np.diff(raw)).max() / raw.mean() > 0.1


def test_a_cut_separates() -> None:
    cut = 10 * 90000 + 30000
    times = list(range(0, 20 * 90000, GRID.cell))
    samples = [
        curves.Sample(pts=p, near=10.0 if p < cut else 100.0, far=0.0, signature=tone(int(p >= cut))) for p in times
    ]
    curve = curves.Curve(windows(samples).values(), GRID)
    assert curve.at(cut - 1, [cut])[0] == pytest.approx(10.0)
    assert curve.at(cut, [cut])[0] == pytest.approx(100.0)
    assert curve.at(cut - 90000)[0] == pytest.approx(10.0)
    assert curve.at(cut + 90000)[0] == pytest.approx(100.0)


def test_a_flat_scene_is_not_stretched() -> None:
    sample = curves.measure(0, np.full((9, 16), 4.0, np.float32), np.zeros((9, 16), np.uint8))
    curve = curves.Curve([curves.Window(index=0, samples=(sample,))], GRID)
    near, far = curve.at(0)
    assert (near, far) == (4.0, pytest.approx(2.8))
    assert curves.normalised(np.full((1, 1), 4.0, np.float32), near, far)[0, 0] == pytest.approx(1.0)


def test_measures_ignore_what_is_not_finite() -> None:
    depth = np.linspace(0, 1, 10000, dtype=np.float32).reshape(100, 100)
    depth[0, :20] = np.nan
    sample = curves.measure(5, depth, np.full((100, 100), 200, np.uint8))
    assert sample.near == pytest.approx(0.99, abs=0.01)
    assert sample.far == pytest.approx(0.012, abs=0.01)
    assert curves.distance(sample.signature, sample.signature) == 0
    assert curves.distance(tone(0), tone(1)) == 1
    nothing = curves.measure(5, np.full((2, 2), np.nan, np.float32), np.zeros((8, 8), np.uint8))
    assert (nothing.near, nothing.far) == (0.0, 0.0)


def test_no_sample_is_an_error() -> None:
    curve = curves.Curve(windows(film([0])).values(), GRID)
    with pytest.raises(ValueError, match="no sample"):
        curve.at(90000 * 60)
