"""Completion is a set: any order, any duplication, any interleaving with the plan completes once and only once."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from stereospot import completion
from stereospot.completion import Completion

Change = Callable[[Completion], Completion]


def empty() -> Completion:
    return Completion(job_id="J", generation=1)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[Change]]:
    """A job of some segments as an arbitrary sequence of messages: everything at least once, anything repeated."""
    total = draw(st.integers(1, 40))
    cuts = sorted(draw(st.sets(st.integers(1, total), max_size=5)) | {total})
    parts = [(first, stop - first) for first, stop in zip([0, *cuts], cuts, strict=False)]
    firsts = tuple(first for first, _ in parts)

    def done(index: int) -> Change:
        return lambda value: value.with_done(index, "i")

    def part(first: int, count: int) -> Change:
        return lambda value: value.with_part(first, count, 1, "cpu")

    def ending(value: Completion) -> Completion:
        return value.with_total(total, firsts, 1, "cpu", False)

    changes: list[Change] = [done(index) for index in range(total)]
    changes += [part(first, count) for first, count in parts]
    changes.append(ending)
    changes += draw(st.lists(st.sampled_from(changes), max_size=40))
    changes += [done(draw(st.integers(total, 2 * total))) for _ in range(draw(st.integers(0, 2)))]
    return total, draw(st.permutations(changes))


@given(histories())
def test_any_order_gives_exactly_one_completing_write(history: tuple[int, list[Change]]) -> None:
    total, changes = history
    value, triggers = empty(), 0
    for change in changes:
        after = change(value)
        if after is not value and after.is_complete and not value.is_complete:
            triggers += 1
        assert not (value.is_complete and not after.is_complete), "a complete set never opens again"
        value = after
    assert triggers == 1
    assert value.done == (1 << total) - 1
    assert value.planned == total
    assert not value.waiting()


@given(histories())
def test_the_result_does_not_depend_on_the_order(history: tuple[int, list[Change]]) -> None:
    total, changes = history
    value = empty()
    for change in changes:
        value = change(value)
    assert completion.decode(completion.encode(value)) == value
    assert (value.total, value.count, value.prefix()) == (total, total, total)


def test_a_repeated_message_is_no_change_at_all() -> None:
    value = empty().with_part(0, 4, 1, "cpu").with_total(4, (0,), 1, "cpu", True).with_done(1, "i").with_audio(2)
    assert value.with_done(1, "i") is value
    assert value.with_part(0, 4, 1, "cpu") is value
    assert value.with_total(4, (0,), 1, "cpu", True) is value
    assert value.with_audio(1) is value


def test_a_source_without_sound_is_waited_for_by_nobody_from_its_first_part_on() -> None:
    value = empty().with_part(0, 4, 1, "cpu", silent=True)
    assert not value.expects_sound(is_active=True)
    assert value.with_part(0, 4, 1, "cpu", silent=True) is value
    assert value.with_part(4, 4, 1, "cpu").silent, "an older planner says nothing of it"
    assert empty().with_part(0, 4, 1, "cpu").expects_sound(is_active=True), "it may have some"
    assert empty().with_total(4, (0,), 1, "cpu", True).expects_sound(is_active=True)
    assert not empty().with_total(4, (0,), 1, "cpu", False).expects_sound(is_active=True)


def test_a_segment_with_another_init_is_offered_again_and_not_counted() -> None:
    value = empty().with_part(0, 3, 1, "cpu").with_sent([0, 1]).with_done(0, "a").with_done(1, "b")
    assert list(completion.bits(value.done)) == [0]
    assert list(completion.bits(value.waiting())) == [1, 2]
    assert value.with_done(0, "b") is value, "a stored segment stays what it is"


def test_a_retry_keeps_what_is_done_and_offers_the_rest() -> None:
    value = empty().with_total(4, (0,), 1, "cpu", False).with_sent(range(4)).with_done(2, "i")
    assert not value.waiting()
    assert list(completion.bits(value.with_attempt(2).waiting())) == [0, 1, 3]
    assert value.with_attempt(1) is value


def test_the_contiguous_run_starts_anywhere() -> None:
    value = empty().with_total(8, (0,), 1, "cpu", False)
    for index in (0, 1, 4, 5):
        value = value.with_done(index, "i")
    assert [value.prefix(start) for start in range(8)] == [2, 2, 2, 3, 6, 6, 6, 7]


def test_parts_name_the_object_that_holds_a_segment() -> None:
    value = empty().with_part(0, 3, 1, "cpu").with_part(3, 2, 1, "cpu")
    assert [value.part_of(index) for index in range(5)] == [0, 0, 0, 3, 3]


def test_the_value_stays_small() -> None:
    value = empty().with_total(5000, (0,), 1, "cpu", False)
    for index in range(5000):
        value = value.with_done(index, "0" * 64)
    assert len(completion.encode(value)) < 2200
