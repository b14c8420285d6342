"""Edit lists of our choice in the sound of an mp4 or a mov whose index is at its end."""

from __future__ import annotations

import struct
from pathlib import Path

from stereospot.media import boxes


def with_edits(origin: Path, path: Path, *entries: tuple[int, int], track: int = 1) -> Path:
    """A copy of `origin` at `path` whose track has these edits: (length in ticks of the film, place in the media)."""
    data = origin.read_bytes()
    moov = boxes.find(data, "moov")
    assert moov is not None
    assert moov.end == len(data), "what is moved must not be pointed at"
    trak = [item for item in boxes.children(data, moov) if item.kind == b"trak"][track]
    rows = b"".join(struct.pack(">IiI", *entry, 0x1_0000) for entry in entries)
    edts = boxes.box(b"edts", boxes.full_box(b"elst", 0, 0, struct.pack(">I", len(entries)), rows))
    parts = [data[item.start : item.end] for item in boxes.children(data, trak) if item.kind != b"edts"]
    changed = boxes.box(b"trak", parts[0], edts, *parts[1:])
    path.write_bytes(data[: moov.start] + boxes.box(b"moov", data[moov.body : trak.start], changed, data[trak.end :]))
    return path
