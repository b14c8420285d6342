"""Depth as single pictures: PNG files of a folder, a zip or a pattern become one film, without decoding any of them.

    d/*.png, in the order of their numbers ─> depth-<hash>.mov: one packet a picture, 25 a second

Of each file its signature and header are read, nothing more: that they are PNG and all alike. The pictures themselves
are decoded in the jail later, like those of any film.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from stereospot.errors import error

RATE = 25
LARGEST_BYTES = 1 << 30
"""Of one picture; what a zip says of itself is not believed beyond that."""

_FORMS = {(0, 8): "gray", (0, 16): "gray16be", (2, 8): "rgb24", (2, 16): "rgb48be", (4, 8): "ya8", (6, 8): "rgba"}
"""PNG's (colour type, bits) as pixel formats."""


def film_of(given: Path, folder: Path) -> Path:
    """`given` itself if it is a file that is no zip; else the film of its pictures, in `folder`. Blocking.

    Raises DEPTH_UNREADABLE for what is no PNG, DEPTH_MISMATCH for pictures of several kinds or sizes, SOURCE_MISSING.
    """
    given = given.expanduser()
    if given.is_file() and not zipfile.is_zipfile(given):
        return given
    names = hashlib.sha256()
    for name, size, modified, _ in _pictures(given):
        names.update(f"{name}|{size}|{modified}\n".encode())
    target = folder / f"depth-{names.hexdigest()[:20]}.mov"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        _write(given, part)
        with part.open("rb") as file:  # the name is all that a later run looks at: what is behind it must be whole
            os.fsync(file.fileno())
        part.replace(target)
    return target


def _write(given: Path, target: Path) -> None:
    first: tuple[int, int, str] | None = None
    with av.open(str(target), "w", format="mov", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("png", rate=RATE)
        for number, (name, _, _, body) in enumerate(_pictures(given, read=True)):
            kind = _header(name, body)
            if first is None:
                first = kind
                stream.width, stream.height, stream.pix_fmt = kind
                stream.time_base = Fraction(1, RATE)
            elif kind != first:
                raise error("DEPTH_MISMATCH", f"{name} is {kind[0]}x{kind[1]} {kind[2]}, the first is {first}.")
            packet = av.Packet(body)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.is_keyframe = True
            container.mux(packet)


def _header(name: str, body: bytes) -> tuple[int, int, str]:
    """Width, height and pixel format of a PNG file."""
    if len(body) < 33 or not body.startswith(b"\x89PNG\r\n\x1a\n") or body[12:16] != b"IHDR":
        raise error("DEPTH_UNREADABLE", f"{name} is no PNG file.")
    width, height, bits, colour = struct.unpack(">IIBB", body[16:26])
    form = _FORMS.get((colour, bits))
    if form is None:
        raise error("DEPTH_UNREADABLE", f"{name} is a PNG file of {bits} bits and colour type {colour}, not grey.")
    return width, height, form


def _pictures(given: Path, *, read: bool = False) -> Iterator[tuple[str, int, int, bytes]]:
    """Name, size, time of change and (with `read`) bytes of each picture, in order."""
    if given.is_file():
        with zipfile.ZipFile(given) as archive:
            entries = [item for item in archive.infolist() if item.filename.lower().endswith(".png")]
            for item in sorted(entries, key=lambda entry: _order(entry.filename)):
                body = b""
                if read:
                    with archive.open(item) as file:
                        body = file.read(LARGEST_BYTES)
                yield item.filename, item.file_size, item.CRC, body
            if not entries:
                raise error("DEPTH_UNREADABLE", f"There is no .png file in {given.name}.")
        return
    pattern = re.sub(r"%0?\d*d", "*", str(given / "*.png" if given.is_dir() else given))
    paths = [Path(name) for name in sorted(glob.glob(pattern), key=_order)]
    if not paths:
        raise error("SOURCE_MISSING", f"There is no file {pattern}.")
    for path in paths:
        found = path.stat()
        yield path.name, found.st_size, found.st_mtime_ns, path.read_bytes() if read else b""


def _order(name: str) -> list[tuple[int, str]]:
    """Numbers by their value: frame 10 comes after frame 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
