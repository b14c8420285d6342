"""Black bars of a film, from some of its keyframes: looked at while the plan is made, since the plan fixes them.

Only keyframes are decoded, one each, at fixed parts of the film's duration: that costs milliseconds whatever the film's
GOPs are, needs nothing of the scan, and gives one answer for one file. A film without bars is known by its first two
pictures. Where there are bars, more places are asked: a film may have scenes without them (open matte, IMAX), which a
bar would tear. A place each thirtieth of the film finds such scenes if one of them lasts that long.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import bars
from stereospot import errors, log
from stereospot.media import keyframes
from stereospot.media.limits import Limits
from stereospot.media.model import Bars, DecodeSpec, SourceInfo
from stereospot.media.source import Source

_log = log.get("letterbox")

PLACES = (Fraction(1, 2), Fraction(1, 5), Fraction(4, 5), Fraction(7, 20), Fraction(13, 20), Fraction(9, 10))
"""Where to look first, as parts of the duration, in this order."""

FURTHER = tuple(Fraction(3 + 2 * (7 * number % 26), 60) for number in range(26))
"""Where to look for a scene without bars: evenly from 1/20 to 53/60, near and far in turn. Before and behind that,
logos and credits may fill a picture that is letterboxed otherwise."""

FURTHER_SECONDS = 4.0
"""One of these places for each so many seconds of film: a clip need not be looked at picture by picture."""

FLAT = frozenset({"flat", "identity"})
"""Engines whose depth does not depend on the picture: bars make no difference to them."""

ASSUMED_SECONDS = 60.0
"""Looked over where a file does not say how long it is."""


def find(
    source: Source,
    info: SourceInfo,
    spec: DecodeSpec,
    *,
    limits: Limits,
    stop: threading.Event | None = None,
    again: bool,
) -> Bars:
    """The bars, none when in doubt or when the places do not decode; blocking.

    again: whether the plan was tried before. If not, what may be this machine's doing is raised (errors.SECOND_LOOK),
    since a plan without bars stays without them. Raises CANCELLED.
    """
    video = info.video
    seconds = info.duration_seconds or ASSUMED_SECONDS
    ticks = Fraction(seconds) / video.time_base
    samples = bars.Samples(spec.pixel_format, video.colour)

    def look(places: Sequence[Fraction]) -> None:
        targets = [video.first_pts + int(part * ticks) for part in places]
        for luma in keyframes.lumas(source, info, spec, targets, limits=limits, stop=stop):
            if _is_telling(luma):
                samples.add(luma)
            # Each picture can only take bars away: none by now is none for good.
            if samples.count >= bars.FEWEST and samples.bars() == Bars():
                return

    try:
        look(PLACES)
    except errors.Permanent as error:
        if error.code == "CANCELLED" or (error.code in errors.SECOND_LOOK and not again):
            raise
        _log.info("no look at bars", action="refuse", code=error.code, detail=error.detail)
        return Bars()
    if samples.bars() != Bars():
        try:
            look(FURTHER[: int(seconds / FURTHER_SECONDS)])
        except errors.Permanent as error:
            if error.code == "CANCELLED":
                raise
            _log.info("no further look at bars", action="refuse", code=error.code, detail=error.detail)
    return samples.bars()


def _is_telling(luma: NDArray[Any]) -> bool:
    """Whether a picture is more than black: a twentieth of it is brighter than a quarter of the scale."""
    quarter = 256 if luma.dtype == np.uint16 else 64
    return float((luma[::4, ::4] > quarter).mean()) > 0.05
