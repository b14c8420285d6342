"""A job whose plan, fragments and completion set a test stores piece by piece, as the services would."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

from services import plans
from services.context import Context
from stereospot import completion, jobs, keys, records, subjects
from stereospot.completion import Completion
from stereospot.jobs import Job, Phase
from stereospot.media import boxes
from stereospot.media.cmaf import Fragment, FragmentEncoder
from stereospot.media.model import (
    AudioTrack,
    Chapter,
    DecodeSpec,
    EncodeSpec,
    Plan,
    PlanTotal,
    Segment,
    SourceInfo,
    StereoSpec,
    SubtitleTrack,
    VideoTrack,
)
from stereospot.messages import Film, SegmentEvent, SourceRef
from stereospot.options import Codec, Layout

WIDTH, HEIGHT, RATE = 128, 72, 24
TICK = Fraction(1, 24_000)
FRAME = 1000


@dataclass
class Showing:
    """A film of `lengths` seconds a segment; nothing is stored before it is asked for."""

    context: Context
    job_id: str
    lengths: tuple[int, ...] = (1, 1, 2, 4)
    sound: bool = False
    subtitles: bool = False
    generation: int = 1
    start: int = 0
    """PTS of its first frame."""
    target_seconds: float | None = None
    """What the plan's head says; by default its longest segment."""
    fragments: list[Fragment] = field(default_factory=list[Fragment])
    state: Completion = field(init=False)
    revision: int = 0

    @property
    def total(self) -> int:
        return len(self.lengths)

    def segments(self) -> list[Segment]:
        found: list[Segment] = []
        start = self.start
        for index, seconds in enumerate(self.lengths):
            ticks = seconds * RATE * FRAME
            end = start + ticks if index < self.total - 1 else None
            last = start + ticks - FRAME
            found.append(Segment(index=index, start=start, end=end, frames=seconds * RATE, last=last, duration=ticks))
            start += ticks
        return found

    def plan(self) -> Plan:
        video = VideoTrack(
            stream_index=0, codec="h264", width=WIDTH, height=HEIGHT, coded_width=WIDTH, coded_height=HEIGHT,
            pixel_format="yuv420p", source_pixel_format="yuv420p", time_base=TICK, average_rate=Fraction(RATE),
            first_pts=self.start,
        )  # fmt: skip
        audio = (AudioTrack(stream_index=1, codec="aac", sample_rate=48_000, channels=2, language="eng"),)
        text = (SubtitleTrack(stream_index=2, codec="mov_text", language="eng", title="English"),)
        return Plan(
            job_id=self.job_id,
            generation=self.generation,
            source_key="",
            source=SourceInfo(
                container="mp4", size_bytes=1, duration_seconds=float(sum(self.lengths)), video=video,
                audio=audio if self.sound else (), subtitles=text if self.subtitles else (),
                chapters=(Chapter(start_seconds=2.0, end_seconds=4.0, title="The second"),) if self.subtitles else (),
            ),
            decode=DecodeSpec(stream_index=0, pixel_format="yuv420p"),
            stereo=StereoSpec(engine="flat", layout=Layout.HALF_SBS, divergence=1.0, convergence=0.5),
            encode=self.encode_spec(),
            container="mp4",
            target_seconds=self.target_seconds or float(max(self.lengths)),
            created_at=0.0,
        )  # fmt: skip

    def encode_spec(self) -> EncodeSpec:
        return EncodeSpec(
            codec=Codec.X264, pixel_format="yuv420p", width=WIDTH, height=HEIGHT, time_base=TICK,
            rate=Fraction(RATE), crf=23, preset="ultrafast", threads=1,
        )  # fmt: skip

    async def begin(self) -> None:
        """The job is planned and converting; no segment is there."""
        bus = self.context.bus
        source = SourceRef(key=keys.source(self.job_id, "mp4"), name="Holiday.mp4", size_bytes=1)
        job = Job(job_id=self.job_id, title="Holiday", created_at=1.0, updated_at=1.0, source=source)
        for phase in (Phase.PLANNING, Phase.CONVERTING):
            job = jobs.advance(job, phase, at=2.0)
        await records.create_job(bus, job.model_copy(update=self._numbers() | {"generation": self.generation}))
        await self._lay()

    async def begin_anew(self) -> None:
        """The same of a job that is being planned in this generation, after another one."""

        def convert(job: Job) -> Job:
            return jobs.advance(job, Phase.CONVERTING, at=4.0, **self._numbers())

        await records.change_job(self.context.bus, self.job_id, convert)
        await self._lay()

    def _numbers(self) -> dict[str, Any]:
        seconds = sum(self.lengths)
        return {"segments": self.total, "frames": seconds * RATE, "duration_seconds": float(seconds)}

    async def _lay(self) -> None:
        await plans.write_head(self.context.store, self.plan())
        await plans.write_part(self.context.store, self.job_id, self.generation, self.segments())
        total = PlanTotal(
            segments=self.total, frames=sum(self.lengths) * RATE, parts=(0,), first_pts=self.start,
            end_pts=self.start + sum(self.lengths) * RATE * FRAME, pts_sha256="0" * 64,
        )  # fmt: skip
        await plans.write_total(self.context.store, self.job_id, self.generation, total)
        self.state = Completion(job_id=self.job_id, generation=self.generation)
        await self.write(self.state.with_total(self.total, (0,), 1, "cpu", self.sound))

    async def write(self, state: Completion) -> None:
        key = subjects.state_key(self.job_id, self.generation)
        bucket = self.context.bus.bucket(subjects.STATE)
        self.state = state
        self.revision = await bucket.update(key, completion.encode(state), self.revision)

    def encode(self, index: int) -> Fragment:
        """The fragment of a segment: grey pictures, brighter with every frame, a bright bar for the segment."""
        item = self.segments()[index]
        encoder = FragmentEncoder(self.encode_spec())
        chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
        for number in range(item.frames):
            luma = np.full((HEIGHT, WIDTH), 40 + number % 100, np.uint8)
            luma[:, : 8 * (index + 1)] = 220
            encoder.write((luma, chroma, chroma), item.start + number * FRAME)
        return encoder.finish(item.start + item.duration)

    async def convert(self, *indices: int) -> None:
        """Store these segments, then say so."""
        store, state = self.context.store, self.state
        for index in indices:
            fragment = self.encode(index)
            await store.put(keys.init(self.job_id, self.generation, fragment.init_sha256), fragment.init)
            await store.put(keys.segment(self.job_id, self.generation, index), fragment.media)
            state = state.with_done(index, fragment.init_sha256)
        await self.write(state)

    async def finish(self, data: bytes, container: str = "mp4") -> Film:
        """The job is completed, and this is its film."""
        seconds = sum(self.lengths)
        made = Film.model_validate(
            {
                "key": keys.film(self.job_id, self.generation, container), "sha256": "0" * 64, "size_bytes": len(data),
                "frames": seconds * RATE, "duration_seconds": float(seconds), "container": container,
                "file_name": f"Holiday.3D.HSBS.LR.{container}",
            }
        )  # fmt: skip
        await self.context.store.put(made.key, data)

        def done(job: Job) -> Job:
            job = jobs.advance(job, Phase.ASSEMBLING, at=3.0)
            return jobs.advance(job, Phase.COMPLETED, at=3.0, film=made)

        await records.change_job(self.context.bus, self.job_id, done)
        return made

    async def tell(self, index: int, state: Any, *, worker_id: str = "w1", at: float = 3.0, **values: Any) -> None:
        """Say of a segment what its worker would say."""
        event = SegmentEvent(
            job_id=self.job_id, generation=self.generation, index=index, state=state, worker_id=worker_id, at=at,
            **values,
        )  # fmt: skip
        await self.context.bus.publish(subjects.event_segment(self.job_id, self.generation, index), event)

    async def sing(self, ready: int) -> None:
        """Store sound up to a segment."""
        init, media = sound(sum(self.lengths), self.lengths)
        store = self.context.store
        await store.put(keys.audio_init(self.job_id, self.generation, 0), init)
        for index in range(ready):
            await store.put(keys.audio_segment(self.job_id, self.generation, 0, index), media[index])
        await self.write(self.state.with_audio(ready))


def film(seconds: int) -> bytes:
    """What `Showing` says that its source is: 24 fps, in ticks of a 24,000th, a keyframe a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"video_track_timescale": "24000"}) as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": str(RATE)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 24_000)
        for number in range(seconds * RATE):
            picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            picture[:HEIGHT] = min(235, 40 + 16 * (number // RATE))
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number * FRAME, Fraction(1, 24_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nFirst &amp; foremost\n\n00:02.500 --> 00:00:09.000\n<i>Later</i>\n"


def sound(seconds: int, lengths: tuple[int, ...]) -> tuple[bytes, list[bytes]]:
    """AAC of a tone, as an init and one fragment a segment."""
    encoder: Any = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "fltp"
    encoder.time_base = Fraction(1, 48_000)
    encoder.bit_rate = 96_000
    times = np.arange(seconds * 48_000) / 48_000
    wave = (0.2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    packets: list[Any] = []
    for at in range(0, len(wave), 1024):
        block = np.stack([wave[at : at + 1024]] * 2)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": "empty_moov+default_base_moof+cmaf"}) as container:
        stream: Any = container.add_stream("aac", rate=48_000, layout="stereo")
        stream.codec_context.extradata = encoder.extradata
        container.start_encoding()
    init, _ = boxes.split(buffer.getvalue())
    samples = [(packet.pts, bytes(packet)) for packet in packets if packet.pts is not None and packet.pts >= 0]
    media: list[bytes] = []
    start = 0
    for length in lengths:
        end = start + length * 48_000
        mine = [(pts, data) for pts, data in samples if start <= pts < end]
        entries = [boxes.Sample(pts, 0, 1024, len(data), True) for pts, data in mine]
        media.append(boxes.write_fragment(entries, [data for _, data in mine]))
        start = end
    return init, media
