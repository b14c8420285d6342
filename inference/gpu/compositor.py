"""The warp and the layout on a device, several frames at a time: planes up, the finished picture's planes down.

The same integers as the CPU compositor, so the same bytes (a test holds the two together). Disparity is still counted
and converted on the CPU: the grid is small, and the comfort report wants every cell of it. Layouts that mix colours or
paint depth stay with the CPU compositor. Its work is on a stream of its own, beside the engine's. Out of memory halves
the group once, as it halves an engine's batch.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import geometry, layouts, warp
from inference.contract import Planes
from inference.device import Device, drop_frames
from inference.warp import torch_kernel
from stereospot import errors, log
from stereospot.media.model import Plan
from stereospot.options import Layout

GROUP = 8
"""Frames at a time: enough to hide the cost of launching kernels."""

STREAMS = 2
"""Streams that all compositors of a process take turns with: torch keeps the memory of each apart, so few are made."""

_log = log.get("inference")
_turn = itertools.count()

_PLACED = frozenset(
    {Layout.HALF_SBS, Layout.FULL_SBS, Layout.HALF_TB, Layout.FULL_TB, Layout.CROSS_EYED, Layout.LEFT}
)  # fmt: skip


def fits(plan: Plan) -> bool:
    """Whether this plan's layout only places eyes, which is what the device does."""
    return plan.stereo.layout in _PLACED and plan.stereo.engine != "identity"


class DeviceCompositor:
    """Makes the pictures of one plan on `device`; `inner` keeps the counts. Not thread-safe."""

    def __init__(self, inner: layouts.Compositor, plan: Plan, device: str) -> None:
        video, form = plan.source.video, plan.encode.pixel_format
        self.inner = inner
        self.means: list[float] = []
        self.group = GROUP
        self._torch: Any = importlib.import_module("torch")
        self._on = _shared(device, next(_turn) % STREAMS)
        self._sizes = geometry.plane_sizes(video.width, video.height, form)
        self._shifts = geometry.subsampling(form)
        place = inner.arrangement
        self._out = geometry.plane_sizes(place.width, place.height, form)
        self._eyes = warp.eyes(plan.stereo)
        self._knot = warp.knot(inner.field.grid.step)
        across = place.eye_width * (2 if place.half_width else 1)
        self._knots = warp.knots(across, inner.field.grid.step)
        self._right = (-1, 0) if plan.stereo.layout is Layout.LEFT else place.right
        self._wide = form.endswith("10le")

    def compose(self, pictures: Sequence[Planes], depths: Sequence[NDArray[np.float32]]) -> list[Planes]:
        """Finished pictures, in order. pictures: Y, U, V of each source frame; depths: [rows, columns] on the grid.

        Raises OUT_OF_MEMORY when half a group does not fit, WORKER_LOST when the GPU is gone.
        """
        parallax = self._parallax(depths)
        found: list[Planes] = []
        while len(found) < len(pictures):
            part = slice(len(found), min(len(found) + self.group, len(pictures)))
            spent: errors.Exhausted | None = None
            try:
                found += self._composed(pictures[part], parallax[part])
            except errors.Exhausted as failure:
                spent = failure
            if spent is not None:
                self._halve(part.stop - part.start, spent)
        return found

    def _composed(self, pictures: Sequence[Planes], parallax: NDArray[np.int32]) -> list[Planes]:
        """One group, there and back."""
        torch, field, place = self._torch, self.inner.field, self.inner.arrangement
        step = field.grid.step
        with self._on.working():
            moves = torch_kernel.invert(
                self._on.up(parallax), step, field.width, self._knot, self._knots, self._eyes.left, self._eyes.right
            )
            down: list[NDArray[Any]] = []
            for index, (size, out_size) in enumerate(zip(self._sizes, self._out, strict=True)):
                x, y = self._shifts if index else (0, 0)
                planes = np.stack([picture[index][: size[0], : size[1]] for picture in pictures])
                source = self._on.up(planes.view(np.int16) if self._wide else planes)
                out = torch.empty((len(pictures), *out_size), dtype=source.dtype, device=self._on.name)
                torch_kernel.render(
                    source, moves, step, self._knot, x, y, int(place.half_width), int(place.half_height), out,
                    place.eye_width >> x, place.eye_height >> y,
                    (place.left[0] >> x, place.left[1] >> y), (self._right[0] >> x, self._right[1] >> y),
                )  # fmt: skip
                found = self._on.down(out)
                down.append(found.view(np.uint16) if self._wide else found)
            self._count(moves)
        return [tuple(plane[i] for plane in down) for i in range(len(pictures))]

    def _halve(self, tried: int, failure: errors.Exhausted) -> None:
        """Half the group from now on; raises `failure` when that was done before, or when there is nothing to halve."""
        if self.group < GROUP or tried < 2:
            raise failure
        self.group = tried // 2
        drop_frames(failure)
        self._on.forget()
        _log.warning("out of memory, group halved", action="retry", batch=self.group, detail=failure.detail)

    def _parallax(self, depths: Sequence[NDArray[np.float32]]) -> NDArray[np.int32]:
        """[n, rows, columns] disparity; `means` then holds the mean parallax of each of these frames, in percent."""
        found: list[NDArray[np.int32]] = []
        self.means = []
        for depth in depths:
            found.append(self.inner.disparity.convert(depth))
            self.means.append(self.inner.disparity.mean_percent)
        return np.stack(found)

    def _count(self, moves: Any) -> None:
        """What the CPU kernel counts while it inverts: intervals of knots whose source is stretched to double."""
        grown = moves.to(self._torch.int64).diff(dim=-1)
        stretched = int((grown < -(self._knot << 15)).sum())
        self.inner.stretch[0] += stretched
        self.inner.stretch[1] += grown.numel()


@functools.cache
def _shared(name: str, number: int) -> Device:
    """The device of this name; `number` is nothing but a key of the cache, so that compositors take turns on a few."""
    return Device(importlib.import_module("torch"), name)
