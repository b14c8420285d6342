"""The name to save a film under: headset and home players read the layout from it.

Kodi wants `.3d.` and `.hsbs.`, `.sbs.`, `.htab.` or `.tab.` as separate tokens; Skybox, DeoVR, Rad TV and the like look
for SBS, LR, TB or OU anywhere. So: `Title.3D.HSBS.LR.mp4` (half), `Title.3D.SBS.LR.mp4` (full), `Title.3D.HTAB.TB.mp4`,
`Title.3D.TAB.TB.mp4`. What is no pair of pictures carries no such token.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

from stereospot.options import Container, Layout

_TOKENS: dict[Layout, str] = {
    Layout.HALF_SBS: "3D.HSBS.LR",
    Layout.FULL_SBS: "3D.SBS.LR",
    Layout.HALF_TB: "3D.HTAB.TB",
    Layout.FULL_TB: "3D.TAB.TB",
    Layout.CROSS_EYED: "Cross-Eyed",
    Layout.ANAGLYPH: "Anaglyph.Red-Cyan",
    Layout.ANAGLYPH_GREEN_MAGENTA: "Anaglyph.Green-Magenta",
    Layout.ANAGLYPH_AMBER_BLUE: "Anaglyph.Amber-Blue",
    Layout.ANAGLYPH_HALF_COLOUR: "Anaglyph.Half-Colour",
    Layout.ANAGLYPH_GREY: "Anaglyph.Grey",
    Layout.DEPTH: "2D+Depth",
    Layout.LEFT: "Left",
}

_ORDERS = (("LR", "RL"), ("TB", "BT"))
"""What says that the left eye comes first, and what the right one."""

_MISREAD = re.compile(
    r"(?:(?<=[\s._-])|^)(?:3-?d|h?-?(?:sbs|tab|ou)|half-?sbs|lr|rl|tb|bt|180|360)(?=[\s._-]|$)", re.IGNORECASE
)
"""Words of a title that players would take for a layout."""

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_LONGEST_TITLE_BYTES = 180


def film_name(title: str, layout: Layout, container: Container, *, swapped: bool = False) -> str:
    """A file name that is safe on every file system and says the layout once; `title` may be anything.

    swapped: the right eye comes first.
    """
    token = _TOKENS[layout]
    for first, second in _ORDERS if swapped else ():
        token = re.sub(rf"\.{first}$", f".{second}", token)
    return f"{_stem(title)}.{token}.{container}"


def sidecar_name(film: str, number: int) -> str:
    """The subtitles that lie beside a film: the first track (1) is named as the film is, players load it by itself."""
    stem = PurePath(film).stem
    return f"{stem}.ass" if number == 1 else f"{stem}.{number}.ass"


def _stem(title: str) -> str:
    plain = _FORBIDDEN.sub(" ", unicodedata.normalize("NFC", title))
    plain = "".join(letter if unicodedata.category(letter)[0] != "C" else " " for letter in plain)
    plain = _MISREAD.sub(" ", plain)
    words = re.sub(r"\s+", " ", plain).strip(" .-_")
    words = words.encode()[:_LONGEST_TITLE_BYTES].decode(errors="ignore").strip(" .-_")
    return words or "Film"
