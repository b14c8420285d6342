"""Write the shipped model: `python -m inference.training.export --checkpoint … --out …`.

Place in the flow: after training. The averaged weights are folded, the graph is
written as ONNX in floating point and, by static quantisation on rendered
pictures, with 8-bit integers: the model file. Both are compared. Beside it a
.json card is written, which `inference/depth/relief.py` checks the file against.

The graph takes one frame as `inference/depth/canvas.py` paints it, and gives what that
finishes: relief of each 4 x 4 pixels in bytes, and `trust`, the share of the
network's own relief that is to be kept.
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
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.nn import functional as F

from inference.depth import relief
from inference.depth.canvas import blank, finish, paint
from inference.training import fold, weights
from inference.training.network import HEIGHT, WIDTH, ReliefNet, parameters
from inference.training.render import still
from inference.training.textures import make_atlas

SURE, UNSURE = 0.30, 0.60
"""Expected error (Laplace scale, in units of the range) up to which relief is kept whole, and from
which nothing of it is kept."""
CARD_FROM, CARD_SURE = 1.0, 3.0
"""Logit of a picture being a card from which its relief starts to fade, and at which it is gone."""
CALIBRATION_SEED = 77
PERCENTILE = 99.99
"""Of an activation's values on the calibration pictures; all of them (no percentile) is a fifth less exact."""


class Shipped(nn.Module):
    """A `folded` network between bytes in and bytes out, here as floats: 8 bits come with `write_int8`."""

    def __init__(self, network: ReliefNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """`canvas` [1, 57, 97, 20] to lanes [1, 28, 48, 16] in 0..1 and trust [1, 14, 24]."""
        lanes, log_spread, card = self.network.beyond(self.network.stem(canvas.permute(0, 3, 1, 2)))
        trust = ((UNSURE - torch.exp(log_spread)) * (1 / (UNSURE - SURE))).clamp(0, 1)
        trust = trust * ((CARD_SURE - card) * (1 / (CARD_SURE - CARD_FROM))).clamp(0, 1)[:, None, None]
        # Trust is smoothed over its neighbours, so that the fade itself draws no edges.
        smooth = F.avg_pool2d(trust[:, None], 3, 1, 1, count_include_pad=False)
        return lanes.clamp(0, 1).permute(0, 2, 3, 1), smooth[:, 0]


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
    module = Shipped(fold.folded(network)).eval()
    example = torch.from_numpy(blank(HEIGHT, WIDTH)).float()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (example,), str(path), input_names=["canvas"], output_names=["lanes", "trust"],
            opset_version=17, dynamo=False, keep_initializers_as_inputs=False,
        )  # fmt: skip
    model = onnx.load(str(path))
    clean(model)
    onnx.save(model, str(path))


def _painted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    canvas = blank(*picture.shape[:2])
    paint(picture, canvas)
    return canvas


class _Pictures(CalibrationDataReader):
    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._rest = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        picture = next(self._rest, None)
        return None if picture is None else {"canvas": _painted(picture).astype(np.float32)}


def _kept_float(model: onnx.ModelProto) -> list[str]:
    """Nodes that stay in floating point: attention's core, norms, the judgement of cards, and trust."""
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
        if node.op_type in ("Softmax", "LayerNormalization", "Transpose", "Reshape", "Cast", "Mul", "Div", "Gemm"):
            keep.add(node.name)
        if node.op_type == "MatMul" and not any(i in constants for i in node.input):
            keep.add(node.name)
    return sorted(keep)


def calibration_pictures(count: int) -> NDArray[np.uint8]:
    atlas, rng = make_atlas(CALIBRATION_SEED, 96), np.random.default_rng(CALIBRATION_SEED)
    return np.stack([still(rng, atlas).rgb for _ in range(count)])


def _sums_that_fit(model: onnx.ModelProto) -> dict[str, list[dict[str, object]]]:
    """Range of each output channel of a convolution's weights, such that no two neighbours add up to more than 7 bits.

    CPUs without VNNI add a byte times a weight and the next byte times the next weight in 16 bits, and stay at their
    limit where that is too much (255 * 128 = 32640 is not). So all CPUs compute the same. Halving all weights would do
    it, too, and cost twice as many steps. Neighbours are channels; a depthwise convolution has none.
    """
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    found: dict[str, list[dict[str, object]]] = {}
    for node in model.graph.node:
        if node.op_type != "Conv" or constants[node.input[1]].shape[1] == 1:
            continue
        values = constants[node.input[1]]
        sums = values[:, 0::2] + values[:, 1::2]
        most = np.maximum(np.abs(values).max((1, 2, 3)), np.abs(sums).max((1, 2, 3)))
        found[node.input[1]] = [{"axis": 0, "rmin": -m, "rmax": m} for m in most.astype(np.float32)]
    return found


def write_int8(source: Path, path: Path, pictures: NDArray[np.uint8]) -> None:
    """Static QDQ quantisation, weights per channel, activations to a percentile: rare peaks cost all others steps."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{number}"
        onnx.save(model, str(prepared))
        whole = [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]
        unit = [{"scale": np.array(1 / 255, np.float32), "zero_point": np.array(0, np.uint8)}]
        entry = next(node.output[0] for node in model.graph.node if "canvas" in node.input)
        leaving = next(node.input[0] for node in model.graph.node if "lanes" in node.output)
        quantize_static(
            str(prepared), str(path), _Pictures(pictures), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=_kept_float(model),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": PERCENTILE,
                "CalibTensorRangeSymmetric": False,
                "TensorQuantOverrides": {
                    entry: whole, leaving: unit, **_sums_that_fit(model),
                },
            },
        )  # fmt: skip
    model = onnx.load(str(path))
    _bytes_at_the_ends(model)
    clean(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _bytes_at_the_ends(model: onnx.ModelProto) -> None:
    """Let bytes in and out: the first conversion to 8 bits and the last one from them change nothing."""
    graph = model.graph
    turned_in = next(node for node in graph.node if "canvas" in node.input)
    first = next(node for node in graph.node if turned_in.output[0] in node.input)
    turned_out = next(node for node in graph.node if "lanes" in node.output)
    last = next(node for node in graph.node if turned_out.input[0] in node.output)
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node, kind, step in ((first, "QuantizeLinear", 1), (last, "DequantizeLinear", np.float32(1 / 255))):
        assert (node.op_type, constants[node.input[1]], constants[node.input[2]]) == (kind, step, 0)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == first.output[0]:
                node.input[index] = turned_in.output[0]
    turned_out.input[0] = last.input[0]
    for node in (first, last):
        graph.node.remove(node)
    for value in (graph.input[0], next(o for o in graph.output if o.name == "lanes")):
        value.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def run(path: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Relief of a file of either precision, in steps of a byte. pictures: [n, 112, 192, 3]."""
    session = ort.InferenceSession(str(path), relief.options(), providers=["CPUExecutionProvider"])
    out = []
    for picture in pictures:
        canvas = _painted(picture)
        if session.get_inputs()[0].type != "tensor(uint8)":
            canvas = canvas.astype(np.float32)
        lanes, trust = session.run(["lanes", "trust"], {"canvas": canvas})
        if lanes.dtype != np.uint8:
            lanes = np.round(lanes * 255).astype(np.uint8)
        out.append(finish(lanes[0], trust[0]))
    return np.stack(out)


def difference(a: Path, b: Path, pictures: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and 99th percentile of |relief a - relief b|."""
    error = np.abs(run(a, pictures) - run(b, pictures))
    return float(error.mean()), float(np.percentile(error, 99))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export the relief network to ONNX.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model file; a .json card lands beside it")
    parser.add_argument("--also", type=Path, help="keep the graph in floating point here")
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
        data = small.read_bytes()
        given.out.write_bytes(data)
        if given.also:
            given.also.write_bytes(exact.read_bytes())
    card = {
        "name": "relief", "version": "1", "sha256": _digest(given.out), "bytes": len(data),
        "width": WIDTH, "height": HEIGHT, "precision": "int8", "parameters": parameters(network),
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
