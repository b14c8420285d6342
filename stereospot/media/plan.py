"""The plan: what is settled once for a generation, and where the film is cut. Pure, but for the scans it passes on.

    SourceInfo + Options --head--> Plan;    FrameBatch… --Cutter--> Segment… and at the end PlanTotal

Segments are half-open ranges of presentation times on the one stored source. A cut may be at any frame: ranges decode
exactly (`decoding`); one near a keyframe only saves decoding what is thrown away.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

from stereospot.errors import error
from stereospot.media import clocks, levels
from stereospot.media.model import (
    Bars,
    ClockReset,
    Colour,
    DecodeSpec,
    EncodeSpec,
    PixelFormat,
    Plan,
    PlanTotal,
    Segment,
    SourceInfo,
    StereoSpec,
    VideoTrack,
)
from stereospot.media.scan import FrameBatch, Untrusted, decode_scan, frame_seconds, frame_ticks, scan
from stereospot.options import Codec, Options

__all__ = [
    "Cutter",
    "FrameBatch",
    "Untrusted",
    "decode_scan",
    "head",
    "sample_segments",
    "scan",
    "synthesised",
]

DEFAULT_SECONDS = 5.0
FIRST_SECONDS = (1.0, 1.0, 2.0)
"""The first segments are short: what plays first is converted first."""
SLACK = 0.2
"""How much of its length a segment may be shorter or longer to end at a keyframe."""
PTS_SYNTHESISED = "PTS_SYNTHESISED"
PICTURE_REDUCED = "PICTURE_REDUCED"


# ---- the head -----------------------------------------------------------------------------------------------------


def head(
    info: SourceInfo,
    options: Options,
    *,
    job_id: str,
    generation: int,
    source_key: str,
    engine: str,
    divergence: float,
    output: tuple[int, int, Fraction],
    created_at: float,
    model: str | None = None,
    bars: Bars | None = None,
    threads: int = 2,
    sequential: bool = False,
) -> Plan:
    """Settle everything that every worker has to do alike.

    output: width, height and sample aspect of the laid-out picture (inference.geometry); odd sides are rounded up.
    threads: of the encoder, and of the decoder at most. sequential: for a film whose ranges did not decode to what its
    packets promise: no decoder seeks in it. Raises HDR_NEEDS_10_BIT.
    """
    codec = _codec(info, options)
    tone_mapped = options.tone_map and info.video.colour.is_hdr
    pixel_format = _encoded_format(info, options, codec, tone_mapped=tone_mapped)
    width, height = output[0] + output[0] % 2, output[1] + output[1] % 2
    colour = _sdr() if tone_mapped else _told(info.video)
    decoded = _DEEP[pixel_format] if tone_mapped else pixel_format
    if not tone_mapped and (warning := _reduced(info.video.pixel_format, pixel_format)) is not None:
        info = info.model_copy(update={"warnings": (*info.warnings, warning)})
    target = options.segment_seconds or DEFAULT_SECONDS
    return Plan(
        job_id=job_id,
        generation=generation,
        source_key=source_key,
        source=info,
        decode=decode_spec(info, decoded, threads=threads).model_copy(update={"sequential": sequential}),
        stereo=StereoSpec(
            engine=engine,
            model=model,
            layout=options.layout,
            divergence=divergence,
            convergence=options.convergence,
            synthesise=options.synthesise,
            swap_eyes=options.swap_eyes,
            bars=bars or Bars(),
            export_depth=options.export_depth,
        ),
        encode=EncodeSpec(
            codec=codec,
            pixel_format=pixel_format,
            width=width,
            height=height,
            time_base=info.video.time_base,
            rate=info.video.average_rate,
            sample_aspect=output[2],
            crf=options.crf,
            preset=options.preset,
            level=_level(codec, width, height, info.video.average_rate),
            threads=threads,
            colour=colour,
            layout=options.layout,
            swapped=options.swap_eyes,
            origin=clocks.fragment_origin(info),
        ),
        container=options.container,
        target_seconds=max(target, *FIRST_SECONDS) * (1 + SLACK),
        created_at=created_at,
    )


def decode_spec(info: SourceInfo, pixel_format: PixelFormat | None = None, *, threads: int = 2) -> DecodeSpec:
    """What pins the decoder of this source. `pixel_format` None keeps the source's normal form."""
    video = info.video
    return DecodeSpec(
        stream_index=video.stream_index,
        thread_type="slice",
        thread_count=threads,
        pixel_format=pixel_format or video.pixel_format,
        rotation=video.rotation,
        mirrored=video.mirrored,
        interlaced="flagged",
    )


def synthesised(plan: Plan, reason: Untrusted) -> Plan:
    """The same plan with frames told by number, or by their times, repaired or put in order; `decode_scan` has them."""
    info = plan.source
    decode = plan.decode.model_copy(
        update={
            "synthesised": True,
            "repaired": reason.repairable,
            "reordered": reason.reordered,
            "frame_ticks": frame_ticks(info),
            "frame_seconds": frame_seconds(info),
            "first_pts": info.video.first_pts,
        }
    )
    warning = f"{PTS_SYNTHESISED}: {reason}"
    source = info.model_copy(update={"warnings": (*info.warnings, warning)})
    return plan.model_copy(update={"decode": decode, "source": source})


def _codec(info: SourceInfo, options: Options) -> Codec:
    """x264 plays everywhere, in 8 bit and 4:2:0 (`_encoded_format`); HDR needs 10 bit, which browsers play as AV1."""
    if options.tone_map or not info.video.colour.is_hdr:
        return options.codec or Codec.X264
    codec = options.codec or Codec.SVTAV1
    if codec in (Codec.X264, Codec.NVENC_H264):
        raise error("HDR_NEEDS_10_BIT")
    return codec


def _encoded_format(info: SourceInfo, options: Options, codec: Codec, *, tone_mapped: bool) -> PixelFormat:
    """The source's own format where a codec that has it was named, or nothing may be lost; else what plays everywhere.

    Of H.264, headsets, televisions, phones and most hardware decode 8 bits and 4:2:0 alone, so nobody gets more of it
    without having asked.
    """
    wanted = info.video.pixel_format
    unasked = codec is Codec.X264 and options.codec is None and options.crf > 0
    if codec is Codec.NVENC_H264 or unasked:
        return "yuv420p"
    deep = wanted in _DEEP.values() and not tone_mapped
    if codec in (Codec.X264, Codec.X265):
        return wanted if deep else _SHALLOW.get(wanted, wanted)
    return "yuv420p10le" if deep else "yuv420p"


def _reduced(source: PixelFormat, film: PixelFormat) -> str | None:
    """The warning for a film of fewer bits or less chroma than its source."""
    if source == film:
        return None
    return (
        f"{PICTURE_REDUCED}: the film has {_depth(film)}, which its codec's players decode, where the source has "
        f"{_depth(source)}; name the codec x265 to keep those"
    )


def _depth(form: PixelFormat) -> str:
    return f"{10 if form in _SHALLOW else 8} bits and {':'.join(form[3:6])}"


_DEEP: dict[PixelFormat, PixelFormat] = {
    "yuv420p": "yuv420p10le",
    "yuv422p": "yuv422p10le",
    "yuv444p": "yuv444p10le",
}
_SHALLOW: dict[PixelFormat, PixelFormat] = {deep: shallow for shallow, deep in _DEEP.items()}


def _told(video: VideoTrack) -> Colour:
    """Its colours, with the matrix that an untagged picture is read by (`inference.colours`): players go by the film's
    size there, which is not the picture's."""
    if video.colour.matrix != 2 or video.colour.is_hdr:
        return video.colour
    return video.colour.model_copy(update={"matrix": 6 if video.height <= 576 else 1})


def _sdr() -> Colour:
    return Colour(primaries=1, transfer=1, matrix=1, full_range=False)


def _level(codec: Codec, width: int, height: int, rate: Fraction) -> str | None:
    """The level the encoder has to declare; said aloud, so that every worker's header agrees."""
    if codec in (Codec.X264, Codec.NVENC_H264):
        return levels.h264_level(width, height, rate)
    if codec in (Codec.X265, Codec.NVENC_HEVC):
        return levels.hevc_level(width, height, rate)
    return None


# ---- the cuts -----------------------------------------------------------------------------------------------------


@dataclass
class Cutter:
    """Cuts the frames of a scan into segments as they come; the result does not depend on how they were batched."""

    info: SourceInfo
    segment_seconds: float | None = None
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
            rest.append(self._segment(len(self._pts), None))
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
            found.append(self._segment(count, self._pts[count]))
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

    def _segment(self, count: int, end: int | None) -> Segment:
        start = self._pts[0]
        last = self._pts[count - 1]
        until = end if end is not None else self._end
        assert until is not None
        segment = Segment(
            index=self._count, start=start, end=end, frames=count, last=last, duration=max(1, until - start)
        )
        self._count += 1
        del self._pts[:count]
        del self._keys[:count]
        return segment


def sample_segments(
    info: SourceInfo, pts: list[int], starts: tuple[float, ...], *, seconds: float = 2.0
) -> list[Segment]:
    """One segment for each start time (in seconds of film): the frames of the following two seconds.

    pts: all frames of the film. Starts past the end give the last frames; overlapping samples are merged by leaving out
    what an earlier one has.
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
        found.append(
            Segment(
                index=len(found),
                start=chosen[0],
                end=following,
                frames=len(chosen),
                last=done,
                duration=until - chosen[0],
            )
        )
    return found


def _int64(values: list[int]) -> bytes:
    """Little-endian 64-bit integers, on any machine."""
    return b"".join(value.to_bytes(8, "little", signed=True) for value in values)
