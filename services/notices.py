"""Codes for what the media layer says in sentences: a warning on a job has a code that clients can rely on."""

from __future__ import annotations

import re

from stereospot.media.plan import PICTURE_REDUCED, PTS_SYNTHESISED
from stereospot.media.scan import FROM_FRAMES
from stereospot.messages import Notice

_CODES: tuple[tuple[str, str], ...] = (
    (rf"{PTS_SYNTHESISED}|{re.escape(FROM_FRAMES)}", "PTS_SYNTHESISED"),
    (PICTURE_REDUCED, PICTURE_REDUCED),
    (r"could not be read to its end|begins or ends in the middle|ends (early|in the middle)|is missing", "SOURCE_CUT"),
    (r"do not decode|are damaged", "SOUND_DAMAGED"),
    (r"was left out|were left out", "TRACK_LEFT_OUT"),
    (r"without loss", "SOUND_REPACKED"),
    (r"All times were moved", "TIMES_MOVED"),
    (r"Matroska counts milliseconds", "TIMES_ROUNDED"),
    (r"was ignored", "PICTURE_TAG_IGNORED"),
    (r"no frame rate", "RATE_ASSUMED"),
    (r"has no index", "INDEX_LEFT_OUT"),
    (r"asks players to crop", "EDGES_KEPT"),
)
"""The first that is found in the sentence decides; a test holds every sentence of the media layer against this."""

LOSSES = frozenset({"SOURCE_CUT", "SOUND_DAMAGED"})
"""Warnings of a film that has less in it than its source promised."""

NOTE = "NOTE"
"""The code of a sentence that none of them knows: from a newer version of the jail's child, say."""


def code(text: str) -> str:
    """The stable code of a warning's sentence."""
    return next((name for pattern, name in _CODES if re.search(pattern, text)), NOTE)


def notice(text: str) -> Notice:
    """A sentence of the media layer as the warning that a job is given: its code, and the sentence for people."""
    name = code(text)
    said = text.removeprefix(f"{name}: ").strip()
    return Notice(code=name, text=f"{said[:1].upper()}{said[1:]}{'' if said.endswith('.') else '.'}")
