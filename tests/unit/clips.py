"""Synthetic frames for the tests of `inference`: a scene with moving boxes, grain and cuts, and their decoder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from inference import geometry
from stereospot.media.cmaf import Fragment
from stereospot.media.model import Colour, DecodeSpec, EncodeSpec, Plan, Segment, SourceInfo, StereoSpec, VideoTrack
from stereospot.options import Codec, Layout

TICKS = 1001


def pictures(
    count: int, width: int, height: int, pixel_format: str = "yuv420p", *, cuts: tuple[int, ...] = (), seed: int = 7
) -> list[tuple[np.ndarray, ...]]:
    """`count` frames of Y, U, V; a new scene begins at each frame of `cuts`."""
    rng = np.random.default_rng(seed)
    scale = 4 if pixel_format.endswith("10le") else 1
    found: list[tuple[np.ndarray, ...]] = []
    y, x = np.mgrid[0:height, 0:width]
    base, boxes = None, None
    for index in range(count):
        if base is None or index in cuts:
            angle, phase, mean = rng.uniform(0, np.pi), rng.uniform(0, 6), rng.uniform(40, 200)
            base = mean + 25 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 9 + phase) + 20 * y / height
            boxes = rng.uniform(0.1, 0.8, (3, 5))
        assert boxes is not None
        luma = base + rng.normal(0, 1.5, base.shape)
        for box in boxes:
            left = int((box[0] * width + (box[2] - 0.4) * 3 * index) % width)
            top = int(box[1] * height)
            luma[top : top + height // 4, left : left + width // 5] = 255 * box[3]
        planes = [np.clip(luma, 16, 235)]
        for size in geometry.plane_sizes(width, height, pixel_format)[1:]:
            planes.append(np.full(size, 118.0) + np.linspace(0, 20, size[1]))
        dtype = np.uint16 if scale == 4 else np.uint8
        found.append(tuple(np.ascontiguousarray((plane * scale).astype(dtype)) for plane in planes))
    return found


@dataclass(eq=False)
class Picture:
    """A frame of the clip; reading it after `release` is an error of the reader."""

    pts: int
    planes: tuple[Any, ...]
    pad: int
    owner: Clip

    def release(self) -> None:
        assert self in self.owner.lent, "released twice"
        self.owner.lent.remove(self)
        self.planes = ()


class Clip:
    """Hands out frames as the decoder of the jail does, and counts how many are out at a time."""

    def __init__(self, frames: list[tuple[np.ndarray, ...]], fail_at: int | None = None) -> None:
        self._frames = frames
        self._fail_at = fail_at
        self.lent: set[Picture] = set()
        self.most_lent = 0

    def frames(self, start: int | None, end: int | None, *, before: int = 0, after: int = 0) -> Iterator[Picture]:
        first = 0 if start is None else -(-start // TICKS)
        last = len(self._frames) if end is None else min(len(self._frames), -(-end // TICKS))
        for index in range(max(0, first - before), min(len(self._frames), last + after)):
            if index == self._fail_at:
                raise RuntimeError("this decoder fails here")
            picture = Picture(
                index * TICKS, self._frames[index], -1 if index < first else 1 if index >= last else 0, self
            )
            self.lent.add(picture)
            self.most_lent = max(self.most_lent, len(self.lent))
            yield picture


def plan(width: int, height: int, pixel_format: str = "yuv420p", **stereo: Any) -> Plan:
    """A plan with lossless encoding."""
    values = {"engine": "cues", "layout": Layout.HALF_SBS, "divergence": 3.0, "convergence": 0.5, **stereo}
    spec = StereoSpec.model_validate(values)
    base = Fraction(1, 24000)
    video = VideoTrack.model_validate(
        {
            "stream_index": 0, "codec": "h264", "width": width, "height": height, "coded_width": width,
            "coded_height": height, "pixel_format": pixel_format, "source_pixel_format": pixel_format,
            "time_base": base, "average_rate": Fraction(24000, 1001),
        }
    )  # fmt: skip
    info = SourceInfo(container="mp4", size_bytes=1, duration_seconds=None, video=video)
    size = geometry.output_size(info, spec.layout, engine=spec.engine)
    encode = EncodeSpec.model_validate(
        {
            "codec": Codec.X264, "pixel_format": pixel_format, "width": size[0], "height": size[1], "time_base": base,
            "rate": Fraction(24000, 1001), "crf": 0, "preset": "ultrafast", "colour": Colour(), "layout": spec.layout,
        }
    )  # fmt: skip
    decode = DecodeSpec.model_validate({"stream_index": 0, "pixel_format": pixel_format})
    return Plan(
        job_id="j", generation=1, source_key="s", source=info, decode=decode, stereo=spec, encode=encode,
        container="mp4", target_seconds=6, created_at=0,
    )  # fmt: skip


def segment(index: int, first: int, last: int) -> Segment:
    """Frames `first … last - 1`."""
    return Segment(
        index=index, start=first * TICKS, end=last * TICKS, frames=last - first, last=(last - 1) * TICKS,
        duration=(last - first) * TICKS,
    )  # fmt: skip


def decoded(fragment: Fragment) -> list[np.ndarray]:
    """The pictures of a fragment, each [rows of all planes, columns]."""
    with av.open(io.BytesIO(fragment.init + fragment.media), "r") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]
