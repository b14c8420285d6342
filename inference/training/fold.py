"""A network for inference: batch norm folded, and shapes that onnxruntime's 8-bit kernels are faster with.

Place in the flow: `export.py` calls `folded` and writes what comes of it; `weights.py` reads such a file back.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from inference.training.network import CHANNELS, Bottleneck, Join, ReliefNet, double


class _MixedFirst(nn.Module):
    """A `Join` for inference, with a convolution for each part: a slice would have no name for `load_onnx` to find."""

    def __init__(self, join: Join, skipped: int) -> None:
        """join: with its batch norm folded; skipped: channels of the skip connection."""
        super().__init__()
        whole = join[0]
        assert isinstance(whole, nn.Conv2d)
        assert whole.bias is not None
        low = whole.in_channels - skipped
        self.low = nn.Conv2d(low, whole.out_channels, 1, bias=False)
        self.skip = nn.Conv2d(skipped, whole.out_channels, 1)
        self.low.weight.data = whole.weight.data[:, :low].clone()
        self.skip.weight.data = whole.weight.data[:, low:].clone()
        self.skip.bias = whole.bias

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        return F.relu(double(self.low(low)) + self.skip(skip))


_PER_CODE = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0]).reshape(1, 5, 1, 1) / 255
"""What a byte's step is of the planes' own units: colours 0..1, places -1..1."""


class _Bytes(nn.Conv2d):
    """The first convolution for inference, on a canvas of bytes, of which two in five say where a pixel is.

    With the planes' units in its weights it needs no conversion before it. 3 x 3 pixels from every second one are
    2 x 2 of the canvas's blocks of 2 x 2 pixels; the weights of the last row and column are zero.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """conv: 3 x 3, with its batch norm folded, on three planes in 0..1 and two in -1..1."""
        super().__init__(4 * conv.in_channels, conv.out_channels, 2)
        assert conv.bias is not None
        assert self.bias is not None
        wide = F.pad(conv.weight.data * _PER_CODE, (0, 1, 0, 1)).unflatten(3, (2, 2)).unflatten(2, (2, 2))
        self.weight.data = wide.permute(0, 3, 5, 1, 2, 4).flatten(1, 3).contiguous()
        self.bias.data = conv.bias.data - conv.weight.data[:, 3:].sum((1, 2, 3))


def first_weights(blocks: NDArray) -> NDArray:
    """Weights of a `_Bytes` back to those of the convolution that it was made of."""
    outputs = blocks.shape[0]
    wide = blocks.reshape(outputs, 2, 2, 5, 2, 2).transpose(0, 3, 4, 1, 5, 2).reshape(outputs, 5, 4, 4)
    return wide[..., :3, :3] / _PER_CODE.numpy()


_LANES = 16
"""Channels that onnxruntime's 8-bit kernels work on at once: a rest, or fewer, take several times as long."""


def _padded(conv: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """With more channels, which come from nothing and go to nothing."""
    groups = outputs if conv.groups > 1 else 1
    out = nn.Conv2d(inputs, outputs, conv.kernel_size, conv.stride, conv.padding, groups=groups)  # type: ignore[arg-type]
    assert conv.bias is not None
    assert out.bias is not None
    out.weight.data.zero_()
    out.bias.data.zero_()
    out.weight.data[: conv.weight.shape[0], : conv.weight.shape[1]] = conv.weight.data
    out.bias.data[: conv.out_channels] = conv.bias.data
    return out


def _whole_lanes(block: Bottleneck) -> None:
    first, middle, last = (part[0] for part in block.body)
    wide = -(-middle.out_channels // _LANES) * _LANES
    if wide != middle.out_channels:
        block.body[0][0] = _padded(first, first.in_channels, wide)
        block.body[1][0] = _padded(middle, wide, wide)
        block.body[2][0] = _padded(last, wide, last.out_channels)


def folded(network: ReliefNet) -> ReliefNet:
    """A copy for inference, which computes the same faster: batch norm goes into the convolutions.

    Its `stem` takes `inference.depth.canvas` as floats, its `relief` gives lanes of which the first four count.
    """
    out = copy.deepcopy(network).eval()
    for _, module in list(out.named_modules()):
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    assert isinstance(out.stem[0], nn.Conv2d)
    out.stem = nn.Sequential(OrderedDict(bytes=_Bytes(out.stem[0]), relu=out.stem[2]))
    for up, skipped in ((out.up2, CHANNELS[2]), (out.up1, CHANNELS[1]), (out.up0, CHANNELS[0])):
        assert isinstance(up[0], Join)
        up[0] = _MixedFirst(up[0], skipped)
    out.relief = _padded(out.relief, out.relief.in_channels, _LANES)
    for module in out.modules():
        if isinstance(module, Bottleneck):
            _whole_lanes(module)
    return out
