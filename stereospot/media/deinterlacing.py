"""Frames of two fields made whole, one for one, by libavfilter's bwdif. Runs in the jail."""

from __future__ import annotations

from fractions import Fraction

import av.error
import av.filter
from av import VideoFrame


class Deinterlacer:
    """A bwdif graph for frames of one size and format; PTS go through unchanged.

    What comes out of it for a frame depends on that frame and its two neighbours alone, but for the first of all, which
    is made of its own fields only.
    """

    def __init__(self, frame: VideoFrame, time_base: Fraction) -> None:
        self.last: VideoFrame | None = None
        """The frame that was fed last."""
        self._shape = (frame.width, frame.height, frame.format.name)
        self._time_base = time_base
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
        bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=all")
        sink = graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        graph.configure()
        self._graph = graph

    def fits(self, frame: VideoFrame) -> bool:
        return self._shape == (frame.width, frame.height, frame.format.name)

    def push(self, frame: VideoFrame | None) -> VideoFrame | None:
        """Feed a frame, or None for the end; what comes out is the frame that was fed before it."""
        if frame is not None:
            frame.time_base = self._time_base
        self.last = frame
        self._graph.vpush(frame)
        try:
            out = self._graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return None
        if out.pts is not None and out.time_base:
            # The filter counts in half ticks, to have room for two fields a frame.
            out.pts = round(out.pts * Fraction(out.time_base) / self._time_base)
            out.time_base = self._time_base
        return out
