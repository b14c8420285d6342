"""Which depth engine a job gets: settled by the planner, fixed for the generation, never changed silently."""

from __future__ import annotations

import importlib.util
import os

from inference import depth
from inference.depth import weights
from stereospot.options import ENGINES, Options
from stereospot.settings import Settings

_NEEDS = {"depth-anything": "transformers", "iw3": "torch"}
"""Engines that need more than this package installs."""


def default(settings: Settings) -> str:
    """The engine of jobs that name none: the configured one, else relief where its model is, else cues."""
    if settings.engine is not None:
        return settings.engine
    return "relief" if _has_relief() else "cues"


def resolve(options: Options, settings: Settings) -> str:
    """The engine of a job. The stub copies pixels, whatever the engine is called."""
    return options.engine or default(settings)


def check(options: Options, engine: str) -> None:
    """Raise MODEL_MISSING for a model that the engine does not know, LICENSE_NOT_ACCEPTED for one that must be."""
    weights.check(engine, options.model, options.accept_license)


def divergence(options: Options, engine: str) -> float:
    """Percent of the picture's width: what was asked for, else the engine's own default."""
    return depth.DEFAULT_DIVERGENCE[engine] if options.divergence is None else options.divergence


def available() -> tuple[str, ...]:
    """Engines whose modules are here; whether their weights are is seen when one is loaded."""
    modules = {name: f"inference.depth.{name.replace('-', '_')}" for name in ENGINES}
    return tuple(name for name in ENGINES if _is_installed(modules[name]) and _is_installed(_NEEDS.get(name)))


def device() -> str:
    """`cuda` where a GPU is visible to this process, else `cpu`; asks no driver."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return "cuda" if os.path.exists("/dev/nvidia0") and not hidden else "cpu"


def _has_relief() -> bool:
    found = importlib.util.find_spec("inference.depth.relief")
    return found is not None and found.origin is not None and os.path.exists(found.origin[:-2] + "onnx")


def _is_installed(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None
