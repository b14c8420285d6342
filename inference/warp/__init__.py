"""The warp: one definition, an exact CPU kernel, a torch kernel with the same integers, and a slow reference.

Depth has 16 bits, and what is near covers one cell more on each side: where the warp has to stretch to fill a gap, it
stretches what lies behind and leaves the edge of the thing in front whole. Disparity `p(x)` is the total parallax in
source pixels, positive in front of the screen: divergence percent of the picture's width times (depth - convergence).
The left eye shows a source pixel at `x + s p(x)`, the right at `x - t p(x)`, `s + t = 1`, never moved vertically.
Between the centres of the disparity grid's cells `p` is linear, and at the left and right border it fades to nothing
within twice the largest shift of an eye, so that no border lacks a picture.

Seen from the output, position X shows the first source position that lands there, looking from the side where nearer
things cover farther ones (the running maximum along the row from the left for the left eye, mirrored for the right):
near hides far, nothing folds, and what the other eye alone could see is stretched from its surroundings. This inverse
is taken at the knots of a grid row (see `knot`), kept as a displacement in 1/65536 pixel and interpolated linearly in
both directions; the picture is sampled there linearly with weights in 1/256. Where an eye is squeezed, the mean of two
pixels is what is sampled. So without divergence a full layout is the source, bit for bit, and a half layout its area
downscale. The running maximum is the idea of nunif's `monobw` (nagadomi, 2026); the code is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference import geometry
from stereospot.media.model import Bars, StereoSpec


@dataclass(frozen=True, slots=True)
class Eyes:
    """How the parallax is shared between the eyes, in 1/256, signed: left minus right is 256."""

    left: int
    right: int


def eyes(stereo: StereoSpec) -> Eyes:
    """Symmetric, or one eye takes all and the other is the source."""
    match stereo.synthesise:
        case "left":
            return Eyes(256, 0)
        case "right":
            return Eyes(0, -256)
        case _:
            return Eyes(128, -128)


def knot(step: int) -> int:
    """Distance of the knots of a displacement row in source pixels, for grid cells of `step`."""
    return min(step, 8)


def knots(padded_width: int, step: int) -> int:
    """Length of a displacement row for an eye that covers so many source pixels."""
    return -(-padded_width // knot(step)) + 3


@dataclass(frozen=True, slots=True)
class Field:
    """Where and how depth becomes disparity: the picture inside the bars, and the scale in 1/65536 pixel."""

    width: int
    height: int
    grid: geometry.Grid
    bars: Bars
    scale: float
    convergence: float
    taper: int

    @classmethod
    def of(cls, width: int, height: int, stereo: StereoSpec) -> Field:
        """The field of a displayed source of this size."""
        parallax = stereo.divergence / 100.0 * width
        share = max(abs(eyes(stereo).left), abs(eyes(stereo).right)) / 256.0
        largest = parallax * share * max(stereo.convergence, 1 - stereo.convergence)
        taper = max(1, min(round(2 * largest), max(1, width // 4)))
        grid = geometry.grid(width, height, stereo.grid_step)
        return cls(width, height, grid, stereo.bars, parallax * 65536.0, stereo.convergence, taper)
