"""Where the film is cut. Pure.

    FrameBatch… --Cutter--> Segment… and at the end PlanTotal

Segments are half-open ranges of presentation times on the one stored source. A cut may be at any frame: ranges decode
exactly (`decoding`); one near a keyframe only saves decoding what is thrown away.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

from stereospot.errors import error
from stereospot.media.model import ClockReset, PlanTotal, Segment, SourceInfo, Surroundings
from stereospot.media.scan import FrameBatch, frame_ticks
from stereospot.media.surroundings import Support, around, forgotten

DEFAULT_SECONDS = 5.0
FIRST_SECONDS = (1.0, 1.0, 2.0)
"""The first segments are short: what plays first is converted first."""
SLACK = 0.2
"""How much of its length a segment may be shorter or longer to end at a keyframe."""


@dataclass
class Cutter:
    """Cuts the frames of a scan into segments as they come; the result does not depend on how they were batched.

    support: of an engine whose depth goes by film time; each segment says then what lies around it, and waits for that.
    """

    info: SourceInfo
    segment_seconds: float | None = None
    support: Support | None = None
    _past: array[int] = field(default_factory=lambda: array("q"), repr=False)
    _pts: array[int] = field(default_factory=lambda: array("q"), repr=False)
    _keys: bytearray = field(default_factory=bytearray, repr=False)
    _count: int = 0
    _frames: int = 0
    _first: int | None = None
    _end: int | None = None
    _final: bool = False
    _warnings: tuple[str, ...] = ()
    _resets: tuple[ClockReset, ...] = ()
    _told: int = 0
    _marks: deque[tuple[int, int]] = field(default_factory=deque[tuple[int, int]], repr=False)
    _read: int | None = None

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._time_base = self.info.video.time_base

    def feed(self, batch: FrameBatch) -> list[Segment]:
        """The segments that are complete with this batch."""
        if batch.pts:
            self._first = batch.pts[0] if self._first is None else self._first
            self._pts.extend(batch.pts)
            self._keys.extend(batch.keys)
            self._frames += len(batch.pts)
            self._digest.update(_int64(batch.pts))
        self._warnings += batch.warnings
        self._resets += batch.resets
        self._marks.extend(batch.marks)
        if batch.final:
            self._end, self._final = batch.end_pts, True
        return self._cut()

    def finish(self) -> tuple[list[Segment], PlanTotal]:
        """The last segments and the total; raises NO_FRAMES for a film without any."""
        if self._first is None or self._end is None or not self._final:
            raise error("NO_FRAMES")
        rest = self._cut()
        if self._pts:
            rest.append(self._segment(len(self._pts), None, self._around(len(self._pts))))
        total = PlanTotal(
            segments=self._count,
            frames=self._frames,
            parts=(),
            first_pts=self._first,
            end_pts=self._end,
            pts_sha256=self._digest.hexdigest(),
            warnings=self._warnings,
            resets=self._resets,
        )
        return rest, total

    def clock(self, until: int | None) -> tuple[tuple[ClockReset, ...], int | None]:
        """The resets before `until` that were not told yet, and how far the source was read by then; None is its end.

        It does not depend on the batches either, but on what it was asked before.
        """
        found = tuple(item for item in self._resets[self._told :] if until is None or item.start < until)
        self._told += len(found)
        while self._marks and until is not None and self._marks[0][0] < until:
            self._read = self._marks.popleft()[1]
        return found, None if until is None else self._read

    def _seconds(self) -> float:
        target = self.segment_seconds or DEFAULT_SECONDS
        return min(target, FIRST_SECONDS[self._count]) if self._count < len(FIRST_SECONDS) else target

    def _cut(self) -> list[Segment]:
        found: list[Segment] = []
        while (count := self._next()) is not None:
            lies_around = self._around(count)
            if lies_around is None and self.support is not None:
                break
            found.append(self._segment(count, self._pts[count], lies_around))
        return found

    def _next(self) -> int | None:
        """How many of the waiting frames make the next segment; None if that is not settled, or it is the last."""
        if not self._pts:
            return None
        seconds = Fraction(self._seconds())
        start = self._pts[0]
        ideal = start + seconds / self._time_base
        slack = Fraction(SLACK) * seconds / self._time_base
        last = self._pts[-1]
        if self._final:
            assert self._end is not None
            if self._end <= ideal + slack:
                return None
        elif last <= ideal + slack:
            return None
        best: int | None = None
        anywhere: int | None = None
        for index in range(1, len(self._pts)):
            pts = self._pts[index]
            if anywhere is None and pts >= ideal:
                anywhere = index
            if pts > ideal + slack:
                break
            usable = self._keys[index] and pts >= ideal - slack
            if usable and (best is None or abs(pts - ideal) < abs(self._pts[best] - ideal)):
                best = index
        return best if best is not None else anywhere

    def _around(self, count: int) -> Surroundings | None:
        """What lies around the next `count` frames, if anybody asks and it is known."""
        if self.support is None:
            return None
        begin = len(self._past)
        return around(self._past + self._pts, begin, begin + count, self.support, final=self._final)

    def _segment(self, count: int, end: int | None, lies_around: Surroundings | None) -> Segment:
        start = self._pts[0]
        last = self._pts[count - 1]
        until = end if end is not None else self._end
        assert until is not None
        segment = Segment(
            index=self._count,
            start=start,
            end=end,
            frames=count,
            last=last,
            duration=max(1, until - start),
            around=lies_around,
        )
        self._count += 1
        if self.support is not None:
            self._past += self._pts[:count]
            del self._past[: forgotten(self._past, self.support)]
        del self._pts[:count]
        del self._keys[:count]
        return segment


def sample_segments(
    info: SourceInfo,
    pts: list[int],
    starts: tuple[float, ...],
    *,
    seconds: float = 2.0,
    support: Support | None = None,
) -> list[Segment]:
    """One segment for each start time (in seconds of film): the frames of the following two seconds.

    pts: all frames of the film. Starts past the end give the last frames; overlapping samples are merged by leaving out
    what an earlier one has. support: as of a `Cutter`.
    """
    base = info.video.time_base
    length = round(seconds / base)
    found: list[Segment] = []
    done = pts[0] - 1
    for start in sorted(starts):
        begin = min(pts[0] + round(start / base), max(pts[0], pts[-1] - length + 1))
        chosen = [value for value in pts if begin <= value < begin + length and value > done]
        if not chosen:
            continue
        done = chosen[-1]
        following = next((value for value in pts if value > done), None)
        until = following if following is not None else done + frame_ticks(info)
        first = bisect_left(pts, chosen[0])
        whole = None if support is None else around(pts, first, first + len(chosen), support, final=True)
        found.append(
            Segment(
                index=len(found),
                start=chosen[0],
                end=following,
                frames=len(chosen),
                last=done,
                duration=until - chosen[0],
                around=whole,
            )
        )
    return found


def _int64(values: list[int]) -> bytes:
    """Little-endian 64-bit integers, on any machine."""
    return b"".join(value.to_bytes(8, "little", signed=True) for value in values)
