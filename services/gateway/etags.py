"""Entity tags, as conditional requests name them."""

from __future__ import annotations


def matches(header: str, etag: str) -> bool:
    """Whether an If-None-Match (weak comparison) names `etag`."""
    if header.strip() == "*":
        return True
    return any(item.strip().removeprefix("W/").strip('"') == etag for item in header.split(","))
