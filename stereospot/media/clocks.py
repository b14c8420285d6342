"""Where the film's zero lies on its source's clock: one answer for the film, its sound, its chapters and its subtitles.

    the film's time = the source's time - origin;    a fragment's time = the source's time - fragment origin

A film keeps its source's own times, a late start with them. They mean nothing, though, where a sender's clock was
written down as it ran: a recorded broadcast begins hours behind zero, or just before the clock of 33 bits starts anew.
Players would show hours of nothing first.
"""

from __future__ import annotations

import math
from fractions import Fraction

from stereospot.media.model import Plan, SourceInfo

RUNNING_CLOCKS = frozenset(("mpegts", "mpeg"))
"""Formats whose times are a sender's clock (ISO/IEC 13818-1): transport streams and program streams."""

LATEST_START_SECONDS = 24 * 3600
"""A film that starts later than this (clocks counted from 1970) is moved to its own beginning."""

LATEST_RUNNING_SECONDS = 5
"""The same of formats with a running clock; what encoders and discs put before their first picture stays."""


def runs(plan: Plan) -> bool:
    """Whether the source's clock is one that ran before the film began."""
    return plan.source.container in RUNNING_CLOCKS


def origin(plan: Plan) -> int:
    """The PTS that becomes 0 in the film: 0 itself, or that of the first frame where the film is moved.

    It is moved where the container cannot hold what lies before 0, or the start lies further behind than it means.
    """
    first = plan.source.video.first_pts
    running = runs(plan)
    if first < 0 and (running or plan.container != "mkv"):
        return first
    latest = LATEST_RUNNING_SECONDS if running else LATEST_START_SECONDS
    return first if abs(first * plan.encode.time_base) > latest else 0


def origin_seconds(plan: Plan) -> Fraction:
    """The same in seconds."""
    return origin(plan) * plan.encode.time_base


def fragment_origin(info: SourceInfo) -> int:
    """The PTS that is 0 in the fragments of pictures and sound: 0 itself, but for a film that begins before it.

    `tfdt` holds nothing below 0 (ISO/IEC 14496-12 8.8.12). Then it is a second before the first picture, since the
    first frame of sound begins somewhat earlier; players begin at the first picture, wherever that lies.
    """
    first = info.video.first_pts
    return first - math.ceil(1 / info.video.time_base) if first < 0 else 0
