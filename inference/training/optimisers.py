"""What turns gradients into steps: Muon for matrices, AdamW for the rest.

Place in the flow: `trainer.py` makes them once and asks them after each batch.

Muon (Jordan et al., 2024) makes the momentum of a matrix orthogonal before it is added: all directions that a layer
could learn in are learned in, where AdamW follows the few in which gradients are large. Steps have the size that
AdamW's have (Liu et al., "Muon is Scalable for LLM Training", 2025), so that one learning rate serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_ROWS = 8
"""A layer of fewer outputs has next to no directions to even out."""


class ConvolutionMuon(torch.optim.Muon):
    """`torch.optim.Muon` for convolutions, too: each a matrix with a row for every output channel.

    The matrices are views of the weights' memory: what loads weights must copy into it. Gradients are cleared on the
    weights (`network.zero_grad`), not here.
    """

    def __init__(self, weights: list[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        """weights: [outputs, inputs] or [outputs, inputs, h, w] in the memory format they keep."""
        self._weights = weights
        matrices = [nn.Parameter(_matrix(weight.data)) for weight in weights]
        if any(m.data_ptr() != w.data_ptr() for m, w in zip(matrices, weights, strict=True)):
            raise ValueError("a weight's memory cannot be seen as a matrix")
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        del closure
        matrices = self.param_groups[0]["params"]
        for matrix, weight in zip(matrices, self._weights, strict=True):
            matrix.grad = None if weight.grad is None else _matrix(weight.grad, like=weight)
        super().step()


def _matrix(values: Tensor, like: Tensor | None = None) -> Tensor:
    """[outputs, inputs, h, w] as [outputs, n], in the order that `like` (by default itself) has in memory."""
    if values.ndim == 2:
        return values
    last = _channels_last(values if like is None else like)
    return values.permute(0, 2, 3, 1).flatten(1) if last else values.flatten(1)


def _channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def optimisers(network: nn.Module, learning_rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """For all parameters of a network. Depthwise convolutions are many small filters, not one matrix."""
    matrices = [
        module.weight
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and getattr(module, "groups", 1) == 1
        and module.weight.shape[0] >= LEAST_ROWS
    ]
    known = {id(weight) for weight in matrices}
    rest = [p for p in network.parameters() if id(p) not in known]
    decaying, free = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    return [
        ConvolutionMuon(matrices, lr=learning_rate, weight_decay=weight_decay),
        torch.optim.AdamW(
            [{"params": decaying, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}],
            lr=learning_rate, betas=(0.9, 0.99),
        ),
    ]  # fmt: skip
