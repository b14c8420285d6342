"""The backend `stub`: copies pixels, takes as long and fails as often as it is told. For tests and load only.

`STEREOSPOT_STUB_SECONDS` (per segment, 0) and `STEREOSPOT_STUB_FAILURES` (0 to 1, 0) set what arguments leave open.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

import numpy as np

from inference import geometry
from inference.contract import Converted, Frames, Planes, check_count
from inference.report import EngineUsed, SegmentReport
from stereospot import errors
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.model import Plan, Segment


class Stub:
    """Shows the source in the left place of the layout and black elsewhere; no kernel is compiled for it."""

    def __init__(self, seconds: float, failures: float) -> None:
        self._seconds, self._failures = seconds, failures
        self._dice = random.Random()

    def convert(
        self,
        *,
        decoder: Frames,
        plan: Plan,
        segment: Segment,
        stop: threading.Event | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Converted:
        """Decode, copy, encode, then wait until the set time is over; REMOTE_FAILED as often as was asked for."""
        started = time.perf_counter()
        stop = stop or threading.Event()
        encoder = FragmentEncoder(plan.encode)
        target = _black(plan)
        count = 0
        for frame in decoder.frames(segment.start, segment.end):
            if stop.is_set():
                frame.release()
                raise errors.error("CANCELLED")
            for plane, out in zip(frame.planes, target, strict=True):
                height, width = min(plane.shape[0], out.shape[0]), min(plane.shape[1], out.shape[1])
                out[:height, :width] = plane[:height, :width]
            pts = frame.pts
            frame.release()
            encoder.write(target, pts)
            count += 1
            if on_frame is not None:
                on_frame(count)
        check_count(segment, count)
        fragment = encoder.finish(segment.start + segment.duration)
        if stop.wait(max(0.0, self._seconds - (time.perf_counter() - started))):
            raise errors.error("CANCELLED")
        if self._dice.random() < self._failures:
            raise errors.error("REMOTE_FAILED", "The stub was told to fail this often.")
        used = EngineUsed(name="stub", version="1")
        report = SegmentReport(
            index=segment.index, frames=count, seconds=round(time.perf_counter() - started, 4), engine=used
        )
        return Converted(lambda: fragment, report)

    def close(self) -> None:
        """Nothing to let go."""


def load(
    *, engine: str = "", model: str | None = None, seconds: float | None = None, failures: float | None = None
) -> Stub:
    """A stub; the engine and model of a plan make no difference to it."""
    del engine, model
    return Stub(
        float(os.environ.get("STEREOSPOT_STUB_SECONDS", "0")) if seconds is None else seconds,
        float(os.environ.get("STEREOSPOT_STUB_FAILURES", "0")) if failures is None else failures,
    )


def _black(plan: Plan) -> Planes:
    ten_bit = plan.encode.pixel_format.endswith("10le")
    dtype, scale = (np.uint16, 4) if ten_bit else (np.uint8, 1)
    sizes = geometry.plane_sizes(plan.encode.width, plan.encode.height, plan.encode.pixel_format)
    return tuple(np.full(size, (128 if index else 16) * scale, dtype) for index, size in enumerate(sizes))
