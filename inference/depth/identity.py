"""Engine `identity`: the picture goes through untouched, whatever the layout; for tests of exactness."""

from __future__ import annotations

from inference.depth.flat import FlatEngine


def load() -> FlatEngine:
    """An engine that is never asked: the compositor copies the planes."""
    return FlatEngine("identity")
