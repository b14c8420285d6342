"""Layouts: source planes and disparity in, the planes of the finished picture out.

Side-by-side and top-bottom are written by the warp itself, straight into their halves; the anaglyphs combine two full
eyes; `2d-depth` shows the source beside its depth; `left` is the left eye alone; engine `identity` copies the source.
The kernels of the rarer layouts are compiled by the first film that asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inference import geometry, warp
from inference.contract import Planes
from inference.warp import cpu, disparity
from stereospot.media.model import Colour, StereoSpec
from stereospot.options import Layout

if TYPE_CHECKING:
    from inference import anaglyph


class Compositor:
    """Makes the pictures of one plan, one at a time; keeps scratch memory and the warp's counts. Not thread-safe.

    stretch: [2] int64, see `cpu.invert`.

    width, height, pixel_format: of the displayed source, as the jail hands it over.
    """

    def __init__(self, width: int, height: int, pixel_format: str, stereo: StereoSpec, colour: Colour) -> None:
        self.stereo = stereo
        self.pixel_format = pixel_format
        self.arrangement = geometry.arrange(
            width, height, stereo.layout, engine=stereo.engine, swap_eyes=stereo.swap_eyes
        )
        self.field = warp.Field.of(width, height, stereo)
        self.disparity = disparity.Disparity(self.field)
        self.stretch = np.zeros(2, np.int64)
        self._sizes = geometry.plane_sizes(width, height, pixel_format)
        self._shifts = geometry.subsampling(pixel_format)
        self._eyes = warp.eyes(stereo)
        self._colour = colour
        self._dtype = np.dtype(np.uint8 if not pixel_format.endswith("10le") else np.uint16)
        place = self.arrangement
        across = place.eye_width * (2 if place.half_width else 1)
        self._moves = np.zeros((2, self.field.grid.rows, warp.knots(across, self.field.grid.step)), np.int32)
        self._knot = warp.knot(self.field.grid.step)
        self._mixer: anaglyph.Mixer | None = None
        if stereo.layout in geometry.ANAGLYPHS and stereo.engine != "identity":
            from inference import anaglyph

            self._mixer = anaglyph.Mixer(stereo.layout, pixel_format, colour, place.width, place.height)

    def empty(self) -> Planes:
        """Planes of the output's size."""
        place = self.arrangement
        return tuple(
            np.empty(size, self._dtype) for size in geometry.plane_sizes(place.width, place.height, self.pixel_format)
        )

    def compose(
        self, planes: Planes, depth: NDArray[np.float32] | NDArray[np.uint16] | None, out: Planes | None = None
    ) -> Planes:
        """The finished picture.

        planes: Y, U, V of the source; depth: [rows, columns] float32 or 16-bit codes, None for engine `identity`;
        out: planes as `empty` makes them, written and returned.
        """
        target = out if out is not None else self.empty()
        source = tuple(_tight(plane) for plane in planes)
        if self.stereo.engine == "identity" or depth is None:
            for plane, size, copy in zip(source, self._sizes, target, strict=True):
                _pad(plane, size, copy)
            return target
        layout = self.stereo.layout
        if layout is Layout.DEPTH:
            self._beside_depth(source, self.disparity.codes(depth), target)
            return target
        place = self.arrangement
        moved = self.disparity.convert(depth)
        cpu.invert(
            moved, self.field.grid.step, self.field.width, self._knot,
            self._eyes.left, self._eyes.right, self._moves, self.stretch,
        )  # fmt: skip
        if self._mixer is None:
            right = (-1, 0) if layout is Layout.LEFT else place.right
            self._render(source, target, place.left, right)
            return target
        eyes = self._mixer.eyes
        for eye, planes_of_eye in enumerate(eyes):
            shown = eye if not self.stereo.swap_eyes else 1 - eye
            self._render(source, planes_of_eye, *(((0, 0), (-1, 0)) if shown == 0 else ((-1, 0), (0, 0))))
        self._mixer.mix(target)
        return target

    def _render(self, source: Planes, target: Planes, left: tuple[int, int], right: tuple[int, int]) -> None:
        place = self.arrangement
        for index, (plane, size, out) in enumerate(zip(source, self._sizes, target, strict=True)):
            x, y = self._shifts if index else (0, 0)
            cpu.render(
                plane, size[1], self._moves, self.field.grid.step, self._knot, x, y,
                int(place.half_width), int(place.half_height), out, place.eye_width >> x, place.eye_height >> y,
                left[0] >> x, left[1] >> y, right[0] >> x, right[1] >> y,
            )  # fmt: skip

    def _beside_depth(self, source: Planes, codes: NDArray[np.uint16], target: Planes) -> None:
        from inference import anaglyph

        place = self.arrangement
        for index, (plane, size, out) in enumerate(zip(source, self._sizes, target, strict=True)):
            x, y = self._shifts if index else (0, 0)
            width, height = place.eye_width >> x, place.eye_height >> y
            _pad(plane, size, out[:height, :width])
            if index:
                out[:, width:] = 128 if self._dtype == np.uint8 else 512
        bits = 2 if self._dtype == np.uint16 else 0
        low, span = (0, (256 << bits) - 1) if self._colour.full_range else (16 << bits, 219 << bits)
        depth = codes.astype(np.float32) / np.float32(disparity.CODES)
        anaglyph.paint_depth(target[0], depth, self.field.grid.step, low, span, place.eye_width)


def _tight(plane: NDArray[Any]) -> NDArray[Any]:
    return plane if plane.flags.c_contiguous else np.ascontiguousarray(plane)


def _pad(plane: NDArray[Any], size: tuple[int, int], out: NDArray[Any]) -> None:
    """Copy, and replicate the last row and column into what the output has more."""
    height, width = size
    out[:height, :width] = plane[:height, :width]
    out[:height, width:] = out[:height, width - 1 : width]
    out[height:] = out[height - 1 : height]
