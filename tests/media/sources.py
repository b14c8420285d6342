"""Small films of every kind, made with PyAV on first use and kept for the session: `path("h264_mp4")`.

`zoo` has those that must come out with exactly their frames, `bad_films` those that are damaged or none; `writing`
makes films that only one test wants.
"""

from __future__ import annotations

from tests.media.bad_films import BAD
from tests.media.shelf import path
from tests.media.writing import Audio, Film, frame, picture, tone, write
from tests.media.zoo import TWELVE, ZOO

__all__ = ["ALL", "BAD", "TWELVE", "ZOO", "Audio", "Film", "frame", "path", "path_of", "picture", "tone", "write"]

ALL = TWELVE | ZOO | BAD

path_of = path
"""For where `path` is a local name."""
