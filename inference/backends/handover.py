"""Handing one exact range of a film to another machine and taking its answer back, trusting nothing.

    decoder ─ range and padding ─> lossless H.264 in MP4, the source's own times ──> remote ──> a film of one segment
    ──> decoded in the jail ─> count, size, order of pictures checked ─> source times restored ─> our own fragment

A stream-copied cut loses frames wherever a GOP is open or an edit list hides some; a re-encoded range cannot. The
answer is untrusted input like any upload. Whatever is wrong with it is Transient("REMOTE_INVALID"): the segment goes
back to the pool, no other segment is touched.

On the wire a handover is one line of JSON (`Handover`) and then the video; so is the answer (`Answer`).
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inference import curves, geometry, report, shots
from inference.backends import likeness
from inference.contract import Converted, Flush, Frames, check_count, check_padding
from stereospot import errors
from stereospot.media import frames, probe
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, EncodeSpec, Model, Plan, Segment, SourceInfo
from stereospot.media.source import FileSource
from stereospot.options import Codec, Layout

WIRE_TYPE = "application/vnd.stereospot.segment"

LARGEST_REPORT_CHARACTERS = 1 << 16
"""A remote's report is kept with what we do not know in it, and part of it goes into the job's record."""

MOST_EVERY = 8
"""The widest distance of keys that a server may be set to."""


class Handover(Model):
    """What goes with the video: the plan's head and the segment; the video holds `before` + frames + `after` frames."""

    plan: Plan
    segment: Segment
    before: int = 0
    after: int = 0


class Answer(Model):
    """What comes back with the video."""

    status: str = "ok"
    report: dict[str, Any] = Field(default={}, description="the remote's segment report")


@dataclass(frozen=True, slots=True)
class Packed:
    """A range ready to be sent; `pts` and `expected` are of the segment's own frames, without the padding."""

    handover: Handover
    video: bytes
    pts: list[int]
    look: likeness.Look = field(repr=False)
    expected: list[likeness.Expected] = field(repr=False)


def padding(plan: Plan, segment: Segment) -> tuple[int, int]:
    """Frames to send before and behind a segment, so that a remote has all that a frame of it depends on.

    For a learned engine that includes every whole cell within its curve's support, and the frames by which the first of
    these is known to begin one, or a shot.
    """
    from inference import convert

    if plan.stereo.engine not in curves.ENGINES:
        return convert.padding(plan), convert.padding(plan)
    if segment.around is not None:
        return segment.around.before + shots.REACH + 1, segment.around.after + shots.REACH + 1
    # A plan of an older version: so much of a film of constant rate.
    seconds = curves.SUPPORT_SECONDS + curves.CELL_SECONDS
    count = math.ceil(seconds * plan.source.video.average_rate) + MOST_EVERY + 1 + 2 * convert.padding(plan)
    return count, count


def pack(
    decoder: Frames,
    plan: Plan,
    segment: Segment,
    *,
    padding: tuple[int, int],
    free: bool = False,
    stop: threading.Event | None = None,
) -> Packed:
    """Decode a segment with its padding and encode it without loss; blocking.

    padding: frames before and behind it. free: the endpoint is not told the parallax and chooses it itself.
    Raises what the decoder raises, SEGMENT_MISMATCH when the frames, those of the padding too, are not the plan's,
    CANCELLED.
    """
    video = plan.source.video
    spec = EncodeSpec(
        codec=Codec.X264,
        pixel_format=plan.decode.pixel_format,
        width=video.width + video.width % 2,
        height=video.height + video.height % 2,
        time_base=video.time_base,
        rate=video.average_rate,
        sample_aspect=video.sample_aspect,
        crf=0,
        preset="ultrafast",
        key_seconds=1.0,
        colour=video.colour,
        layout=Layout.LEFT,
        origin=plan.encode.origin,  # times before 0 would come out as others
    )
    encoder = FragmentEncoder(spec)
    pts: list[int] = []
    look = likeness.Look(plan, free=free)
    expected: list[likeness.Expected] = []
    counts = {-1: 0, 0: 0, 1: 0}
    last = segment.start
    for frame in decoder.frames(segment.start, segment.end, before=padding[0], after=padding[1]):
        try:
            _check(stop)
            encoder.write([_even(plane, spec, index) for index, plane in enumerate(frame.planes)], frame.pts)
            counts[frame.pad] += 1
            last = frame.pts
            if frame.pad == 0:
                pts.append(frame.pts)
                expected.append(look.expected(frame.planes))
        finally:
            frame.release()
    check_count(segment, len(pts))
    check_padding(segment, padding, (counts[-1], counts[1]))
    length = max(1, round(1 / (video.average_rate * video.time_base)))
    fragment = encoder.finish(last + length)
    handover = Handover(plan=plan, segment=segment, before=counts[-1], after=counts[1])
    return Packed(handover, fragment.init + fragment.media, pts, look, expected)


def received(path: Path, handover: Handover, *, limits: Limits) -> tuple[SourceInfo, Plan, Segment]:
    """On the remote side: the plan and segment in the terms of the video that came, which is probed in the jail.

    The answer is lossless, since it will be encoded once more. Raises INVALID_REQUEST when plan and video do not fit.
    """
    opened = FileSource(path)
    try:
        info = probe.probe(opened, limits=limits)
    finally:
        opened.close()
    plan, video = handover.plan, info.video
    wanted = plan.source.video
    even = (wanted.width + wanted.width % 2, wanted.height + wanted.height % 2)
    if (video.width, video.height) != even or video.pixel_format != plan.decode.pixel_format:
        raise errors.error(
            "INVALID_REQUEST",
            f"The video is {video.width}x{video.height} {video.pixel_format}, the plan has "
            f"{even[0]}x{even[1]} {plan.decode.pixel_format}.",
        )
    ticks = wanted.time_base / video.time_base
    if ticks.denominator != 1:
        raise errors.error("INVALID_REQUEST", f"The video counts in {video.time_base}, the plan in {wanted.time_base}.")
    decode = decode_spec(info)
    encode = plan.encode.model_copy(
        update={
            "codec": Codec.X264,
            "crf": 0,
            "preset": "ultrafast",
            "time_base": video.time_base,
            "level": None,
            "origin": 0,
        }
    )
    # The film's rate, not that of the range: frames are chosen by it.
    source = info.model_copy(update={"video": video.model_copy(update={"average_rate": wanted.average_rate})})
    found = plan.model_copy(update={"source": source, "decode": decode, "encode": encode})
    if plan.stereo.engine in curves.ENGINES:
        # The range ends inside windows of the curve: what it says of those holds for this segment alone.
        found = found.model_copy(update={"job_id": f"{plan.job_id}.{uuid.uuid4().hex}"})
    return info, found, rescaled(handover.segment, ticks.numerator, plan.encode.origin)


def rescaled(segment: Segment, ticks: int, origin: int = 0) -> Segment:
    """The segment in a time base that is `ticks` times as fine and begins at `origin`."""
    around = segment.around
    if around is not None:
        ends = {"first": (around.first - origin) * ticks, "last": (around.last - origin) * ticks}
        around = around.model_copy(update=ends)
    return segment.model_copy(
        update={
            "start": (segment.start - origin) * ticks,
            "end": None if segment.end is None else (segment.end - origin) * ticks,
            "last": (segment.last - origin) * ticks,
            "duration": segment.duration * ticks,
            "around": around,
        }
    )


def decode_spec(info: SourceInfo) -> DecodeSpec:
    """How a whole small film is decoded."""
    video = info.video
    return DecodeSpec(
        stream_index=video.stream_index,
        pixel_format=video.pixel_format,
        rotation=video.rotation,
        mirrored=video.mirrored,
        crop=video.crop,
        interlaced=video.interlaced,
    )


def unpack(
    path: Path,
    packed: Packed,
    *,
    limits: Limits,
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> Flush:
    """Decode an answer in the jail, check it, and encode it as the plan says; blocking.

    Raises Transient("REMOTE_INVALID") for anything that is not this segment, whole and in order; CANCELLED.
    """
    plan, segment = packed.handover.plan, packed.handover.segment
    encoder = FragmentEncoder(plan.encode)
    order = likeness.Order(packed.expected)
    count = 0
    for planes in _decoded(path, plan, limits, stop):
        _check(stop)
        if count == segment.frames:
            raise _invalid(f"It has more than the segment's {segment.frames} frames.")
        order.add(packed.look.shown(planes[0]))
        encoder.write(planes, packed.pts[count])
        count += 1
        if on_frame is not None:
            on_frame(count)
    if count != segment.frames:
        raise _invalid(f"It has {count} of the segment's {segment.frames} frames.")
    order.check()
    return lambda: encoder.finish(segment.start + segment.duration)


def _decoded(
    path: Path, plan: Plan, limits: Limits, stop: threading.Event | None
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The answer's pictures; what a decoder says of a bad file becomes REMOTE_INVALID."""
    try:
        source = FileSource(path)
        try:
            info = probe.probe(source, limits=limits, stop=stop)
            video, wanted = info.video, plan.encode
            if (video.width, video.height) != (wanted.width, wanted.height):
                raise _invalid(f"It is {video.width}x{video.height}, not {wanted.width}x{wanted.height}.")
            if video.pixel_format != wanted.pixel_format:
                raise _invalid(f"It is {video.pixel_format}, not {wanted.pixel_format}.")
            with frames.Decoder(source, decode_spec(info), info, limits=limits, stop=stop) as decoder:
                for frame in decoder.frames(None, None):
                    try:
                        yield frame.planes
                    finally:
                        frame.release()
        finally:
            source.close()
    except errors.Permanent as failure:
        if failure.code == "CANCELLED":
            raise
        raise _invalid(f"It cannot be read: {failure}") from failure


class Exchange(Protocol):
    """Sends a packed range and writes the answer's video to `target`; blocking. Returns the remote's report."""

    def __call__(self, packed: Packed, target: Path, stop: threading.Event | None) -> dict[str, Any]: ...


def converted(
    decoder: Frames,
    plan: Plan,
    segment: Segment,
    exchange: Exchange,
    *,
    folder: Path,
    padding: tuple[int, int],
    limits: Limits,
    free: bool = False,
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> Converted:
    """One segment by a remote: pack, exchange, unpack; `folder` is empty, exists, and is the caller's to remove."""
    clock = [time.perf_counter()]
    packed = pack(decoder, plan, segment, padding=padding, free=free, stop=stop)
    clock.append(time.perf_counter())
    target = folder / "answer.mp4"
    told = exchange(packed, target, stop)
    clock.append(time.perf_counter())
    flush = unpack(target, packed, limits=limits, stop=stop, on_frame=on_frame)
    clock.append(time.perf_counter())
    stages = {"pack": clock[1] - clock[0], "remote": clock[2] - clock[1], "unpack": clock[3] - clock[2]}
    return Converted(flush, _report(told, segment, plan, stages, clock[-1] - clock[0]))


def _report(
    told: dict[str, Any], segment: Segment, plan: Plan, stages: dict[str, float], seconds: float
) -> report.SegmentReport:
    """The remote's report under our own clock; one that does not parse, or is too long, is left out."""
    base = report.SegmentReport(
        index=segment.index,
        frames=segment.frames,
        seconds=round(seconds, 4),
        engine=report.EngineUsed(name=plan.stereo.engine, version="remote"),
    )
    small = len(json.dumps(told)) <= LARGEST_REPORT_CHARACTERS
    with contextlib.suppress(ValueError):
        base = report.SegmentReport.model_validate({**base.model_dump(), **(told if small else {})})
    own = {"index": segment.index, "frames": segment.frames, "seconds": round(seconds, 4)}
    rounded = {name: round(value, 4) for name, value in stages.items()}
    named = [item for item in base.stages.items() if item[0] not in rounded]
    merged = dict([*rounded.items(), *named][: report.MOST_STAGES])
    return base.model_copy(update={**own, "stages": merged})


def _even(plane: NDArray[Any], spec: EncodeSpec, index: int) -> NDArray[Any]:
    """A plane of the encoder's size: the last row and column repeated where the source is odd."""
    height, width = geometry.plane_sizes(spec.width, spec.height, spec.pixel_format)[min(index, 1)]
    if plane.shape == (height, width):
        return plane
    return np.pad(plane, ((0, height - plane.shape[0]), (0, width - plane.shape[1])), mode="edge")


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise errors.error("CANCELLED")


def _invalid(detail: str) -> errors.StereoSpotError:
    return errors.error("REMOTE_INVALID", detail)
