"""File names from which players tell the layout: they look at the name long before they look at the boxes.

`Title.3D.HSBS.LR.mp4` is read by Kodi (`3d` and `hsbs|sbs|htab|tab` as tokens of their own), Skybox (LR, SBS, TB),
Bigscreen, DeoVR and their kin (LR, TB). Anaglyph needs no player, but says which glasses.
"""

from __future__ import annotations

import re

from stereospot.options import Layout

TAGS: dict[Layout, str] = {
    Layout.HALF_SBS: "3D.HSBS.LR",
    Layout.FULL_SBS: "3D.SBS.LR",
    Layout.HALF_TB: "3D.HTAB.TB",
    Layout.FULL_TB: "3D.TAB.TB",
    Layout.CROSS_EYED: "3D.SBS.RL",
    Layout.ANAGLYPH: "3D.Anaglyph.RedCyan",
    Layout.ANAGLYPH_GREEN_MAGENTA: "3D.Anaglyph.GreenMagenta",
    Layout.ANAGLYPH_AMBER_BLUE: "3D.Anaglyph.AmberBlue",
    Layout.ANAGLYPH_HALF_COLOUR: "3D.Anaglyph.HalfColour",
    Layout.ANAGLYPH_GREY: "3D.Anaglyph.Grey",
    Layout.DEPTH: "2D.Depth",
    Layout.LEFT: "2D",
}

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')


def film_name(title: str, layout: Layout, container: str) -> str:
    """The name of a film under a title: safe on every file system, at most 200 bytes of it the title."""
    clean = _UNSAFE.sub(" ", title).strip(" .") or "film"
    clean = clean.encode()[:200].decode(errors="ignore").strip(" .")
    return f"{clean}.{TAGS[layout]}.{container}"
