"""How long a message waits for its storage: what is a new trouble, how rests grow, what is remembered."""

from __future__ import annotations

from stereospot.bus import Delivery
from stereospot.patience import Resting, Wait

MINUTE = 60.0


def test_rests_are_twice_as_long_each_time_up_to_ten_first_ones() -> None:
    wait = Wait(0.0, 0.0, "away")
    assert [wait.rest(30.0) for _ in range(6)] == [30, 60, 120, 240, 300, 300]
    wait.rests = 2000
    assert wait.rest(30.0) == 300


def test_a_wait_is_long_after_a_minute_of_failing_or_a_rest() -> None:
    wait = Wait(0.0, 0.0, "away")
    wait.fails("away, too", ran_seconds=0.1, now=59.0, long_seconds=MINUTE)
    assert not wait.is_long(59.0, MINUTE)
    assert wait.is_long(60.0, MINUTE)
    wait.rest(30.0)
    assert wait.is_long(0.0, MINUTE)


def test_work_that_got_far_and_fails_of_something_else_waits_anew() -> None:
    wait = Wait(0.0, 0.0, "segment 1", rests=3)
    wait.fails("segment 2", ran_seconds=61.0, now=500.0, long_seconds=MINUTE)
    assert (wait.began, wait.since, wait.rests) == (0.0, 500.0, 0)
    assert not wait.is_long(559.0, MINUTE)


def test_one_object_that_is_never_read_is_one_wait_however_long_the_work_before_it_takes() -> None:
    wait = Wait(0.0, 0.0, "segment 9")
    wait.fails("segment 9", ran_seconds=600.0, now=601.0, long_seconds=MINUTE)
    assert wait.is_long(601.0, MINUTE)


def test_what_rests_is_known_by_its_place_and_forgotten_in_the_end() -> None:
    resting = Resting(patience_seconds=100.0)
    first, second = (Delivery("s", b"", stream="WORK", stream_sequence=number) for number in (1, 2))
    wait = Wait(0.0, 0.0, "away")
    resting.add(first, wait, 0.0)
    assert first in resting
    assert second not in resting
    assert resting.take(first) is wait
    assert resting.take(first) is None
    resting.add(first, wait, 0.0)
    resting.add(second, Wait(201.0, 201.0, "away"), 201.0)
    assert first not in resting
    assert second in resting
