"""Single pictures of a film, far apart: seek, decode one keyframe, and no other.

A place is shown by the keyframe at or before it. It costs milliseconds a place whatever the film's GOPs are, and needs
no list of its frames.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stereospot.errors import error
from stereospot.jail import Cell, Jail
from stereospot.jail.cell import SourceUnavailable
from stereospot.media import opener, pixels
from stereospot.media.limits import Limits
from stereospot.media.model import DecodeSpec, SourceInfo
from stereospot.media.packets import BROKEN_END, SKIPPED_ERRORS, decode, flushed
from stereospot.media.source import Source

WALL_SECONDS = 60.0
BACK_SECONDS = (0, 1, 4, 12)
PACKETS_TRIED = 3_000
"""Without a keyframe among so many packets a place has no picture."""


def lumas(
    source: Source,
    info: SourceInfo,
    spec: DecodeSpec,
    targets: Sequence[int],
    *,
    limits: Limits,
    stop: threading.Event | None = None,
) -> Iterator[NDArray[Any]]:
    """Luma [h, w], upright, uint8 or uint16, of the keyframe near each target (PTS), each keyframe once.

    Blocking; what is not asked for is not decoded. Raises what the jail and the source raise.
    """
    video = info.video
    shape = pixels.plane_shapes(spec.pixel_format, video.width, video.height)[0]
    dtype: Any = np.uint16 if pixels.bytes_per_sample(spec.pixel_format) == 2 else np.uint8
    request = {
        **limits.request(),
        **spec.model_dump(mode="json"),
        "width": video.width,
        "height": video.height,
    }
    bounds = limits.jail(wall_seconds=WALL_SECONDS)
    with Jail("stereospot.media.keyframes:child", request, sources=[source], limits=bounds, stop=stop) as jail:
        for target in targets:
            jail.send({"target": target})
            message = jail.receive()
            if message is None:
                return
            if not message.blob:
                continue
            if len(message.blob) != shape[0] * shape[1] * np.dtype(dtype).itemsize:
                raise error("DECODER_CRASHED", "The child's picture has another size.")
            yield np.frombuffer(message.blob, dtype).reshape(shape)


# ---- inside the jail ----------------------------------------------------------------------------------------------


def child(cell: Cell, request: dict[str, Any]) -> None:
    """Targets in, a message each out: its blob is the luma, or nothing where there is no picture or no new one."""
    size = pixels.plane_shapes(request["pixel_format"], request["width"], request["height"])[0]
    luma_bytes = size[0] * size[1] * pixels.bytes_per_sample(request["pixel_format"])
    normaliser = pixels.Normaliser(
        request["pixel_format"],
        request["width"],
        request["height"],
        rotation=request["rotation"],
        mirrored=request["mirrored"],
        crop=request["crop"],
    )
    picture = bytearray(pixels.frame_bytes(request["pixel_format"], request["width"], request["height"]))
    with opener.opened(cell.source, request) as container:
        stream = opener.video_stream(container, request["stream_index"])
        opener.prepare(stream, request, "none", 1)
        sent: set[int | None] = set()
        while True:
            frame = keyframe(container, stream, cell.receive().body["target"])
            if frame is None or frame.pts in sent:
                cell.send({})
                continue
            sent.add(frame.pts)
            normaliser.write(frame, memoryview(picture))
            cell.send({}, bytes(picture[:luma_bytes]))


def keyframe(container: InputContainer, stream: VideoStream, target: int) -> VideoFrame | None:
    """The keyframe at or before `target`; the first one behind it where there is none.

    MPEG-TS has no index, so a seek may end behind its target: then it is repeated further back.
    """
    found: VideoFrame | None = None
    second = round(1 / stream.time_base) if stream.time_base else 90_000
    for back in BACK_SECONDS:
        try:
            container.seek(target - back * second, stream=stream, backward=True)
            frame = _next_keyframe(container, stream)
        except BROKEN_END as failure:
            if isinstance(failure, (SourceUnavailable, MemoryError)):
                raise
            frame = None
        if frame is None:
            continue
        found = frame
        if frame.pts is None or frame.pts <= target:
            break
    return found


def _next_keyframe(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    """The next picture that decodes from one packet alone."""
    for tried, packet in enumerate(container.demux(stream)):
        if packet.size and not packet.is_keyframe and tried < PACKETS_TRIED:
            continue
        # The decoder is emptied at once: a lone keyframe would wait in it for pictures to be put in order with.
        frames: list[VideoFrame] = []
        if packet.size:
            with contextlib.suppress(*SKIPPED_ERRORS):
                frames += decode(packet)
            frames += flushed(stream.codec_context)
        return frames[0] if frames else None
    return None
