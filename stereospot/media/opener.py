"""The one place that opens untrusted bytes: always inside the jail, always with every allow-list and limit set.

What each option is for was measured (notes on FFmpeg's readers): only `format_whitelist` stops a playlist or a concat
script under a film's name from reading other files or the network; `codec_whitelist` has an effect only on a codec
context before it opens; `max_pixels` stops a 4 MB file from taking 450 MB.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from stereospot.errors import error
from stereospot.jail import SourceFile

FORMATS = (
    # films
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "nut",
    # elementary streams
    "h264", "hevc", "ivf", "obu", "mpegvideo", "m4v", "dv",
    # sound alone: opened only to be refused with NO_VIDEO_STREAM
    "mp3", "wav", "flac", "aac", "aiff",
)  # fmt: skip

VIDEO_DECODERS = (
    "h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "libvpx", "libvpx-vp9",
    "mpeg1video", "mpeg2video", "mpegvideo", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "msmpeg4v3",
    "h263", "h263i", "h263p", "flv", "flv1", "wmv1", "wmv2", "wmv3", "vc1", "theora",
    "prores", "dnxhd", "dvvideo", "mjpeg", "ffv1", "huffyuv", "ffvhuff", "rawvideo", "png", "qtrle", "cinepak", "svq1",
    "svq3", "cfhd", "v210", "apv",
)  # fmt: skip
"""Decoders that may run on pictures: what cameras, phones, discs, editors and the web write, and nothing exotic."""

AUDIO_DECODERS = (
    "aac", "aac_latm", "ac3", "ac3_fixed", "eac3", "mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float", "opus",
    "libopus", "vorbis", "flac", "alac", "dca", "truehd", "mlp", "wmav1", "wmav2", "wmapro", "amrnb", "amrwb",
    "nellymoser", "speex", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_u8",
    "pcm_s8", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_mulaw", "pcm_alaw", "pcm_bluray", "pcm_dvd",
    "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "mace6", "mace3", "qdm2", "gsm_ms", "gsm",
)  # fmt: skip

SUBTITLE_DECODERS = (
    "mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text", "dvdsub", "dvd_subtitle", "pgssub",
    "hdmv_pgs_subtitle", "dvbsub", "dvb_subtitle",
)  # fmt: skip

CODEC_WHITELIST = ",".join(VIDEO_DECODERS + AUDIO_DECODERS + SUBTITLE_DECODERS)

MAX_STREAMS = 1_000
"""Where FFmpeg itself stops, with "out of memory"; our own limit is checked after the open, with its own code."""
PROBE_BYTES = 10_000_000
ANALYSE_MICROSECONDS = 10_000_000
BUFFER_BYTES = 256 * 1024


def options(request: dict[str, Any]) -> dict[str, str]:
    """The options of every open; `request` holds max_pixels and max_streams."""
    return {
        "format_whitelist": ",".join(FORMATS),
        "codec_whitelist": CODEC_WHITELIST,
        "protocol_whitelist": "none",
        "max_streams": str(max(MAX_STREAMS, request["max_streams"])),
        "max_pixels": str(request["max_pixels"]),
        "probesize": str(PROBE_BYTES),
        "analyzeduration": str(ANALYSE_MICROSECONDS),
        "enable_drefs": "0",
        "scan_all_pmts": "1",
    }


@contextmanager
def opened(source: SourceFile, request: dict[str, Any]) -> Generator[InputContainer]:
    """The container behind `source`; raises av.FFmpegError for what is none."""
    source.seek(0)
    container = av.open(
        source,
        "r",
        options=options(request),
        metadata_errors="replace",
        buffer_size=BUFFER_BYTES,
    )
    try:
        yield container
    finally:
        container.close()


def video_stream(container: InputContainer, index: int) -> VideoStream:
    """Stream `index`, which has to be a video stream; everything else in the container is skipped unread."""
    for stream in container.streams:
        if stream.index != index:
            stream.discard = Discard.all
    stream = container.streams[index]
    if not isinstance(stream, VideoStream):
        raise error("CORRUPT_INPUT", f"Stream {index} is no video.")
    return stream


def prepare(stream: VideoStream, request: dict[str, Any], thread_type: str, thread_count: int) -> None:
    """Put the limits on the decoder before it opens, and pin its threads; raises UNSUPPORTED_CODEC."""
    context: Any = stream.codec_context
    if context is None or context.codec.name not in VIDEO_DECODERS:
        raise error("UNSUPPORTED_CODEC", f"It is {context.name if context is not None else 'unknown'}.")
    context.options = {"codec_whitelist": CODEC_WHITELIST, "max_pixels": str(request["max_pixels"])}
    context.thread_type = {"none": "NONE", "slice": "SLICE", "frame": "FRAME", "auto": "AUTO"}[thread_type]
    context.thread_count = 1 if thread_type == "none" else thread_count
