"""From inverse depth to the network's target, and how far the network is from it.

Place in the flow: `trainer.py` calls `target` on each augmented batch (a crop has
percentiles of its own) and `total`. Both are pure functions of tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RANGE_FLOOR = 0.35
"""A frame whose inverse depths span less than this share of the nearest is not stretched further."""

FEW_THINGS, MANY_THINGS = 0.08, 0.35
"""Share of a picture that things take up to which they do not change the range, and from which they belong to it."""

CARD_WEIGHT = 4.0
STANDING_WEIGHT = 4.0
"""How much more the direct error counts where something stands clearly before what is around it."""
_NO_CONTRAST = 0.05
_COARSE, _AROUND = 4, 9
_STANDS_FROM, _STANDS_OUT = 0.04, 0.15
"""Relief above its surroundings (9 x 9 blocks of 4 x 4 pixels) from which, and at which, a place stands out."""
_FAR = 0.03
"""Inverse depth, as a share of the nearest, beyond which ratios say nothing; the bench's limit, too."""
_CLEARLY = 0.02
"""Relief by which two places must differ before their order counts as settled."""
_APART = ((0, 1 / 2), (1 / 2, 0), (1 / 3, -1 / 4), (1 / 4, 1 / 3), (1 / 8, 1 / 6), (0, 1 / 8), (1 / 12, 0))
"""Offsets between the places whose order is compared, in heights and widths of the picture."""


def target(inverse: Tensor, back: Tensor, pairs: int = 0) -> tuple[Tensor, Tensor]:
    """Fixed-scale relief and validity for inverse depth [n, h, w] (-1: no picture).

    relief = (d - far) / range + (1 - (near - far) / range) / 2 with near and far the 98th and 2nd percentile and
    range = max(near - far, 0.35 near): 0 far to 1 near, and a flat picture is 0.5 everywhere rather than stretched.

    The percentiles are those of `back` [n, y, x], the inverse depth without what may come and go, as long as that is
    a small part of the picture, and those of the whole picture where it is a large one: a ground must not move when
    something enters, and what fills the picture has the range. Small things may so lie beyond 1. The last 2 * `pairs`
    frames are clips, first frames then second frames: both are measured with the percentiles of both.
    """
    valid = inverse >= 0
    seen = torch.where(valid, inverse, torch.nan)[:, ::4, ::4]
    ground = F.interpolate(back[:, None], seen.shape[-2:], mode="nearest")[:, 0]
    ground = torch.where((ground >= 0) & seen.isfinite(), ground, torch.nan)
    things = (seen > 1.03 * ground + 0.01).sum((1, 2)) / seen.isfinite().sum((1, 2)).clamp_min(1)
    seen, ground = seen.flatten(1), ground.flatten(1)
    if pairs:
        seen, ground = _together(seen, pairs), _together(ground, pairs)
        things = torch.cat([things[: -2 * pairs], *[(things[-2 * pairs : -pairs] + things[-pairs:]) / 2] * 2])
    share = ((things - FEW_THINGS) / (MANY_THINGS - FEW_THINGS)).clamp(0, 1)
    percentiles = seen.new_tensor([0.02, 0.98])
    bounds = torch.nanquantile(ground, percentiles, dim=1).lerp(torch.nanquantile(seen, percentiles, dim=1), share)
    far, near = bounds[0][:, None, None], bounds[1][:, None, None]
    scale = torch.maximum(near - far, RANGE_FLOOR * near.clamp_min(1e-3))
    relief = (inverse - far) / scale + 0.5 * (1 - (near - far) / scale)
    return relief.clamp(-0.3, 1.5), valid.float()


def _together(values: Tensor, pairs: int) -> Tensor:
    """[n, k] to [n, 2 k]: each frame of a clip beside the other one, stills beside themselves."""
    stills, first, second = values[: -2 * pairs], values[-2 * pairs : -pairs], values[-pairs:]
    both = torch.cat([first, second], 1)
    return torch.cat([torch.cat([stills] * 2, 1), both, both])


def standing(truth: Tensor, valid: Tensor) -> Tensor:
    """How clearly each place of a truth [n, h, w] is nearer than what is around it, 0 to 1.

    Small things before a ground are a small part of any mean over a picture, and what is seen first in stereo.
    """
    both = F.avg_pool2d(torch.stack([truth * valid, valid], 1), _COARSE)
    around = F.avg_pool2d(F.pad(both, (_AROUND // 2,) * 4, mode="reflect"), _AROUND, 1)
    around = F.interpolate(around, truth.shape[-2:], mode="bilinear", align_corners=False)
    above = truth - around[:, 0] / around[:, 1].clamp_min(1e-3)
    return ((above - _STANDS_FROM) / (_STANDS_OUT - _STANDS_FROM)).clamp(0, 1)


def align(relief: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """`relief` scaled and shifted to fit each frame's truth (least squares, scale 0.4 to 2.5).

    The scale carries no gradient: it forgives a wrong range, it does not reward a flat answer.
    """
    count = valid.sum((1, 2), keepdim=True).clamp_min(1)
    mean = (relief * valid).sum((1, 2), keepdim=True) / count
    truth_mean = (truth * valid).sum((1, 2), keepdim=True) / count
    a, b = (relief - mean) * valid, (truth - truth_mean) * valid
    scale = (a * b).sum((1, 2), keepdim=True) / ((a * a).sum((1, 2), keepdim=True) + 1e-3 * count)
    return (relief - mean) * scale.clamp(0.4, 2.5).detach() + truth_mean


def order(relief: Tensor, inverse: Tensor, valid: Tensor) -> Tensor:
    """How wrongly pairs of places are ordered whose depths differ by more than a tenth (the bench's `pair order`).

    The other terms compare inverse depth itself and so know little of what is far away.
    """
    relief, inverse, valid = relief[:, ::2, ::2], inverse[:, ::2, ::2], valid[:, ::2, ::2]
    total, count = relief.new_zeros(()), relief.new_zeros(())
    for down, right in _APART:
        by = (round(down * relief.shape[1]), round(right * relief.shape[2]))
        other, d, v = (torch.roll(t, by, (1, 2)) for t in (relief, inverse, valid))
        away = (d - inverse).abs() > 0.1 * torch.maximum(d, inverse).clamp_min(0.05)
        counted = away * v * valid
        behind = (relief - other) * torch.sign(d - inverse)
        total = total + (_CLEARLY * F.softplus(behind / _CLEARLY) * counted).sum()
        count = count + counted.sum()
    return total / count.clamp_min(1)


def ratio(relief: Tensor, inverse: Tensor, valid: Tensor) -> Tensor:
    """How far inverse depth is off by its ratio, 0 to 1: small within the bench's factor of 1.25 (`delta1`).

    Scale and shift are fitted per frame and carry no gradient. What is nearly infinitely far counts as `_FAR`, and
    what is off by much more than the factor pulls little: places that a picture cannot tell must not outweigh those
    it can.
    """
    relief, inverse = relief[:, ::2, ::2], inverse[:, ::2, ::2]
    use = valid[:, ::2, ::2] * (inverse > _FAR)
    count = use.sum((1, 2), keepdim=True).clamp_min(1)
    mean, middle = ((x * use).sum((1, 2), keepdim=True) / count for x in (relief, inverse))
    a, b = (relief - mean) * use, (inverse - middle) * use
    scale = ((a * b).sum((1, 2), keepdim=True) / ((a * a).sum((1, 2), keepdim=True) + 1e-4 * count)).clamp_min(0)
    fitted = (relief - mean.detach()) * scale.detach() + middle
    off = (fitted.clamp(_FAR, 2).log() - inverse.clamp_min(_FAR).log()).abs() / math.log(1.25)
    return (off / (1 + off) * use).sum() / use.sum().clamp_min(1)


def edges(error: Tensor, valid: Tensor, scales: int = 4) -> Tensor:
    """Mean gradient of the error over several scales: sharp where the truth is, smooth elsewhere."""
    total = error.new_zeros(())
    error = error * valid
    for scale in range(scales):
        e, v = error[:, :: 2**scale, :: 2**scale], valid[:, :: 2**scale, :: 2**scale]
        down = (e[:, 1:] - e[:, :-1]).abs() * v[:, 1:] * v[:, :-1]
        right = (e[:, :, 1:] - e[:, :, :-1]).abs() * v[:, :, 1:] * v[:, :, :-1]
        total = total + down.mean() + right.mean()
    return total


def steadiness(relief: Tensor, truth: Tensor, flow: Tensor, pairs: int) -> Tensor:
    """Change of relief between the frames of a clip that the truth does not explain.

    flow [pairs, h, w, 2]: where a pixel of the first frame is in the second, beyond -1..1 if nowhere. Relief that has
    less contrast than the truth is measured on its own scale: a flatter answer is not a steadier one.
    """
    first, second = relief[-2 * pairs : -pairs], relief[-pairs:]
    truth_first, truth_second = truth[-2 * pairs : -pairs], truth[-pairs:]
    there = torch.stack([second, truth_second], 1)
    warped = F.grid_sample(there, flow, mode="bilinear", padding_mode="border", align_corners=False)
    seen = (flow.abs().amax(-1) < 1).float()
    own, exact = (x.flatten(1).std(1) + _NO_CONTRAST for x in (first, truth_first))
    gain = (own / exact).clamp(0.4, 1.0)[:, None, None]
    change = (first - warped[:, 0]) / gain - (truth_first - warped[:, 1])
    return (change.abs() * seen).sum() / seen.sum().clamp_min(1)


@dataclass(frozen=True, slots=True)
class Parts:
    """The loss and what it is made of (all means over the batch)."""

    total: Tensor
    aligned: Tensor
    direct: Tensor
    edges: Tensor
    steadiness: Tensor
    spread: Tensor
    order: Tensor
    ratio: Tensor
    card: Tensor


def total(
    relief: Tensor,
    spread: Tensor,
    card: Tensor,
    inverse: Tensor,
    back: Tensor,
    flow: Tensor,
    pairs: int,
    edge_weight: float,
) -> Parts:
    truth, valid = target(inverse, back, pairs)
    count = valid.sum()
    aligned_error = align(relief, truth, valid) - truth
    aligned = (aligned_error.abs() * valid).sum() / count
    # A card's whole truth is that it has no relief, of which the aligned and the edge term know little.
    shown = torch.where(valid > 0, truth, 0.5)
    flat = ((shown.amax((1, 2)) - shown.amin((1, 2))) < 0.02).float()
    weight = 1 + CARD_WEIGHT * flat[:, None, None] + STANDING_WEIGHT * standing(truth, valid)
    direct = (F.smooth_l1_loss(relief, truth, reduction="none", beta=0.1) * valid * weight).sum() / count
    gradient = edges(aligned_error, valid)
    change = steadiness(relief, truth, flow, pairs) if pairs else relief.new_zeros(())
    # Laplace likelihood of the direct error; it trains the spread head only.
    log_spread = F.interpolate(spread[:, None], relief.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    log_spread = log_spread.clamp(-5, 1)
    error = (relief - truth).abs().detach()
    likelihood = ((error * torch.exp(-log_spread) + log_spread) * valid).sum() / count
    ranked = order(relief, inverse, valid)
    off = ratio(relief, inverse, valid)
    is_card = F.binary_cross_entropy_with_logits(card, flat)
    loss = 0.7 * aligned + 1.2 * direct + edge_weight * gradient + 3.5 * change + 2 * ranked + 0.7 * off
    loss = loss + 0.1 * likelihood + 0.6 * is_card
    return Parts(loss, aligned, direct, gradient, change, likelihood, ranked, off, is_card)
