"""File names: what each player's own rule reads out of them."""

from __future__ import annotations

import re

import pytest

from stereospot.media import naming
from stereospot.options import Layout

KODI_3D = re.compile(r"[-. _]3d[-. _]", re.IGNORECASE)
KODI_SBS = re.compile(r"[-. _]h?sbs[-. _]", re.IGNORECASE)
KODI_TAB = re.compile(r"[-. _]h?tab[-. _]", re.IGNORECASE)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (Layout.HALF_SBS, "Title.3D.HSBS.LR.mp4"),
        (Layout.FULL_SBS, "Title.3D.SBS.LR.mp4"),
        (Layout.HALF_TB, "Title.3D.HTAB.TB.mp4"),
        (Layout.FULL_TB, "Title.3D.TAB.TB.mp4"),
    ],
)
def test_players_find_the_layout(layout: Layout, name: str) -> None:
    assert naming.film_name("Title", layout, "mp4") == name
    assert KODI_3D.search(name)
    assert bool(KODI_SBS.search(name)) == ("sbs" in layout)
    assert bool(KODI_TAB.search(name)) == ("tb" in layout)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (Layout.HALF_SBS, "Title.3D.HSBS.RL.mp4"),
        (Layout.FULL_TB, "Title.3D.TAB.BT.mp4"),
        (Layout.ANAGLYPH, "Title.Anaglyph.Red-Cyan.mp4"),
    ],
)
def test_the_name_says_which_eye_comes_first(layout: Layout, name: str) -> None:
    assert naming.film_name("Title", layout, "mp4", swapped=True) == name


@pytest.mark.parametrize("layout", [item for item in Layout if not item.endswith(("sbs", "tb"))])
def test_flat_layouts_promise_nothing(layout: Layout) -> None:
    name = naming.film_name("Title", layout, "mkv")
    assert not KODI_3D.search(name)
    assert not re.search(r"[-. _](sbs|lr|tb|ou)[-. _]", name, re.IGNORECASE)


@pytest.mark.parametrize(
    ("title", "stem"),
    [
        ("", "Film"),
        ("../../etc/passwd", "etc passwd"),
        ("A: B? <C>", "A B C"),
        ("Gravity.3D.TAB.1080p", "Gravity. . .1080p"),
        ("My holiday SBS", "My holiday"),
        ("line\nbreak\x00", "line break"),
        ("Álbum — 映画", "Álbum — 映画"),
        (".hidden", "hidden"),
        ("\u202egnp.exe", "gnp.exe"),
    ],
)
def test_titles(title: str, stem: str) -> None:
    assert naming.film_name(title, Layout.HALF_SBS, "mp4") == f"{stem}.3D.HSBS.LR.mp4"


def test_long_titles_stay_within_a_file_name() -> None:
    assert len(naming.film_name("ü" * 300, Layout.HALF_SBS, "mp4").encode()) <= 255
