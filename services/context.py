"""What every service is given: the settings, one bus and one store. Nothing else is shared between services."""

from __future__ import annotations

from dataclasses import dataclass

from stereospot.bus import Bus
from stereospot.settings import Settings
from stereospot.storage.base import ObjectStore


@dataclass(frozen=True, slots=True)
class Context:
    """One process's way to the outside."""

    settings: Settings
    bus: Bus
    store: ObjectStore
    alone: bool = False
    """The broker is this daemon's own: its converter is the only one, so it takes the segments of every pool."""
