"""What the tests of the film share: a plan and fragments for any source, and readers that compare frames and PCM."""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot.media import clocks, cmaf, plan
from stereospot.media.assemble import FilmReport, assemble
from stereospot.media.model import (
    AudioTrack,
    ClockReset,
    DecodeSpec,
    EncodeSpec,
    Plan,
    PlanPart,
    PlanTotal,
    Segment,
    SourceInfo,
    StereoSpec,
    SubtitleTrack,
    VideoTrack,
)  # fmt: skip
from stereospot.media.probe import probe
from stereospot.media.source import FileSource
from stereospot.options import Codec, Container, Layout

WIDTH, HEIGHT = 64, 48
CONTAINERS: tuple[Container, ...] = ("mp4", "mov", "mkv")
BITMAPS = frozenset(("dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle", "dvdsub", "pgssub", "dvbsub"))


@dataclass
class Job:
    """A source that was planned and converted: everything the assembler gets."""

    path: Path
    plan: Plan
    total: PlanTotal
    init: bytes
    fragments: list[bytes]
    pts: list[int]
    parts: list[PlanPart] = field(default_factory=list[PlanPart])
    """Of a film that was planned as the planner does it, a segment in each."""

    def assemble(self, out: Path, **changes: Any) -> FilmReport:
        source = FileSource(self.path)
        try:
            arguments: dict[str, Any] = {"fragments": iter(self.fragments), "init": self.init} | changes
            return assemble(self.plan, self.total, source=source, out=out, **arguments)
        finally:
            source.close()


def job(
    path: Path,
    container: Container = "mp4",
    *,
    codec: Codec = Codec.X264,
    layout: Layout = Layout.HALF_SBS,
    frames: int = 24,
    told: tuple[list[int], PlanTotal] | None = None,
    sample_aspect: Fraction = Fraction(1),
    swapped: bool = False,
) -> Job:
    """Plan `path` by decoding it and convert it to small pictures that carry their number.

    told: the frames' times and the total of a scan, where the film's own are no list.
    """
    with av.open(str(path), "r") as source:
        stream = source.streams.video[0]
        pts = told[0] if told else [frame.pts for frame in source.decode(stream) if frame.pts is not None]
        time_base = stream.time_base or Fraction(1, 90000)
        rate = stream.average_rate or Fraction(24)
        info = _info(source, path, stream.index, time_base, rate, pts[0])
    encode = EncodeSpec(
        codec=codec, pixel_format="yuv420p", width=WIDTH, height=HEIGHT, time_base=time_base, rate=rate, crf=0,
        preset="ultrafast", layout=layout, threads=1, origin=clocks.fragment_origin(info),
        sample_aspect=sample_aspect, swapped=swapped,
    )  # fmt: skip
    last = pts[-1] - pts[-2] if len(pts) > 1 else max(1, round(1 / rate / time_base))
    end = told[1].end_pts if told else pts[-1] + last
    starts = [*range(0, len(pts), frames), len(pts)]
    fragments: list[bytes] = []
    init = b""
    for first, after in itertools.pairwise(starts):
        encoder = cmaf.FragmentEncoder(encode)
        for number in range(first, after):
            encoder.write(picture(number), pts[number])
        made = encoder.finish(pts[after] if after < len(pts) else end)
        init = made.init
        fragments.append(made.media)
    head = Plan(
        job_id="j", generation=1, source_key="input/j/source.bin", source=info, encode=encode, container=container,
        decode=DecodeSpec(stream_index=info.video.stream_index, pixel_format="yuv420p"),
        stereo=StereoSpec(engine="identity", layout=layout, divergence=0, convergence=0.5),
        target_seconds=6, created_at=0,
    )  # fmt: skip
    digest = hashlib.sha256(struct.pack(f"<{len(pts)}q", *pts)).hexdigest()
    total = PlanTotal(
        segments=len(fragments), frames=len(pts), parts=(0,), first_pts=pts[0], end_pts=end, pts_sha256=digest,
        resets=told[1].resets if told else (),
    )  # fmt: skip
    return Job(path, head, total, init, fragments, pts)


def repaired(path: Path, container: Container = "mp4") -> Job:
    """The same of a film whose clock is set anew on the way, planned as the planner does it."""
    source = FileSource(path)
    try:
        info = probe(source)
        with pytest.raises(plan.Untrusted) as caught:
            list(plan.scan(source, info))
        assert caught.value.repairable
        cutter = plan.Cutter(info)
        pts: list[int] = []
        found: list[PlanPart] = []
        for batch in plan.decode_scan(source, info, repaired=True):
            pts += batch.pts
            found += [_part(segment, cutter.clock(segment.end)) for segment in cutter.feed(batch)]
    finally:
        source.close()
    rest, total = cutter.finish()
    found += [_part(segment, cutter.clock(None)) for segment in rest]
    made = job(path, container, told=(pts, total))
    made.parts = found
    return made


def _part(segment: Segment, clock: tuple[tuple[ClockReset, ...], int | None]) -> PlanPart:
    return PlanPart(first=segment.index, segments=(segment,), resets=clock[0], read=clock[1])


def parts(segments: Sequence[Segment], size: int | None = None) -> list[PlanPart]:
    """A plan's parts of `size` segments each, or of all."""
    size = size or len(segments)
    return [
        PlanPart(first=segments[at].index, segments=tuple(segments[at : at + size]))
        for at in range(0, len(segments), size)
    ]


def _info(source: Any, path: Path, index: int, time_base: Fraction, rate: Fraction, first: int) -> SourceInfo:
    audio = tuple(
        AudioTrack(
            stream_index=stream.index, codec=stream.codec_context.codec.canonical_name,
            sample_rate=stream.codec_context.sample_rate, channels=stream.codec_context.channels,
            language=stream.metadata.get("language"),
        )
        for stream in source.streams.audio
    )  # fmt: skip
    subtitles = tuple(
        SubtitleTrack(
            stream_index=stream.index, codec=stream.codec_context.codec.canonical_name,
            bitmap=stream.codec_context.codec.canonical_name in BITMAPS,
        )
        for stream in source.streams.subtitles
    )  # fmt: skip
    video = VideoTrack(
        stream_index=index, codec="any", width=WIDTH, height=HEIGHT, coded_width=WIDTH, coded_height=HEIGHT,
        pixel_format="yuv420p", source_pixel_format="yuv420p", time_base=time_base, average_rate=rate,
        first_pts=first,
    )  # fmt: skip
    return SourceInfo(
        container=source.format.name,
        size_bytes=path.stat().st_size,
        duration_seconds=None,
        video=video,
        audio=audio,
        subtitles=subtitles,
    )


def picture(number: int) -> tuple[Any, Any, Any]:
    """Planes of 64x48 that tell their number in every sample."""
    luma = np.full((HEIGHT, WIDTH), 16 + number % 200, np.uint8)
    luma[: number // 200 + 1] = 255
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return luma, chroma, chroma


def frames(data: Path | bytes) -> list[tuple[int, Fraction, str]]:
    """(pts, time base, hash of the luma) of every frame."""
    found: list[tuple[int, Fraction, str]] = []
    with av.open(str(data) if isinstance(data, Path) else io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        for frame in container.decode(stream):
            plane = frame.planes[0]
            rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
            found.append((frame.pts or 0, stream.time_base, hashlib.sha256(rows.tobytes()).hexdigest()))
    return found


def picture_hash(number: int) -> str:
    return hashlib.sha256(picture(number)[0].tobytes()).hexdigest()


@dataclass
class Sound:
    codec: str
    start: float
    """Seconds at which the first sample is heard."""
    pcm: Any
    """[channels, samples]"""
    language: str | None
    title: str | None


def sounds(path: Path) -> list[Sound]:
    """Every audio track decoded whole."""
    found: list[Sound] = []
    with av.open(str(path), "r") as container:
        indexes = [stream.index for stream in container.streams.audio]
    for index in indexes:
        with av.open(str(path), "r") as container:
            stream: Any = container.streams[index]
            parts: list[Any] = []
            start: float | None = None
            for frame in container.decode(stream):
                if start is None:
                    start = float((frame.pts or 0) * frame.time_base)
                array = frame.to_ndarray()
                parts.append(array if frame.format.is_planar else array.reshape(-1, len(frame.layout.channels)).T)
            pcm = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0))
            found.append(
                Sound(
                    stream.codec_context.codec.canonical_name, start or 0.0, pcm, stream.metadata.get("language"),
                    stream.metadata.get("title"),
                )
            )  # fmt: skip
    return found


def check_frames(job: Job, out: Path) -> None:
    """Every frame, in order, at its source time less the origin: exact, or half a millisecond off in mkv."""
    found, origin = frames(out), clocks.origin_seconds(job.plan)
    assert [digest for _, _, digest in found] == [picture_hash(number) for number in range(len(job.pts))]
    for (pts, base, _), wanted in zip(found, job.pts, strict=True):
        error = abs(pts * base + origin - wanted * job.plan.encode.time_base)
        assert error <= (Fraction(1, 2000) if job.plan.container == "mkv" else 0)


def packets(path: Path, number: int) -> list[bytes]:
    """The bytes of a sound's packets."""
    with av.open(str(path), "r") as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[number]) if packet.size]
