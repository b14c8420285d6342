"""The default engine without a GPU: a small network of our own, run by onnxruntime on one thread.

Place in the flow: `inference.convert` crops letterbox bars, scales frames to 192 x 112 and calls `infer`; the temporal
filter and the edge-aware upsampling come after it. The network was trained on nothing but scenes that
`inference/training` renders; where it is unsure, it says so, and its relief fades to the middle of the range (flat).

Captions on black or white, and frames of one tone, are muted by a second, plain rule (`plain`): there is no relief to
show, and a network of this size is not to be trusted with letters.

The model file lies in the package beside a card (`relief.json`) with its SHA-256, which is checked when the engine
is loaded: the name and hash that a job's result states are those of the weights that ran.
"""

# pyright: reportMissingParameterType=false
# (the kernel is typed by its numba signature)
from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from inference.depth import DEFAULT_DIVERGENCE, EngineInfo
from inference.depth.canvas import MIDDLE, blank, finish, paint
from inference.jit import I64, U8, VOID, array, compiled, view
from stereospot import errors

if TYPE_CHECKING:
    import onnxruntime as ort

_TOLERANCE = 6
_FADE = (0.80, 0.90)
"""Share of the frame in one black or white tone from which relief starts to fade, and at which it is gone."""
_FADE_ANY = (0.96, 0.985)
"""The same for any other tone: of 310 rendered scenes and 136 real pictures of something none has 0.93 in one."""
_DARKEST, _BRIGHTEST = 24, 231


@compiled(VOID(view(U8, 3), I64, array(I64, 1)))
def _commonest(rgb, tolerance, found):
    """The luma code with most pixels around it, and how many; of every second pixel of every second row."""
    rows, columns, _ = rgb.shape
    up_to = np.zeros(257, np.int64)
    for y in range(0, rows, 2):
        line = rgb[y]
        for x in range(0, columns, 2):
            sums = np.int64(line[x, 0]) * 77 + np.int64(line[x, 1]) * 150 + np.int64(line[x, 2]) * 29
            up_to[(sums >> 8) + 1] += 1
    for code in range(256):
        up_to[code + 1] += up_to[code]
    found[1] = -1
    for code in range(256):
        near = up_to[min(code + tolerance + 1, 256)] - up_to[max(code - tolerance, 0)]
        if near > found[1]:
            found[0], found[1] = code, near


def plain(rgb: NDArray[np.uint8]) -> float:
    """How surely a frame is writing on black or white, or of one tone: 0 (not) to 1. rgb: [h, w, 3] uint8; pure.

    The share of pixels within 6 luma codes of the commonest tone. It changes gently with the picture, so nothing snaps
    when letters appear.
    """
    found = np.empty(2, np.int64)
    _commonest(np.ascontiguousarray(rgb), _TOLERANCE, found)
    tone, near = int(found[0]), int(found[1])
    low, high = _FADE_ANY if _DARKEST < tone < _BRIGHTEST else _FADE
    share = near / (((rgb.shape[0] + 1) // 2) * ((rgb.shape[1] + 1) // 2))
    return min(max((share - low) / (high - low), 0.0), 1.0)


class ReliefEngine:
    """One onnxruntime session on one thread, and the canvas with its frame: one engine a thread."""

    def __init__(self, session: ort.InferenceSession, info: EngineInfo) -> None:
        self.info = info
        self._session = session
        self._canvas = blank(info.height, info.width)

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Relief, 0 far to 1 near on a fixed scale, 0.5 where the picture is flat or the network unsure.

        rgb: [n, height, width, 3] uint8, display-referred. Returns [n, height, width] float32. The graph takes one
        frame at a time, so a frame's answer cannot depend on its neighbours or on n.
        """
        return np.stack([self._relief(frame) for frame in rgb])

    def _relief(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        kept = 1.0 - plain(frame)
        if kept <= 0:
            return np.full(frame.shape[:2], MIDDLE, np.float32)
        paint(frame, self._canvas)
        lanes, trust = self._session.run(["lanes", "trust"], {"canvas": self._canvas})
        return finish(cast(NDArray[np.uint8], lanes)[0], cast(NDArray[np.float32], trust)[0], kept)

    def close(self) -> None:
        """Let the session's memory go."""
        del self._session


def options() -> ort.SessionOptions:
    """One thread, the same bits each time."""
    import onnxruntime as ort

    out = ort.SessionOptions()
    out.intra_op_num_threads = 1
    out.inter_op_num_threads = 1
    out.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    out.use_deterministic_compute = True
    out.log_severity_level = 3
    return out


def load() -> ReliefEngine:
    """Read, check and start the packaged model; ENGINE_UNAVAILABLE when it is not the one that its card describes."""
    import onnxruntime as ort

    folder = resources.files("inference.depth")
    card = json.loads(folder.joinpath("relief.json").read_text())
    data = folder.joinpath("relief.onnx").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise errors.error(
            "ENGINE_UNAVAILABLE", f"relief.onnx has SHA-256 {digest}, its card says {card['sha256']}: reinstall."
        )
    session = ort.InferenceSession(data, options(), providers=["CPUExecutionProvider"])
    info = EngineInfo(
        name="relief",
        version=card["version"],
        model_sha256=digest,
        width=card["width"],
        height=card["height"],
        default_divergence=DEFAULT_DIVERGENCE["relief"],
    )
    return ReliefEngine(session, info)
