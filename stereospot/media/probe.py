"""The probe: untrusted bytes in, a checked SourceInfo or the right error code out, within 30 s beside the reads.

The child opens the file, chooses the picture, decodes its first frames and reports plain values; the parent builds the
model from them, which checks every type, and holds every number against the limits again.
"""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from stereospot.errors import error
from stereospot.jail import Jail
from stereospot.media.limits import PROBE_SECONDS, Limits
from stereospot.media.model import SourceInfo
from stereospot.media.source import Source


def probe(source: Source, *, limits: Limits | None = None, stop: threading.Event | None = None) -> SourceInfo:
    """What is in `source`; blocking.

    Raises EMPTY_INPUT, UNSUPPORTED_CONTAINER, UNSUPPORTED_CODEC, NO_VIDEO_STREAM, NO_FRAMES, ENCRYPTED_INPUT,
    DOLBY_VISION_ONLY, CORRUPT_INPUT, TRUNCATED_INPUT, DIMENSIONS_EXCEEDED, TOO_LONG, TOO_MANY_STREAMS, PROBE_TIMEOUT,
    DECODER_CRASHED, OUT_OF_MEMORY, CANCELLED, and what the source raises.
    """
    limits = limits or Limits()
    if source.size == 0:
        raise error("EMPTY_INPUT")
    jail_limits = limits.jail(stall_code="PROBE_TIMEOUT", wall_seconds=PROBE_SECONDS)
    request = limits.request() | {"max_seconds": limits.max_duration_seconds}
    with Jail("stereospot.media.inspect:child", request, sources=[source], limits=jail_limits, stop=stop) as jail:
        body = next((message.body for message in jail.messages()), None)
    return _checked(body, source.size, limits)


def _checked(body: dict[str, Any] | None, size: int, limits: Limits) -> SourceInfo:
    try:
        info = SourceInfo.model_validate(body)
    except ValidationError as failure:
        raise error("CORRUPT_INPUT", "The probe's answer makes no sense.", answer=str(failure)[:500]) from failure
    video = info.video
    sides = (video.width, video.height, video.coded_width, video.coded_height)
    if min(sides) < 1 or video.coded_width * video.coded_height > limits.max_pixels:
        raise error("DIMENSIONS_EXCEEDED", f"It is {video.coded_width}x{video.coded_height}.")
    turned = video.rotation in (90, 270)
    left, top, right, bottom = video.crop
    shown = video.coded_width - left - right, video.coded_height - top - bottom
    sensible = (
        video.rotation in (0, 90, 180, 270)
        and (shown[::-1] if turned else shown) == (video.width, video.height)
        and min(video.crop) >= 0
        and left % 2 == top % 2 == 0
        and 0 < video.time_base <= 60
        and 0 < video.average_rate <= 10_000
        and Fraction(1, 100) <= video.sample_aspect <= 100
        and info.size_bytes == size
        and (info.duration_seconds is None or (math.isfinite(info.duration_seconds) and info.duration_seconds >= 0))
    )
    if not sensible:
        raise error("CORRUPT_INPUT", "The probe's numbers make no sense.")
    if info.duration_seconds is not None and info.duration_seconds > limits.max_duration_seconds:
        raise error("TOO_LONG", f"It lasts {info.duration_seconds:.0f} s.")
    return info
