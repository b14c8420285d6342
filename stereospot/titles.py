"""What a film is called, as somebody gave it: the same text, or none where nobody would see any of it.

A title is the film's link in every list. What is made of blanks, or of characters that no font draws, would be one that
can be neither seen nor clicked. Only whole titles are judged: within one, a character that is not seen may do work, as
a joiner does between the parts of an emoji and the letters of Persian, or a tag behind the flag of England.
"""

from __future__ import annotations

import unicodedata
from typing import Any

_BLANK = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"})
"""General categories of which next to no character is drawn: of Cf a few Arabic signs are, around the numbers to which
they belong. Not Cn: what this Python does not know may be a newer emoji."""

_IGNORABLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF),
)  # fmt: skip
"""Of other categories: Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties, and the braille of no dots."""


def shown(text: str) -> str:
    """`text` without blanks around it; empty if nothing of it is drawn."""
    return text.strip() if any(map(_is_drawn, text)) else ""


def given(value: Any) -> Any:
    """`shown` for a model's field, before its length is looked at; what is no text is left to the field."""
    return shown(value) if isinstance(value, str) else value


def joins(letter: str) -> bool:
    """Whether it is of category Cf and makes another sign of its neighbours: the two joiners, and the tags of flags."""
    return letter in "\u200c\u200d" or "\U000e0020" <= letter <= "\U000e007f"


def _is_drawn(letter: str) -> bool:
    code = ord(letter)
    return unicodedata.category(letter) not in _BLANK and not any(first <= code <= last for first, last in _IGNORABLE)
