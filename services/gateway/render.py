"""HTML from templates; undefined names are errors, everything is escaped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jinja2

from services.gateway import assets, formats
from stereospot import errors

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    auto_reload=False,
)


def _kind(code: str) -> str:
    """Whether another try of what failed so may help: only where it is not `permanent`."""
    return errors.entry(code).kind


_FILTERS: dict[str, Any] = {
    "bytes": formats.size,
    "duration": formats.duration,
    "clock": formats.clock,
    "nearest": formats.nearest,
    "ago": formats.ago,
    "number": formats.number,
    "layout": formats.layout,
    "codec": formats.codec,
    "engine": formats.engine,
    "quality": formats.quality,
    "places": formats.places,
    "kind": _kind,
}
_ENVIRONMENT.filters.update(_FILTERS)


def render(template: str, **values: Any) -> str:
    """A template with what all of them use."""
    shared = {"now": time.time(), "has_hls": assets.has_hls(), "hls": assets.HLS}
    return _ENVIRONMENT.get_template(template).render(**shared, **values)


def wants_html(accept: str) -> bool:
    """Whether an Accept header names HTML; programs that accept anything get JSON."""
    return "text/html" in accept
