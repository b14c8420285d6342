"""What a replayed sample looks like this time.

Place in the flow: between the replay pool and the network, on tensors. Zoom
crops change size and place, the rest changes colour; a clip's frames get the
same geometry and nearly the same colour, and their flow follows the crop.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from inference.training.render import BACK


def _uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g)


def _shared(values: Tensor, pairs: int) -> Tensor:
    """Give the second frames of clips the values of the first ones."""
    if pairs:
        values[-pairs:] = values[-2 * pairs : -pairs]
    return values


def geometry(
    rgb: Tensor, inverse: Tensor, back: Tensor, flow: Tensor, pairs: int, size: tuple[int, int], g: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crop, scale to `size` and mirror; `back`, of which only percentiles are asked, is cropped alone."""
    height, width = rgb.shape[-2:]
    zoom = 1.0 if torch.rand(1, generator=g) < 0.5 else 1 + 0.6 * float(torch.rand(1, generator=g))
    if zoom > 1:
        h, w = int(height / zoom), int(width / zoom)
        y = int(torch.randint(0, height - h + 1, (1,), generator=g))
        x = int(torch.randint(0, width - w + 1, (1,), generator=g))
        rgb, inverse = rgb[:, :, y : y + h, x : x + w], inverse[:, y : y + h, x : x + w]
        back = back[:, y // BACK : -(-(y + h) // BACK), x // BACK : -(-(x + w) // BACK)]
        flow = flow[:, y : y + h, x : x + w]  # what leaves the crop gets beyond -1..1, what was unseen stays there
        flow = ((flow + 1) * torch.tensor([width, height]) - 2 * torch.tensor([x, y])) / torch.tensor([w, h]) - 1
    if rgb.shape[-2:] != size:
        smaller = rgb.shape[-2] > size[0] * 1.2
        rgb = (
            F.interpolate(rgb, size, mode="area")
            if smaller
            else F.interpolate(rgb, size, mode="bilinear", align_corners=False)
        )
        inverse = F.interpolate(inverse[:, None], size, mode="nearest")[:, 0]
        flow = F.interpolate(flow.permute(0, 3, 1, 2), size, mode="nearest").permute(0, 2, 3, 1)
    mirror = _shared(torch.rand(rgb.shape[0], generator=g), pairs) < 0.5
    rgb = torch.where(mirror[:, None, None, None], rgb.flip(-1), rgb)
    inverse = torch.where(mirror[:, None, None], inverse.flip(-1), inverse)
    if pairs:
        turned = flow.flip(2) * torch.tensor([-1.0, 1.0])
        flow = torch.where(mirror[-pairs:, None, None, None], turned, flow)
    return rgb, inverse, back, flow


def colour(rgb: Tensor, pairs: int, g: torch.Generator) -> Tensor:
    """Uneven light, exposure, tint, gamma, saturation, swapped channels, noise."""
    n = rgb.shape[0]

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return _shared(_uniform(g, low, high, n, channels, 1, 1), pairs)

    # Lamps and shadows fall where they like: bright is not near, dark is not far.
    lamps = _shared(torch.randn((n, 1, 3, 5), generator=g), pairs) * (draw(0, 1) < 0.25) * draw(0.1, 0.7)
    rgb = rgb * F.interpolate(lamps, rgb.shape[-2:], mode="bicubic", align_corners=True).exp()
    rgb = (rgb * draw(0.65, 1.35) + draw(-0.12, 0.12)) * draw(0.88, 1.12, 3)
    # Within a clip: exposure flicker, and now and then a camera that opens or closes because something came.
    drift = torch.where(draw(0, 1) < 0.3, 0.25, 0.02)
    rgb = rgb * (1 + drift * torch.randn((n, 1, 1, 1), generator=g))
    rgb = rgb.clamp(0, 1) ** torch.where(draw(0, 1) < 0.12, draw(1.4, 2.2), draw(0.7, 1.4))  # some low-key
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * draw(0, 1.9)
    swap = draw(0, 1) < 0.15
    rgb = torch.where(swap, rgb[:, torch.randperm(3, generator=g)], rgb)
    noisy = (draw(0, 1) < 0.4).float() * draw(0, 0.04)
    return (rgb + noisy * torch.randn(rgb.shape, generator=g)).clamp(0, 1)
