"""Near and far over film time: how a learned engine's raw depth gets a fixed scale without a running state.

    film time ──cells of 0.5 s, shots──> one sample a cell and one at each shot's start: near and far of that frame
    samples within +-3 s of a frame, in its shot ──weights of finite support──> near and far of that frame ──> 0 … 1

A running minimum and maximum makes a frame depend on every frame before it; a segment that starts afresh then jumps in
depth (5 % mean, 11 % max, measured). Here a frame depends on the samples around it and on nothing else, cells lie on
the film's own time axis, and sums run in order of time: any worker gets the same numbers, bit for bit, from the same
samples. Samples are taken by windows of eight cells, each a piece of work of its own (`work.analyse`). All is pure.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stereospot.media.model import Model, Plan, Segment, SourceInfo
from stereospot.media.surroundings import Support

ENGINES = frozenset({"depth-anything", "iw3"})
"""Engines whose raw depth has a scale of its own."""

PADDING_FRAMES = 24
"""Frames beyond a segment's ends that no conversion exceeds, whatever distance of keys its worker is set to."""

CELL_SECONDS = Fraction(1, 2)
SUPPORT_SECONDS = Fraction(3)
WINDOW_CELLS = 8

FAR_PERCENTILE, NEAR_PERCENTILE = 1.0, 99.0

FLAT_SHARE = 0.3
"""Near and far are kept at least so far apart, as a share of near: a flat scene is not stretched to full depth."""


class Sample(Model):
    """What one frame says of its surroundings; raw depth has the engine's own scale."""

    pts: int
    near: float
    far: float
    starts: bool = Field(description="whether a shot begins with this frame")


class Window(Model):
    """The samples of cells `WINDOW_CELLS x index …`: one stored object, one piece of work."""

    index: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells and support in ticks of a stream's time base."""

    cell: int
    support: int

    @classmethod
    def of(cls, time_base: Fraction) -> Grid:
        """The grid of a stream; a cell has at least one tick."""
        cell = max(1, round(CELL_SECONDS / time_base))
        return cls(cell, max(cell, round(SUPPORT_SECONDS / time_base)))

    def range_of(self, index: int) -> tuple[int, int]:
        """Half-open range of presentation times of a window; below 0 for one of negative index."""
        return index * WINDOW_CELLS * self.cell, (index + 1) * WINDOW_CELLS * self.cell

    def is_sample(self, pts: int, previous: int | None, *, starts: bool) -> bool:
        """Whether a frame is sampled: the first of its cell or of its shot; `previous` None where a window begins."""
        return starts or previous is None or pts // self.cell != previous // self.cell

    def windows(self, start: int, end: int) -> range:
        """Every window that frames with start <= pts < end may look at."""
        # A frame's own cell may have begun, and been sampled, up to one cell before the frame.
        first = (start - max(self.support, self.cell)) // (WINDOW_CELLS * self.cell)
        last = (end - 1 + self.support) // (WINDOW_CELLS * self.cell)
        return range(first, last + 1)


def is_analysed(plan: Plan) -> bool:
    """Whether windows are taken ahead for this plan; a remote takes the samples of its range itself."""
    return plan.stereo.engine in ENGINES and plan.backend == "local"


def support(engine: str, info: SourceInfo) -> Support | None:
    """What such an engine looks at around each frame of a film, for whoever cuts it; None of one without a curve."""
    if engine not in ENGINES:
        return None
    grid = Grid.of(info.video.time_base)
    return Support(PADDING_FRAMES, grid.support + grid.cell)


def reach(plan: Plan, segment: Segment) -> tuple[int, int]:
    """Times of the first and the last frame that a conversion of this segment may ask the curve for."""
    if segment.around is not None:
        return segment.around.first, segment.around.last
    # A plan of an older version: so many frames of a film of constant rate.
    video = plan.source.video
    padding = round(PADDING_FRAMES / (video.average_rate * video.time_base))
    end = segment.end if segment.end is not None else segment.start + segment.duration
    return segment.start - padding, end + padding - 1


def span(plan: Plan, segment: Segment) -> tuple[int, int]:
    """(first, last) window that a conversion of this segment may look at, with its padding."""
    first, last = reach(plan, segment)
    found = Grid.of(plan.source.video.time_base).windows(first, last + 1)
    return found[0], found[-1]


def measure(pts: int, depth: NDArray[np.float32], *, starts: bool) -> Sample:
    """A frame's sample from its raw depth [h, w]; cells that are not finite do not count."""
    values = depth[np.isfinite(depth)]
    if values.size == 0:
        values = np.zeros(1, np.float32)
    far, near = np.percentile(values.astype(np.float64), (FAR_PERCENTILE, NEAR_PERCENTILE))
    return Sample(pts=pts, near=float(near), far=float(far), starts=starts)


class Curve:
    """Near and far for any frame that the given windows cover."""

    def __init__(self, windows: Iterable[Window], grid: Grid) -> None:
        self.grid = grid
        self.samples = sorted((s for window in windows for s in window.samples), key=lambda sample: sample.pts)
        self._times = [sample.pts for sample in self.samples]

    def at(self, pts: int) -> tuple[float, float]:
        """(near, far) of the frame at `pts`, near > far; raises ValueError if there is no sample at all.

        A frame farther than the support from every sample, which only padding may be, has the nearest one's.
        """
        if not self.samples:
            raise ValueError(f"no sample for {pts}")
        own = max(bisect.bisect_right(self._times, pts) - 1, 0)
        first = last = own
        while first > 0 and not self.samples[first].starts and pts - self._times[first - 1] < self.grid.support:
            first -= 1
        while (
            last + 1 < len(self.samples)
            and not self.samples[last + 1].starts
            and self._times[last + 1] - pts < self.grid.support
        ):
            last += 1
        total = near = far = 0.0
        for sample in self.samples[first : last + 1]:
            away = min(abs(sample.pts - pts) / self.grid.support, 1.0)
            weight = max(math.cos(away * math.pi / 2) ** 2, 1e-6)
            total += weight
            near += weight * sample.near
            far += weight * sample.far
        near, far = near / total, far / total
        return near, near - max(near - far, FLAT_SHARE * abs(near), 1e-12)


def normalised(raw: NDArray[np.float32], near: float, far: float) -> NDArray[np.float32]:
    """Raw depth to 0 (far) … 1 (near), clamped, in float32 arithmetic of a fixed order."""
    scale = np.float32(1.0 / (near - far))
    return np.clip((raw - np.float32(far)) * scale, np.float32(0), np.float32(1))
