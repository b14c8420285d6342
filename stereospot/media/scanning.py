"""Inside the jail: the list of a film's frames, from its packets, or from a decode pass where those cannot be trusted.

Packets: an mp4 is planned from its index alone, reads of the payload give zeros. Everything else streams through once;
frames are released when their order is settled and a later keyframe has been seen. The first decoded frames (of an mp4
those that the probe saw) are compared with the packets: recordings begin in the middle of a GOP, field pictures are two
packets a frame. So is the last GOP of what may end in the middle of a frame.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
from av import VideoFrame
from av.container import Flags, InputContainer
from av.video.stream import VideoStream

from stereospot.jail import Cell
from stereospot.jail.cell import SourceUnavailable
from stereospot.media import decoding, opener, packets, resets, sniff
from stereospot.media.hidden import is_hidden
from stereospot.media.inspect import no_frames
from stereospot.media.times import follows, longest_pause

REORDER = 20
"""Packets that are kept back for reordering; H.264 and HEVC reorder by 16 at most."""
HEAD_FRAMES = 16
HEAD_PACKETS = 600
AGREEING = 4
"""Frames that have to agree with the packets behind the last packet that gave none."""
TAIL_FRAMES = 3_000
"""A last GOP longer than this is not decoded for the check."""
FIRST_FRAMES, BATCH_FRAMES = 48, 4_096
"""Frames of a batch: each may be as large as all before it together, so the first segments need not wait for many."""
BATCH_SECONDS = 0.1


LOOKED_AT_FRAMES = 500
"""How many frames from the first that lacks a good time on tell whether the film's times are worth repairing."""
FEW = Fraction(1, 8)
"""More frames than this without a good time, and it is their order that is wrong (`ordering`), or nothing is right."""


class Distrusted(Exception):
    """The packets, or the frames' own times, are no list of frames to go by; repairable: most of the times are good."""

    def __init__(self, reason: str, *, repairable: bool = False) -> None:
        super().__init__(reason)
        self.repairable = repairable


def child(cell: Cell, request: dict[str, Any]) -> None:
    """The scan's task: messages {"frames": n, "final": bool, …} with PTS (int64) and key flags (uint8) as bytes."""
    try:
        with opener.opened(_prepared(cell, request), request) as container:
            stream = opener.video_stream(container, request["stream_index"])
            if request["mode"] == "packets":
                _Packets(cell, request, container, stream).run()
            else:
                opener.prepare(stream, request, request["thread_type"], request["thread_count"])
                (_timed if request["mode"] == "frames" else _told)(cell, request, container, stream)
    except Distrusted as reason:
        cell.send({"distrusted": str(reason), "repairable": reason.repairable})
    except av.error.FFmpegError as failure:
        if isinstance(failure, (SourceUnavailable, MemoryError)):
            raise
        if request["mode"] == "packets":  # some files need their payload to be opened at all; the decode pass has it
            cell.send({"distrusted": f"the packets cannot be read: {failure}"})
            return
        read = cell.source.read_exactly_at
        raise sniff.refusal(read, cell.source.size, sniff.family(read)) from failure


def _prepared(cell: Cell, request: dict[str, Any]) -> Any:
    if request["mode"] == "packets" and request["indexed"]:
        cell.source.holes = sniff.payload(cell.source.read_exactly_at, cell.source.size)
    return cell.source


class _Batches:
    """Sends frames in presentation order, many at a time, and the first ones soon."""

    def __init__(self, cell: Cell, stream: VideoStream) -> None:
        self.sent = 0
        self.last: int | None = None
        self._pause = longest_pause(stream.time_base)
        self._cell = cell
        self._pts = array("q")
        self._keys = bytearray()
        self._resets: list[resets.Reset] = []
        self._marks: list[tuple[int, int]] = []
        self._clock = time.monotonic()

    def add(self, pts: int, key: bool) -> None:
        """Add the next frame; raises Distrusted if its time does not follow the last one's."""
        if not follows(pts, self.last, self._pause):
            raise Distrusted(f"frame {self.sent + len(self._pts)} does not follow the one before it")
        self.last = pts
        self._pts.append(pts)
        self._keys.append(key)
        now = time.monotonic()
        if len(self._pts) >= min(max(FIRST_FRAMES, self.sent), BATCH_FRAMES) or now - self._clock > BATCH_SECONDS:
            self.send()

    def tell(self, finder: resets.Finder, pts: int | None, place: int, shift: int) -> None:
        """What there is to say of the clock at the next frame."""
        if (reset := finder.frame(pts, place, shift)) is not None:
            self._resets.append(reset)
        if (position := finder.mark(pts)) is not None:
            self._marks.append((place, position))

    def send(self, **values: Any) -> None:
        count = len(self._pts)
        body = {"frames": count, "final": False, "resets": self._resets, "marks": self._marks} | values
        self._cell.send(body, self._pts.tobytes() + bytes(self._keys))
        self.sent += count
        self._resets = []
        self._marks = []
        self._pts = array("q")
        self._keys = bytearray()
        self._clock = time.monotonic()

    def alive(self) -> None:
        """A sign of life while nothing is released."""
        if time.monotonic() - self._clock > 1.0:
            self.send()


class _Packets:
    """One pass over the packets of the stream."""

    def __init__(self, cell: Cell, request: dict[str, Any], container: InputContainer, stream: VideoStream) -> None:
        self._cell = cell
        self._request = request
        self._container = container
        self._stream = stream
        self._indexed: bool = request["indexed"]
        self._cut = self._indexed and sniff.payload_is_cut(cell.source.read_exactly_at, cell.source.size)
        self._batches = _Batches(cell, stream)
        self._waiting: list[tuple[int, bool, int]] = []
        """A heap of (pts, key, duration) that are not released yet."""
        self._last_key: int | None = None
        self._position = 0
        self._settled = False
        self._count = 0
        self._corrupt = False
        self._codec = stream.codec_context.name

    def run(self) -> None:
        if self._indexed:
            self._container.flags |= Flags.no_parse.value
        head = None if self._indexed else _Head(self._stream, self._request)
        for pts, key, duration, packet in self._shown():
            self._count += 1
            if self._corrupt and not self._indexed:
                raise Distrusted("a packet in the middle is damaged")
            self._corrupt = bool(packet.is_corrupt)
            heapq.heappush(self._waiting, (pts, key, duration))
            if key:
                self._last_key = pts if self._last_key is None else max(self._last_key, pts)
            if head is not None:
                head.feed(packet)
                if not head.done:
                    self._batches.alive()
                    continue
                self._settle(head.frames)
                head = None
            elif not self._settled:
                if self._count <= 2 * REORDER:
                    continue
                self._settle(self._request["first_frames"])
            self._release()
        if head is not None:
            head.finish()
            self._settle(head.frames)
        elif not self._settled:
            self._settle(self._request["first_frames"])
        self._finish()

    def _shown(self) -> Iterator[tuple[int, bool, int, Any]]:
        """(pts, key, duration, packet) of every packet that is to be shown."""
        try:
            begun = False
            for packet in self._container.demux(self._stream):
                if self._indexed and not begun and packet.size:
                    begun = True
                    if not self._key(packet.dts):
                        raise Distrusted("the film does not begin with a keyframe")
                    self._position = 0
                if not packet.size or packet.is_discard or is_hidden(self._codec, self._indexed, packet):
                    continue
                if packet.pts is None:
                    raise Distrusted("a packet has no presentation time")
                key = self._key(packet.dts) if self._indexed else bool(packet.is_keyframe)
                yield packet.pts, key, packet.duration or 0, packet
        except packets.BROKEN_END as failure:  # a broken end is the end, as for the decoder
            if isinstance(failure, (SourceUnavailable, MemoryError)):
                raise

    def _key(self, dts: int | None) -> bool:
        """An mp4's own mark: the flag of a packet whose payload was not read does not count."""
        entries = self._stream.index_entries
        if self._position >= len(entries) or entries[self._position].timestamp != dts:
            self._position = max(0, entries.search_timestamp(dts, backward=True, any_frame=True))
        if self._position >= len(entries):
            return False
        key = entries[self._position].is_keyframe
        self._position += 1
        return bool(key)

    def _settle(self, frames: list[Any]) -> None:
        """Take what really decodes for the beginning of the list.

        frames: times of the first decoded frames. Packets may have none of theirs at the very beginning, where pictures
        refer to others that were cut away; after that each has to have one.
        """
        self._settled = True
        if any(pts is None for pts in frames):
            raise Distrusted("decoded frames have no presentation time")
        if not frames:
            if self._indexed:
                return
            raise no_frames(self._cell, self._count, 0)
        promised = {pts for pts, _, _ in self._waiting if pts <= frames[-1]}
        missing = promised - set(frames)
        behind = sum(pts > max(missing, default=frames[0] - 1) for pts in frames)
        if not promised >= set(frames) or (missing and behind < AGREEING):
            raise Distrusted("the first frames are not those that the packets promise")
        self._waiting = [item for item in self._waiting if item[0] not in missing]
        heapq.heapify(self._waiting)

    def _release(self) -> None:
        bound = None if self._indexed and not self._cut else self._last_key
        while len(self._waiting) > REORDER and (
            (self._indexed and not self._cut) or (bound is not None and self._waiting[0][0] < bound)
        ):
            pts, key, _ = heapq.heappop(self._waiting)
            self._batches.add(pts, key)
        self._batches.alive()

    def _finish(self) -> None:
        rest = sorted(self._waiting)
        warnings: list[str] = []
        if rest and (not self._indexed or self._cut) and len(rest) <= TAIL_FRAMES:
            rest = self._decodable(rest)
        total = self._batches.sent + len(self._batches._pts) + len(rest)  # pyright: ignore[reportPrivateUsage]
        if total == 0:
            raise no_frames(self._cell, self._count, 0)
        if missing := cut_off(self._cell, self._request, self._container, total):
            warnings.append(missing)
        elif total < self._count:
            warnings.append(f"{total} of {self._count} frames decode: the file begins or ends in the middle")
        for pts, key, _ in rest:
            self._batches.add(pts, key)
        assert self._batches.last is not None
        duration = rest[-1][2] if rest else 0
        end = self._batches.last + (duration if duration > 0 else self._request["frame_ticks"])
        self._batches.send(final=True, end_pts=end, warnings=warnings)

    def _decodable(self, rest: list[tuple[int, bool, int]]) -> list[tuple[int, bool, int]]:
        """Those of the last frames that really decode."""
        self._cell.source.holes = []
        decoder = decoding.RangeDecoder(self._cell.source, self._request, self._batches.alive)
        start = rest[0][0] if self._batches.last is not None else None
        try:
            found = {item.pts for item in decoder.range(start, None, 0, 0)}
        finally:
            decoder.close()
        if not found <= {pts for pts, _, _ in rest}:
            raise Distrusted("the last frames are not those that the packets promise")
        return [item for item in rest if item[0] in found]


class _Head:
    """Decodes the first packets of the pass and keeps the frames' times."""

    def __init__(self, stream: VideoStream, request: dict[str, Any]) -> None:
        opener.prepare(stream, request, "none", 1)
        self.frames: list[Any] = []
        self.done = False
        self._packets = 0
        self._context: Any = stream.codec_context

    def feed(self, packet: Any) -> None:
        self._packets += 1
        with contextlib.suppress(*packets.SKIPPED_ERRORS):
            self.frames += [frame.pts for frame in packets.decode(packet)]
        self.done = len(self.frames) >= HEAD_FRAMES or self._packets >= HEAD_PACKETS

    def finish(self) -> None:
        """The stream is over: take what the decoder still holds."""
        self.frames += [frame.pts for frame in packets.flushed(self._context)]


def cut_off(cell: Cell, request: dict[str, Any], container: InputContainer, frames: int) -> str | None:
    """The warning for a file that says it is longer than it is, unless none of its frames are missing.

    Matroska states no number of frames: it is told from the duration in the header and the average rate. Where that is
    fewer than were found, the rate is no good (VFR), and no number is given.
    """
    if not sniff.is_cut(cell.source.read_exactly_at, cell.source.size):
        return None
    declared: int | None = request["frames_declared"]
    if request["indexed"]:
        return early_end(frames, declared)
    about = ""
    if declared is None and container.duration:
        declared = round(Fraction(container.duration, av.time_base) / Fraction(request["frame_seconds"]))
        about = "about "
    if declared == frames:
        return None
    return early_end(frames, declared if declared is not None and declared > frames else None, about)


def early_end(frames: int, declared: int | None, about: str = "") -> str:
    """The warning for a file that is cut off."""
    return f"the file ends early: {frames} of {f'{about}{declared}' if declared else 'its'} frames are in it"


def _timed(cell: Cell, request: dict[str, Any], container: InputContainer, stream: VideoStream) -> None:
    """The list from a decode pass, by the frames' own times."""
    batches = _Batches(cell, stream)
    frames = packets.raw_frames(container, stream)
    pause = longest_pause(stream.time_base)
    count = 0
    last: int | None = None
    duration = 0
    for frame in frames:
        if not follows(frame.pts, last, pause):
            reason = "has no presentation time" if frame.pts is None else "does not follow the one before it"
            repairable = _are_few(frames, count, last, frame.pts, batches, pause)
            raise Distrusted(f"frame {count} {reason}", repairable=repairable)
        last = frame.pts
        batches.add(last, frame.key_frame)
        duration = frame.duration or 0
        count += 1
    _end(cell, request, container, batches, count, duration if duration > 0 else request["frame_ticks"])


def _are_few(
    frames: Iterator[VideoFrame], count: int, last: int | None, pts: int | None, batches: _Batches, pause: int
) -> bool:
    """Whether few of the film's frames lack a good time: of the `count` before this one and some behind it."""
    bad = 1
    count += 1
    for frame in itertools.islice(frames, LOOKED_AT_FRAMES):
        last = pts if pts is not None else last
        pts = frame.pts
        bad += not follows(pts, last, pause)
        count += 1
        batches.alive()
    return bad <= FEW * count


def _told(cell: Cell, request: dict[str, Any], container: InputContainer, stream: VideoStream) -> None:
    """The list from a decode pass, by the rule of `Times`."""
    batches = _Batches(cell, stream)
    times = decoding.times(request, stream)
    finder = resets.Finder()

    def seen(packet: Any) -> None:
        times.packet(packet)
        finder.packet(packet)

    # In an index every track has a clock of its own, and may lie anywhere in the file.
    is_followed = request["repaired"] and not request["indexed"]
    count = 0
    duration = 0
    for frame in packets.raw_frames(container, stream, seen):
        own = request["repaired"] and frame.pts is not None
        place = times.next(frame.pts)
        if is_followed:
            batches.tell(finder, frame.pts, place, times.shift)
        batches.add(place, frame.key_frame)
        duration = (frame.duration or 0) if own else 0
        count += 1
    _end(cell, request, container, batches, count, duration if duration > 0 else times.next(None) - (batches.last or 0))


def _end(
    cell: Cell, request: dict[str, Any], container: InputContainer, batches: _Batches, count: int, duration: int
) -> None:
    if batches.last is None:
        raise no_frames(cell, 1, 0)
    missing = cut_off(cell, request, container, count)
    batches.send(final=True, end_pts=batches.last + duration, warnings=[missing] if missing else [])
