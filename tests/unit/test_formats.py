"""What pages call numbers."""

from __future__ import annotations

import pytest

from services.gateway import formats


@pytest.mark.parametrize(("seconds", "shown"), [(4.4, "0:04"), (4.5, "0:05"), (29.999, "0:30"), (3599.6, "1:00:00")])
def test_a_length_is_the_nearest_second(seconds: float, shown: str) -> None:
    assert formats.clock(formats.nearest(seconds)) == shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.5, "5 s"), (59.6, "1 min"), (250.0, "4 min 10 s"), (5520, "1 h 32 min")]
)
def test_the_same_length_in_words(seconds: float, words: str) -> None:
    assert formats.duration(seconds) == words
