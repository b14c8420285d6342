"""The child: frames in, iw3's depth or eyes out, over stdin and stdout; ends with its parent.

Run as a script, `python child.py CHECKOUT`, by an interpreter that has what iw3 needs. A message is the length of its
JSON (4 bytes, big endian), the JSON, and as many raw bytes as its `bytes` says. Nothing of StereoSpot is imported, so
the interpreter may be another one than the parent's. iw3 is called per batch, never by its command line or time
options, which miss frames.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from typing import Any, BinaryIO

TEMPORAL = ("VDA_",)
"""Depth models that remember the frames before: a segment would depend on where it was cut."""


def read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    head = stream.read(4)
    if len(head) < 4:
        return None
    body: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    return body, stream.read(body.get("bytes", 0))


def write(stream: BinaryIO, body: dict[str, Any], data: bytes = b"") -> None:
    line = json.dumps({**body, "bytes": len(data)}).encode()
    stream.write(len(line).to_bytes(4, "big") + line + data)
    stream.flush()


class Child:
    """One depth model and one stereo method."""

    def __init__(self, checkout: str) -> None:
        sys.path.insert(0, checkout)
        os.environ["NUNIF_HOME"] = checkout
        # Checkpoints are pickles: torch then reads numbers from them and never runs what else they hold.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        self._np: Any = importlib.import_module("numpy")
        self._torch: Any = importlib.import_module("torch")
        self._model: Any = None
        self._side: Any = None
        self._settings: Any = None
        self._asked: tuple[Any, ...] = ()
        self._gpu = -1

    def load(self, body: dict[str, Any]) -> dict[str, Any]:
        """body: model, gpu (-1: CPU), resolution, threads (None: torch's own choice)."""
        create_depth_model: Any = importlib.import_module("iw3.depth_model_factory").create_depth_model
        name: str = body["model"]
        if name.startswith(TEMPORAL):
            raise ValueError(f"{name} remembers earlier frames; segments could not be converted apart.")
        if body["threads"]:
            self._torch.set_num_threads(body["threads"])
        self._model = create_depth_model(name)
        self._model.load(gpu=body["gpu"], resolution=body["resolution"])
        self._gpu = body["gpu"]
        return {"metric": bool(self._model.is_metric()), "torch": self._torch.__version__}

    def depth(self, body: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """[n, h, w, 3] uint8 to [n, h, w] float32: relative inverse depth, greater is nearer."""
        torch = self._torch
        n, height, width = body["shape"]
        with torch.inference_mode():
            rgb = self._pictures(data, n, height, width)
            raw = self._model.infer(
                rgb, tta=False, low_vram=False, enable_amp=rgb.device.type != "cpu", edge_dilation=0
            )
            raw = raw.float().reshape(n, 1, *raw.shape[-2:])
            if self._model.is_metric():
                raw = 1.0 / (-raw).clamp(min=0.05)  # iw3 hands out metres, negated
            if tuple(raw.shape[-2:]) != (height, width):
                raw = torch.nn.functional.interpolate(raw, size=(height, width), mode="bilinear", align_corners=False)
            return {}, raw[:, 0].cpu().contiguous().numpy().tobytes()

    def eyes(self, body: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Pictures [n, h, w, 3] uint8 and depth [n, rows, columns] float32 0 … 1 to [2, n, h, w, 3] uint8.

        body: method, divergence, convergence and synthesise besides the shapes.
        """
        self._prepare_eyes(body)
        apply_divergence: Any = importlib.import_module("iw3.utils").apply_divergence
        torch = self._torch
        n, height, width = body["shape"]
        rows, columns = body["grid"]
        size = n * height * width * 3
        with torch.inference_mode():
            rgb = self._pictures(data[:size], n, height, width)
            flat = self._np.frombuffer(data, self._np.float32, offset=size).reshape(n, 1, rows, columns).copy()
            depth = torch.from_numpy(flat).to(rgb.device)
            if self._settings.method in ("backward", "grid_sample"):
                depth = torch.nn.functional.interpolate(
                    depth, size=(height, width), mode="bilinear", align_corners=False
                )
            both = torch.stack(apply_divergence(depth, rgb, self._settings, self._side))
            out = (both.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
            return {}, out.cpu().contiguous().numpy().tobytes()

    def forget(self) -> None:
        """Give cached memory back to the GPU, for a smaller batch that comes next."""
        if self._gpu >= 0:
            self._torch.cuda.empty_cache()

    def _pictures(self, data: bytes, n: int, height: int, width: int) -> Any:
        array = self._np.frombuffer(data, self._np.uint8).reshape(n, height, width, 3)
        return self._torch.from_numpy(array.copy()).to(self._model.device).permute(0, 3, 1, 2).float().div_(255)

    def _prepare_eyes(self, body: dict[str, Any]) -> None:
        create_stereo_model: Any = importlib.import_module("iw3.stereo_model_factory").create_stereo_model
        calc_auto_warp_steps: Any = importlib.import_module("iw3.utils").calc_auto_warp_steps
        method, view = body["method"], body["synthesise"]
        asked = (method, body["divergence"], body["convergence"], view)
        if asked == self._asked:
            return
        if "inpaint" in method:
            raise ValueError(f"{method} remembers earlier frames; segments could not be converted apart.")
        wide = body["divergence"] * (1.0 if view == "both" else 2.0)
        self._side = create_stereo_model(method, divergence=wide, device_id=self._gpu)
        self._settings = types.SimpleNamespace(
            method=method,
            divergence=body["divergence"],
            convergence=body["convergence"],
            synthetic_view=view,
            mapper="none",
            preserve_screen_border=False,
            stereo_width=None,
            warp_steps=calc_auto_warp_steps(method=method, divergence=body["divergence"], synthetic_view=view),
            disable_amp=self._gpu < 0,
            state={"convergence_model": None},
        )
        self._asked = asked


def kind_of(failure: BaseException) -> str:
    """What sort of failure: the parent turns it into a code."""
    name, text = type(failure).__name__, str(failure)
    full = "out of memory" in text or "can't allocate memory" in text
    if isinstance(failure, MemoryError) or name == "OutOfMemoryError" or (full and isinstance(failure, RuntimeError)):
        return "memory"
    if name == "AcceleratorError" or "CUDA error" in text:
        return "device"
    if isinstance(failure, ImportError):
        return "import"
    if isinstance(failure, ValueError):
        return "value"
    if isinstance(failure, OSError) or name in ("URLError", "HTTPError", "UnpicklingError"):
        return "files"
    return "other"


def main() -> None:
    """Serve requests until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # iw3 and torch.hub print: what they print must not land between answers.
    os.dup2(2, 1)
    child: Child | None = None
    while (message := read(requests)) is not None:
        body, data = message
        kind = ""
        try:
            if child is None:
                child = Child(sys.argv[1])
            if body["do"] == "load":
                write(answers, child.load(body))
            else:
                write(answers, *getattr(child, body["do"])(body, data))
        except Exception as failure:
            kind, text = kind_of(failure), f"{type(failure).__name__}: {failure}"[:2000]
            write(answers, {"error": kind, "text": text})
        if kind == "memory" and child is not None:
            child.forget()


if __name__ == "__main__":
    main()
