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

from inference.training.network import CHANNELS, Bottleneck, Join, ReliefNet, TokenBlock, double


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


class _Four(nn.Conv2d):
    """The last convolution for inference: 2 x 2 places of 2 x 2 pixels in one step, whose lanes are 4 x 4 pixels.

    By themselves, the four channels of a place would use four of sixteen lanes. The windows of 3 x 3 of 2 x 2 places
    lie in one of 4 x 4; the rest of its weights is zero.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """conv: 3 x 3, to the 2 x 2 pixels of a place."""
        super().__init__(conv.in_channels, 16, 4, 2, 1)
        assert conv.bias is not None
        assert self.bias is not None
        wide = torch.zeros(2, 2, 2, 2, conv.in_channels, 4, 4)  # place's row, pixel's row, place's column, pixel's
        for y in range(2):
            for x in range(2):
                wide[y, :, x, :, :, y : y + 3, x : x + 3] = conv.weight.data.unflatten(0, (2, 2))
        self.weight.data = wide.flatten(0, 3)
        self.bias.data = conv.bias.data.reshape(1, 2, 1, 2).expand(2, 2, 2, 2).flatten().clone()


def last_weights(blocks: NDArray) -> NDArray:
    """Weights of a `_Four` back to those of the convolution that it was made of."""
    wide = blocks.reshape(2, 2, 2, 2, blocks.shape[1], 4, 4)
    return wide[0, :, 0, :, :, :3, :3].reshape(4, blocks.shape[1], 3, 3)


class _Everywhere(nn.Conv2d):
    """A linear layer on [1, rows, columns, channels] as a 1 x 1 convolution: onnxruntime's are faster in 8 bits."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, 1)
        assert self.bias is not None
        self.weight.data = linear.weight.data[:, :, None, None].clone()
        self.bias.data = linear.bias.data.clone()

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _TokenBlock(nn.Module):
    """A `TokenBlock` for inference, of one picture [1, rows, columns, width]; its heads are told apart in one step."""

    def __init__(self, block: TokenBlock) -> None:
        super().__init__()
        first, relu, last = block.perceptron
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        self.heads = block.heads
        self.norm_attention, self.norm_perceptron = block.norm_attention, block.norm_perceptron
        self.query_key_value, self.project = _Everywhere(block.query_key_value), _Everywhere(block.project)
        self.perceptron = nn.Sequential(_Everywhere(first), relu, _Everywhere(last))

    def forward(self, tokens: Tensor) -> Tensor:
        shape, of_head = tokens.shape, tokens.shape[-1] // self.heads
        parts = self.query_key_value(self.norm_attention(tokens)).reshape(-1, 3 * self.heads, of_head)
        query, key, value = parts.transpose(0, 1).split(self.heads)
        scores = query * of_head**-0.5 @ key.transpose(-1, -2)
        tokens = tokens + self.project((scores.softmax(-1) @ value).transpose(0, 1).reshape(shape))
        return tokens + self.perceptron(self.norm_perceptron(tokens))


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

    Its `stem` takes `inference.depth.canvas` as floats, its `relief` gives lanes [16, h / 4, w / 4] of 4 x 4 pixels.
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
    out.relief = nn.Sequential(OrderedDict(four=_Four(out.relief)))
    out.tokens = nn.Sequential(*(_TokenBlock(block) for block in out.tokens))
    for module in out.modules():
        if isinstance(module, Bottleneck):
            _whole_lanes(module)
    return out
