"""The network: a small convolutional U-Net with token blocks at its bottom.

Place in the flow: trained by `trainer.py`, written to ONNX by `export.py`, run
by `inference/depth/relief.py` without torch.

It sees a 192 x 112 picture and two coordinate planes (where a pixel is in the
frame matters: ground is below, sky above). Four strided stages lead to 84
tokens, where a few transformer blocks look at the whole picture at once; a
decoder with skip connections leads back. Outputs are relief, 0 far to 1 near
on a fixed scale, the spread expected of it (natural logarithm of a Laplace
scale), one value for 8 x 8 pixels, and for the whole picture how surely it is
a card, which has no relief (a logit).

What keeps training from collapsing into a picture-independent ramp (it did,
once): the residual branches of the token blocks start at zero, a layer norm
closes them, and the low-resolution phase comes first. ReLU only, so that
8-bit integers lose little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEIGHT, WIDTH = 112, 192
CHANNELS = (16, 32, 56, 104)
TOKEN_BLOCKS = 4
CARD_CHANNELS = (24, 48, 64)


def double(x: Tensor) -> Tensor:
    """Twice as wide and high, bilinear."""
    size = (x.shape[-2] * 2, x.shape[-1] * 2)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class Exact(nn.Conv2d):
    """A convolution in float32 where the rest runs in bfloat16: outputs, and depthwise ones, faster so on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, *, relu: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and (mostly) ReLU."""
    kind = Exact if groups > 1 else nn.Conv2d
    layers: list[nn.Module] = [
        kind(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Mix(nn.Conv2d):
    """A 1 x 1 convolution of a map to be enlarged and the skip connection beside it.

    The first is mixed before it is enlarged: the same sum from fewer numbers.
    """

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        first = low.shape[1]
        return double(F.conv2d(low, self.weight[:, :first])) + F.conv2d(skip, self.weight[:, first:])


class Join(nn.Sequential):
    """`Mix`, batch norm and ReLU."""

    def __init__(self, low: int, skip: int, outputs: int) -> None:
        super().__init__(Mix(low + skip, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        return self[2](self[1](self[0](low, skip)))


class Bottleneck(nn.Module):
    """Inverted residual: widen, depthwise, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, widen: int = 3, size: int = 3) -> None:
        super().__init__()
        wide = inputs * widen
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            conv(inputs, wide, 1), conv(wide, wide, size, stride, wide), conv(wide, outputs, 1, relu=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Block(nn.Module):
    """Two plain 3 x 3 convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), conv(channels, channels, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class TokenBlock(nn.Module):
    """Self-attention and a small perceptron; the identity at the start."""

    def __init__(self, width: int, heads: int = 4, widen: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_perceptron = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, widen * width), nn.ReLU(), nn.Linear(widen * width, width))
        for last in (self.project, self.perceptron[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        parts = self.query_key_value(self.norm_attention(tokens)).chunk(3, -1)
        query, key, value = (part.view(batch, count, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        scores = query * (width // self.heads) ** -0.5 @ key.transpose(-1, -2)
        tokens = tokens + self.project((scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, count, width))
        return tokens + self.perceptron(self.norm_perceptron(tokens))


class Tokens(nn.Sequential):
    """Token blocks, one after the other, on places [n, rows, columns, width]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(1, 2)).reshape(input.shape)


class ReliefNet(nn.Module):
    """0.88 M parameters, 0.45 GFLOP a frame.

    `letters` looks for writing, lines and boxes beside the trunk, for the card's sake alone: what tells a title on a
    pattern from a patterned wall is lost in the trunk by its second stage. `cards.py` trains both by themselves.
    """

    coordinates: Tensor

    def __init__(self) -> None:
        super().__init__()
        c0, c1, c2, c3 = CHANNELS
        y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
        self.register_buffer("coordinates", torch.stack([x, y])[None], persistent=False)
        self.stem = conv(5, c0, 3, 2)
        self.stage1 = nn.Sequential(conv(c0, c1, 3, 2), Block(c1))
        self.stage2 = nn.Sequential(Bottleneck(c1, c2, 2, 4, 5), Bottleneck(c2, c2, 1, 3), Bottleneck(c2, c2, 1, 3, 5))
        self.stage3 = nn.Sequential(Bottleneck(c2, c3, 2, 4, 5), Bottleneck(c3, c3, 1, 2, 5))
        self.position = nn.Parameter(torch.zeros(1, c3, HEIGHT // 16, WIDTH // 16))
        self.tokens = Tokens(*(TokenBlock(c3) for _ in range(TOKEN_BLOCKS)))
        self.norm = nn.LayerNorm(c3)
        self.up2 = nn.Sequential(Join(c3, c2, 64), Bottleneck(64, 64, 1, 2, 5))
        self.up1 = nn.Sequential(Join(64, c1, 40), Block(40))
        self.up0 = nn.Sequential(Join(40, c0, 24), conv(24, 24))
        self.relief = Exact(24, 4, 3, 1, 1)
        nn.init.constant_(self.relief.bias, 0.4)
        self.spread = nn.Sequential(nn.Conv2d(64, 16, 3, 1, 1), nn.ReLU(), Exact(16, 1, 1))
        nn.init.zeros_(self.spread[2].weight)
        nn.init.constant_(self.spread[2].bias, -2.0)
        a, b, c = CARD_CHANNELS
        self.letters = nn.Sequential(
            conv(c0, a, 3, 2), conv(a, b, 3, 2), Bottleneck(b, b, 1, 2, 5), conv(b, c, 3, 2), Bottleneck(c, c, 1, 2, 5)
        )
        self.card = nn.Sequential(nn.Linear(c3 + 2 * c, 64), nn.ReLU(), nn.Linear(64, 1))
        nn.init.zeros_(self.card[2].weight)
        nn.init.constant_(self.card[2].bias, -2.0)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, 3, h, w] in 0..1 to relief [n, h, w], log spread [n, h / 8, w / 8] and card [n].

        The sides are multiples of 16; other sizes than 112 x 192 occur in training only.
        """
        relief, spread, card = self.beyond(self.first(rgb))
        if not self.training:
            relief = relief.clamp(0, 1)
        return F.pixel_shuffle(relief, 2)[:, 0], spread, card

    def first(self, rgb: Tensor) -> Tensor:
        """What the stem makes of pictures [n, 3, h, w] and of where their pixels are, [n, 16, h / 2, w / 2]."""
        where = self.coordinates
        if rgb.shape[-2:] != where.shape[-2:]:
            where = F.interpolate(where, rgb.shape[-2:], mode="bilinear", align_corners=True)
        return self.stem(torch.cat([rgb, where.expand(rgb.shape[0], -1, -1, -1)], 1))

    def beyond(self, x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the stem made of the picture to relief of each 2 x 2 pixels [n, 4, h / 2, w / 2], log spread, card."""
        x1, x2, x3, card = self.down(x0)
        x2 = self.up2[1](self.up2[0](x3, x2))
        x1 = self.up1[1](self.up1[0](x2, x1))
        x0 = self.up0[1](self.up0[0](x1, x0))
        spread = self.spread(x2.detach())  # learns from the picture, does not teach it
        return self.relief(x0), spread[:, 0], card

    def down(self, x0: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The stages below the stem, the last with what its tokens said, and card [n]."""
        position = self.position
        x1 = self.stage1(x0)
        x2 = self.stage2(x1)
        x3 = self.stage3(x2)
        if x3.shape[-2:] != position.shape[-2:]:
            position = F.interpolate(position, x3.shape[-2:], mode="bilinear", align_corners=False)
        x3 = x3 + position
        tokens = self.norm(self.tokens(x3.permute(0, 2, 3, 1)))
        letters = self.letters(x0)
        card = self.card(torch.cat([tokens.mean((1, 2)), letters.mean((2, 3)), letters.amax((2, 3))], 1))
        return x1, x2, x3 + tokens.permute(0, 3, 1, 2), card[:, 0]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
