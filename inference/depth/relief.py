"""The default engine without a GPU: a small network of our own, run by onnxruntime on one thread.

Place in the flow: `inference.convert` crops letterbox bars, scales frames to 192 x 112 and calls `infer`; the temporal
filter and the edge-aware upsampling come after it. The network was trained on nothing but scenes that
`inference/training` renders; where it is unsure, its own output has already faded to the middle of the range (flat).

Captions on black or white, and frames of one tone, are muted by a second, plain rule (`plain`): there is no relief to
show, and a network of this size is not to be trusted with letters.

The model file lies in the package beside a card (`relief.json`) with its SHA-256, which is checked when the engine
is loaded: the name and hash that a job's result states are those of the weights that ran.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from inference.depth import DEFAULT_DIVERGENCE, EngineInfo
from stereospot import errors

if TYPE_CHECKING:
    import onnxruntime as ort

MIDDLE = np.float32(0.5)
"""Relief of what is flat or unknown: the screen plane."""
_TOLERANCE = 6
_FADE = (0.80, 0.90)
"""Share of the frame in one black or white tone from which relief starts to fade, and at which it is gone."""
_FADE_ANY = (0.96, 0.985)
"""The same for any other tone: of 310 rendered scenes and 136 real pictures of something none has 0.93 in one."""
_DARKEST, _BRIGHTEST = 24, 231


def plain(rgb: NDArray[np.uint8]) -> float:
    """How surely a frame is writing on black or white, or of one tone: 0 (not) to 1. rgb: [h, w, 3] uint8; pure.

    The share of pixels within 6 luma codes of the commonest tone. It changes gently with the picture, so nothing snaps
    when letters appear.
    """
    wide = rgb[::2, ::2].astype(np.uint16)
    luma = (wide[..., 0] * 77 + wide[..., 1] * 150 + wide[..., 2] * 29) >> 8
    total = np.zeros(257, np.int64)
    np.cumsum(np.bincount(luma.ravel(), minlength=256), out=total[1:])
    codes = np.arange(256)
    near = total[np.minimum(codes + _TOLERANCE + 1, 256)] - total[np.maximum(codes - _TOLERANCE, 0)]
    tone = int(near.argmax())
    low, high = _FADE_ANY if _DARKEST < tone < _BRIGHTEST else _FADE
    return float(np.clip((near[tone] / luma.size - low) / (high - low), 0.0, 1.0))


class ReliefEngine:
    """One onnxruntime session on one thread; use one engine a thread to run in parallel."""

    def __init__(self, session: ort.InferenceSession, info: EngineInfo) -> None:
        self.info = info
        self._session = session

    def infer(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Relief, 0 far to 1 near on a fixed scale, 0.5 where the picture is flat or the network unsure.

        rgb: [n, height, width, 3] uint8, display-referred. Returns [n, height, width] float32. The graph takes one
        frame at a time, so a frame's answer cannot depend on its neighbours or on n.
        """
        return np.concatenate([self._relief(rgb[index : index + 1]) for index in range(len(rgb))])

    def _relief(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        kept = np.float32(1.0 - plain(frame[0]))
        if kept <= 0:
            return np.full(frame.shape[:3], MIDDLE, np.float32)
        found = cast(NDArray[np.float32], self._session.run(["relief"], {"rgb": np.ascontiguousarray(frame)})[0])
        return found if kept >= 1 else MIDDLE + kept * (found - MIDDLE)

    def close(self) -> None:
        """Let the session's memory go."""
        del self._session


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
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    info = EngineInfo(
        name="relief",
        version=card["version"],
        model_sha256=digest,
        width=card["width"],
        height=card["height"],
        default_divergence=DEFAULT_DIVERGENCE["relief"],
    )
    return ReliefEngine(session, info)
