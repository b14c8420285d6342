"""Compiling every kernel ahead of the first segment: seconds the first time on a machine, milliseconds from then on."""

from __future__ import annotations

import importlib

MODULES = (
    "inference.warp.cpu",
    "inference.warp.disparity",
    "inference.prepare",
    "inference.filters",
    "inference.temporal",
    "inference.upsample",
)
"""The modules whose kernels every film needs; anaglyphs and films of more than 8 bits compile theirs on first use."""


def kernels() -> None:
    """Compile, or load from the cache, every kernel; blocking, safe to call again and from several threads."""
    for name in MODULES:
        importlib.import_module(name)
