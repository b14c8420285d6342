"""The warp and the layout on a device, several frames at a time: planes up, the finished picture's planes down.

The same integers as the CPU compositor, so the same bytes (a test holds the two together). Disparity is still counted
and converted on the CPU: the grid is small, and the comfort report wants every cell of it. Layouts that mix colours or
paint depth stay with the CPU compositor.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import geometry, layouts, warp
from inference.contract import Planes
from inference.warp import torch_kernel
from stereospot.media.model import Plan
from stereospot.options import Layout

GROUP = 8
"""Frames at a time: enough to hide the cost of launching kernels."""

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
        self._torch: Any = importlib.import_module("torch")
        self._device = device
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
        """Finished pictures, in order. pictures: Y, U, V of each source frame; depths: [rows, columns] on the grid."""
        torch, field, place = self._torch, self.inner.field, self.inner.arrangement
        step, parallax = field.grid.step, self._parallax(depths)
        with torch.inference_mode():
            moves = torch_kernel.invert(
                self._up(parallax), step, field.width, self._knot, self._knots, self._eyes.left, self._eyes.right
            )
            self._count(moves)
            down: list[NDArray[Any]] = []
            for index, (size, out_size) in enumerate(zip(self._sizes, self._out, strict=True)):
                x, y = self._shifts if index else (0, 0)
                planes = np.stack([picture[index][: size[0], : size[1]] for picture in pictures])
                source = self._up(planes.view(np.int16) if self._wide else planes)
                out = torch.empty((len(pictures), *out_size), dtype=source.dtype, device=self._device)
                torch_kernel.render(
                    source, moves, step, self._knot, x, y, int(place.half_width), int(place.half_height), out,
                    place.eye_width >> x, place.eye_height >> y,
                    (place.left[0] >> x, place.left[1] >> y), (self._right[0] >> x, self._right[1] >> y),
                )  # fmt: skip
                found = out.cpu().numpy()
                down.append(found.view(np.uint16) if self._wide else found)
        return [tuple(plane[i] for plane in down) for i in range(len(pictures))]

    def _parallax(self, depths: Sequence[NDArray[np.float32]]) -> NDArray[np.int32]:
        """[n, rows, columns] disparity; `means` then holds the mean parallax of each of these frames, in percent."""
        found: list[NDArray[np.int32]] = []
        self.means = []
        for depth in depths:
            found.append(self.inner.disparity.convert(depth))
            self.means.append(self.inner.disparity.mean_percent)
        return np.stack(found)

    def _up(self, array: NDArray[Any]) -> Any:
        """A tensor on the device; page-locked on the way there, so that the copy runs beside the work."""
        tensor = self._torch.from_numpy(np.ascontiguousarray(array))
        if self._device.startswith("cuda"):
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def _count(self, moves: Any) -> None:
        """What the CPU kernel counts while it inverts: intervals of knots whose source is stretched to double."""
        grown = moves.to(self._torch.int64).diff(dim=-1)
        self.inner.stretch[0] += int((grown < -(self._knot << 15)).sum())
        self.inner.stretch[1] += grown.numel()
