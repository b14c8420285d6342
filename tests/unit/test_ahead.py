"""One more message when a slot is free or about to be, and never longer than its segment is on its way."""

from __future__ import annotations

import asyncio

import pytest

from services.ahead import LEAD_SECONDS, Ahead
from tests.support import eventually


def counted() -> tuple[Ahead, list[int]]:
    ahead, said = Ahead(), list[int]()
    ahead.on_change = said.append
    return ahead, said


async def test_room_opens_before_the_expected_end_and_closes_with_the_turn() -> None:
    ahead, said = counted()
    began = asyncio.get_running_loop().time()
    with ahead.turn() as turn:
        turn.begins(0.4)
        assert said == []
        await eventually(lambda: said, what="room")
        waited = asyncio.get_running_loop().time() - began
        assert waited >= 0.29, "a quarter of a short segment before its end, not sooner"
        turn.ends()
        assert said == [1], "one slot makes room once"
    assert said == [1, 0]


async def test_what_is_not_expected_makes_room_at_its_end() -> None:
    ahead, said = counted()
    with ahead.turn() as turn:
        turn.begins(None)
        turn.ends()
        assert said == [1]
    assert said == [1, 0]


def failing(ahead: Ahead) -> None:
    with ahead.turn() as turn:
        turn.begins(0.1)
        raise RuntimeError


async def test_a_segment_that_fails_early_opens_nothing_later() -> None:
    ahead, said = counted()
    with pytest.raises(RuntimeError):
        failing(ahead)
    with ahead.turn() as turn:
        turn.begins(0.2)
        await eventually(lambda: said, what="room of the segment after it")
    assert said == [1, 0], "not also that of the one that failed"


async def test_slots_are_counted_together() -> None:
    ahead, said = counted()
    with ahead.turn() as first, ahead.turn() as second:
        first.ends()
        second.ends()
        assert said == [1, 2]
    assert said == [1, 2, 1, 0]
    assert LEAD_SECONDS < 1, "what was taken cannot be overtaken"
