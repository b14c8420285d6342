"""HLS playlists as text (RFC 8216bis): pure, written by hand, every attribute once.

    master ─> video.m3u8 (one rendition: what converters stored) + audio/<track>.m3u8 + subtitles/<track>.m3u8

Rules that are kept here: URIs as given (relative ones move with the playlist); `EXT-X-START:TIME-OFFSET=0`, without
which players begin a growing playlist near its end; TARGETDURATION from who knows the plan's longest segment, so that
it does not change while an EVENT playlist grows; ENDLIST only when told. A side-by-side picture never claims
`CH-STEREO` in REQ-VIDEO-LAYOUT: players that know the word would take it for two views and show both halves to each
eye. The layout is told in SESSION-DATA instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

MEDIA_TYPE = "application/vnd.apple.mpegurl"
LAYOUT_DATA_ID = "dev.stereospot.layout"

Kind = Literal["EVENT", "VOD"]

_HEAD = ("#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS")
"""Where every playlist of ours begins."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment: where it is, and how long it lasts.

    jumps: its times do not go on where those of the segment before it ended (RFC 8216bis 4.4.4.3).
    """

    uri: str
    seconds: float | Fraction
    jumps: bool = False


@dataclass(frozen=True, slots=True)
class Rendition:
    """One audio or subtitle track of a master playlist; `name` may be anything."""

    uri: str
    name: str
    language: str | None = None
    default: bool = False
    channels: int | None = None
    forced: bool = False


def media_playlist(
    init_uri: str | None,
    entries: Sequence[Entry],
    *,
    target_seconds: float,
    ended: bool,
    kind: Kind = "EVENT",
) -> str:
    """A media playlist of a contiguous run of segments; `init_uri` None for WebVTT.

    target_seconds: no segment is longer, of those that will follow either; one that is raises it all the same.
    kind: EVENT while segments may follow; VOD only for a film that is complete, with `ended`.
    """
    longest = max((float(entry.seconds) for entry in entries), default=0.0)
    lines = [
        *_HEAD,
        f"#EXT-X-TARGETDURATION:{max(math.ceil(target_seconds), round(longest), 1)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{kind}",
        "#EXT-X-START:TIME-OFFSET=0,PRECISE=YES",
    ]
    if init_uri is not None:
        lines.append(f"#EXT-X-MAP:URI={_quoted(init_uri)}")
    for entry in entries:
        if entry.jumps:
            lines.append("#EXT-X-DISCONTINUITY")
        lines += [f"#EXTINF:{_seconds(entry.seconds)},", entry.uri]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _seconds(value: float | Fraction) -> str:
    """Microseconds at least: rounding of single segments must not add up to a frame over a film."""
    return f"{float(value):.6f}"


def bandwidth(segments: Sequence[tuple[int, float | Fraction]], target_seconds: float) -> tuple[int, int]:
    """(peak, average) bits a second of a run of segments, each as (bytes, seconds); (0, 0) of none.

    The peak is the most of segments in a row that last for half to one and a half TARGETDURATION (RFC 8216 4.1); a run
    that has none such has its average.
    """
    target = max(math.ceil(target_seconds), 1)
    bits = np.cumsum([0.0, *(8.0 * size for size, _ in segments)])
    ends = np.cumsum([0.0, *(float(seconds) for _, seconds in segments)])
    peak = 0.0
    for first in range(len(segments)):
        # A little wider, since sums of thirds of a second are not exact.
        shortest, longest = np.searchsorted(ends, ends[first] + np.array([0.5, 1.5]) * target + [-1e-6, 1e-6])
        if shortest < longest:
            run = slice(shortest, longest)
            peak = max(peak, float(((bits[run] - bits[first]) / (ends[run] - ends[first])).max()))
    average = bits[-1] / ends[-1] if ends[-1] else 0
    return math.ceil(peak or average), math.ceil(average)


def master_playlist(
    video_uri: str,
    *,
    codecs: Sequence[str],
    peak_bits: int,
    width: int,
    height: int,
    rate: float | Fraction,
    layout: str,
    average_bits: int | None = None,
    audio: Sequence[Rendition] = (),
    subtitles: Sequence[Rendition] = (),
    hdr: Literal["SDR", "PQ", "HLG"] = "SDR",
) -> str:
    """One rendition of pictures, its sounds and subtitles as groups, and the layout for pages that know it.

    codecs: of the pictures and of every sound; peak_bits over pictures and the largest sound.
    """
    lines = [*_HEAD, f"#EXT-X-SESSION-DATA:DATA-ID={_quoted(LAYOUT_DATA_ID)},VALUE={_quoted(layout)}"]
    lines += _group("AUDIO", "sound", audio)
    lines += _group("SUBTITLES", "text", subtitles)
    stream = [f"BANDWIDTH={max(1, peak_bits)}"]
    if average_bits:
        stream.append(f"AVERAGE-BANDWIDTH={average_bits}")
    stream += [
        f"CODECS={_quoted(','.join(dict.fromkeys(codecs)))}",
        f"RESOLUTION={width}x{height}",
        f"FRAME-RATE={float(rate):.3f}",
        f"VIDEO-RANGE={hdr}",
    ]
    if audio:
        stream.append('AUDIO="sound"')
    if subtitles:
        stream.append('SUBTITLES="text"')
    lines += ["#EXT-X-STREAM-INF:" + ",".join(stream), video_uri]
    return "\n".join(lines) + "\n"


def _group(kind: Literal["AUDIO", "SUBTITLES"], group: str, renditions: Sequence[Rendition]) -> list[str]:
    """EXT-X-MEDIA of one group: names differ, and at most one is the default (RFC 8216bis 4.4.6.1.1)."""
    lines: list[str] = []
    names: set[str] = set()
    chosen = False
    for item in renditions:
        default = item.default and not chosen
        chosen = chosen or default
        parts = [f"TYPE={kind}", f'GROUP-ID="{group}"', f"NAME={_quoted(_unique(item.name, names))}"]
        if item.language:
            parts.append(f"LANGUAGE={_quoted(item.language)}")
        parts += [f"DEFAULT={'YES' if default else 'NO'}", "AUTOSELECT=YES"]
        if kind == "SUBTITLES":
            parts.append(f"FORCED={'YES' if item.forced else 'NO'}")
        if item.channels:
            parts.append(f'CHANNELS="{item.channels}"')
        parts.append(f"URI={_quoted(item.uri)}")
        lines.append("#EXT-X-MEDIA:" + ",".join(parts))
    return lines


def _unique(name: str, names: set[str]) -> str:
    plain = _plain(name) or "Track"
    found, number = plain, 2
    while found in names:
        found, number = f"{plain} {number}", number + 1
    names.add(found)
    return found


def _plain(text: str) -> str:
    """Text that may stand in a quoted string: no quotes, no line ends, no control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text.replace('"', "'")).split())[:120]


def _quoted(text: str) -> str:
    return f'"{_plain(text)}"'
