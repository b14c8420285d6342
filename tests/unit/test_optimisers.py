"""The training's optimisers: matrices learn in all directions alike, everything is learned once."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", minversion="2.9", reason="training needs torch, which the application does not")

from inference.training.network import ReliefNet  # noqa: E402
from inference.training.optimisers import ConvolutionMuon, optimisers  # noqa: E402


def stepped(memory: object, other: object) -> dict[str, tuple[Any, Any]]:
    """(change, gradient) of each weight in one step; weights in one memory format, gradients in the other."""
    torch.manual_seed(3)
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(6, 12, 3), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 20, 1), nn.Linear(20, 16), nn.Linear(16, 2)
    ).to(memory_format=memory)  # fmt: skip
    before = [p.detach().clone() for p in network.parameters()]
    muon, _ = made = optimisers(network, 0.01, 0.0)
    assert isinstance(muon, ConvolutionMuon)
    for p in network.parameters():  # one direction is far stronger than all others
        gradient = torch.randn(p.shape) + 8.0
        p.grad = gradient.contiguous(memory_format=other) if p.ndim == 4 else gradient
    for one in made:
        one.step()
    return {
        name: ((p.detach() - old).contiguous().flatten(1), p.grad.contiguous().flatten(1))
        for (name, p), old in zip(network.named_parameters(), before, strict=True)
        if p.ndim > 1 and p.grad is not None
    }


def test_a_matrix_is_changed_in_all_directions_alike() -> None:
    changes = stepped(torch.channels_last, torch.channels_last)
    for name in ("0.weight", "2.weight", "3.weight"):
        change, gradient = changes[name]
        strength, size = torch.linalg.svdvals(change), 0.01 * 0.2 * max(change.shape) ** 0.5
        assert 0.5 * size < float(strength.median()) <= float(strength[0]) < 1.4 * size, name
        assert float((change * gradient).sum()) < 0, name
    for name in ("1.weight", "4.weight"):  # AdamW's first step is as long for every number
        change, gradient = changes[name]
        assert torch.allclose(change, -0.01 * gradient.sign(), rtol=0.01), name


def test_the_order_of_weights_and_gradients_in_memory_does_not_matter() -> None:
    plain = stepped(torch.contiguous_format, torch.contiguous_format)
    for given in ((torch.channels_last, torch.contiguous_format), (torch.contiguous_format, torch.channels_last)):
        for name, (change, _) in stepped(*given).items():
            assert torch.allclose(change, plain[name][0], atol=4e-4), name  # Muon works in bfloat16


def test_every_parameter_is_learned_once() -> None:
    network = ReliefNet().to(memory_format=torch.channels_last)
    held = [p for one in optimisers(network, 1e-3, 0.02) for group in one.param_groups for p in group["params"]]
    assert sorted(p.data_ptr() for p in held) == sorted(p.data_ptr() for p in network.parameters())


def test_what_is_no_view_of_its_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="memory"):
        ConvolutionMuon([torch.nn.Parameter(torch.randn(4, 3, 3, 3).transpose(2, 3))], lr=0.1, weight_decay=0)
