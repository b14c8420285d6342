"""The level an encoder must declare for a picture size and rate, so that every worker declares the same.

Bit rate takes no part: quality-controlled encodes have no bound on it, and decoders go by size and rate.
Sources: ITU-T H.264 table A-1, ITU-T H.265 tables A.8 and A.9, AV1 annex A.3.
"""

from __future__ import annotations

from fractions import Fraction

_H264 = (
    # level, macroblocks a second, macroblocks a frame
    ("1.0", 1485, 99), ("1.1", 3000, 396), ("1.2", 6000, 396), ("1.3", 11880, 396), ("2.0", 11880, 396),
    ("2.1", 19800, 792), ("2.2", 20250, 1620), ("3.0", 40500, 1620), ("3.1", 108000, 3600), ("3.2", 216000, 5120),
    ("4.0", 245760, 8192), ("4.2", 522240, 8704), ("5.0", 589824, 22080), ("5.1", 983040, 36864),
    ("5.2", 2073600, 36864), ("6.0", 4177920, 139264), ("6.1", 8355840, 139264), ("6.2", 16711680, 139264),
)  # fmt: skip

_HEVC = (
    # level, luma samples a second, luma samples a frame
    ("1.0", 552960, 36864), ("2.0", 3686400, 122880), ("2.1", 7372800, 245760), ("3.0", 16588800, 552960),
    ("3.1", 33177600, 983040), ("4.0", 66846720, 2228224), ("4.1", 133693440, 2228224), ("5.0", 267386880, 8912896),
    ("5.1", 534773760, 8912896), ("5.2", 1069547520, 8912896), ("6.0", 1069547520, 35651584),
    ("6.1", 2139095040, 35651584), ("6.2", 4278190080, 35651584),
)  # fmt: skip


def h264_level(width: int, height: int, rate: Fraction) -> str:
    """The lowest H.264 level for the size and rate; 6.2 where none is enough (decoders then go by capability)."""
    across, down = -(-width // 16), -(-height // 16)
    frame = across * down
    for level, per_second, largest in _H264:
        # A frame may be at most sqrt(8 * MaxFS) macroblocks wide or high (A.3.1).
        if frame <= largest and frame * rate <= per_second and max(across, down) ** 2 <= 8 * largest:
            return level
    return "6.2"


def hevc_level(width: int, height: int, rate: Fraction) -> str:
    """The lowest HEVC level (main tier) for the size and rate; 6.2 where none is enough."""
    frame = width * height
    for level, per_second, largest in _HEVC:
        if frame <= largest and frame * rate <= per_second and max(width, height) ** 2 <= 8 * largest:
            return level
    return "6.2"
