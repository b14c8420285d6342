"""Which segments next: a pure function of what waits, what is in flight and how many slots there are.

The queue in the broker is kept shallow (about twice the slots of a pool), so priority, fairness, seeking and cancelling
never need a queue to be reordered: what is not yet sent is simply chosen anew at every tick.

Rule: segments at a playhead (and samples) first and in the lane `now`; then the highest priority; within a priority
one segment of each job in turn, so that a clip that comes after a two-hour film waits for one segment a slot; within a
job in playback order from its playhead.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stereospot.subjects import Lane

DEPTH = 2
"""Queued plus running segments per slot; 2 keeps every slot busy while the next segment is on its way."""

PLAYHEAD_RUN = 4
"""How many segments from a playhead on travel in the lane `now`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job with something to send; `waiting` is a bitmap of segment indices, `in_flight` counts sent and not done."""

    job_id: str
    generation: int
    pool: str
    waiting: int
    in_flight: int = 0
    priority: int = 4
    playhead: int | None = None
    urgent: bool = False
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Dispatch:
    job_id: str
    generation: int
    index: int
    lane: Lane


@dataclass(slots=True)
class _Queue:
    """One job's segments in the order in which they should be converted."""

    candidate: Candidate
    waiting: int
    taken: int = 0
    near: list[int] = field(default_factory=list[int])

    def pop(self) -> int:
        start = self.candidate.playhead or 0
        ahead = self.waiting >> start << start
        bits = ahead or self.waiting
        low = bits & -bits
        self.waiting ^= low
        self.taken += 1
        return low.bit_length() - 1


class Ranking:
    """Candidates in the order of `schedule`, kept by small steps: ten thousand that wait cost a change or a look
    microseconds, where sorting them costs a tick."""

    def __init__(self) -> None:
        self._candidates: dict[str, Candidate] = {}
        self._order: list[tuple[int, int, float, str]] = []

    def __len__(self) -> int:
        return len(self._candidates)

    def put(self, candidate: Candidate) -> None:
        """Add a job, or replace what was known of it."""
        self.drop(candidate.job_id)
        self._candidates[candidate.job_id] = candidate
        insort(self._order, _rank(candidate))

    def drop(self, job_id: str) -> None:
        """Forget a job; no-op for one that is not there."""
        known = self._candidates.pop(job_id, None)
        if known is not None:
            del self._order[bisect_left(self._order, _rank(known))]

    def get(self, job_id: str) -> Candidate | None:
        return self._candidates.get(job_id)

    def first(self, count: int | None = None) -> list[Candidate]:
        """The first `count` jobs in the order in which they get segments.

        For room for n segments the first n are enough, and those with a playhead or samples: each of them takes one
        before any other job does.
        """
        return [self._candidates[rank[-1]] for rank in self._order[:count]]


def schedule(
    candidates: Iterable[Candidate], slots: int, *, depth: int = DEPTH, in_flight: int | None = None
) -> list[Dispatch]:
    """What to send to one pool with `slots` slots now; `in_flight` of the pool, if more than the candidates have.

    Segments at a playhead may exceed the depth (by at most PLAYHEAD_RUN a job): a viewer waits for one running segment,
    never for a queue. A pool of no known worker still gets `depth` segments, so that the first to join finds work.
    """
    queues = [_Queue(item, item.waiting) for item in candidates if item.waiting]
    if in_flight is None:
        in_flight = sum(queue.candidate.in_flight for queue in queues)
    room = max(slots, 1) * depth - in_flight
    chosen: list[Dispatch] = []

    for queue in _fair(queue for queue in queues if queue.candidate.urgent or queue.candidate.playhead is not None):
        for index in _near(queue):
            chosen.append(Dispatch(queue.candidate.job_id, queue.candidate.generation, index, "now"))
    room -= len(chosen)

    for tier in _tiers(queues):
        # Round-robin: each round gives one segment to every job of the tier, those with the least in flight first.
        while room > 0 and tier:
            for queue in tier:
                if room <= 0:
                    break
                chosen.append(Dispatch(queue.candidate.job_id, queue.candidate.generation, queue.pop(), "normal"))
                room -= 1
            tier = [queue for queue in tier if queue.waiting]
    return chosen


def _near(queue: _Queue) -> list[int]:
    """Take what belongs into the lane `now`: all of an urgent job, else the waiting ones right after the playhead."""
    candidate = queue.candidate
    start = candidate.playhead or 0
    stop = None if candidate.urgent else start + PLAYHEAD_RUN
    taken: list[int] = []
    while queue.waiting and len(taken) < PLAYHEAD_RUN:
        ahead = queue.waiting >> start << start
        if not ahead:
            break
        index = (ahead & -ahead).bit_length() - 1
        if stop is not None and index >= stop:
            break
        queue.waiting ^= 1 << index
        taken.append(index)
    return taken


def _rank(candidate: Candidate) -> tuple[int, int, float, str]:
    """Highest priority first, then least in flight, then the oldest."""
    return -candidate.priority, candidate.in_flight, candidate.created_at, candidate.job_id


def _fair(queues: Iterable[_Queue]) -> list[_Queue]:
    return sorted(queues, key=lambda queue: _rank(queue.candidate))


def _tiers(queues: Sequence[_Queue]) -> list[list[_Queue]]:
    tiers: dict[int, list[_Queue]] = {}
    for queue in _fair(queues):
        if queue.waiting:
            tiers.setdefault(queue.candidate.priority, []).append(queue)
    return [tiers[priority] for priority in sorted(tiers, reverse=True)]
