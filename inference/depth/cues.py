"""Engine `cues`: a few classical monocular cues on a fixed scale. No weights; a plausible relief, not measured depth.

Lower is nearer (most), and a little: sharp is nearer (defocus), hazy and pale is farther (dark channel: He, Sun, Tang
2009), warm is nearer (Tam, Vazquez, Speranza 2009). It is wrong for ceilings, views from above, text and faces that
fill the frame; results that used it say so. Nothing is normalised by the frame's own range, so nothing pumps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference import filters
from inference.depth import DEFAULT_DIVERGENCE, EngineInfo

WIDTH, HEIGHT = 192, 112


class CuesEngine:
    """Pure function of each frame."""

    def __init__(self) -> None:
        self.info = EngineInfo("cues", "1", None, WIDTH, HEIGHT, DEFAULT_DIVERGENCE["cues"])
        self._ramp = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, 1)

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[n, h, w] float32, 0 far to 1 near."""
        return np.stack([self._depth(frame) for frame in rgb])

    def close(self) -> None:
        """Nothing to let go."""

    def _depth(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        colour = frame.astype(np.float32) * np.float32(1 / 255)
        red, green, blue = (np.ascontiguousarray(colour[..., c]) for c in range(3))
        luma = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
        dark = filters.box_mean(np.minimum(np.minimum(red, green), blue).astype(np.float32), 4)
        clear = 1 - np.clip(dark * np.float32(1.2), 0, 1)
        warm = np.clip((red - luma) * np.float32(2.1) + np.float32(0.5), 0, 1)
        around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        edges = np.zeros((HEIGHT, WIDTH), np.float32)
        edges[1:-1, 1:-1] = np.abs(4 * luma[1:-1, 1:-1] - around)
        sharp = np.clip(filters.box_mean(filters.box_mean(edges, 7), 7) * 8, 0, 1)
        fused = self._ramp * np.float32(0.58)
        for cue, weight in ((clear, 0.16), (warm, 0.12), (sharp, 0.14)):
            fused = fused + cue * np.float32(weight)
        return np.clip(filters.box_mean(filters.box_mean(fused.astype(np.float32), 3), 3), 0, 1)


def load() -> CuesEngine:
    """The engine; it needs nothing."""
    return CuesEngine()
