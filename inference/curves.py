"""Near and far over film time: how a learned engine's raw depth gets a fixed scale without a running state.

    film time ──cells of 0.5 s──> one sample a cell (its first frame): near, far, a signature
    samples within +-3 s of a frame, in its shot ──weights of finite support──> near and far of that frame ──> 0 … 1

A running minimum and maximum makes a frame depend on every frame before it; a segment that starts afresh then jumps in
depth (5 % mean, 11 % max, measured). Here a frame depends on the samples around it and on nothing else, cells lie on
the film's own time axis, and sums run in order of time: any worker gets the same numbers, bit for bit, from the same
samples. Samples are taken by windows of eight cells, each a piece of work of its own (`work.analyse`). All is pure.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stereospot.media.model import Model

CELL_SECONDS = Fraction(1, 2)
SUPPORT_SECONDS = Fraction(3)
WINDOW_CELLS = 8

FAR_PERCENTILE, NEAR_PERCENTILE = 1.0, 99.0

FLAT_SHARE = 0.3
"""Near and far are kept at least so far apart, as a share of near: a flat scene is not stretched to full depth."""

CUT_DISTANCE = 0.30
"""Two neighbouring samples whose signatures differ by more lie in different shots."""

SIGNATURE = (4, 4, 8)
"""Rows, columns and luma bins of a signature: a small histogram for each tile."""


class Sample(Model):
    """What one frame says of its surroundings; raw depth has the engine's own scale."""

    pts: int
    near: float
    far: float
    signature: tuple[int, ...] = Field(description="0 … 255: share of each luma bin in each tile")


class Window(Model):
    """The samples of cells `WINDOW_CELLS x index …`: one stored object, one piece of work."""

    index: int
    samples: tuple[Sample, ...]


class HasPts(Protocol):
    @property
    def pts(self) -> int: ...


T = TypeVar("T", bound=HasPts)


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
        """Half-open range of presentation times of a window; the first one reaches back to where the film begins."""
        return index * WINDOW_CELLS * self.cell, (index + 1) * WINDOW_CELLS * self.cell

    def windows(self, start: int, end: int) -> range:
        """Every window that frames with start <= pts < end may look at."""
        # A frame's own cell may have begun, and been sampled, up to one cell before the frame.
        first = (start - max(self.support, self.cell)) // (WINDOW_CELLS * self.cell)
        last = (end - 1 + self.support) // (WINDOW_CELLS * self.cell)
        return range(first, last + 1)


def sampled(frames: Iterable[T], grid: Grid) -> Iterator[T]:
    """Of frames in order, from a window's or the film's start on, those that are the first of their cell."""
    previous: int | None = None
    for frame in frames:
        cell = frame.pts // grid.cell
        if cell != previous:
            yield frame
        previous = cell


def measure(pts: int, depth: NDArray[np.float32], luma: NDArray[np.uint8]) -> Sample:
    """A frame's sample from its raw depth [h, w] and luma [any h, any w]; cells that are not finite do not count."""
    values = depth[np.isfinite(depth)]
    if values.size == 0:
        values = np.zeros(1, np.float32)
    far, near = np.percentile(values.astype(np.float64), (FAR_PERCENTILE, NEAR_PERCENTILE))
    return Sample(pts=pts, near=float(near), far=float(far), signature=signature(luma))


def signature(luma: NDArray[np.uint8]) -> tuple[int, ...]:
    """Shares of the luma bins in each tile, 0 … 255: what two pictures of one shot have in common."""
    rows, columns, bins = SIGNATURE
    found: list[int] = []
    for band in np.array_split(luma, rows, axis=0):
        for tile in np.array_split(band, columns, axis=1):
            counts = np.bincount((tile.ravel() >> 5).astype(np.int64), minlength=bins)
            found += [int(count) * 255 // max(1, tile.size) for count in counts]
    return tuple(found)


def distance(one: Sequence[int], other: Sequence[int]) -> float:
    """0 for the same shares in every tile, 1 for none in common."""
    tiles = SIGNATURE[0] * SIGNATURE[1]
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / (2 * 255 * tiles)


class Curve:
    """Near and far for any frame that the given windows cover."""

    def __init__(self, windows: Iterable[Window], grid: Grid) -> None:
        self.grid = grid
        self.samples = sorted((s for window in windows for s in window.samples), key=lambda sample: sample.pts)
        self._times = [sample.pts for sample in self.samples]
        self._cuts = [
            distance(a.signature, b.signature) > CUT_DISTANCE
            for a, b in zip(self.samples, self.samples[1:], strict=False)
        ]

    def at(self, pts: int, cuts: Sequence[int] = ()) -> tuple[float, float]:
        """(near, far) of the frame at `pts`, near > far.

        cuts: presentation times of first frames of shots, as far as the caller knows them around `pts`, in order; they
        decide on which side of a cut between two samples the frame lies (else: the nearer sample's side).
        Raises ValueError if no window that was given has a sample near `pts`.
        """
        own = self._own(pts, cuts)
        first = own
        while first > 0 and pts - self._times[first - 1] < self.grid.support and not self._cut(first - 1, cuts):
            first -= 1
        last = own
        while (
            last + 1 < len(self._times)
            and self._times[last + 1] - pts < self.grid.support
            and not self._cut(last, cuts)
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
        return near, near - max(near - far, FLAT_SHARE * abs(near), 1e-6)

    def _own(self, pts: int, cuts: Sequence[int]) -> int:
        """Index of the sample that stands for the frame's shot: the one of its cell, or the next one after a cut."""
        after = bisect.bisect_right(self._times, pts)
        before = after - 1
        reach = self.grid.support
        has_before = before >= 0 and pts - self._times[before] <= reach
        has_after = after < len(self._times) and self._times[after] - pts <= reach
        if not has_before and not has_after:
            raise ValueError(f"no sample near {pts}")
        if not has_after:
            return before
        if not has_before:
            return after
        known = _between(cuts, self._times[before], self._times[after])
        if known:
            return after if pts >= known[-1] else before
        nearer_after = self._times[after] - pts < pts - self._times[before]
        return after if self._cuts[before] and nearer_after else before

    def _cut(self, index: int, cuts: Sequence[int]) -> bool:
        """Whether samples `index` and `index + 1` lie in different shots."""
        return self._cuts[index] or bool(_between(cuts, self._times[index], self._times[index + 1]))


def normalised(raw: NDArray[np.float32], near: float, far: float) -> NDArray[np.float32]:
    """Raw depth to 0 (far) … 1 (near), clamped, in float32 arithmetic of a fixed order."""
    scale = np.float32(1.0 / (near - far))
    return np.clip((raw - np.float32(far)) * scale, np.float32(0), np.float32(1))


def _between(cuts: Sequence[int], first: int, last: int) -> Sequence[int]:
    """Of sorted times, those with first < time <= last."""
    return cuts[bisect.bisect_right(cuts, first) : bisect.bisect_right(cuts, last)]
