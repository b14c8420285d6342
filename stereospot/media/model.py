"""What is known of a source and fixed for a generation: the vocabulary of every service that touches media.

    Source --probe--> SourceInfo --plan--> Plan (head) + PlanPart… --> one fragment a Segment --> the film

All times are integer PTS in the video stream's time base unless a name ends in `_seconds`. A segment is a half-open
range `[start, end)` of presentation times on the one stored source; there are no chunk files.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from stereospot.options import Backend, Codec, Container, Layout


def _fraction(value: object) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str):
        return Fraction(value)
    raise ValueError("a fraction is written as 'a/b'")


Rational = Annotated[
    Fraction,
    BeforeValidator(_fraction),
    PlainSerializer(lambda value: f"{value.numerator}/{value.denominator}", return_type=str),
]
"""A Fraction that travels as the string `a/b`."""


class Model(BaseModel):
    """Immutable; unknown fields of a newer version are kept when a message is passed on."""

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)


PixelFormat = Literal[
    "yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "gray16le"
]  # fmt: skip
"""The normal forms in which the jail hands frames over: planar YUV, 8 bit in uint8 or 10 bit in uint16. `gray16le` is
depth: one plane of uint16, whatever the film of it holds (`greys`)."""


class Colour(Model):
    """Colour tags as the numbers of ISO/IEC 23091-2 (H.273); 2 is unspecified. HDR10 metadata as FFmpeg writes it."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False
    mastering: str | None = Field(default=None, description="x265 syntax G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min)")
    content_light: tuple[int, int] | None = Field(default=None, description="MaxCLL, MaxFALL in cd/m2")

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (16, 18)


class VideoTrack(Model):
    """The video stream that is converted, as it is displayed: after cropping, mirroring and rotation."""

    stream_index: int
    codec: str
    profile: str | None = None
    width: int
    height: int
    coded_width: int
    coded_height: int
    pixel_format: PixelFormat
    source_pixel_format: str
    time_base: Rational
    average_rate: Rational
    sample_aspect: Rational = Fraction(1)
    rotation: int = Field(
        default=0, description="degrees clockwise to turn the decoded picture for display: 0, 90, 180, 270"
    )
    mirrored: bool = False
    crop: tuple[int, int, int, int] = Field(
        default=(0, 0, 0, 0),
        description="pixels of the decoded picture that are not shown: left, top (both even), right, bottom",
    )
    interlaced: Literal["no", "top", "bottom"] = Field(default="no", description="as far as its first frames tell")
    colour: Colour = Colour()
    language: str | None = None
    frames_declared: int | None = None
    first_pts: int = Field(default=0, description="PTS of the first frame that decodes")
    first_frames: tuple[int, ...] = Field(default=(), description="PTS of the first few frames that decode, in order")


class AudioTrack(Model):
    stream_index: int
    codec: str
    sample_rate: int
    channels: int
    channel_layout: str = ""
    language: str | None = None
    title: str | None = None
    default: bool = False
    start_seconds: float = 0.0


class SubtitleTrack(Model):
    stream_index: int
    codec: str
    language: str | None = None
    title: str | None = None
    bitmap: bool = False
    forced: bool = False
    default: bool = False


class Chapter(Model):
    start_seconds: float
    end_seconds: float
    title: str = ""


class SourceInfo(Model):
    """The probe's answer; every number was checked against the limits by the parent of the jail."""

    container: str
    size_bytes: int
    duration_seconds: float | None
    video: VideoTrack
    audio: tuple[AudioTrack, ...] = ()
    subtitles: tuple[SubtitleTrack, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    tags: dict[str, str] = {}
    indexed: bool = Field(
        default=False, description="mp4/mov: the whole frame list is in the header; no scan of the payload"
    )
    warnings: tuple[str, ...] = ()


class DecodeSpec(Model):
    """What pins the decoder, so that every worker gets the same pixels."""

    stream_index: int
    thread_type: Literal["none", "slice", "frame", "auto"] = "slice"
    thread_count: int = 2
    pixel_format: PixelFormat
    rotation: int = 0
    mirrored: bool = False
    crop: tuple[int, int, int, int] = Field(default=(0, 0, 0, 0), description="as of the VideoTrack; before all else")
    interlaced: Literal["no", "top", "bottom", "flagged"] = Field(
        default="no", description="no: no frame is deinterlaced; else each that is flagged as interlaced itself"
    )
    synthesised: bool = Field(
        default=False,
        description="PTS are told by decoding from the start of the stream, since the source's own are wrong",
    )
    repaired: bool = Field(
        default=False, description="synthesised only: the source's own PTS where they are good, not frame numbers"
    )
    reordered: bool = Field(
        default=False, description="repaired only: the source's own PTS, dealt out anew in their order (`times.Order`)"
    )
    sequential: bool = Field(
        default=False, description="decode from the first frame on and never seek: a damaged film comes out the same"
    )
    frame_ticks: int = Field(default=1, description="synthesised only: duration of one frame in ticks of the time base")
    frame_seconds: Rational | None = Field(
        default=None,
        description="synthesised only: exact duration of a frame, by which frames without a PTS are counted (`times`)",
    )
    first_pts: int = Field(
        default=0, description="synthesised only: PTS of frame 0, if it has none, so that the sound stays in step"
    )


class EncodeSpec(Model):
    """What pins the encoder: equal specs give byte-identical init segments with one build of the encoder."""

    codec: Codec
    pixel_format: PixelFormat
    width: int
    height: int
    time_base: Rational
    rate: Rational
    sample_aspect: Rational = Fraction(1)
    crf: int
    preset: str
    level: str | None = None
    threads: int = 2
    key_seconds: float = Field(default=2.0, description="distance of IDR frames inside a fragment")
    colour: Colour = Colour()
    layout: Layout = Layout.HALF_SBS
    swapped: bool = Field(default=False, description="the right eye comes first, which every signal has to say")
    origin: int = Field(
        default=0,
        description="PTS that is 0 in the fragments, of pictures and sound alike: below 0 for a film that begins there",
    )


class Surroundings(Model):
    """The film around a segment that has a say in its depth, where that goes by film time too (`surroundings`)."""

    first: int = Field(description="PTS of the outermost frame before the segment whose own depth has a say")
    last: int = Field(description="PTS of the outermost such frame behind it")
    before: int = Field(description="frames before the segment that anything has to be known of")
    after: int = Field(description="the same behind it")


class Segment(Model):
    """A half-open range of presentation times; `end` None means to the end of the stream."""

    index: int
    start: int
    end: int | None
    frames: int = Field(description="how many frames the packets promise; the decoder has to agree")
    last: int = Field(description="PTS of the last frame of the segment")
    depth: tuple[int, int | None] | None = Field(
        default=None, description="half-open range of PTS in the film of the given depth, of as many frames"
    )
    duration: int = Field(description="ticks from `start` to the next segment's start, or to the end of the last frame")
    around: Surroundings | None = Field(
        default=None, description="counted from the film's frames; None where no engine asks, and in older plans"
    )


class ClockReset(Model):
    """Where the source's clock was set anew, as the pictures show it: all tracks follow it by this (`resets`)."""

    position: int = Field(description="byte of the source at which the last picture of the clock before it lies")
    shift: int = Field(description="ticks that are added to the source's times from there on")
    start: int = Field(description="PTS of the first picture from there on")
    following: int | None = Field(
        default=None, description="byte at which its first picture lies; None where that is not known"
    )

    def row(self) -> tuple[int, int, int, int | None]:
        """As it travels through the jail (`resets.Reset`)."""
        return self.position, self.shift, self.start, self.following


class PlanPart(Model):
    """The segments from `first` on that one step of the scan found."""

    first: int
    segments: tuple[Segment, ...]
    resets: tuple[ClockReset, ...] = Field(default=(), description="those that begin in it; all before are known then")
    read: int | None = Field(
        default=None, description="byte of the source up to which no other reset comes; None for its end"
    )


class Bars(Model):
    """Letterbox bars in pixels of the displayed picture: they get no depth."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


class StereoSpec(Model):
    """What pins the picture between decoder and encoder."""

    engine: str
    model: str | None = None
    layout: Layout
    divergence: float = Field(description="percent of the picture's width")
    convergence: float = Field(description="0 far to 1 near")
    synthesise: Literal["both", "left", "right"] = "both"
    swap_eyes: bool = False
    bars: Bars = Bars()
    grid_step: int | None = Field(
        default=None, ge=1, description="luma pixels of a cell of the disparity grid; None: by the picture's size"
    )
    export_depth: bool = Field(default=False, description="keep the depth that the warp used beside the film")


class GivenDepth(Model):
    """Depth that the user gave, as a film of its own: frame i of it belongs to frame i of the source."""

    source: SourceInfo
    decode: DecodeSpec


class Plan(Model):
    """The head of a plan: one object a generation, written before its first segment is dispatched."""

    job_id: str
    generation: int
    source_key: str
    source: SourceInfo
    decode: DecodeSpec
    stereo: StereoSpec
    encode: EncodeSpec
    container: Container
    backend: Backend = "local"
    depth: GivenDepth | None = Field(default=None, description="engine `user`: where depth comes from")
    target_seconds: float = Field(description="no segment is longer, but where a picture stands for longer")
    created_at: float = Field(description="seconds since the epoch")


class PlanTotal(Model):
    """The end of a plan: what the whole scan found. It comes last."""

    segments: int
    frames: int
    parts: tuple[int, ...]
    first_pts: int
    end_pts: int = Field(description="first PTS after the last frame's duration")
    pts_sha256: str = Field(description="over the PTS list as little-endian int64")
    warnings: tuple[str, ...] = Field(default=(), description="what the scan has to say to the user")
    resets: tuple[ClockReset, ...] = Field(
        default=(), description="in the order of the file; a plan of an older version tells none"
    )
