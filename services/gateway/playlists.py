"""HLS playlists as text (RFC 8216 §4). Pure; what may be listed is decided by `playback`.

    master.m3u8 ─> video.m3u8 (EVENT, fragments of one init) + audio/<track>.m3u8 (the same run)

`EXT-X-START:TIME-OFFSET=0` is in every media playlist: without it players begin a growing one near its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MEDIA_TYPE = "application/vnd.apple.mpegurl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One fragment of a media playlist."""

    uri: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Rendition:
    """One audio track of a master playlist."""

    uri: str
    name: str
    language: str | None
    default: bool


def media_playlist(init_uri: str, entries: Sequence[Entry], *, target_seconds: float, ended: bool) -> str:
    """An EVENT playlist of `entries`; `ended` adds ENDLIST, after which it never changes again."""
    longest = max((entry.seconds for entry in entries), default=0.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(math.ceil(target_seconds), round(longest), 1)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-START:TIME-OFFSET=0,PRECISE=YES",
        f'#EXT-X-MAP:URI="{init_uri}"',
    ]
    for entry in entries:
        lines += [f"#EXTINF:{entry.seconds:.6f},", entry.uri]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def master_playlist(
    video_uri: str,
    *,
    codecs: Sequence[str],
    bandwidth: int,
    width: int,
    height: int,
    rate: float,
    layout: str,
    audio: Sequence[Rendition] = (),
) -> str:
    """One rendition of pictures, with its sound as a group. The layout is ours to read: no player has a word for it."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-SESSION-DATA:DATA-ID="dev.stereospot.layout",VALUE="{layout}"',
    ]
    for item in audio:
        parts = ["TYPE=AUDIO", 'GROUP-ID="sound"', f'NAME="{_quoted(item.name)}"']
        if item.language:
            parts.append(f'LANGUAGE="{_quoted(item.language)}"')
        parts += [f"DEFAULT={'YES' if item.default else 'NO'}", "AUTOSELECT=YES", f'URI="{item.uri}"']
        lines.append("#EXT-X-MEDIA:" + ",".join(parts))
    stream = [
        f"BANDWIDTH={bandwidth}",
        f'CODECS="{",".join(dict.fromkeys(codecs))}"',
        f"RESOLUTION={width}x{height}",
        f"FRAME-RATE={rate:.3f}",
    ]
    if audio:
        stream.append('AUDIO="sound"')
    lines += ["#EXT-X-STREAM-INF:" + ",".join(stream), video_uri]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text that may stand in a quoted string: no quotes, no line ends."""
    return " ".join(text.replace('"', "'").split())[:120]
