"""How much of the film around a segment has a say in its pictures, counted in the film's own frames. Pure.

    frames before … | segment | … frames behind        `Support.frames` of them, whose depth is mixed into the segment's
    and as much more as `Support.ticks` of film time   by which the depth of those is scaled

Of a film of variable rate neither follows from the other by a mean rate: a second of it may have two frames or sixty.
Whoever cuts the film knows the times of all frames, so it is counted there, once, for every worker alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from stereospot.media.model import Surroundings


@dataclass(frozen=True, slots=True)
class Support:
    """What an engine looks at around each frame: so many frames on each side, and from the outermost so many ticks."""

    frames: int
    ticks: int


def around(pts: Sequence[int], begin: int, end: int, support: Support, *, final: bool) -> Surroundings | None:
    """What lies around the frames `begin … end - 1` of `pts`, a part of the film's times in order.

    final: the film ends with these times. Else None, if later ones are needed to tell. The part has to reach back as
    far as `forgotten` leaves it.
    """
    first, last = max(0, begin - support.frames), min(len(pts), end + support.frames) - 1
    least, most = bisect_left(pts, pts[first] - support.ticks), bisect_left(pts, pts[last] + support.ticks)
    if not final and (end + support.frames > len(pts) or most == len(pts)):
        return None
    return Surroundings(first=pts[first], last=pts[last], before=begin - least, after=most - end)


def forgotten(pts: Sequence[int], support: Support) -> int:
    """How many of the first of these times no segment behind them asks for."""
    return bisect_left(pts, pts[-support.frames] - support.ticks) if len(pts) >= support.frames else 0
