"""Windows of a curve in a completion set: packed spans, what may be sent, and what is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import curves
from inference.gpu.convert import padding
from stereospot import completion, spans
from stereospot.completion import Completion
from stereospot.media.model import Plan
from tests.unit import clips

Spans = list[tuple[int, int]]


@st.composite
def films(draw: st.DrawFn) -> Spans:
    """Spans of consecutive segments: from anywhere on the axis, never going back."""
    first = draw(st.integers(-5, 10**9))
    found: Spans = []
    for _ in range(draw(st.integers(1, 60))):
        first += draw(st.integers(0, 3))
        last = max(first + draw(st.integers(0, 300)), found[-1][1] if found else first)
        found.append((first, last))
    return found


@given(films())
def test_spans_survive_packing(film: Spans) -> None:
    assert list(spans.unpack(spans.pack(film))) == film


def test_a_long_film_takes_two_bytes_a_segment() -> None:
    film = [(i, i + 2) for i in range(-1, 2159)]
    assert len(spans.pack(film)) < 2160 * 2 * 4 / 3 + 8


@pytest.mark.parametrize("text", ["AA==", "gA==", "!", "AAA"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        spans.unpack(text)
    with pytest.raises(ValueError, match="no span"):
        spans.pack([(3, 2)])


@given(films(), st.data())
def test_a_segment_is_open_when_its_windows_are_stored(film: Spans, data: st.DataObject) -> None:
    """Whatever the order of parts, windows and repeats."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(film) - 1), max_size=4)) | {0})
    parts = [(first, film[first:stop]) for first, stop in zip(cuts, [*cuts[1:], len(film)], strict=True)]
    needed = {window for first, last in film for window in range(first, last + 1)}
    stored = [*data.draw(st.lists(st.sampled_from(sorted(needed)), max_size=30)), 10**12, -(10**12)]
    value = Completion(job_id="J", generation=1)
    for first, part in data.draw(st.permutations(parts)):
        value = value.with_part(first, len(part), 1, "gpu", spans.pack(part))
    for window in data.draw(st.permutations(stored)):
        value = value.with_windows([window])
    assert value.with_windows(stored) is value
    value = completion.decode(completion.encode(value))
    opened, lacking = value.ahead()
    expected = [i for i, (first, last) in enumerate(film) if set(range(first, last + 1)) <= set(stored)]
    assert list(completion.bits(opened)) == expected
    assert set(lacking) == needed - set(stored)
    assert value.with_windows(needed).ahead() == ((1 << len(film)) - 1, ())


def test_windows_are_wanted_in_the_order_of_playback() -> None:
    film = [(i, i + 1) for i in range(10)]
    value = Completion(job_id="J", generation=1).with_total(10, (0,), 1, "gpu", False, {0: spans.pack(film)})
    assert value.ahead()[1] == tuple(range(11))
    assert value.ahead(7)[1] == (7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6)
    assert value.ahead(7, 2)[1] == (7, 8, 9)
    assert value.with_attempt(2).with_windows([7, 8]).ahead(7, 2) == (1 << 7, (9,))
    assert value.with_windows([0, 1]).with_done(0, "i").ahead(0, 1) == (0, (2,))


def test_a_part_that_comes_late_moves_the_first_window() -> None:
    late = Completion(job_id="J", generation=1).with_part(2, 1, 1, "gpu", spans.pack([(5, 6)])).with_windows([5, 6])
    both = late.with_part(0, 2, 1, "gpu", spans.pack([(-1, 0), (2, 5)]))
    assert [window for window in range(-2, 8) if both.has_window(window)] == [5, 6]
    assert both.ahead() == (1 << 2, (-1, 0, 2, 3, 4))


def test_a_set_without_a_curve_opens_everything() -> None:
    value = Completion(job_id="J", generation=1).with_total(4, (0,), 1, "cpu", False)
    assert value.ahead(2, 1) == (0b1111, ())
    assert value.with_windows([1]) is value


def test_a_span_holds_all_that_a_conversion_asks_for() -> None:
    plan: Plan = clips.plan(160, 90, engine="depth-anything")
    assert curves.is_analysed(plan)
    assert not curves.is_analysed(clips.plan(160, 90))
    assert not curves.is_analysed(plan.model_copy(update={"backend": "http"}))
    video = plan.source.video
    grid = curves.Grid.of(video.time_base)
    for every in range(1, 9):
        assert padding(every) + 1 <= curves.PADDING_FRAMES
        ticks = round((padding(every) + 1) / (video.average_rate * video.time_base))
        for first, last in [(0, 20), (17, 96), (96, 97), (400, 550)]:
            segment = clips.segment(0, first, last)
            asked = grid.windows(segment.start - ticks, segment.start + segment.duration + ticks)
            begin, end = curves.span(plan, segment)
            assert begin <= asked[0]
            assert asked[-1] <= end
