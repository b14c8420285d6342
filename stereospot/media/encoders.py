"""Encoder settings: one pure function from an `EncodeSpec` to what libavcodec is told.

Everything that could differ between two workers is said aloud: threads, level, GOP; lookahead and the like come
with the preset and the library's version. `bf=0`, so decode order is presentation order; IDR where `cmaf` asks.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error

from stereospot import errors
from stereospot.media import levels, signalling
from stereospot.media.model import Colour, EncodeSpec
from stereospot.options import Codec

_PRESETS_AV1 = {
    "ultrafast": 9, "superfast": 9, "veryfast": 9, "faster": 8, "fast": 7,
    "medium": 6, "slow": 5, "slower": 4, "veryslow": 3, "placebo": 2,
}  # fmt: skip
"""x264's names on SVT-AV1's scale; a plain number is taken as it is.

SVT-AV1 4.1 itself warns of artefacts from preset 10 on, and its lossless mode is not lossless there (measured:
pictures differ from the second frame on; at 12 one stream did not decode at all). So no name leads there, and lossless
stops at 9.
"""

_PRESETS_NVENC = {
    "ultrafast": "p1", "superfast": "p1", "veryfast": "p2", "faster": "p3", "fast": "p4",
    "medium": "p4", "slow": "p5", "slower": "p6", "veryslow": "p7", "placebo": "p7",
}  # fmt: skip

_NAMES = tuple(_PRESETS_NVENC)
"""x264's and x265's own names."""

HARDWARE = frozenset({Codec.NVENC_H264, Codec.NVENC_HEVC})
"""Encoders that a build lists although the machine may lack what they need."""

PIXEL_FORMATS: dict[Codec, frozenset[str]] = {
    Codec.X264: frozenset(
        ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"),
    ),
    Codec.X265: frozenset(
        ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"),
    ),
    Codec.SVTAV1: frozenset(("yuv420p", "yuv420p10le")),
    Codec.NVENC_H264: frozenset(("yuv420p",)),
    Codec.NVENC_HEVC: frozenset(("yuv420p",)),
}
"""What each encoder takes without converting; the planner chooses among these."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to open: the encoder's name in libavcodec, its private options, and the sample entry to ask for."""

    name: str
    options: dict[str, str]
    tag: str | None = None


def settings(spec: EncodeSpec) -> Settings:
    """Raises Permanent("INVALID_OPTIONS") for a pixel format or preset that the codec has not."""
    if spec.pixel_format not in PIXEL_FORMATS[spec.codec]:
        raise errors.error("INVALID_OPTIONS", f"{spec.codec} does not encode {spec.pixel_format}.")
    _check_preset(spec)
    match spec.codec:
        case Codec.X264:
            return _x264(spec)
        case Codec.X265:
            return _x265(spec)
        case Codec.SVTAV1:
            return _svtav1(spec)
        case Codec.NVENC_H264 | Codec.NVENC_HEVC:
            return _nvenc(spec)


def check(spec: EncodeSpec, *, here: bool) -> None:
    """Refuse what cannot work before anything is converted; `here`: this machine is the one that encodes.

    Raises INVALID_OPTIONS for a pixel format or preset that the codec has not, ENCODER_UNAVAILABLE for a hardware
    encoder that does not encode. Blocking: an encoder is tried.
    """
    settings(spec)
    if here and spec.codec in HARDWARE and not usable(spec.codec):
        raise unavailable(spec.codec)


def unavailable(codec: Codec) -> errors.StereoSpotError:
    return errors.error("ENCODER_UNAVAILABLE", f"A trial of {codec} gave no picture.")


def _check_preset(spec: EncodeSpec) -> None:
    """A preset that the library does not know is told here, in words, and not by libavcodec in the first segment."""
    known = (*_NAMES, *(f"p{number}" for number in range(1, 8))) if spec.codec in HARDWARE else _NAMES
    if spec.codec is not Codec.SVTAV1 and spec.preset not in known:
        raise errors.error("INVALID_OPTIONS", f"{spec.codec} has no preset {spec.preset!r}; use {', '.join(known)}.")


def _x264(spec: EncodeSpec) -> Settings:
    params = ["keyint=infinite", "scenecut=0", "open-gop=0", "bframes=0", f"threads={spec.threads}"]
    params.append(f"level={spec.level or levels.h264_level(spec.width, spec.height, spec.rate)}")
    packing = signalling.packing(spec.layout, swapped=spec.swapped)
    if packing is not None and packing.sei is not None:
        params.append(f"frame-packing={packing.sei}")
    if spec.colour.content_light and "10" in spec.pixel_format:
        params.append("cll={},{}".format(*spec.colour.content_light))
    if spec.colour.mastering and "10" in spec.pixel_format:
        params.append(f"mastering-display={spec.colour.mastering}")
    # qp=0 is lossless at every bit depth; crf=0 only with 8 bits.
    quality = {"qp": "0"} if spec.crf == 0 else {"crf": str(spec.crf)}
    options = {"preset": spec.preset, "forced-idr": "1", "x264-params": ":".join(params), **quality}
    return Settings("libx264", options)


def _x265(spec: EncodeSpec) -> Settings:
    level = spec.level or levels.hevc_level(spec.width, spec.height, spec.rate)
    params = [
        "keyint=-1", "scenecut=0", "open-gop=0", "bframes=0", "info=0", "log-level=error", "repeat-headers=0",
        "frame-threads=1", f"pools={spec.threads}", "high-tier=0",
    ]  # fmt: skip
    # x265 refuses a level for lossless, since nothing bounds its bit rate; it then declares one by itself.
    params.append("lossless=1" if spec.crf == 0 else f"level-idc={level}")
    if spec.colour.is_hdr:
        params.append("hdr10=1")
    if spec.colour.mastering:
        params.append(f"master-display={spec.colour.mastering}")
    if spec.colour.content_light:
        params.append("max-cll={},{}".format(*spec.colour.content_light))
    options = {"preset": spec.preset, "forced-idr": "1", "x265-params": ":".join(params)}
    if spec.crf:
        options["crf"] = str(spec.crf)
    return Settings("libx265", options, tag="hvc1")


def _svtav1(spec: EncodeSpec) -> Settings:
    preset = _PRESETS_AV1.get(spec.preset)
    if preset is None:
        if not spec.preset.isdigit() or int(spec.preset) > 13:
            raise errors.error("INVALID_OPTIONS", f"SVT-AV1 has no preset {spec.preset!r}; use a name of x264 or 0-13.")
        preset = int(spec.preset)
    if spec.crf == 0:
        preset = min(preset, 9)
    params = ["keyint=-1", "scd=0", f"lp={spec.threads}"]
    if spec.crf == 0:
        params.append("lossless=1")
    display = _mastering_av1(spec.colour)
    if display:
        params.append(f"mastering-display={display}")
    if spec.colour.content_light:
        params.append("content-light={},{}".format(*spec.colour.content_light))
    options = {"preset": str(preset), "svtav1-params": ":".join(params)}
    # Our scale is x264's 0-51; SVT-AV1's runs to 63 and looks alike at about 12 more.
    options["crf"] = str(min(63, spec.crf + 12)) if spec.crf else "1"
    return Settings("libsvtav1", options)


def _mastering_av1(colour: Colour) -> str | None:
    """The same numbers in the units of SVT-AV1's option: chromaticities as fractions, luminance in cd/m2."""
    values = signalling.mastering(colour)
    if values is None:
        return None
    scaled = [f"{value / 50000:.5f}" for value in values[:8]] + [f"{value / 10000:.4f}" for value in values[8:]]
    return "G({},{})B({},{})R({},{})WP({},{})L({},{})".format(*scaled)


def _nvenc(spec: EncodeSpec) -> Settings:
    h264 = spec.codec is Codec.NVENC_H264
    preset = _PRESETS_NVENC.get(spec.preset, spec.preset)
    options = {"preset": preset, "forced-idr": "1", "bf": "0", "no-scenecut": "1", "strict_gop": "1", "g": "100000"}
    if spec.crf == 0:
        options |= {"tune": "lossless"}
    else:
        options |= {"rc": "vbr", "cq": str(spec.crf), "b": "0"}
    find = levels.h264_level if h264 else levels.hevc_level
    options["level"] = spec.level or find(spec.width, spec.height, spec.rate)
    return Settings("h264_nvenc" if h264 else "hevc_nvenc", options, tag=None if h264 else "hvc1")


@functools.cache
def usable(codec: Codec) -> bool:
    """Whether the encoder really encodes here: hardware encoders are listed on machines that have none."""
    spec = EncodeSpec(
        codec=codec, pixel_format="yuv420p", width=320, height=192, time_base=Fraction(1, 24), rate=Fraction(24),
        crf=20, preset="veryfast", threads=1,
    )  # fmt: skip
    frame = av.VideoFrame(spec.width, spec.height, spec.pixel_format)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    try:
        context = context_for(spec)
        packets = 0
        for pts in range(3):
            frame.pts = pts
            packets += len(context.encode(frame))
        return packets + len(context.encode(None)) == 3
    except (av.error.FFmpegError, ValueError, errors.StereoSpotError):
        return False


def context_for(spec: EncodeSpec) -> av.VideoCodecContext:
    """A fresh encoder, not open yet, that was told everything of `spec` and of nothing else."""
    chosen = settings(spec)
    context = av.CodecContext.create(chosen.name, "w")
    assert isinstance(context, av.VideoCodecContext)
    configure(context, spec, chosen)
    return context


def configure(context: av.VideoCodecContext, spec: EncodeSpec, chosen: Settings) -> None:
    """Tell an encoder that is not open yet everything of `spec`."""
    if spec.codec is Codec.SVTAV1:
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its banner to stderr for every instance otherwise
    context.width, context.height = spec.width, spec.height
    context.pix_fmt = spec.pixel_format
    context.time_base = spec.time_base
    # SVT-AV1 takes no more; it is for its rate control alone, and times come from the time base.
    context.framerate = min(spec.rate, Fraction(240)) if spec.codec is Codec.SVTAV1 else spec.rate
    context.sample_aspect_ratio = spec.sample_aspect
    context.max_b_frames = 0
    context.thread_count = spec.threads
    context.color_primaries = spec.colour.primaries
    context.color_trc = spec.colour.transfer
    context.colorspace = spec.colour.matrix
    context.color_range = 2 if spec.colour.full_range else 1
    context.flags |= 0x400000  # AV_CODEC_FLAG_GLOBAL_HEADER: parameter sets in the header, for the init segment
    if chosen.tag is not None:
        context.codec_tag = chosen.tag
    context.options = dict(chosen.options)
