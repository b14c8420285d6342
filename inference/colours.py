"""The weights of red and blue in luma, by the matrix that a source declares."""

from __future__ import annotations

from stereospot.media.model import Colour


def weights(colour: Colour, height: int) -> tuple[float, float]:
    """Kr and Kb (ISO/IEC 23091-2); where nothing is declared, BT.601 up to 576 lines and BT.709 above."""
    if colour.matrix in (9, 10):
        return 0.2627, 0.0593
    if colour.matrix in (4, 5, 6) or (colour.matrix == 2 and height <= 576):
        return 0.299, 0.114
    return 0.2126, 0.0722
