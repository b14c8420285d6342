"""Numbers and times in words that people read. Pure."""

from __future__ import annotations

from datetime import datetime


def size(count: int | None) -> str:
    """Bytes with a unit: 1.4 GB, 320 MB."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def nearest(seconds: float) -> int:
    """The nearest whole second, halves up as the player's script has it (Python's `round` takes them to even)."""
    return int(seconds + 0.5)


def duration(seconds: float | None) -> str:
    """A span in words: 1 h 32 min, 4 min 10 s, 8 s."""
    if seconds is None:
        return ""
    whole = nearest(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    return f"{rest} s"


def clock(seconds: float | None) -> str:
    """A place in a film: 1:02:33, 4:10."""
    if seconds is None:
        return ""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago(timestamp: str, now: float) -> str:
    """How long ago an RFC 3339 time was: just now, 5 min ago, 3 days ago."""
    seconds = now - datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    if seconds < 45:
        return "just now"
    for length, unit in ((60.0, "min"), (3600.0, "h"), (86_400.0, "day")):
        limit = {"min": 3600, "h": 86_400, "day": 30 * 86_400}[unit]
        if seconds < limit:
            count = max(1, round(seconds / length))
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''} ago"
    return timestamp[:10]


def number(value: float | None) -> str:
    """At most one decimal, thousands apart: 23.9, 1 204."""
    if value is None:
        return ""
    text = f"{value:,.1f}".removesuffix(".0") if value < 100 else f"{value:,.0f}"
    return text.replace(",", "\u2009")


_LAYOUTS = {
    "half-sbs": "Half side by side",
    "full-sbs": "Full side by side",
    "half-tb": "Half top and bottom",
    "full-tb": "Full top and bottom",
    "cross-eyed": "Cross-eyed",
    "anaglyph": "Anaglyph, red and cyan",
    "anaglyph-green-magenta": "Anaglyph, green and magenta",
    "anaglyph-amber-blue": "Anaglyph, amber and blue",
    "anaglyph-half-colour": "Anaglyph, half colour",
    "anaglyph-grey": "Anaglyph, grey",
    "2d-depth": "2D beside its depth",
    "left": "Left eye alone",
}


def layout(value: str) -> str:
    """A layout's name for people."""
    return _LAYOUTS.get(value, value)


_CODECS = {
    "x264": "H.264",
    "x265": "H.265",
    "svtav1": "AV1",
    "nvenc-h264": "H.264, by the GPU",
    "nvenc-hevc": "H.265, by the GPU",
}

DEFAULT_CODEC = "H.264 for every player, for HDR AV1"

_ENGINES = {"relief": "Relief", "cues": "Cues, without a network", "depth-anything": "Depth Anything", "iw3": "iw3"}

_QUALITIES = {16: "Archive", 20: "High", 24: "Smaller file"}
"""What the form offers, by the codec's own number."""


def codec(value: str | None) -> str:
    """A codec's name for people."""
    return DEFAULT_CODEC if value is None else _CODECS.get(value, value)


def engine(value: str) -> str:
    """An engine's name for people."""
    return _ENGINES.get(value, value)


def quality(crf: int) -> str:
    """High (crf 20), crf 18"""
    return f"{_QUALITIES[crf]} (crf {crf})" if crf in _QUALITIES else f"crf {crf}"


def places(parts: list[float], seconds: float) -> str:
    """Places of a film of so many seconds, given as parts of it, in words: 0:12, 1:03 and 3:40."""
    named = list(dict.fromkeys(clock(part * seconds) for part in parts))
    return " and ".join(filter(None, (", ".join(named[:-1]), *named[-1:])))
