"""The end of a segment's way, the same for every engine: pictures encoded and counted, and what was measured.

composed pictures ─> encoder ─> fragment, frames counted       warp's counts, means, cuts ─> segment report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from inference import layouts, report
from inference.contract import Flush, Planes, check_count
from inference.depth import EngineInfo
from inference.warp import disparity
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.model import Segment


def encode(
    encoder: FragmentEncoder,
    segment: Segment,
    pictures: Iterable[tuple[int, Planes]],
    *,
    spare: Callable[[Planes], None] | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> tuple[Flush, float]:
    """Encode (pts, planes) in order: what is left to do for the fragment, and the seconds that the encoder took.

    spare: takes planes that were encoded; on_frame: called with the number of frames so far. Raises SEGMENT_MISMATCH.
    """
    count, spent = 0, 0.0
    for pts, planes in pictures:
        began = time.perf_counter()
        encoder.write(planes, pts)
        spent += time.perf_counter() - began
        if spare is not None:
            spare(planes)
        count += 1
        if on_frame is not None:
            on_frame(count)
    check_count(segment, count)
    return lambda: encoder.finish(segment.start + segment.duration), spent


def measured(
    segment: Segment,
    info: EngineInfo,
    compositor: layouts.Compositor,
    *,
    means: Sequence[float],
    cuts: Sequence[bool],
    not_finite: int,
    seconds: float,
    stages: dict[str, float],
) -> report.SegmentReport:
    """The report: the compositor's counts, with mean parallax and `a shot begins here` of every frame."""
    counts = compositor.disparity
    fine = counts.histogram
    low, middle, high = (
        report.percentile(fine, part, lowest=disparity.LOWEST_PERCENT, width=disparity.BIN_PERCENT)
        for part in (0.01, 0.5, 0.99)
    )
    steps = [abs(b - a) for a, b, cut in zip(means, means[1:], cuts[1:], strict=False) if not cut]
    stretched, intervals = (int(value) for value in compositor.stretch)
    return report.SegmentReport(
        index=segment.index,
        frames=len(means),
        seconds=round(seconds, 4),
        stages={name: round(value, 4) for name, value in stages.items()},
        limiting=max(stages, key=lambda name: stages[name]) if stages else None,
        fps=round(len(means) / max(seconds, 1e-6), 2),
        engine=report.EngineUsed(name=info.name, version=info.version, model_sha256=info.model_sha256),
        device=info.device,
        dtype=info.dtype,
        model=info.model,
        disparity_p1=low,
        disparity_p50=middle,
        disparity_p99=high,
        histogram=tuple(int(value) for value in report.merged(fine)) if fine.any() else (),
        violation_ratio=round(int(counts.tally[0]) / max(1, int(counts.tally[2])), 5),
        stretch_ratio=round(stretched / max(1, intervals), 5),
        not_finite=not_finite,
        cuts=sum(cuts),
        cut_at_start=bool(cuts and cuts[0]),
        first_mean=round(means[0], 4) if means else 0.0,
        last_mean=round(means[-1], 4) if means else 0.0,
        step_p95=round(float(np.percentile(steps, 95)), 5) if steps else 0.0,
    )
