"""Words that mean nothing, for writing in pictures."""

from __future__ import annotations

import numpy as np

_LETTERS = "ABCDEFGHIKLMNOPRSTUVWY"
_OTHERS = "abcdefghiklmnoprstuvwyz"


def words(rng: np.random.Generator, count: int) -> str:
    """So many words of one to eight letters, some with a capital, sometimes all in capitals."""
    found = []
    for _ in range(count):
        letters = "".join(_OTHERS[rng.integers(0, len(_OTHERS))] for _ in range(int(rng.integers(1, 9))))
        found.append(_LETTERS[rng.integers(0, len(_LETTERS))] + letters if rng.random() < 0.4 else letters)
    line = " ".join(found)
    return line.upper() if rng.random() < 0.25 else line
