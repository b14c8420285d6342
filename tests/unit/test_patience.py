"""How long a message waits for its storage: what is a new trouble, how rests grow, what is remembered."""

from __future__ import annotations

from dataclasses import replace

from stereospot.bus import Delivery
from stereospot.patience import Resting, Wait

MINUTE = 60.0


def test_rests_are_twice_as_long_each_time_up_to_ten_first_ones() -> None:
    wait = Wait(0.0, 0.0, "away")
    assert [wait.rest(30.0, 0.0) for _ in range(6)] == [30, 60, 120, 240, 300, 300]
    wait.rests = 2000
    assert wait.rest(30.0, 5.0) == 300
    assert wait.until == 305.0


def test_a_wait_is_long_after_a_minute_of_failing_or_a_rest() -> None:
    wait = Wait(0.0, 0.0, "away")
    wait.fails("away, too", ran_seconds=0.1, now=59.0, long_seconds=MINUTE)
    assert not wait.is_long(59.0, MINUTE)
    assert wait.is_long(60.0, MINUTE)
    wait.rest(30.0, 60.0)
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
    assert replace(first, attempt=2) not in resting, "the next attempt waits anew"
    assert resting.take(first, 0.0) is wait
    assert resting.take(first, 0.0) is None
    resting.add(first, wait, 0.0)
    resting.add(second, Wait(201.0, 201.0, "away"), 201.0)
    assert first not in resting
    assert second in resting


def test_what_rested_in_another_process_goes_on_with_its_wait() -> None:
    here, there = Resting(patience_seconds=100.0), Resting(patience_seconds=100.0)
    delivery = Delivery("s", b"", stream="WORK", stream_sequence=1)
    assert here.waited_seconds(delivery) == 0.0
    wait = Wait(1000.0, 1000.0, "segment 9")
    here.add(delivery, wait, 1060.0)
    wait.rest(30.0, 1060.0)
    waited = here.waited_seconds(delivery)
    assert waited == 90.0, "its rest is part of it"
    resumed = there.take(replace(delivery, waited_seconds=waited), 7.0)
    assert resumed is not None
    assert (7.0 - resumed.began, resumed.since) == (90.0, 7.0)
    resumed.fails("segment 9", ran_seconds=600.0, now=607.0, long_seconds=MINUTE)
    assert resumed.is_long(607.0, MINUTE), "it gives its slot to others at once, as where it rested before"
