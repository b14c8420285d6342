"""What a user may ask of a conversion. The same model is the CLI's flags, the API's JSON and a job's record.

Nothing here is resolved: `None` means "the default of the engine or of the source", which the planner settles and
writes into the plan, where it stays fixed for the generation. Who asks for an option that there is not is told so
(`Asked`); a record may hold one of a newer version, and keeps it.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


class Layout(StrEnum):
    """How the two eyes share one picture."""

    HALF_SBS = "half-sbs"
    FULL_SBS = "full-sbs"
    HALF_TB = "half-tb"
    FULL_TB = "full-tb"
    CROSS_EYED = "cross-eyed"
    ANAGLYPH = "anaglyph"
    ANAGLYPH_GREEN_MAGENTA = "anaglyph-green-magenta"
    ANAGLYPH_AMBER_BLUE = "anaglyph-amber-blue"
    ANAGLYPH_HALF_COLOUR = "anaglyph-half-colour"
    ANAGLYPH_GREY = "anaglyph-grey"
    DEPTH = "2d-depth"
    LEFT = "left"


class Codec(StrEnum):
    X264 = "x264"
    X265 = "x265"
    SVTAV1 = "svtav1"
    NVENC_H264 = "nvenc-h264"
    NVENC_HEVC = "nvenc-hevc"


Container = Literal["mp4", "mov", "mkv"]
Backend = Literal["local", "http", "sagemaker", "stub"]

ENGINES = ("relief", "cues", "flat", "identity", "depth-anything", "iw3", "user")
"""Every engine name that an option may hold; which of them run on a worker is the worker's to say."""


class Options(BaseModel):
    """The options of one conversion; immutable, and part of what makes a generation."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_extra={"additionalProperties": False})

    engine: Literal["relief", "cues", "flat", "identity", "depth-anything", "iw3", "user"] | None = None
    model: str | None = Field(default=None, max_length=200, description="model of the engine, where it has several")
    backend: Backend = "local"
    layout: Layout = Layout.HALF_SBS
    divergence: Annotated[float, Field(ge=0, le=10)] | None = Field(
        default=None, description="total parallax over the depth range, in percent of the picture's width"
    )
    convergence: float = Field(default=0.5, ge=0, le=1, description="depth that lies at the screen: 0 far, 1 near")
    synthesise: Literal["both", "left", "right"] = Field(
        default="both", description="which eyes are warped; the other is the source"
    )
    swap_eyes: bool = False
    codec: Codec | None = Field(
        default=None, description="named, it keeps the source's bits and chroma; null plays everywhere (AV1 for HDR)"
    )
    crf: int = Field(default=20, ge=0, le=51, description="quality; 0 is lossless where the codec can")
    preset: str = Field(default="veryfast", pattern=r"^[a-z0-9]{1,16}$")
    container: Container = "mp4"
    segment_seconds: Annotated[float, Field(ge=0.2, le=60)] | None = None
    tone_map: bool = False
    accept_license: bool = False
    export_depth: bool = Field(default=False, description="keep the depth as a film of 16-bit grey pictures")
    samples: tuple[float, ...] | None = Field(
        default=None, max_length=8, description="start times in seconds: convert only 2 s from each of them"
    )

    def fingerprint(self) -> str:
        """16 hex digits over everything that changes the result; the container does not."""
        body = self.model_dump_json(exclude={"container"})
        return hashlib.sha256(body.encode()).hexdigest()[:16]


def known(options: Options) -> Options:
    """The options as they are; raises pydantic's ValidationError for those that this version has not."""
    strange = options.model_extra or {}
    if strange:
        raise ValidationError.from_exception_data(
            "Options", [{"type": "extra_forbidden", "loc": (name,), "input": value} for name, value in strange.items()]
        )
    return options


Asked = Annotated[Options, AfterValidator(known)]
"""Options in what somebody sends: a misspelt one is refused."""
