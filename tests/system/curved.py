"""A learned engine without torch, for tests of everything around one: `python -m tests.system.curved SERVICE…`.

Raw depth is a scale that drifts with the picture, so near and far matter, and results depend on the frame alone. It
takes the place of depth-anything in this process. `STEREOSPOT_CURVED_FAULT` makes it fail: `lost:3` from its third call
on, as a GPU that is gone for good; `memory:4` with more than four frames at a time, as one that has no room for them.
`STEREOSPOT_CURVED_SECONDS` is how long each frame takes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from inference import depth
from stereospot import errors
from tests.media import sources as films

NAME = "depth-anything"
BATCH = 8


class Curved:
    """Depth from luma, on a scale of its own."""

    def __init__(self) -> None:
        self.info = depth.EngineInfo(
            NAME, "test", "0" * 64, 112, 63, 2.0, needs_curve=True, batch=BATCH, model="curved"
        )
        kind, _, limit = os.environ.get("STEREOSPOT_CURVED_FAULT", "").partition(":")
        self._fault, self._limit = kind, int(limit or 0)
        self._seconds = float(os.environ.get("STEREOSPOT_CURVED_SECONDS", "0"))
        self._calls = 0

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the protocol says; [n, h, w] float32, 0 and up."""
        self._calls += 1
        time.sleep(self._seconds * len(rgb))
        if self._fault == "lost" and self._calls >= self._limit:
            raise errors.error("WORKER_LOST", "The GPU stopped answering: CUDA error", device_lost=True)
        if self._fault == "memory" and len(rgb) > self._limit:
            raise errors.error("OUT_OF_MEMORY", f"{len(rgb)} frames do not fit.")
        luma = rgb.astype(np.float32).mean(3)
        return luma * 7 + np.linspace(0, 300, rgb.shape[1], dtype=np.float32)[None, :, None] + 40

    def memory_bytes(self) -> int:
        return 123 << 20

    def close(self) -> None:
        """Nothing is held."""


def load(**_: Any) -> Curved:
    """What `inference.depth.load` calls, with the settings of the engine whose place this takes."""
    return Curved()


def film(folder: Path, *, seconds: int = 10, rate: int = 24) -> Path:
    """A silent film with a cut in the middle of it: 160 x 90, brightness drifting, so that near and far differ."""
    path = folder / f"film-{seconds}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate, options={"preset": "ultrafast", "g": "24", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(seconds * rate):
            shown = films.picture(number + (500 if number > seconds * rate // 2 else 0), 160, 90)
            shown[:90] = (shown[:90] * (0.4 + 0.6 * number / (seconds * rate))).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(shown, format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def install() -> None:
    """Take depth-anything's place in this process, until it ends."""
    depth._MODULES[NAME] = "tests.system.curved"  # pyright: ignore[reportPrivateUsage]


if __name__ == "__main__":
    from services import cli

    install()
    sys.exit(cli.main(["run", *sys.argv[1:]]))
