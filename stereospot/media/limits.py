"""What a source may be and what its decoding may use; from the settings, checked on both sides of the jail."""

from __future__ import annotations

from dataclasses import dataclass

from stereospot.jail import JailLimits
from stereospot.jail.layers import Sandbox
from stereospot.settings import Settings

PROBE_SECONDS = 30.0
NO_PROGRESS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """max_pixels: width x height of one decoded picture; max_duration_seconds as the container declares it."""

    max_pixels: int = 8192 * 8192
    max_duration_seconds: float = 12 * 3600
    max_streams: int = 64
    memory_bytes: int = 4 * 2**30
    sandbox: Sandbox = "auto"

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            max_pixels=settings.max_pixels,
            max_duration_seconds=settings.max_duration_seconds,
            max_streams=settings.max_streams,
            memory_bytes=settings.jail_memory_bytes,
            sandbox=settings.sandbox,
        )

    def request(self) -> dict[str, int]:
        """What the opener inside the jail has to know."""
        return {"max_pixels": self.max_pixels, "max_streams": self.max_streams}

    def jail(
        self, *, stall_code: str = "DECODE_STALLED", wall_seconds: float | None = None, file_bytes: int = 2**20
    ) -> JailLimits:
        return JailLimits(
            memory_bytes=self.memory_bytes,
            no_progress_seconds=NO_PROGRESS_SECONDS,
            wall_seconds=wall_seconds,
            file_bytes=file_bytes,
            sandbox=self.sandbox,
            stall_code=stall_code,
        )
