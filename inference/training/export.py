"""Write the shipped model: `python -m inference.training.export --checkpoint … --out …`.

Place in the flow: after training. The averaged weights are folded, the fade to
flat is put behind them, the graph is written as ONNX and, by static
quantisation on rendered pictures, once more with 8-bit integers. Both are
measured; `--precision` says which becomes the model file (int8 unless told
otherwise). Beside it a .json card is written, which `inference/depth/relief.py`
checks the file against.

The graph takes one frame, uint8 [1, 112, 192, 3], and gives `relief` float32
[1, 112, 192] in 0..1 and `trust` [1, 14, 24], the share of the network's own
relief that was kept there.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.nn import functional as F

from inference.training import weights
from inference.training.network import HEIGHT, WIDTH, ReliefNet, parameters
from inference.training.render import still
from inference.training.textures import make_atlas

SURE, UNSURE = 0.30, 0.60
"""Expected error (Laplace scale, in units of the range) up to which relief is kept whole, and from
which nothing of it is kept."""
CARD_FROM, CARD_SURE = 0.5, 2.5
"""Logit of a picture being a card from which its relief starts to fade, and at which it is gone."""
MIDDLE = 0.5
CALIBRATION_SEED = 77


class Shipped(nn.Module):
    """The network between bytes in and faded, clipped relief out."""

    def __init__(self, network: ReliefNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        relief, log_spread, card = self.network(rgb.permute(0, 3, 1, 2).float() * (1 / 255))
        trust = ((UNSURE - torch.exp(log_spread)) * (1 / (UNSURE - SURE))).clamp(0, 1)
        trust = trust * ((CARD_SURE - card) * (1 / (CARD_SURE - CARD_FROM))).clamp(0, 1)[:, None, None]
        # Trust is smoothed over its neighbours, so that the fade itself draws no edges.
        smooth = F.avg_pool2d(trust[:, None], 3, 1, 1, count_include_pad=False)
        whole = F.interpolate(smooth, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)[:, 0]
        return MIDDLE + whole * (relief - MIDDLE), smooth[:, 0]


def clean(model: onnx.ModelProto) -> None:
    """Remove traces of the machine that wrote the file."""
    model.producer_name, model.producer_version, model.doc_string = "stereospot", "", ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    kept = [(o.domain, o.version) for o in model.opset_import if o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept)


def write_float(network: ReliefNet, path: Path) -> None:
    module = Shipped(weights.folded(network)).eval()
    example = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (example,), str(path), input_names=["rgb"], output_names=["relief", "trust"],
            opset_version=17, dynamo=False, keep_initializers_as_inputs=False,
        )  # fmt: skip
    model = onnx.load(str(path))
    clean(model)
    onnx.save(model, str(path))


class _Pictures(CalibrationDataReader):
    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._rest = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        picture = next(self._rest, None)
        return None if picture is None else {"rgb": picture[None]}


def _kept_float(model: onnx.ModelProto) -> list[str]:
    """Nodes that stay in floating point: the first convolution, attention's core, norms, and the fade to flat."""
    producer = {output: node for node in model.graph.node for output in node.output}
    constants = {i.name for i in model.graph.initializer}
    keep, stack = set(), [producer[o.name] for o in model.graph.output]
    while stack:  # backwards from the outputs up to, not including, the last convolutions
        node = stack.pop()
        if node.name in keep or node.op_type in ("Conv", "Clip", "ReduceMean"):
            continue
        keep.add(node.name)
        stack += [producer[i] for i in node.input if i in producer]
    for node in model.graph.node:
        if node.op_type in ("Softmax", "LayerNormalization", "Transpose", "Reshape", "Cast", "Mul", "Div"):
            keep.add(node.name)
        if node.op_type == "MatMul" and not any(i in constants for i in node.input):
            keep.add(node.name)
        if "network.stem.0.weight" in node.input:  # five channels: faster so, and the picture keeps its steps
            keep |= {node.name, producer[node.input[0]].name}
    return sorted(keep)


def calibration_pictures(count: int) -> NDArray[np.uint8]:
    atlas, rng = make_atlas(CALIBRATION_SEED, 96), np.random.default_rng(CALIBRATION_SEED)
    return np.stack([still(rng, atlas).rgb for _ in range(count)])


def write_int8(source: Path, path: Path, pictures: NDArray[np.uint8]) -> None:
    """Static QDQ quantisation, weights per channel."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{number}"
        onnx.save(model, str(prepared))
        quantize_static(
            str(prepared), str(path), _Pictures(pictures), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=_kept_float(model),
        )  # fmt: skip
    model = onnx.load(str(path))
    clean(model)
    onnx.save(model, str(path))


def difference(a: Path, b: Path, pictures: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and 99th percentile of |relief a - relief b|."""
    runs = []
    for path in (a, b):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        runs.append(np.stack([session.run(["relief"], {"rgb": p[None]})[0][0] for p in pictures]))
    error = np.abs(runs[0] - runs[1])
    return float(error.mean()), float(np.percentile(error, 99))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export the relief network to ONNX.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model file; a .json card lands beside it")
    parser.add_argument("--precision", choices=("int8", "float"), default="int8")
    parser.add_argument("--also", type=Path, help="keep the other precision here")
    parser.add_argument("--calibration", type=int, default=192, help="rendered pictures to set the 8-bit ranges by")
    parser.add_argument(
        "--blend", nargs=2, action="append", default=[], metavar=("ONNX", "SHARE"),
        help="an earlier model and its share of the blend, 0 to 1; may be given again, the run has the rest",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    state = torch.load(given.checkpoint, weights_only=True, map_location="cpu")
    network = ReliefNet()
    network.load_state_dict(state["average"])
    network.eval()
    pictures = calibration_pictures(given.calibration)
    rgb = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    blended = [(Path(name), float(share)) for name, share in given.blend]
    whole, own = 1 - sum(share for _, share in blended), network
    for path, share in blended:
        start = copy.deepcopy(own)  # what an earlier file lacks stays the run's
        names = weights.load_onnx(start, path)
        weights.cool(start, rgb)  # as it was when the run began
        whole += share
        network = weights.blend(network, start, share / whole, rgb, names)
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        write_float(network, exact)
        write_int8(exact, small, pictures)
        mean, high = difference(exact, small, pictures[:64])
        chosen, other = (small, exact) if given.precision == "int8" else (exact, small)
        data = chosen.read_bytes()
        given.out.write_bytes(data)
        if given.also:
            given.also.write_bytes(other.read_bytes())
    card = {
        "name": "relief", "version": "1", "sha256": _digest(given.out), "bytes": len(data),
        "width": WIDTH, "height": HEIGHT, "precision": given.precision, "parameters": parameters(network),
        "attention_score_ranges": [round(value, 1) for value in weights.score_ranges(network, rgb)],
        "int8_difference": {"mean": round(mean, 5), "p99": round(high, 5)},
        "training": {"steps": state["step"], "progress": round(state["progress"], 4), **state["plan"]},
        "blend": [{"sha256": _digest(path), "share": share} for path, share in blended],
    }  # fmt: skip
    given.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card))
    return 0


if __name__ == "__main__":
    sys.exit(main())
