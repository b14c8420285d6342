"""Inside the jail: exactly the frames of a range of presentation times, whatever the container and the GOPs.

The rules, each of which some kind of file needs:

* A range is tested on the PTS of decoded frames, never on packets or counts. Decoding runs past the next keyframe until
  a frame at or after `end` appears, so the leading pictures of an open GOP belong to the earlier range.
* After a seek, frames before the first keyframe packet in presentation order are dropped: their references are missing.
  The seek is good if a frame at or before `start` comes out, with enough frames before it for the padding; otherwise
  it is repeated further back, and at last from the beginning.
* The beginning is a fresh open without a seek: what edit lists hide and what codecs number from 1 needs no rule there.
* A range that starts where the last one ended goes on with the open decoder. Frames decoded too far are kept, and the
  last few before, so that padding costs nothing.
* A damaged film, or one without good times, is never sought in: every decoder starts at its beginning and skips
  forward, so that what a decoder makes up for what is missing is the same everywhere.
* Frames flagged as interlaced pass a deinterlacer that sees one frame on either side of each, at every range alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, NamedTuple

import av.error
from av import VideoFrame
from av.container import InputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream

from stereospot.jail import SourceFile
from stereospot.jail.cell import SourceUnavailable
from stereospot.media import opener
from stereospot.media.deinterlacing import Deinterlacer
from stereospot.media.packets import BROKEN_END, SKIPPED_ERRORS, decode, flushed, picture_bytes, raw_frames
from stereospot.media.times import Times

BACK_SECONDS = (0, 1, 3, 9, 27, 81)
KEPT_BEFORE = 16
"""Frames before the position that stay at hand for a continued range's padding."""
HELD_BYTES = 3 * 2**29
"""What decoded frames that are kept for padding may take of the child's memory (`Limits.memory_bytes`, 4 GiB)."""


class Decoded(NamedTuple):
    """One frame in presentation order; `key` as the decoder says."""

    pts: int
    frame: VideoFrame


class Ranged(NamedTuple):
    """A frame of a range: `pad` is -1 before it, 0 in it, 1 after it."""

    pts: int
    frame: VideoFrame
    pad: int


def times(request: dict[str, Any], stream: VideoStream) -> Times:
    """What tells the times of frames where the request says that their own are no list."""
    time_base = Fraction(stream.time_base or Fraction(1, 90_000))
    step = Fraction(request["frame_seconds"]) / time_base
    return Times(request["first_pts"], step, time_base, repaired=request["repaired"], reordered=request["reordered"])


class RangeDecoder:
    """The open decoder of one stream. Not thread-safe.

    request: `opener.options` values and the fields of model.DecodeSpec. alive: called for every decoded frame.
    """

    def __init__(self, source: SourceFile, request: dict[str, Any], alive: Callable[[], None] = lambda: None) -> None:
        self._source = source
        self._alive = alive
        self._request = request
        self._stack = ExitStack()
        self._container: InputContainer
        self._stream: VideoStream
        self._flow: Iterator[Decoded] = iter(())
        self._pending: deque[Decoded] = deque()
        self._history: deque[Decoded] = deque(maxlen=0)
        self._from_beginning = False  # whether `_history` reaches back to the film's first frame
        self._next_start: int | None = None
        self._time_base = Fraction(1)
        self._frame_bytes = 1
        self._interlaced: str = request["interlaced"]
        self._synthesised: bool = request["synthesised"]
        self._sequential: bool = self._synthesised or request["sequential"]
        self._opened = False

    def close(self) -> None:
        self._flow = iter(())
        self._pending.clear()
        self._history.clear()
        self._stack.close()

    def range(self, start: int | None, end: int | None, before: int, after: int) -> Iterator[Ranged]:
        """Every frame with `start` <= pts < `end`, after up to `before` earlier ones, then up to `after` later.

        `start` None is the first frame of the stream, `end` None its end.
        """
        self._open()
        most = max(2, HELD_BYTES // self._frame_bytes)
        if before + after >= most:
            yield from self._unheld(start, end, before, after)
            return
        kept = max(before, min(KEPT_BEFORE, most - 1))
        if kept > (self._history.maxlen or 0):
            self._history = deque(self._history, kept)
        if not self._continues(start, before):
            self._locate(start, before)
        elif start is not None:
            self._advance(start)
        self._next_start = None
        if before and start is not None:
            for item in list(self._history)[-before:]:
                yield Ranged(item.pts, item.frame, -1)
        while (item := self._next()) is not None:
            if end is not None and item.pts >= end:
                self._pending.appendleft(item)
                break
            if start is None or item.pts >= start:
                yield Ranged(item.pts, item.frame, 0)
            self._keep(item)
        if end is None:
            return
        self._next_start = end
        for number in range(after):
            if len(self._pending) <= number:
                if (item := next(self._flow, None)) is None:
                    break
                self._pending.append(item)
            ahead = self._pending[number]
            yield Ranged(ahead.pts, ahead.frame, 1)

    def _unheld(self, start: int | None, end: int | None, before: int, after: int) -> Iterator[Ranged]:
        """A range whose padding is too large to be kept: its place is found by times alone, and decoded once more."""
        first = start if start is None else self._back(start, before)
        for item in self.range(first, end, 0, 0):
            yield item._replace(pad=-1) if start is not None and item.pts < start else item
        self._next_start = None  # what comes now is not kept either
        for _ in range(after if end is not None else 0):
            if (ahead := self._next()) is None:
                return
            yield Ranged(ahead.pts, ahead.frame, 1)

    def _back(self, start: int, before: int) -> int:
        """PTS of the frame `before` frames ahead of `start`, or of the first one there is."""
        if not before:
            return start
        step = 1 / (Fraction(self._stream.average_rate or 25) * self._time_base)
        span = round(before * step) + 1
        while True:
            begin = start - span
            whole = self._sequential or begin <= (self._stream.start_time or 0)
            times = deque((item.pts for item in self.range(None if whole else begin, start, 0, 0)), before)
            if whole or len(times) == before:
                return times[0] if times else start
            span *= 2

    # ---- finding the place -----------------------------------------------------------------------------

    def _continues(self, start: int | None, before: int) -> bool:
        if start is None or self._next_start is None:
            return False
        enough = self._from_beginning or len(self._history) >= before
        return enough and (start == self._next_start or (self._sequential and start > self._next_start))

    def _keep(self, item: Decoded) -> None:
        """Have a frame at hand for the padding of the next range; the oldest one is let go."""
        self._from_beginning = self._from_beginning and len(self._history) < (self._history.maxlen or 0)
        self._history.append(item)

    def _next(self) -> Decoded | None:
        return self._pending.popleft() if self._pending else next(self._flow, None)

    def _locate(self, start: int | None, before: int) -> None:
        """Bring `_history` and `_pending` to either side of `start`."""
        if start is None or self._sequential:
            self._begin()
            if start is not None:
                self._advance(start)
            return
        self._open()
        needed = before
        gap = 1 / Fraction(self._stream.average_rate or 25)
        for seconds in BACK_SECONDS:
            target = start - round((seconds + needed * gap) / self._time_base)
            first = self._stream.start_time
            if first is not None and target <= first:
                break
            if not self._seek(target):
                break
            if self._advance(start) and len(self._history) >= needed:
                return
        self._begin()
        self._advance(start)

    def _advance(self, start: int) -> bool:
        """Decode up to `start`; whether the frames found reach back to it."""
        while (item := self._next()) is not None:
            if item.pts >= start:
                self._pending.appendleft(item)
                return item.pts == start or bool(self._history)
            self._keep(item)
        # Where `start` lies behind the last frame; what broke off before that is better looked for from further back.
        return bool(self._history) and self._is_at_the_end(self._history[-1].pts)

    def _is_at_the_end(self, pts: int) -> bool:
        """Whether the file says that its pictures end within a second from `pts`."""
        stream, container = self._stream, self._container
        if stream.duration is not None:
            end = ((stream.start_time or 0) + stream.duration) * self._time_base
        elif container.duration is not None:
            end = Fraction((container.start_time or 0) + container.duration, av.time_base)
        else:
            return False
        return end - pts * self._time_base <= 1

    def _open(self) -> None:
        if self._opened:
            return
        container = self._stack.enter_context(opener.opened(self._source, self._request))
        self._container = container
        self._stream = opener.video_stream(container, self._request["stream_index"])
        opener.prepare(self._stream, self._request, self._request["thread_type"], self._request["thread_count"])
        self._time_base = Fraction(self._stream.time_base or Fraction(1, 90_000))
        self._frame_bytes = picture_bytes(self._stream.codec_context)
        self._opened = True
        self._from_beginning = True

    def _begin(self) -> None:
        """Stand before the first frame, as if just opened."""
        self._flow = iter(())
        self._stack.close()
        self._opened = False
        self._open()
        frames = self._told() if self._synthesised else raw_frames(self._container, self._stream)
        self._reset(frames, from_beginning=True)

    def _seek(self, target: int) -> bool:
        """Stand at the keyframe before `target`; False if the container cannot."""
        self._flow = iter(())
        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except av.error.FFmpegError as failure:
            if isinstance(failure, SourceUnavailable):
                raise
            return False
        self._reset(self._clean_frames(), from_beginning=False)
        return True

    def _reset(self, frames: Iterator[VideoFrame], *, from_beginning: bool) -> None:
        self._pending.clear()
        self._history.clear()
        self._from_beginning = from_beginning
        self._next_start = None
        if self._interlaced != "no":
            frames = self._deinterlaced(frames, drop_first=not from_beginning)
        self._flow = self._numbered(frames)

    # ---- the stages a frame passes -----------------------------------------------------------------------

    def _clean_frames(self) -> Iterator[VideoFrame]:
        """Frames after a seek, without those that precede the first keyframe in presentation order.

        Nothing at all if that packet turns out to hold no intra picture: some files mark every packet as a keyframe.
        """
        horizon: int | None = None
        known = False
        begun = False
        try:
            for packet in self._container.demux(self._stream):
                if not known and packet.size and packet.is_keyframe:
                    horizon, known = packet.pts, True
                try:
                    frames = decode(packet)
                except av.error.EOFError:
                    return
                except SKIPPED_ERRORS:
                    continue
                for frame in frames:
                    if not begun:
                        intra = frame.key_frame or frame.pict_type == PictureType.I
                        if horizon is None:
                            begun = intra
                        elif frame.pts is not None and frame.pts >= horizon:
                            if not intra:
                                return
                            begun = True
                    if begun:
                        yield frame
        except BROKEN_END as failure:
            if isinstance(failure, (SourceUnavailable, MemoryError)):
                raise
            yield from flushed(self._stream.codec_context)

    def _told(self) -> Iterator[VideoFrame]:
        """Frames from the first on, with the times that the film is planned with."""
        rule = times(self._request, self._stream)
        for frame in raw_frames(self._container, self._stream, rule.packet):
            frame.pts = rule.next(frame.pts)
            yield frame

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[Decoded]:
        """Frames with strictly increasing PTS; one that is not later than the last is left out."""
        last: int | None = None
        for frame in frames:
            self._alive()
            if frame.pts is not None and (last is None or frame.pts > last):
                last = frame.pts
                yield Decoded(last, frame)

    def _deinterlaced(self, frames: Iterator[VideoFrame], *, drop_first: bool) -> Iterator[VideoFrame]:
        """One frame for one frame: those flagged as interlaced pass bwdif together with a neighbour on either side.

        The others are not touched, so a film may change at any place. After a seek a first frame that is flagged lacks
        the neighbour before it and is dropped; at the true beginning it stays.
        """
        graph: Deinterlacer | None = None
        before: VideoFrame | None = None
        waiting = False  # `before` is flagged: it is in the filter, which gives it out for the frame behind it
        for frame in frames:
            if frame.pts is None:
                continue
            if waiting:
                assert graph is not None
                whole = graph.fits(frame)
                out = graph.push(frame if whole else None)
                graph = graph if whole else None
                if out is not None and not drop_first:
                    yield out
                drop_first = False
            if not frame.interlaced_frame:
                drop_first = False
                yield frame
            elif not waiting or graph is None:
                if graph is None or not graph.fits(frame):
                    graph = Deinterlacer(frame, self._time_base)
                if before is not None and graph.last is not before and graph.fits(before):
                    graph.push(before)
                graph.push(frame)
            waiting = frame.interlaced_frame
            before = frame
        if waiting and graph is not None and not drop_first and (out := graph.push(None)) is not None:
            yield out
