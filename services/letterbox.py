"""Black bars of a film, from a few of its keyframes: looked at while the plan is made, since the plan fixes them.

Only keyframes are decoded, one each, so it costs milliseconds whatever the film's GOPs are; and only those of a fixed
number of first frames, so the answer does not depend on how fast a scan was. A film without bars is known by its first
two pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import bars
from stereospot import errors, log
from stereospot.media.frames import Decoder
from stereospot.media.limits import Limits
from stereospot.media.model import Bars, DecodeSpec, SourceInfo
from stereospot.media.scan import FrameBatch
from stereospot.media.source import Source

_log = log.get("planner")

PLACES = (0.5, 0.2, 0.8, 0.35, 0.65, 0.9)
"""Where to look, as parts of the frames looked at, in this order."""

LOOK_INDEXED, LOOK_STREAMED = 20_000, 1_500
"""Frames looked at: an index is read at once, a stream has to be read up to there before anything is converted."""

SLOTS = 4


def look_frames(info: SourceInfo) -> int:
    """How many first frames the places are spread over."""
    return LOOK_INDEXED if info.indexed else LOOK_STREAMED


def places(batches: Sequence[FrameBatch], look: int) -> list[int]:
    """PTS of the keyframes to look at, in order of interest; fewer, or none, where there are few keyframes."""
    keyed = [(pts, key) for batch in batches for pts, key in zip(batch.pts, batch.keys, strict=True)][:look]
    keyframes = [(number, pts) for number, (pts, key) in enumerate(keyed) if key]
    chosen: list[int] = []
    for part in PLACES if keyframes else ():
        _, pts = min(keyframes, key=lambda item: abs(item[0] - part * len(keyed)))
        if pts not in chosen:
            chosen.append(pts)
    return chosen


def find(
    source: Source,
    info: SourceInfo,
    spec: DecodeSpec,
    wanted: Sequence[int],
    *,
    limits: Limits,
    stop: threading.Event | None = None,
) -> Bars:
    """The bars, none when in doubt or when the places do not decode; blocking. Raises CANCELLED."""
    colour = info.video.colour
    lumas: list[NDArray[Any]] = []
    try:
        with Decoder(source, spec, info, limits=limits, slots=SLOTS, stop=stop) as decoder:
            for pts in wanted:
                for frame in decoder.frames(pts, pts + 1):
                    luma = frame.planes[0].copy()
                    frame.release()
                    if _is_telling(luma):
                        lumas.append(luma)
                # Each picture can only take bars away: none by now is none for good.
                if len(lumas) >= bars.FEWEST and bars.find(lumas, spec.pixel_format, colour) == Bars():
                    return Bars()
    except errors.Permanent as error:
        if error.code == "CANCELLED":
            raise
        _log.info("no look at bars", action="refuse", code=error.code, detail=error.detail)
        return Bars()
    return bars.find(lumas, spec.pixel_format, colour)


def _is_telling(luma: NDArray[Any]) -> bool:
    """Whether a picture is more than black: a twentieth of it is brighter than a quarter of the scale."""
    quarter = 256 if luma.dtype == np.uint16 else 64
    return float((luma[::4, ::4] > quarter).mean()) > 0.05
