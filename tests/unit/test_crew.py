"""What converters are at: by their cards of every few seconds, and by what they say in between."""

from __future__ import annotations

from typing import Any

from services.gateway.crew import Crew, Task
from stereospot.messages import SegmentEvent, Worker


def card(at: float, *busy: str, slots: int = 2) -> Worker:
    return Worker(
        worker_id="w1", host="h", pid=1, pool="cpu", slots=slots, busy=busy, started_at=0.0, seen_at=at
    )  # fmt: skip


def said(state: Any, index: int, at: float, worker_id: str = "w1") -> SegmentEvent:
    return SegmentEvent(job_id="J1", generation=1, index=index, state=state, worker_id=worker_id, at=at)


def tasks(crew: Crew) -> list[int]:
    """The segments that the one converter is at."""
    (present,) = crew.present()
    found = crew.at_work(present)
    assert {item[:2] for item in found} <= {("J1", 1)}
    return [item.segment_index for item in found]


def test_a_card_and_what_was_said_since() -> None:
    crew = Crew()
    crew.hear(said("running", 0, 1.0))  # of nobody who is known
    crew.introduce(card(10.0, "J1.1.3", "J1.1.4", "nonsense", "J1.x.1"))
    assert tasks(crew) == [3, 4]
    crew.hear(said("done", 3, 11.0))
    assert tasks(crew) == [4]
    crew.hear(said("running", 5, 12.0))
    assert tasks(crew) == [5, 4], "the newest first"
    crew.hear(said("retrying", 5, 13.0))
    crew.hear(said("running", 6, 13.5, "another"))
    assert tasks(crew) == [4]
    crew.hear(said("running", 7, 15.0))
    crew.introduce(card(14.0, "J1.1.4"))
    assert tasks(crew) == [7, 4], "what was said after the card was written goes on"
    crew.introduce(card(20.0, "J1.1.4"))
    assert tasks(crew) == [4], "a word that was lost is not believed longer than to the next card"
    crew.introduce(card(21.0, "J1.1.4", "J1.1.5", slots=1))
    assert tasks(crew) == [4], "no more than there are slots"
    crew.forget("w1")
    assert crew.present() == []
    crew.hear(said("running", 8, 30.0))
    crew.introduce(card(29.0))
    assert tasks(crew) == []


def test_a_job_whose_name_has_no_numbers_behind_it_is_none() -> None:
    crew = Crew()
    crew.introduce(card(1.0, "a-b_C.12.7"))
    assert crew.at_work(crew.present()[0]) == [Task("a-b_C", 12, 7)]
