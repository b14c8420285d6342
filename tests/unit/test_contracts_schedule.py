"""The scheduler: playback order, fairness, priority, playhead; and cheap with ten thousand jobs."""

from __future__ import annotations

import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stereospot.schedule import DEPTH, PLAYHEAD_RUN, Candidate, Ranking, schedule


def film(job: str, segments: int = 100, **values: object) -> Candidate:
    return Candidate(**{"job_id": job, "generation": 1, "pool": "cpu", "waiting": (1 << segments) - 1, **values})  # type: ignore[arg-type]


def test_one_film_goes_out_in_playback_order_up_to_the_depth() -> None:
    assert [item.index for item in schedule([film("a")], 3)] == list(range(3 * DEPTH))
    assert schedule([film("a", in_flight=6)], 3) == []


def test_a_pool_without_a_known_worker_still_gets_work_for_the_first_to_join() -> None:
    assert len(schedule([film("a")], 0)) == DEPTH


def test_a_clip_that_comes_later_waits_for_one_segment_a_slot() -> None:
    chosen = schedule([film("film", 1200, in_flight=0), film("clip", 10, created_at=9.0)], 2)
    assert Counter(item.job_id for item in chosen) == {"film": 2, "clip": 2}
    # What is in flight counts: the film holds the slots, so the clip comes first now.
    chosen = schedule([film("film", 1200, in_flight=3), film("clip", 10, created_at=9.0)], 2)
    assert [item.job_id for item in chosen] == ["clip"]


def test_priority_comes_before_fairness() -> None:
    assert {item.job_id for item in schedule([film("low", priority=1), film("high", priority=9)], 2)} == {"high"}


def test_a_seek_jumps_the_queue_even_when_it_is_full() -> None:
    chosen = schedule([film("film", 1200, in_flight=4, playhead=600), film("other", in_flight=4)], 2)
    assert [(item.job_id, item.index, item.lane) for item in chosen] == [
        ("film", 600 + step, "now") for step in range(PLAYHEAD_RUN)
    ]


def test_from_a_playhead_playback_order_goes_on_and_then_wraps_to_what_is_missing() -> None:
    candidate = film("film", 12, playhead=8)
    order = [item.index for item in schedule([candidate], 50)]
    assert order == [8, 9, 10, 11, *range(8)]


def test_a_playhead_whose_segments_are_on_their_way_does_not_run_ahead() -> None:
    waiting = ((1 << 100) - 1) & ~(0b1111 << 40)
    chosen = schedule([film("film", waiting=waiting, in_flight=4, playhead=40)], 2)
    assert chosen == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**30),
            st.integers(0, 5),
            st.integers(0, 9),
            st.one_of(st.none(), st.integers(0, 30)),
        ),
        max_size=20,
    ),
    st.integers(0, 8),
)
def test_nothing_is_sent_twice_or_out_of_thin_air(rows: list[tuple[int, int, int, int | None]], slots: int) -> None:
    candidates = [
        Candidate(str(number), 1, "cpu", waiting, in_flight, priority, playhead)
        for number, (waiting, in_flight, priority, playhead) in enumerate(rows)
    ]
    chosen = schedule(candidates, slots)
    assert len({(item.job_id, item.index) for item in chosen}) == len(chosen)
    for item in chosen:
        assert candidates[int(item.job_id)].waiting >> item.index & 1
    normal = [item for item in chosen if item.lane == "normal"]
    assert len(normal) <= max(slots, 1) * DEPTH


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**12), st.integers(0, 3), st.integers(3, 5), st.one_of(st.none(), st.integers(0, 8)),
            st.booleans(),
        ),
        min_size=1, max_size=30,
    ),
    st.integers(1, 8), st.integers(0, 6),
)  # fmt: skip
def test_the_first_few_of_a_ranking_are_scheduled_as_all_would_be(
    rows: list[tuple[int, int, int, int | None, bool]], slots: int, in_flight: int
) -> None:
    ranking = Ranking()
    everyone: list[Candidate] = []
    for number, (waiting, own, priority, playhead, twice) in enumerate(rows):
        candidate = Candidate(f"{number:02}", 1, "cpu", waiting, own, priority, playhead)
        if twice:
            ranking.put(Candidate(f"{number:02}", 1, "cpu", 1, own + 1, 9))
        ranking.put(candidate)
        everyone.append(candidate)
    ranking.put(film("gone"))
    ranking.drop("gone")
    ranking.drop("never there")
    assert len(ranking) == len(everyone)
    watched = [item for item in everyone if item.playhead is not None]
    room = max(0, slots * DEPTH - in_flight)
    few = {item.job_id: item for item in (*ranking.first(room + len(watched)), *watched)}
    assert schedule(few.values(), slots, in_flight=in_flight) == schedule(everyone, slots, in_flight=in_flight)


def test_ten_thousand_jobs_cost_less_than_50_ms_a_tick() -> None:
    ranking = Ranking()
    for number in range(10_000):
        ranking.put(film(str(number), 50, created_at=float(number)))
    best = min(_timed(ranking, turn) for turn in range(5))
    assert best < 0.005, f"{best * 1000:.1f} ms"


def _timed(ranking: Ranking, turn: int) -> float:
    """A tick: one job changed, and the choice."""
    start = time.process_time()
    ranking.put(film(str(turn), 50, created_at=float(turn), in_flight=1))
    schedule(ranking.first(64 * DEPTH), 64)
    return time.process_time() - start
