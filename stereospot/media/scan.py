"""The parent's side of a scan: batches of frames in presentation order, checked as they come out of the jail."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stereospot.errors import error
from stereospot.jail import Jail
from stereospot.jail.wire import Message
from stereospot.media.limits import Limits
from stereospot.media.model import ClockReset, SourceInfo
from stereospot.media.resets import MOST
from stereospot.media.source import Source

MAX_FRAMES = 50_000_000
MAX_PTS = 2**60
FROM_FRAMES = "the frames were taken from a decode pass: the packets do not tell them"
REORDERED = "the frames' times are in the order of decoding, and were put in that of showing"


class Untrusted(Exception):
    """Neither packets nor frames have times to plan by; `decode_scan` finds some. The text says why.

    repairable: most frames have good times of their own; else only counting them is left. reordered, and repairable:
    they have them in the order of decoding.
    """

    def __init__(self, reason: str, *, repairable: bool = False, reordered: bool = False) -> None:
        super().__init__(reason)
        self.repairable = repairable
        self.reordered = reordered


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames in presentation order: their PTS, strictly increasing over all batches, and which are keyframes.

    `resets` are those whose `start` is among these frames; `marks` are times of some of the frames, each with the byte
    of the source up to which every reset is known by it. The last batch is `final` and has `end_pts`, the first PTS
    after the last frame; `warnings` are for the user.
    """

    pts: list[int]
    keys: list[bool]
    final: bool = False
    end_pts: int | None = None
    warnings: tuple[str, ...] = ()
    resets: tuple[ClockReset, ...] = ()
    marks: tuple[tuple[int, int], ...] = ()


def scan(
    source: Source,
    info: SourceInfo,
    *,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    from_frames: bool = False,
) -> Iterator[FrameBatch]:
    """The film's frames, from packets without decoding where they can be trusted, else from a decode pass.

    An mp4 or mov is planned from its index; others stream through once. `from_frames` goes to the decode pass at once:
    for a film whose packets promised other frames than a range decoded to.

    Raises Untrusted when the decoded frames themselves have no increasing times: `decode_scan` repairs them, puts them
    in order, or counts then. Other errors are those of the probe, and DECODE_STALLED.
    """
    seen = array("q")
    if not from_frames:
        try:
            for batch in _run(source, info, "packets", limits, stop):
                seen.extend(batch.pts)
                yield batch
            return
        except Untrusted:
            pass
    try:
        yield from _from_frames(source, info, seen, limits, stop)
    except Untrusted as reason:
        if _is_reordered(source, info, limits, stop):
            raise Untrusted(REORDERED, repairable=True, reordered=True) from reason
        raise


def _from_frames(
    source: Source, info: SourceInfo, seen: array[int], limits: Limits | None, stop: threading.Event | None
) -> Iterator[FrameBatch]:
    """The frames of a decode pass behind those that were `seen` in the packets."""
    done = 0
    for batch in _run(source, info, "frames", limits, stop):
        known = min(len(batch.pts), max(0, len(seen) - done))
        if batch.pts[:known] != seen[done : done + known].tolist() or (
            batch.final and done + len(batch.pts) < len(seen)
        ):
            raise Untrusted("the decoded frames are not those of the packets before", repairable=True)
        done += len(batch.pts)
        warnings = (*batch.warnings, FROM_FRAMES) if batch.final else ()
        yield FrameBatch(batch.pts[known:], batch.keys[known:], batch.final, batch.end_pts, warnings)


def decode_scan(
    source: Source,
    info: SourceInfo,
    *,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    repaired: bool = False,
    reordered: bool = False,
) -> Iterator[FrameBatch]:
    """The film's frames by decoding all of it: each at its number times the frame duration, or at its repaired time,
    put in order or not, as `scan` said with its Untrusted."""
    yield from _run(source, info, "synthesised", limits, stop, repaired=repaired, reordered=reordered)


def _is_reordered(source: Source, info: SourceInfo, limits: Limits | None, stop: threading.Event | None) -> bool:
    """Whether the film's times are good but for their order (`ordering`)."""
    limits = limits or Limits()
    request = _request(info, "order", limits)
    with Jail("stereospot.media.ordering:child", request, sources=[source], limits=limits.jail(), stop=stop) as jail:
        answers = [message.body.get("reordered") for message in jail.messages()]
    return True in answers


def frame_seconds(info: SourceInfo) -> Fraction:
    """The duration of one frame where times are synthesised."""
    return 1 / info.video.average_rate


def frame_ticks(info: SourceInfo) -> int:
    """The nearest whole duration of one frame, at least one tick."""
    return max(1, round(frame_seconds(info) / info.video.time_base))


def _run(
    source: Source,
    info: SourceInfo,
    mode: str,
    limits: Limits | None,
    stop: threading.Event | None,
    *,
    repaired: bool = False,
    reordered: bool = False,
) -> Iterator[FrameBatch]:
    limits = limits or Limits()
    request = _request(info, mode, limits) | {"repaired": repaired, "reordered": reordered}
    last: int | None = None
    count = 0
    final = False
    with Jail("stereospot.media.scanning:child", request, sources=[source], limits=limits.jail(), stop=stop) as jail:
        for message in jail.messages():
            if isinstance(reason := message.body.get("distrusted"), str):
                raise Untrusted(reason[:300], repairable=message.body.get("repairable") is True)
            batch = _checked(message, last)
            count += len(batch.pts)
            if final or count > MAX_FRAMES:
                raise error("CORRUPT_INPUT", "The scan's answer makes no sense.")
            last = batch.pts[-1] if batch.pts else last
            final = batch.final
            if batch.pts or batch.final:
                yield batch
    if not final or last is None:
        raise error("NO_FRAMES")


def _request(info: SourceInfo, mode: str, limits: Limits) -> dict[str, Any]:
    """What a child is told of the film."""
    return {
        **limits.request(),
        "mode": mode,
        "stream_index": info.video.stream_index,
        "indexed": info.indexed,
        "frames_declared": info.video.frames_declared,
        "frame_ticks": frame_ticks(info),
        "frame_seconds": str(frame_seconds(info)),
        "first_pts": info.video.first_pts,
        "first_frames": list(info.video.first_frames),
        "thread_type": "none" if mode == "packets" else "slice",
        "thread_count": 2,
        "interlaced": "no",
        "synthesised": False,
        "repaired": False,
        "reordered": False,
        "sequential": False,
    }


def _checked(message: Message, last: int | None) -> FrameBatch:
    """A message of the child as a batch; raises CORRUPT_INPUT for numbers that make no sense."""
    body, blob = message
    count, final, end = body.get("frames"), body.get("final") is True, body.get("end_pts")
    pts = array("q")
    if isinstance(count, int) and count >= 0 and len(blob) == 9 * count:
        pts.frombytes(blob[: 8 * count])
        keys = [bool(flag) for flag in blob[8 * count :]]
        values = pts.tolist()
        before = [last, *values[:-1]] if last is not None else [-MAX_PTS, *values[:-1]]
        increasing = all(a < b for a, b in zip(before, values, strict=False))
        newest = values[-1] if values else last
        ends_well = not final or (isinstance(end, int) and newest is not None and newest < end < MAX_PTS)
        if increasing and ends_well and all(-MAX_PTS < value < MAX_PTS for value in values[:1] + values[-1:]):
            warnings = tuple(str(text)[:300] for text in body.get("warnings", ()))
            return FrameBatch(values, keys, final, end if final else None, warnings, *_clock(body))
    raise error("CORRUPT_INPUT", "The scan's answer makes no sense.")


def _clock(body: dict[str, Any]) -> tuple[tuple[ClockReset, ...], tuple[tuple[int, int], ...]]:
    """The resets and the marks of a message."""
    try:
        resets = [
            (int(position), int(shift), int(start), None if following is None else int(following))
            for position, shift, start, following in body.get("resets", ())
        ]
        marks = tuple((int(pts), int(position)) for pts, position in body.get("marks", ()))
    except (TypeError, ValueError) as failure:
        raise error("CORRUPT_INPUT", "The scan's answer makes no sense.") from failure
    if len(resets) > MOST or any(abs(number or 0) > MAX_PTS for item in (*resets, *marks) for number in item):
        raise error("CORRUPT_INPUT", "The scan's answer makes no sense.")
    return tuple(ClockReset(position=a, shift=b, start=c, following=d) for a, b, c, d in resets), marks
