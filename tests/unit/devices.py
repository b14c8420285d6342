"""The devices that tests of the GPU's path run on: torch's CPU always, a GPU by the marker `gpu`."""

from __future__ import annotations

from typing import Any

import pytest

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def torch_on(name: str) -> Any:
    """torch, where that device answers; a GPU test is skipped with the reason where none does."""
    torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra gpu)")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip(f"no GPU answers torch {torch.__version__}")
    return torch
