"""A Depth Anything of a few thousand weights, seeded, written as the two files that a real model has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def write(folder: Path, *, hidden: int = 24, seed: int = 7) -> Path:
    """Write config.json and model.safetensors of a tiny network of the real architecture; needs torch."""
    torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra gpu)")
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed (extra gpu)")
    safetensors: Any = pytest.importorskip("safetensors.torch", reason="safetensors is not installed (extra gpu)")
    backbone = transformers.Dinov2Config(
        hidden_size=hidden, num_attention_heads=2, num_hidden_layers=4, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=hidden, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    network = transformers.DepthAnythingForDepthEstimation(config)
    # Random heads answer next to nothing; lift the last layers, so that differences between pictures show.
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("head."):
                parameter.normal_(0.1, 0.3)
    torch.random.set_rng_state(generator)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tensors: dict[str, Any] = {name: value.contiguous() for name, value in network.state_dict().items()}
    safetensors.save_file(tensors, str(folder / "model.safetensors"))
    return folder
