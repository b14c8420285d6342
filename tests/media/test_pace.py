"""Transport streams whose own clock says that they last for a day: which of them do."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from stereospot import errors
from stereospot.media.limits import Limits
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from tests.media.recordings import PART_SECONDS, joined
from tests.media.writing import Film, write


def duration(path: Path, **limits: float) -> float | None:
    source = FileSource(path)
    try:
        return probe(source, limits=Limits(**limits)).duration_seconds  # type: ignore[arg-type]
    finally:
        source.close()


def test_a_clock_that_is_set_back_near_the_end_makes_no_film_too_long(tmp_path: Path) -> None:
    """libavformat takes what lies before the first picture for a clock of 33 bits that started again: 26.5 hours."""
    parts = [(1000.0 + PART_SECONDS * number, 1.9) for number in range(11)]
    assert duration(joined(tmp_path, "aac", *parts, (3.0, 1.9))) == pytest.approx(12 * PART_SECONDS, rel=0.2)


def test_a_film_that_is_too_long_stays_so(tmp_path: Path) -> None:
    """Thirteen hours, a picture every half a minute: the clock runs evenly over all of it."""
    pts = [number * 30 * 90_000 for number in range(13 * 120)]
    film = Film(
        ".ts", frames=len(pts), pts=pts, rate=Fraction(25), time_base=Fraction(1, 90_000), size=(64, 48),
        options={"preset": "ultrafast", "bf": "0", "g": "1"},
    )  # fmt: skip
    write(film, tmp_path / "long.ts")
    with pytest.raises(errors.StereoSpotError) as refused:
        duration(tmp_path / "long.ts")
    assert refused.value.code == "TOO_LONG"
    assert duration(tmp_path / "long.ts", max_duration_seconds=14 * 3600) == pytest.approx(13 * 3600, rel=0.01)
