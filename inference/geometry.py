"""Sizes and places: how large the output is, where each eye lies in it, and on which grid disparity lives. Pure.

    displayed source (w x h) --pad by replication--> arrangement of eyes --> output (even in both directions)

Sizes are always even, so that every chroma subsampling and every encoder takes them; where an eye is squeezed to half,
the padded size is a multiple of four, so that each eye is even too. The sample aspect is the source's in every layout:
a half layout keeps the picture's size and the player stretches each eye, a full layout holds two such pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from stereospot.media.model import SourceInfo
from stereospot.options import Layout

GRID_CELLS = 480
"""The disparity grid has at most so many cells along the longer side."""

ANAGLYPHS = frozenset(
    {
        Layout.ANAGLYPH,
        Layout.ANAGLYPH_GREEN_MAGENTA,
        Layout.ANAGLYPH_AMBER_BLUE,
        Layout.ANAGLYPH_HALF_COLOUR,
        Layout.ANAGLYPH_GREY,
    }
)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Where the eyes lie in the output, in luma pixels; `half_*` tells in which direction they are squeezed."""

    width: int
    height: int
    eye_width: int
    eye_height: int
    half_width: bool
    half_height: bool
    left: tuple[int, int] = (0, 0)
    right: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The disparity grid: cells of `step` x `step` luma pixels of the source, the last ones possibly cut."""

    step: int
    columns: int
    rows: int


def output_size(info: SourceInfo, layout: Layout, *, engine: str | None = None) -> tuple[int, int, Fraction]:
    """Width, height and sample aspect of the film that `layout` gives; engine `identity` keeps the source's size."""
    video = info.video
    arrangement = arrange(video.width, video.height, layout, engine=engine)
    return arrangement.width, arrangement.height, video.sample_aspect


def arrange(
    width: int, height: int, layout: Layout, *, engine: str | None = None, swap_eyes: bool = False
) -> Arrangement:
    """The arrangement of `layout` for a displayed source of this size; `swap_eyes` exchanges the two places."""
    if engine == "identity":
        layout = Layout.LEFT
    match layout:
        case Layout.HALF_SBS:
            w, h = _up(width, 4), _up(height, 2)
            found = Arrangement(w, h, w // 2, h, True, False, (0, 0), (w // 2, 0))
        case Layout.HALF_TB:
            w, h = _up(width, 2), _up(height, 4)
            found = Arrangement(w, h, w, h // 2, False, True, (0, 0), (0, h // 2))
        case Layout.FULL_SBS | Layout.DEPTH:
            w, h = _up(width, 2), _up(height, 2)
            found = Arrangement(2 * w, h, w, h, False, False, (0, 0), (w, 0))
        case Layout.CROSS_EYED:
            w, h = _up(width, 2), _up(height, 2)
            found = Arrangement(2 * w, h, w, h, False, False, (w, 0), (0, 0))
        case Layout.FULL_TB:
            w, h = _up(width, 2), _up(height, 2)
            found = Arrangement(w, 2 * h, w, h, False, False, (0, 0), (0, h))
        case _:
            w, h = _up(width, 2), _up(height, 2)
            found = Arrangement(w, h, w, h, False, False)
    if not swap_eyes or layout is Layout.DEPTH:
        return found
    return Arrangement(
        found.width, found.height, found.eye_width, found.eye_height, found.half_width, found.half_height,
        left=found.right, right=found.left,
    )  # fmt: skip


def grid(width: int, height: int, step: int | None = None) -> Grid:
    """The disparity grid of a source: the step is the smallest power of two that keeps it within `GRID_CELLS`.

    step: that of depth which comes with a grid of its own, a power of two; 1 is depth of every pixel.
    """
    if step is None:
        step = 1
        while -(-max(width, height) // step) > GRID_CELLS:
            step *= 2
    return Grid(step, -(-width // step), -(-height // step))


def subsampling(pixel_format: str) -> tuple[int, int]:
    """Shifts (x, y) from luma to chroma size."""
    if pixel_format.startswith("yuv420"):
        return 1, 1
    return (1, 0) if pixel_format.startswith("yuv422") else (0, 0)


def plane_sizes(width: int, height: int, pixel_format: str) -> tuple[tuple[int, int], ...]:
    """(height, width) of the planes Y, U and V; chroma of odd sizes is rounded up."""
    x, y = subsampling(pixel_format)
    chroma = (-(-height // (1 << y)), -(-width // (1 << x)))
    return (height, width), chroma, chroma


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
