"""Whether an answer shows the segment that was handed over: its pictures against the source's, made small.

    source planes ─> tone map, colour mix ─> Expected: small luma, and between which codes each eye's may lie
    an answer's eyes ─> small luma ─> Order: of this segment? in its order? none twice?

The depth that the remote found is not known here, but how far it may move a picture is: the plan's divergence and
convergence say so. A cell of an eye shows what lies within that window of the source, so its code lies between the
least and the greatest there. Where the window is wide two pictures of a pan may both fit; then what changes from one
picture to the next still tells, since parallax that hardly changes leaves those steps as large as they are in the film.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import geometry, warp
from inference.contract import Planes
from stereospot import errors
from stereospot.media.model import Colour, Plan, StereoSpec
from stereospot.options import Layout

ROWS, COLUMNS = 9, 16
"""Cells of a thumbnail."""

FINE = 8
"""Columns of a cell in which the least and the greatest are looked for."""

ROW_PAIRS = 144
"""About so many pairs of rows are looked at, the same of the source and of an eye: nothing moves vertically."""

FREE_PERCENT = 10.0
"""Parallax in either direction, % of the width, of an endpoint that is told nothing of it."""

ORDER_REACH = 3
"""Frames before and after in which an answer's picture is looked for."""

ORDER_CODES = 4.0
"""Mean difference of luma codes under which two pictures count as the same: still scenes have no order to check."""

STRANGE_CODES = 48.0
"""Mean difference over a whole answer from which on it shows something else than the segment."""

HELD_CODES, HELD = 2.0, 0.25
"""Where the film's step is larger than so many codes, and the answer's less than this part of it, there is none: the
picture is the one before, once more."""

TURNED = 1.5
"""Two steps that are longer and shorter than the film's by this factor: the two pictures changed places."""

Thumbnail = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Expected:
    """One picture: [ROWS, COLUMNS] codes of 8 bits without parallax, and of each eye the least and the greatest."""

    plain: Thumbnail
    bounds: tuple[tuple[Thumbnail, Thumbnail], ...]

    def distance(self, eyes: Sequence[Thumbnail]) -> float:
        """Mean codes by which the eyes of an answer lie outside of their bounds."""
        away = [np.maximum(low - eye, eye - high) for eye, (low, high) in zip(eyes, self.bounds, strict=True)]
        return float(np.mean(np.maximum(away, 0)))


class Look:
    """Makes small what one plan's source gives and what its answers show; keeps scratch memory. Not thread-safe.

    free: the endpoint is not told the parallax and chooses it itself.
    """

    def __init__(self, plan: Plan, *, free: bool = False) -> None:
        video, stereo = plan.source.video, plan.stereo
        self._place = place = geometry.arrange(
            video.width, video.height, stereo.layout, engine=stereo.engine, swap_eyes=stereo.swap_eyes
        )
        self._width = place.eye_width * (2 if place.half_width else 1)
        self._pairs = place.eye_height if place.half_height else place.eye_height // 2
        self._stride = max(1, self._pairs // ROW_PAIRS)
        self._source, self._target = plan.decode.pixel_format, plan.encode.pixel_format
        self._shift_y = geometry.subsampling(self._source)[1]
        self._sizes = geometry.plane_sizes(self._width, 2 * self._pairs, self._source)
        cell = video.width / 100.0 / (self._width / (COLUMNS * FINE))
        self._eyes = [
            (corner, math.floor(low * cell), math.ceil(high * cell))
            for corner, low, high in _windows(place, stereo, free)
        ]
        rows = 2 * -(-self._pairs // self._stride)
        self._tones = self._mixer = None
        colour = video.colour
        if self._source != self._target:
            from inference.tonemap import ToneMapper

            self._tones = ToneMapper(self._width, rows, self._source, colour)
            colour = plan.encode.colour
        if stereo.layout in geometry.ANAGLYPHS and stereo.engine != "identity":
            from inference.anaglyph import Mixer

            self._mixer = Mixer(stereo.layout, self._target, _declared(colour, video.height), self._width, rows)

    def expected(self, planes: Planes) -> Expected:
        """Of a frame of the source."""
        wanted = planes if self._tones or self._mixer else planes[:1]
        rows = tuple(self._rows(plane, index) for index, plane in enumerate(wanted))
        if self._tones is not None:
            rows = self._tones.map(rows)
        if self._mixer is not None:
            for eye in self._mixer.eyes:
                for target, plane in zip(eye, rows, strict=True):
                    target[:] = plane
            rows = tuple(np.empty_like(plane) for plane in rows)
            self._mixer.mix(rows)
        fine, widths = self._small(rows[0])
        bounds = [
            (_cells(_least(fine, low, high), widths), -_cells(_least(-fine, low, high), widths))
            for _, low, high in self._eyes
        ]
        return Expected(_cells(fine, widths), tuple(bounds))

    def shown(self, luma: NDArray[Any]) -> list[Thumbnail]:
        """The eyes of a picture of an answer, from its luma plane: one, two, or both mixed in one."""
        found: list[Thumbnail] = []
        for (left, top), _, _ in self._eyes:
            eye = luma[top : top + self._place.eye_height, left : left + self._place.eye_width]
            found.append(_cells(*self._small(eye[:: self._stride] if self._place.half_height else self._taken(eye))))
        return found

    def _rows(self, plane: NDArray[Any], index: int) -> NDArray[Any]:
        """The rows that are looked at of a source's plane, which is brought to the size that the eyes have."""
        height, width = self._sizes[index]
        plane = plane[:height, :width]
        if plane.shape != (height, width):
            plane = np.pad(plane, ((0, height - plane.shape[0]), (0, width - plane.shape[1])), mode="edge")
        return np.ascontiguousarray(plane[:: self._stride] if index and self._shift_y else self._taken(plane))

    def _taken(self, plane: NDArray[Any]) -> NDArray[Any]:
        width = plane.shape[1]
        return plane.reshape(self._pairs, 2, width)[:: self._stride].reshape(-1, width)

    def _small(self, luma: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """[ROWS, COLUMNS x FINE] means in codes of 8 bits, and the width of each column."""
        # Counted in pixels of an eye, so that a squeezed one and its source are cut at the same places.
        pairs, columns = -(-self._pairs // self._stride), self._place.eye_width
        tops = np.arange(ROWS) * pairs // ROWS * (luma.shape[0] // pairs)
        lefts = np.arange(COLUMNS * FINE) * columns // (COLUMNS * FINE) * (luma.shape[1] // columns)
        across = np.add.reduceat(luma, lefts, axis=1, dtype=np.uint32)
        sums = np.add.reduceat(across, tops, axis=0, dtype=np.uint64)
        heights, widths = np.diff(tops, append=luma.shape[0]), np.diff(lefts, append=luma.shape[1])
        scale = 4 if self._target.endswith("10le") else 1
        fine = sums / np.outer(np.maximum(heights, 1), np.maximum(widths, 1)) / scale
        return fine.astype(np.float32), np.maximum(widths, 1e-6)


class Order:
    """Whether the pictures of an answer are the segment's and come in its order, as far as they differ."""

    def __init__(self, expected: Sequence[Expected]) -> None:
        self._expected = expected
        self._own: list[float] = []
        self._shown: list[Sequence[Thumbnail]] = []
        self._misplaced: set[int] = set()

    def add(self, eyes: Sequence[Thumbnail]) -> None:
        """The next picture's eyes, of `Look.shown`."""
        index = len(self._own)
        low, high = max(0, index - ORDER_REACH), min(len(self._expected), index + ORDER_REACH + 1)
        away = {i: self._expected[i].distance(eyes) for i in range(low, high)}
        self._own.append(away[index])
        self._shown = [*self._shown[-2:], eyes]
        if away[index] > ORDER_CODES and min(away.values()) < 0.5 * away[index]:
            self._misplaced.add(index)
        if index >= 1 and self._is_held(index):
            self._misplaced.add(index)
        if index >= 2 and self._is_turned(index):
            self._misplaced |= {index - 1, index}

    def _is_held(self, index: int) -> bool:
        """Whether the last picture is the one before once more, where the film's is another."""
        film = self._film_step(index - 1, index)
        return film > HELD_CODES and self._step(-2, -1) < HELD * film

    def _is_turned(self, index: int) -> bool:
        """Whether the picture before the last is farther from what was before than the film's, and the last nearer."""
        first, second = self._step(-3, -2), self._step(-3, -1)
        return first > max(ORDER_CODES, TURNED * self._film_step(index - 2, index - 1)) and (
            second * TURNED < self._film_step(index - 2, index)
        )

    def check(self) -> None:
        """Raise REMOTE_INVALID when pictures are misplaced, or are of something else."""
        if len(self._misplaced) > max(1, len(self._own) // 20):
            raise errors.error(
                "REMOTE_INVALID",
                f"{len(self._misplaced)} of its pictures are out of order, first {min(self._misplaced)}.",
            )
        strangeness = float(np.mean(self._own)) if self._own else 0.0
        if strangeness > STRANGE_CODES:
            raise errors.error(
                "REMOTE_INVALID", f"It shows something else: pictures differ by {strangeness:.0f} codes on average."
            )

    def _film_step(self, one: int, other: int) -> float:
        return float(np.abs(self._expected[one].plain - self._expected[other].plain).mean())

    def _step(self, one: int, other: int) -> float:
        """Of the answer's last pictures, counted from the end; the mean of the eyes."""
        return float(np.mean([np.abs(a - b).mean() for a, b in zip(self._shown[one], self._shown[other], strict=True)]))


def _windows(place: geometry.Arrangement, stereo: StereoSpec, free: bool) -> list[tuple[tuple[int, int], float, float]]:
    """Of each eye: its corner, and between which distances what it shows lies in the source, % of the width.

    An eye that gets the share s of parallax p shows at x what lies at x - s p (`inference.warp`); p fades to nothing at
    the borders.
    """
    if stereo.engine == "identity" or stereo.layout is Layout.DEPTH:
        return [(place.left, 0.0, 0.0)]
    far, near = -stereo.divergence * stereo.convergence, stereo.divergence * (1 - stereo.convergence)
    shares = [share / 256.0 for share in (warp.eyes(stereo).left, warp.eyes(stereo).right)]
    if free:
        far, near, shares = -FREE_PERCENT, FREE_PERCENT, [1.0, -1.0]
    ends = [sorted((-share * far, -share * near)) for share in shares]
    low, high = ([min(0.0, end[0]) for end in ends], [max(0.0, end[1]) for end in ends])
    if stereo.layout in geometry.ANAGLYPHS:
        return [(place.left, min(low), max(high))]
    corners = [place.left] if stereo.layout is Layout.LEFT else [place.left, place.right]
    return list(zip(corners, low, high, strict=False))


def _least(fine: NDArray[np.float32], low: int, high: int) -> NDArray[np.float32]:
    """The least of columns x + low … x + high for each x; beyond the borders lies nothing."""
    padded = np.pad(fine, ((0, 0), (-low, high)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, high - low + 1, axis=1).min(axis=2)


def _cells(fine: NDArray[np.float32], widths: NDArray[np.float64]) -> Thumbnail:
    weights = widths.reshape(COLUMNS, FINE)
    return ((fine.reshape(ROWS, COLUMNS, FINE) * weights).sum(2) / weights.sum(1)).astype(np.float32)


def _declared(colour: Colour, height: int) -> Colour:
    """A colour whose matrix does not depend on the height any more (`colours.weights`): few rows are mixed here."""
    return colour if colour.matrix != 2 else colour.model_copy(update={"matrix": 6 if height <= 576 else 1})
