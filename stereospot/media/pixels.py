"""Pixel formats: any decoder's output to one of six planar YUV normal forms, cropped and turned, in given memory.

Formats that are a normal form in other clothes (full-range `yuvj`, alpha planes, grey, semi-planar nv12) are copied
plane by plane, which is exact; the rest goes through swscale with its bit-exact flags and one thread, so that every
worker gets the same pixels. Runs in the jail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from av import VideoFormat, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from stereospot.errors import error
from stereospot.media import greys
from stereospot.media.model import PixelFormat

_FLAGS = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

_SUBSAMPLING: dict[str, tuple[int, int]] = {"yuv420p": (1, 1), "yuv422p": (1, 0), "yuv444p": (0, 0)}

_COPIED: dict[str, PixelFormat] = {
    "yuv420p": "yuv420p",
    "yuvj420p": "yuv420p",
    "yuva420p": "yuv420p",
    "yuv422p": "yuv422p",
    "yuvj422p": "yuv422p",
    "yuva422p": "yuv422p",
    "yuv444p": "yuv444p",
    "yuvj444p": "yuv444p",
    "yuva444p": "yuv444p",
    "yuv420p10le": "yuv420p10le",
    "yuva420p10le": "yuv420p10le",
    "yuv422p10le": "yuv422p10le",
    "yuva422p10le": "yuv422p10le",
    "yuv444p10le": "yuv444p10le",
    "yuva444p10le": "yuv444p10le",
}
"""Formats whose first three planes already are the normal form."""


def subsampling(pixel_format: PixelFormat) -> tuple[int, int]:
    """log2 of the chroma's horizontal and vertical subsampling."""
    return _SUBSAMPLING[pixel_format.removesuffix("10le")]


def bytes_per_sample(pixel_format: PixelFormat) -> int:
    return 2 if pixel_format.endswith(("10le", "16le")) else 1


def plane_shapes(pixel_format: PixelFormat, width: int, height: int) -> tuple[tuple[int, int], ...]:
    """[height, width] of Y, U and V; chroma sides are rounded up. Depth has one plane."""
    if pixel_format == "gray16le":
        return ((height, width),)
    across, down = subsampling(pixel_format)
    chroma = (-(-height >> down), -(-width >> across))
    return ((height, width), chroma, chroma)


def frame_bytes(pixel_format: PixelFormat, width: int, height: int) -> int:
    return bytes_per_sample(pixel_format) * sum(h * w for h, w in plane_shapes(pixel_format, width, height))


def is_rgb(source_format: str) -> bool:
    """Whether a decoder's format holds RGB, which has to be converted by a matrix."""
    described = VideoFormat(source_format)
    return bool(described.is_rgb or described.has_palette)


def is_grey(source_format: str) -> bool:
    return len(VideoFormat(source_format).components) <= 2 and not is_rgb(source_format)


def normal_form(source_format: str, *, turned: bool = False) -> PixelFormat:
    """The nearest normal form of a decoder's pixel format; `turned` by a quarter, 4:2:2 has to become 4:4:4."""
    described = VideoFormat(source_format)
    deep = any(component.bits > 8 for component in described.components)
    if is_rgb(source_format):
        base = "yuv444p"
    elif is_grey(source_format) or described.chroma_height(16) < 16:
        base = "yuv420p" if is_grey(source_format) or described.chroma_width(16) < 16 else "yuv444p"
    else:
        base = "yuv422p" if described.chroma_width(16) < 16 else "yuv444p"
    if turned and base == "yuv422p":
        base = "yuv444p"
    return base + "10le" if deep else base


def is_full_range(source_format: str, colour_range: int) -> bool:
    """Whether the normal form of these pixels is full range: tagged so, or a `yuvj` format; RGB becomes limited."""
    if is_rgb(source_format):
        return False
    return colour_range == 2 or source_format.startswith("yuvj") or (is_grey(source_format) and colour_range != 1)


class Normaliser:
    """Writes decoded frames as planes of one normal form and size, cropped, mirrored and turned as told; one stream's.

    crop: pixels that are left out at the left, top, right and bottom of the decoded picture, the first two even.
    """

    def __init__(
        self,
        pixel_format: PixelFormat,
        width: int,
        height: int,
        *,
        rotation: int = 0,
        mirrored: bool = False,
        crop: Sequence[int] = (0, 0, 0, 0),
    ) -> None:
        self.pixel_format: PixelFormat = pixel_format
        self.width, self.height = width, height
        """The upright size, after crop and turn."""
        self._turns = rotation // 90 % 4
        self._mirrored = mirrored
        shown = (height, width) if self._turns % 2 else (width, height)
        left, top, right, bottom = crop
        self._coded = (shown[0] + left + right, shown[1] + top + bottom)
        self._places = [(top, left)]
        if pixel_format != "gray16le":
            across, down = subsampling(pixel_format)
            self._places += [(top >> down, left >> across)] * 2
        self._cropped = plane_shapes(pixel_format, *shown)
        self._reformatter = VideoReformatter()
        self._dtype: Any = np.uint16 if bytes_per_sample(pixel_format) == 2 else np.uint8
        self._shapes = plane_shapes(pixel_format, *self._coded)

    @property
    def frame_bytes(self) -> int:
        return frame_bytes(self.pixel_format, self.width, self.height)

    def write(self, frame: VideoFrame, memory: memoryview) -> None:
        """Write `frame` into `frame_bytes` bytes: Y, U, V one after the other without padding."""
        target = 0
        shapes = plane_shapes(self.pixel_format, self.width, self.height)
        for plane, (top, left), inner, shape in zip(
            self._planes(frame), self._places, self._cropped, shapes, strict=True
        ):
            count = shape[0] * shape[1]
            view = np.frombuffer(memory, self._dtype, count, target).reshape(shape)
            source = plane[top : top + inner[0], left : left + inner[1]]
            if self._mirrored:
                source = source[:, ::-1]
            if self._turns:
                source = np.rot90(source, -self._turns)
            np.copyto(view, source)
            target += count * view.itemsize

    def _planes(self, frame: VideoFrame) -> list[NDArray[Any]]:
        name = frame.format.name
        if self.pixel_format == "gray16le":
            if (frame.width, frame.height) != self._coded:
                raise error("DEPTH_MISMATCH", f"One picture of it has {frame.width}x{frame.height} pixels.")
            return [greys.codes(frame)]
        if (frame.width, frame.height) == self._coded:
            if _COPIED.get(name) == self.pixel_format:
                return [_array(frame, number, shape, self._dtype) for number, shape in enumerate(self._shapes)]
            if name == "gray" and self.pixel_format == "yuv420p":
                neutral = [np.full(shape, 128, np.uint8) for shape in self._shapes[1:]]
                return [_array(frame, 0, self._shapes[0], np.uint8), *neutral]
        rgb = is_rgb(name)
        converted = self._reformatter.reformat(
            frame,
            *self._coded,
            format=self.pixel_format,
            interpolation=_FLAGS,
            src_color_range=ColorRange.JPEG if rgb or is_full_range(name, frame.color_range) else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG if rgb or not is_full_range(name, frame.color_range) else ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU709 if rgb else None,
            threads=1,
        )
        return [_array(converted, number, shape, self._dtype) for number, shape in enumerate(self._shapes)]


def _array(frame: VideoFrame, number: int, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """A view of one plane without the padding of its lines."""
    plane = frame.planes[number]
    samples = plane.line_size // np.dtype(dtype).itemsize
    return np.frombuffer(cast(Any, plane), dtype).reshape(-1, samples)[: shape[0], : shape[1]]
