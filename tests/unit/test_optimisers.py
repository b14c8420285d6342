"""The training's optimisers: matrices learn in all directions alike, everything is learned once."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch, which the application does not")

from inference.training.network import ReliefNet  # noqa: E402
from inference.training.optimisers import ConvolutionMuon, optimisers  # noqa: E402

MEMORY = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory", MEMORY)
def test_a_matrix_is_changed_in_all_directions_alike(memory: object) -> None:
    torch.manual_seed(3)
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(6, 12, 3), nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 20, 1), nn.Flatten(),
        nn.Linear(20, 16), nn.Linear(16, 2),
    ).to(memory_format=memory)  # fmt: skip
    before = [p.detach().clone() for p in network.parameters()]
    muon, _ = made = optimisers(network, 0.01, 0.0)
    assert isinstance(muon, ConvolutionMuon)
    for p in network.parameters():
        loud = 8.0 * torch.ones_like(p) if p.ndim > 1 else 0.0  # one direction, far stronger than all others
        p.grad = torch.randn_like(p) + loud
    for one in made:
        one.step()
    changes = {
        name: (p.detach() - old).flatten(1)
        for (name, p), old in zip(network.named_parameters(), before, strict=True)
        if p.ndim > 1
    }
    for name in ("0.weight", "2.weight", "4.weight"):
        strength = torch.linalg.svdvals(changes[name])
        size = 0.01 * 0.2 * max(changes[name].shape) ** 0.5
        assert float(strength[0]) < 1.4 * size, name
        assert 0.5 * size < float(strength.median()), name
    for name in ("1.weight", "5.weight"):  # AdamW's first step is as long for every number
        assert torch.allclose(changes[name].abs(), torch.tensor(0.01), rtol=0.01), name


def test_every_parameter_is_learned_once() -> None:
    network = ReliefNet().to(memory_format=torch.channels_last)
    held = [p for one in optimisers(network, 1e-3, 0.02) for group in one.param_groups for p in group["params"]]
    assert sorted(p.data_ptr() for p in held) == sorted(p.data_ptr() for p in network.parameters())
    assert sum(p.numel() for p in held[: len(list(network.parameters()))]) == sum(
        p.numel() for p in network.parameters()
    )


def test_what_is_no_view_of_its_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="memory"):
        ConvolutionMuon([torch.nn.Parameter(torch.randn(4, 3, 3, 3).transpose(2, 3))], lr=0.1, weight_decay=0)
