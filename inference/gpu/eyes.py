"""Eyes by iw3's stereo methods, laid out here: source planes and depth in, the finished picture's planes out.

    Y, U, V ─swscale─> RGB ─> iw3's method, in its process ─> two RGB eyes ─swscale─> each eye's place in the layout

iw3 works on 8-bit RGB, so this way costs two conversions of colour that our own warp does not need, and HDR is refused.
The pixels are our own by now, so swscale runs here, not in the jail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from inference import geometry, layouts
from inference.contract import Planes
from inference.gpu import compositor
from stereospot import errors
from stereospot.media.model import Colour, Plan

_FLAGS = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class EyesCompositor:
    """Makes the pictures of one plan with `engine.eyes`; `inner` keeps the comfort counts. Not thread-safe."""

    def __init__(self, inner: layouts.Compositor, plan: Plan, engine: Any) -> None:
        """Raises INVALID_OPTIONS for a layout that mixes colours, and for HDR."""
        video = plan.source.video
        if not compositor.fits(plan):
            raise errors.error(
                "INVALID_OPTIONS", f"iw3's stereo methods make two eyes; {plan.stereo.layout} needs ours."
            )
        if plan.encode.colour.is_hdr or plan.encode.pixel_format.endswith("10le"):
            raise errors.error("INVALID_OPTIONS", "iw3's stereo methods work on 8-bit SDR; leave the method out.")
        self.inner = inner
        self.means: list[float] = []
        self._engine = engine
        self._stereo = plan.stereo
        self._form = plan.encode.pixel_format
        self._sizes = geometry.plane_sizes(video.width, video.height, self._form)
        self._shifts = geometry.subsampling(self._form)
        self._matrix = _matrix(plan.encode.colour, video.height)
        self._range = ColorRange.JPEG if plan.encode.colour.full_range else ColorRange.MPEG
        self._scaler = VideoReformatter()
        self._only_left = plan.stereo.layout == "left"

    def compose(self, pictures: Sequence[Planes], depths: Sequence[NDArray[np.float32]]) -> list[Planes]:
        """Finished pictures, in order; arguments as of `compositor.DeviceCompositor.compose`."""
        self.means = []
        for depth in depths:
            self.inner.disparity.convert(depth)
            self.means.append(self.inner.disparity.mean_percent)
        rgb = np.stack([self._rgb(planes) for planes in pictures])
        left, right = self._engine.eyes(
            rgb, np.stack(depths), divergence=self._stereo.divergence, convergence=self._stereo.convergence,
            synthesise=self._stereo.synthesise,
        )  # fmt: skip
        found: list[Planes] = []
        for one, other in zip(left, right, strict=True):
            out = self.inner.empty()
            place = self.inner.arrangement
            self._put(one, place.left, out)
            if not self._only_left:
                self._put(other, place.right, out)
            found.append(out)
        return found

    def _rgb(self, planes: Planes) -> NDArray[np.uint8]:
        """[height, width, 3] of Y, U and V."""
        height, width = self._sizes[0]
        frame = av.VideoFrame(width, height, self._form)
        for target, plane, size in zip(_planes(frame), planes, self._sizes, strict=True):
            rows = np.frombuffer(target, np.uint8, count=size[0] * target.line_size).reshape(size[0], -1)
            rows[:, : size[1]] = plane[: size[0], : size[1]]
        made = self._scaler.reformat(
            frame, width, height, "rgb24", src_colorspace=self._matrix, src_color_range=self._range,
            dst_color_range=ColorRange.JPEG, interpolation=_FLAGS,
        )  # fmt: skip
        return made.to_ndarray().astype(np.uint8)

    def _put(self, eye: NDArray[np.uint8], corner: tuple[int, int], out: Planes) -> None:
        """Scale an eye to its place and write it there; a place larger than the eye repeats its last row and column."""
        place = self.inner.arrangement
        height, width = eye.shape[:2]
        across = place.eye_width * (2 if place.half_width else 1)
        down = place.eye_height * (2 if place.half_height else 1)
        if (down, across) != (height, width):
            eye = np.pad(eye, ((0, down - height), (0, across - width), (0, 0)), mode="edge")
        made = self._scaler.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(eye), format="rgb24"), place.eye_width, place.eye_height,
            self._form, dst_colorspace=self._matrix, src_color_range=ColorRange.JPEG, dst_color_range=self._range,
            interpolation=_AREA,
        )  # fmt: skip
        sizes = geometry.plane_sizes(place.eye_width, place.eye_height, self._form)
        for index, (plane, size, target) in enumerate(zip(_planes(made), sizes, out, strict=True)):
            x, y = self._shifts if index else (0, 0)
            rows = np.frombuffer(plane, np.uint8, count=size[0] * plane.line_size).reshape(size[0], -1)
            left, top = corner[0] >> x, corner[1] >> y
            target[top : top + size[0], left : left + size[1]] = rows[:, : size[1]]


def _planes(frame: av.VideoFrame) -> tuple[Any, ...]:
    """A frame's planes, which are buffers, though their type does not say so."""
    return frame.planes


def _matrix(colour: Colour, height: int) -> Colorspace:
    """swscale's name of the matrix; untagged pictures are taken by their size, as players do."""
    match colour.matrix:
        case 1:
            return Colorspace.ITU709
        case 4:
            return Colorspace.FCC
        case 5 | 6:
            return Colorspace.ITU601
        case 7:
            return Colorspace.SMPTE240M
        case _:
            return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601
