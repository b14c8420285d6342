"""Inside the jail: look at a file and say what is in it, in the plain values of `model.SourceInfo`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, cast

import av.error
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from stereospot.errors import StereoSpotError, error
from stereospot.jail import Cell
from stereospot.jail.cell import SourceUnavailable
from stereospot.media import cropping, dolby, opener, pace, pixels, skeleton, sniff
from stereospot.media.clocks import RUNNING_CLOCKS
from stereospot.media.packets import BROKEN_END

FIRST_FRAMES = 8
"""How many decoded frames vote on interlacing."""
FIRST_SECONDS = 5.0
"""A busy machine must not make a good film fail the probe's time limit: fewer frames vote then."""
PACKETS_TRIED = 2_000
"""Packets without one decoded frame after which there is none."""
FASTEST = 480
"""Frames a second; an average above it is looked at twice."""
TEXT = 1_000
BITMAP_SUBTITLES = ("dvd_subtitle", "dvdsub", "hdmv_pgs_subtitle", "pgssub", "dvb_subtitle", "dvbsub", "xsub")
INDEXED = "mov,mp4"


def child(cell: Cell, request: dict[str, Any]) -> None:
    """The probe's task: one message, the body of a SourceInfo."""
    source = cell.source
    kind = sniff.family(source.read_exactly_at)
    encrypted = sniff.is_encrypted(source.read_exactly_at, source.size, kind)
    try:
        with opener.opened(source, request) as container:
            # Fonts of subtitles, of which a film may have hundreds, are no tracks that are read.
            count = sum(stream.type != "attachment" for stream in container.streams)
            if count > request["max_streams"]:
                raise error("TOO_MANY_STREAMS", f"It has {count} or more.")
            if dolby.has_no_base_layer(source.read_exactly_at, source.size, kind):
                raise error("DOLBY_VISION_ONLY")
            body = _describe(container, source.size, request, encrypted, cell)
            if not cropping.apply(body["video"], source.read_exactly_at, source.size, kind):
                body["warnings"].append("the file asks players to crop edges that its pictures have not; they are kept")
    except av.error.FFmpegError as failure:
        if isinstance(failure, (SourceUnavailable, MemoryError)):
            raise
        if encrypted:
            raise error("ENCRYPTED_INPUT") from failure
        refused = sniff.refusal(source.read_exactly_at, source.size, kind)
        refused.details["ffmpeg"] = f"{type(failure).__name__}: {failure}"[:300]
        raise refused from failure
    cell.send(body)


def _describe(
    container: InputContainer, size: int, request: dict[str, Any], encrypted: bool, cell: Cell
) -> dict[str, Any]:
    warnings: list[str] = []
    if encrypted:
        raise error("ENCRYPTED_INPUT")
    stream = choose(container)
    if stream is None:
        raise error("NO_VIDEO_STREAM")
    tracks = {
        "audio": [_audio(track) for track in _decodable(container.streams.audio, "sound", warnings)],
        "subtitles": [_subtitle(track) for track in _decodable(container.streams.subtitles, "subtitles", warnings)],
        "chapters": _chapters(container),
        "tags": _tags(container.metadata),
    }
    duration = _duration(container, stream)
    context: Any = stream.codec_context
    if context is None:
        raise error("UNSUPPORTED_CODEC", "Its codec has no decoder.")
    if context.width * context.height > request["max_pixels"]:
        raise error("DIMENSIONS_EXCEEDED", f"It is {context.width}x{context.height}.")
    declared = int(stream.frames)
    opener.prepare(stream, request, "none", 1)
    frames = first_frames(container, stream, cell)
    video = _video(stream, frames, warnings)
    if any(_side_data(frame, SideDataType.A53_CC) is not None for frame in frames):
        warnings.append("closed captions inside the pictures were left out: no film keeps them")
    video["frames_declared"] = declared or None
    video["first_pts"] = next((frame.pts for frame in frames if frame.pts is not None), stream.start_time or 0)
    video["first_frames"] = [frame.pts for frame in frames if frame.pts is not None][:FIRST_FRAMES]
    if duration is not None and duration > request["max_seconds"] and container.format.name in RUNNING_CLOCKS:
        paced = pace.seconds(container, stream, size)
        duration = paced if paced is not None and paced < duration / 2 else duration
    return {
        "container": container.format.name[:TEXT],
        "size_bytes": size,
        "duration_seconds": duration,
        "video": video,
        **tracks,
        "indexed": container.format.name.startswith(INDEXED),
        "warnings": warnings,
    }


def choose(container: InputContainer) -> VideoStream | None:
    """The picture to convert: never cover art; the default one first, then the largest, then the first."""
    cover = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        context: Any = stream.codec_context
        area = context.width * context.height if context is not None else 0
        allowed = context is not None and context.codec.name in opener.VIDEO_DECODERS
        return (allowed, bool(stream.disposition & Disposition.default), area, -stream.index)

    candidates = [stream for stream in container.streams.video if not stream.disposition & cover]
    return max(candidates, key=rank, default=None)


def first_frames(container: InputContainer, stream: VideoStream, cell: Cell) -> list[VideoFrame]:
    """The first frames that decode, at least one; raises NO_FRAMES, TRUNCATED_INPUT, CORRUPT_INPUT."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    frames: list[VideoFrame] = []
    packets = 0
    failures = 0
    begun = time.monotonic()
    try:
        for packet in container.demux(stream):
            packets += bool(packet.size)
            try:
                frames += packet.decode()
            except av.error.EOFError:
                break
            except (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError):
                failures += 1
            late = bool(frames) and time.monotonic() - begun > FIRST_SECONDS
            if len(frames) >= FIRST_FRAMES or late or (packets >= PACKETS_TRIED and not frames):
                break
    except BROKEN_END:  # the demuxer itself gives up; what came before counts
        failures += 1
    if frames:
        return frames
    raise no_frames(cell, packets, failures)


def no_frames(cell: Cell, packets: int, failures: int) -> StereoSpotError:
    """Why a track gave not one frame."""
    source = cell.source
    kind = sniff.family(source.read_exactly_at)
    if kind == "mov" and sniff.payload_is_cut(source.read_exactly_at, source.size):
        return error("TRUNCATED_INPUT", "None of its pictures are in the file.")
    if packets == 0:
        return error("NO_FRAMES")
    return error("NO_FRAMES", f"None of {packets} packets decodes.", packets=packets, failures=failures)


def _video(stream: VideoStream, frames: list[VideoFrame], warnings: list[str]) -> dict[str, Any]:
    context = stream.codec_context
    frame = frames[0]
    width, height = frame.width, frame.height
    rotation, mirrored = orientation(frame, warnings)
    turned = rotation in (90, 270)
    source_format = frame.format.name
    aspect = _fraction(stream.sample_aspect_ratio) or _fraction(context.sample_aspect_ratio) or Fraction(1)
    if not Fraction(1, 20) <= aspect <= 20:
        warnings.append(f"the sample aspect ratio {aspect} was ignored")
        aspect = Fraction(1)
    if turned:
        aspect = 1 / aspect
    rate, rate_known = _rate(stream)
    if not rate_known:
        warnings.append("the file states no frame rate; 25 fps are assumed where a rate is needed")
    time_base = stream.time_base or Fraction(1, 90_000)
    return {
        "stream_index": stream.index,
        "codec": codec_name(context),
        "profile": str(context.profile)[:TEXT] if context.profile else None,
        "width": height if turned else width,
        "height": width if turned else height,
        "coded_width": width,
        "coded_height": height,
        "pixel_format": pixels.normal_form(source_format, turned=turned),
        "source_pixel_format": source_format,
        "time_base": str(Fraction(time_base)),
        "average_rate": str(rate),
        "sample_aspect": str(aspect),
        "rotation": rotation,
        "mirrored": mirrored,
        "interlaced": interlacing(int(context.field_order), frames, height),
        "colour": _colour(frame),
        "language": _language(stream),
    }


def orientation(frame: VideoFrame, warnings: list[str]) -> tuple[int, bool]:
    """(degrees clockwise, mirrored first) from the display matrix: x' = a x + c y, y' = b x + d y, y downwards."""
    data = _side_data(frame, SideDataType.DISPLAYMATRIX)
    if data is None:  # PyAV reads the turn alone, to the left, by itself
        return -frame.rotation % 360 // 90 * 90, False
    matrix = np.frombuffer(data, np.int32).astype(float)
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if not (a or b or c or d):
        return 0, False
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    degrees = math.degrees(math.atan2(b, a)) % 360
    quarter = round(degrees / 90) % 4 * 90
    if min(abs(degrees - quarter), 360 - abs(degrees - quarter)) > 5:
        warnings.append(f"a rotation by {degrees:.0f} degrees was ignored")
        return 0, bool(mirrored)
    return quarter, bool(mirrored)


def interlacing(field_order: int, frames: list[VideoFrame], height: int) -> str:
    """`no`, or which field is shown first: by the stream's order (AVFieldOrder) and the first frames' flags.

    It says what the film begins as. Decoders go by the flag of each frame, wherever in the film it comes.
    """
    order = {2: "top", 5: "top", 3: "bottom", 4: "bottom"}.get(field_order)
    if order is None and any(frame.interlaced_frame for frame in frames):
        order = "bottom" if height == 480 else "top"
    return order or "no"


def _colour(frame: VideoFrame) -> dict[str, Any]:
    rgb = pixels.is_rgb(frame.format.name)
    return {
        "primaries": _tag(frame.color_primaries),
        "transfer": _tag(frame.color_trc),
        "matrix": 1 if rgb else _tag(frame.colorspace),
        "full_range": pixels.is_full_range(frame.format.name, frame.color_range),
        "mastering": _mastering(frame),
        "content_light": _content_light(frame),
    }


def _tag(value: int) -> int:
    return value if 0 < value < 256 else 2


def _mastering(frame: VideoFrame) -> str | None:
    """AVMasteringDisplayMetadata: ten rationals (R, G, B, white as x and y; luminance min, max), two flags."""
    data = _side_data(frame, SideDataType.MASTERING_DISPLAY_METADATA)
    if data is None or data.buffer_size < 88:
        return None
    values = np.frombuffer(data, np.int32, 22).tolist()
    if not (values[20] and values[21]) or not all(values[1:20:2]):
        return None
    number = [values[at] / values[at + 1] for at in range(0, 20, 2)]
    (rx, ry, gx, gy, bx, by, wx, wy) = (round(value * 50_000) for value in number[:8])
    low, high = round(number[8] * 10_000), round(number[9] * 10_000)
    return f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"


def _content_light(frame: VideoFrame) -> list[int] | None:
    data = _side_data(frame, SideDataType.CONTENT_LIGHT_LEVEL)
    if data is None or data.buffer_size < 8:
        return None
    return np.frombuffer(data, np.uint32, 2).tolist()


def _side_data(frame: VideoFrame, kind: SideDataType) -> Any:
    """The frame's side data of a kind; None too where PyAV does not know another kind that the frame carries."""
    try:
        return cast(Any, frame.side_data).get(kind)
    except ValueError:
        return None


def _rate(stream: VideoStream) -> tuple[Fraction, bool]:
    """The frame rate, and whether the file states one.

    An average of a frame a tick of a fine clock comes of a time stamp that repeats: the guess is better then.
    """
    average, guessed = _fraction(stream.average_rate), _fraction(stream.guessed_rate)
    if (
        average
        and guessed
        and guessed < average
        and average > FASTEST
        and average * Fraction(stream.time_base or 1) >= 1
    ):
        average = guessed
    for rate in (average, guessed, _fraction(stream.base_rate)):
        if rate is not None and Fraction(1, 1000) <= rate <= 1000:
            return rate, True
    return Fraction(25), False


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    if container.duration and container.duration > 0:
        return container.duration / 1_000_000
    return None


def codec_name(context: Any) -> str:
    """The codec's own name (`av1`), not that of the library that decodes it (`libdav1d`)."""
    return str(getattr(context.codec, "canonical_name", None) or context.name)[:TEXT]


def _decodable(tracks: Iterable[Any], kind: str, warnings: list[str]) -> list[Any]:
    """The tracks that something here can read; a track that gives nothing would hold up all others."""
    found: list[Any] = []
    for track in tracks:
        if track.codec_context is not None:
            found.append(track)
            continue
        language = f" ({_language(track)})" if _language(track) else ""
        warnings.append(f"track {track.index}, {kind}{language}, was left out: nothing here decodes its codec")
    return found


def _audio(track: Any) -> dict[str, Any]:
    context = track.codec_context
    start = float(track.start_time * track.time_base) if track.start_time is not None and track.time_base else 0.0
    return {
        "stream_index": track.index,
        "codec": codec_name(context),
        "sample_rate": int(context.sample_rate or 0),
        "channels": int(context.channels or 0),
        "channel_layout": str(context.layout.name)[:TEXT] if context.layout else "",
        "language": _language(track),
        "title": _title(track),
        "default": bool(track.disposition & Disposition.default),
        "start_seconds": start,
    }


def _subtitle(track: Any) -> dict[str, Any]:
    name = codec_name(track.codec_context)
    return {
        "stream_index": track.index,
        "codec": name,
        "language": _language(track),
        "title": _title(track),
        "bitmap": name in BITMAP_SUBTITLES,
        "forced": bool(track.disposition & Disposition.forced),
        "default": bool(track.disposition & Disposition.default),
    }


def _chapters(container: InputContainer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for chapter in container.chapters()[:1000]:
        base = chapter["time_base"] or Fraction(1, 1000)
        start, end = float(chapter["start"] * base), float(chapter["end"] * base)
        if 0 <= start <= end < 1e7:
            title = _clean(chapter["metadata"].get("title")) or ""
            found.append({"start_seconds": start, "end_seconds": end, "title": title})
    return found


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {(_clean(key) or "?"): (_clean(value) or "") for key, value in list(metadata.items())[:100]}


def _title(track: Any) -> str | None:
    return _clean(skeleton.track_tags(track.metadata).get("title"))


def _language(track: Any) -> str | None:
    language = _clean(track.metadata.get("language"))
    return language[:35] if language and language != "und" else None


def _clean(text: str | None) -> str | None:
    """Text of a stranger: bounded, without control characters."""
    if text is None:
        return None
    return "".join(letter if letter.isprintable() else " " for letter in text[:TEXT]).strip()


def _fraction(value: Any) -> Fraction | None:
    return Fraction(value) if value else None
