"""The plan: what is settled once for a generation. Pure, but for the scans it passes on.

SourceInfo + Options --head--> Plan;    FrameBatch… --Cutter--> Segment… and at the end PlanTotal (`cutter`)
"""

from __future__ import annotations

from fractions import Fraction

from stereospot.errors import error
from stereospot.media import clocks, levels
from stereospot.media.cutter import DEFAULT_SECONDS, FIRST_SECONDS, SLACK, Cutter, sample_segments
from stereospot.media.model import (
    Bars,
    Colour,
    DecodeSpec,
    EncodeSpec,
    PixelFormat,
    Plan,
    SourceInfo,
    StereoSpec,
    VideoTrack,
)
from stereospot.media.scan import FrameBatch, Untrusted, decode_scan, frame_seconds, frame_ticks, scan
from stereospot.options import Codec, Options

__all__ = [
    "DEFAULT_SECONDS",
    "Cutter",
    "FrameBatch",
    "Untrusted",
    "decode_scan",
    "head",
    "sample_segments",
    "scan",
    "synthesised",
]

PTS_SYNTHESISED = "PTS_SYNTHESISED"
PICTURE_REDUCED = "PICTURE_REDUCED"


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
        crop=video.crop,
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
