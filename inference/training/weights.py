"""Weights of an exported model: start from them, blend them.

Place in the flow: `train.py --init model.onnx` calls `load_onnx`, `cool` and
`calibrate`; `export.py` calls `blend`. A model file holds what `fold.py` makes,
convolutions with batch norm in their weight and bias; to train on, each batch
norm is given back the mean and variance that its input has on rendered
pictures, and a gain and offset that undo them, so that the network computes
exactly what it did, and normalises again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from inference.training import fold
from inference.training.network import ReliefNet, TokenBlock

# Names in the first prototype's file, and what the same parts are called here.
_PROTOTYPE = {
    "e0": "stem", "e1": "stage1", "e2": "stage2", "e3": "stage3", "d2": "up2", "d1": "up1", "d0": "up0",
    "out": "relief", "pos": "position", "ln": "norm", "tb": "tokens", "n1": "norm_attention",
    "n2": "norm_perceptron", "b": "body", "qkv": "query_key_value", "o": "project", "m": "perceptron",
}  # fmt: skip


def _initialisers(model: onnx.ModelProto) -> dict[str, NDArray]:
    """All constants by name; 8-bit weights as the floats they stand for."""
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for name in [n for n in found if n.endswith("_quantized")]:
        base = name.removesuffix("_quantized")
        root = base if base + "_scale" in found else name
        scale, zero, values = found[root + "_scale"], found[root + "_zero_point"], found[name]
        shape: tuple[int, ...] = (-1,) + (1,) * (values.ndim - 1)
        if np.size(scale) == 1:
            shape = ()
        elif values.ndim == 2:
            shape = (1, -1)  # a matrix, quantised per column
        offset = np.reshape(zero, shape if np.size(zero) > 1 else ()).astype(np.float32)
        found[base] = (values.astype(np.float32) - offset) * np.reshape(scale, shape)
    return found


def _own_name(name: str) -> str:
    return ".".join(_PROTOTYPE.get(part, part) for part in name.removeprefix("network.").split("."))


def _matrices(model: onnx.ModelProto, found: dict[str, NDArray]) -> dict[str, NDArray]:
    """The matrices of linear layers, which have no name of their own, by the name of the bias that is added to each."""
    through = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    added = {name: node for node in model.graph.node if node.op_type == "Add" for name in node.input}
    out: dict[str, NDArray] = {}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        name = through.get(node.input[1], node.input[1]).removesuffix("_quantized")  # the float it stands for
        adder = added.get(node.output[0])
        terms = node.input[2:] if node.op_type == "Gemm" else adder.input if adder else ()
        biases = [_own_name(term) for term in terms if term in found]
        if name in found and biases and _own_name(name) != biases[0].removesuffix(".bias") + ".weight":
            out[biases[0]] = found[name]
    return out


def _copy(given: NDArray | None, into: Tensor) -> bool:
    """Copy what a file has, without the nothing that `fold` added to it; False where it is of another shape."""
    if given is None or given.ndim != into.ndim:
        return False
    kept = given[tuple(slice(size) for size in into.shape)]
    if kept.shape != tuple(into.shape) or np.count_nonzero(kept) != np.count_nonzero(given):
        return False
    into.copy_(torch.from_numpy(np.array(kept, np.float32)))
    return True


def _widened(network: ReliefNet, named: dict[str, NDArray]) -> None:
    """Give a file's narrower perceptrons the hidden units that the network has beyond them: nothing comes of these."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.Sequential) or not name.endswith("perceptron") or f"{name}.0.weight" not in named:
            continue
        first, last = module[0], module[2]
        known = len(named[f"{name}.0.bias"])
        if known < first.out_features:
            for part, own in (("weight", first.weight), ("bias", first.bias)):
                named[f"{name}.0.{part}"] = np.concatenate(
                    [named[f"{name}.0.{part}"], own.detach()[known:].cpu().numpy()]
                )
            nothing = np.zeros((last.out_features, first.out_features - known), np.float32)
            named[f"{name}.2.weight"] = np.concatenate([named[f"{name}.2.weight"], nothing], 1)


def load_onnx(network: ReliefNet, path: Path) -> set[str]:
    """Fill the network from an exported file (ours or the prototype's); returns the names in its state that it set.

    Parts that the file lacks keep the values they have: those of a new network change nothing.
    """
    model = onnx.load(str(path))
    found = _initialisers(model)
    named = {_own_name(name): value for name, value in found.items()}
    for up in ("up2.0", "up1.0", "up0.0"):  # a file of ours has what `fold.folded` made of them
        if f"{up}.low.weight" in named:
            named[f"{up}.0.weight"] = np.concatenate([named[f"{up}.low.weight"], named[f"{up}.skip.weight"]], 1)
            named[f"{up}.0.bias"] = named[f"{up}.skip.bias"]
    for name, value in named.items():  # linear layers
        if name.startswith("tokens.") and value.ndim == 4:
            named[name] = value[:, :, 0, 0]
    if "relief.four.weight" in named:
        named["relief.weight"] = fold.last_weights(named["relief.four.weight"])
        named["relief.bias"] = named["relief.four.bias"].reshape(2, 2, 2, 2)[0, :, 0].flatten()
    if "stem.bytes.weight" in named:
        named["stem.0.weight"] = fold.first_weights(named["stem.bytes.weight"])
        named["stem.0.bias"] = named["stem.bytes.bias"] + named["stem.0.weight"][:, 3:].sum((1, 2, 3))
    for bias, matrix in _matrices(model, found).items():
        named[bias.removesuffix(".bias") + ".weight"] = matrix.T
    _widened(network, named)
    state, filled = network.state_dict(), set[str]()
    for name, value in state.items():
        if _copy(named.get(name), value):
            filled.add(name)
    for prefix, _, norm in _folds(network):
        if f"{prefix}.0.weight" not in filled:
            continue
        norm.weight.data.fill_(1)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        _copy(named.get(f"{prefix}.0.bias"), norm.bias.data)
        filled |= {f"{prefix}.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    return filled


def _folds(network: nn.Module) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """(name of the Sequential, its convolution, its batch norm) throughout the network."""
    out = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            assert isinstance(module[0], nn.Conv2d)
            out.append((name, module[0], module[1]))
    return out


@torch.no_grad()
def calibrate(network: ReliefNet, rgb: Tensor) -> None:
    """Give batch norms with identity statistics the real ones of `rgb` without a change of function."""
    stats: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        stats[module] = (output.mean((0, 2, 3)), output.var((0, 2, 3), unbiased=False))

    network.eval()
    hooks = [conv.register_forward_hook(record) for _, conv, _ in _folds(network)]
    network(rgb)
    for hook in hooks:
        hook.remove()
    for _, conv, norm in _folds(network):
        mean, variance = stats[conv]
        old_gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        offset = norm.bias - norm.running_mean * old_gain
        variance = variance.clamp_min(1e-6)
        norm.weight.copy_(old_gain * torch.sqrt(variance + norm.eps))
        norm.bias.copy_(offset + old_gain * mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


SHARPEST = 12.0
"""Range of attention's scores (mean over places of the greatest less the least) that still lets it learn."""


def _token_blocks(network: ReliefNet) -> list[TokenBlock]:
    return [module for module in network.tokens if isinstance(module, TokenBlock)]


@torch.no_grad()
def score_ranges(network: ReliefNet, rgb: Tensor) -> list[float]:
    """How far apart the scores are that each token block gives to the places it looks at. rgb: [n, 3, h, w] in 0..1."""
    seen: list[Tensor] = []

    def record(block: TokenBlock) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            query, key, _ = (x.unflatten(-1, (block.heads, -1)).transpose(1, 2) for x in output.chunk(3, -1))
            scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
            seen.append((scores.amax(-1) - scores.amin(-1)).mean())

        return hook

    hooks = [block.query_key_value.register_forward_hook(record(block)) for block in _token_blocks(network)]
    network.eval()
    network(rgb)
    for hook in hooks:
        hook.remove()
    return [float(value) for value in seen]


@torch.no_grad()
def cool(network: ReliefNet, rgb: Tensor) -> list[float]:
    """Scale scores down that are too far apart; returns the range that each block's had.

    Where softmax has one answer, no gradient comes through it: the block has stopped to learn where to look, and in a
    file its denormal weights cost a CPU a tenth of the whole network's time. In the weights before the sixth run the
    first two blocks' scores lay 119 and 87 apart, and next to nothing was made of what they looked at.
    """
    found: list[float] = []
    for number, block in enumerate(_token_blocks(network)):
        found.append(score_ranges(network, rgb)[number])  # anew: what a block before it sees has changed
        layer, factor = block.query_key_value, min(1.0, SHARPEST / found[-1])
        layer.weight[: layer.in_features] *= factor
        layer.bias[: layer.in_features] *= factor
    return found


@torch.no_grad()
def blend(network: ReliefNet, start: ReliefNet, share: float, rgb: Tensor, names: set[str]) -> ReliefNet:
    """A network `share` of the way from `network` back to `start`, the one that it was trained on from.

    A short run forgets some of what its start knew; the straight line between both is better than either end
    (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). Only what `names` lists of the state is blended:
    a start may lack parts. Both ends are brought to the statistics of `rgb` [n, 3, h, w], so that their gains mean the
    same; those of the blend are taken anew.
    """
    out, other = copy.deepcopy(network), copy.deepcopy(start)
    for one in (out, other):
        calibrate(one, rgb)
    old = other.state_dict()
    for name, value in out.state_dict().items():
        if name in names and value.dtype.is_floating_point:
            value.lerp_(old[name], share)
    norms = [norm for _, _, norm in _folds(out)]
    for norm in norms:
        norm.momentum = 1.0  # this one batch is all that counts
    out.train()
    out(rgb)
    for norm in norms:
        norm.momentum = 0.1
    return out.eval()
