"""iw3 at work, under iw3's own interpreter: `python iw3_child.py CHECKOUT WEIGHTS DEVICE [--define-nms]`.

It runs `iw3_main`, so its loop is the one that its users run, with the network that is compared as its depth model.
Nothing of StereoSpot is imported.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main(checkout: str, weights: str, device: str, define_nms: bool) -> None:
    """Convert what stdin asks for, one JSON line each, and answer with seconds."""
    # In place of this script's folder, whose modules have names that the standard library has too.
    sys.path[0] = checkout
    os.environ["NUNIF_HOME"] = checkout
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch: Any = importlib.import_module("torch")
    if define_nms:
        # A torchvision whose extension does not fit this torch: its operators need only exist to be imported.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    utils: Any = importlib.import_module("iw3.utils")
    networks: dict[bool, Any] = {}
    print(json.dumps({"ready": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        arguments = [
            "-i", asked["source"], "-o", asked["target"], "--yes", "--half-sbs", "--method", "backward",
            "--video-codec", "libx264", "--preset", "veryfast", "--crf", "20", "--max-fps", "1000",
            "--batch-size", str(asked["batch"]), "--max-workers", str(asked["workers"]),
            "--gpu", "-1" if device == "cpu" else "0", "--resolution", str(asked["resolution"]),
        ]  # fmt: skip
        if not asked["network"]:
            arguments += ["--depth-model", "NULL"]
        args = utils.create_parser(required_true=False).parse_args(arguments)
        if asked["network"] not in networks:
            networks[asked["network"]] = _network(weights, asked["resolution"]) if asked["network"] else None
        utils.set_state_args(args, depth_model=networks[asked["network"]], tqdm_fn=_quiet)
        began, spent = time.perf_counter(), time.process_time()
        utils.iw3_main(args)
        told = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}
        print(json.dumps(told), file=answers, flush=True)


def _quiet(*_: Any, **__: Any) -> Any:
    class Bar:
        def update(self, *_: Any) -> None: ...

        def close(self) -> None: ...

    return Bar()


def _network(weights: str, resolution: int) -> Any:
    """The same network as a depth model of iw3."""
    torch: Any = importlib.import_module("torch")
    base: Any = importlib.import_module("iw3.base_depth_model").BaseDepthModel
    preprocess: Any = importlib.import_module("iw3.depth_anything_model").batch_preprocess
    autocast: Any = importlib.import_module("nunif.device").autocast

    class Same(base):  # type: ignore[misc]
        def load_model(self, model_type: str, resolution: Any = None, device: Any = None) -> Any:
            return _built(weights)

        def infer(self, x: Any, enable_amp: bool = True, **_: Any) -> Any:
            with torch.inference_mode(), autocast(device=x.device, enabled=enable_amp):
                out = self.model(preprocess(x if x.ndim == 4 else x[None], resolution)).predicted_depth
            out = out.float()[:, None]
            return out if x.ndim == 4 else out[0]

        @classmethod
        def get_name(cls) -> str:
            return "Same"

        @classmethod
        def supported(cls, model_type: str) -> bool:
            return True

        has_checkpoint_file = multi_gpu_supported = supported

        @classmethod
        def get_model_path(cls, model_type: str) -> str:
            return ""

        def is_metric(self) -> bool:
            return False

        @classmethod
        def force_update(cls) -> None: ...

    return Same("Same")


def _built(weights: str) -> Any:
    """The network of a folder, by transformers alone."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.DepthAnythingConfig.from_dict(json.loads((Path(weights) / "config.json").read_text()))
    network = transformers.DepthAnythingForDepthEstimation(config)
    load: Any = importlib.import_module("safetensors.torch").load_file
    network.load_state_dict(load(str(Path(weights) / "model.safetensors")))
    return network.eval()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], "--define-nms" in sys.argv[4:])
