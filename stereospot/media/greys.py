"""Depth pictures: what a decoder gives of a grey film, as 16-bit codes of 0 (far) to 65535 (near). Runs in the jail.

Grey and the luma of planar YUV are taken as they are, of RGB the green channel, since in a grey picture all three are
equal. A code of n bits is scaled by 65535 over its largest value; luma of limited range from its own black and white.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from stereospot.errors import error

_DEEP = "(9|10|12|14|16)?"
_PLANAR = re.compile(rf"^(gray{_DEEP}|yuv[ja]?4\d\dp{_DEEP}|gbra?p{_DEEP}|nv12|nv21)(le|be)?\Z")
_PACKED = {"rgb24": 3, "bgr24": 3, "rgba": 4, "bgra": 4, "rgb48": 3, "rgba64": 4, "ya8": 2, "ya16": 2}
"""Formats whose samples lie side by side, with how many there are of a pixel."""


def codes(frame: VideoFrame) -> NDArray[np.uint16]:
    """[height, width] uint16. Raises DEPTH_UNREADABLE for a picture that is not grey in any of these forms."""
    name = frame.format.name
    base = name.removesuffix("le").removesuffix("be")
    bits = frame.format.components[0].bits
    kind: Any = np.dtype(np.uint8 if bits == 8 else np.uint16).newbyteorder(">" if name.endswith("be") else "<")
    if _PLANAR.match(name):
        found = _rows(frame, kind)[: frame.height, : frame.width]
    elif base in _PACKED:
        samples = _PACKED[base]
        rows = _rows(frame, kind)[: frame.height, : frame.width * samples]
        found = rows[:, 0 if base.startswith("ya") else 1 :: samples]
    else:
        raise error("DEPTH_UNREADABLE", f"Its pixel format is {name}.")
    largest = (1 << bits) - 1
    # Untagged YUV is limited, as everywhere; untagged grey and all RGB are full range.
    luma = base.startswith(("yuv4", "yuva", "nv"))
    if (luma and frame.color_range != 2) or (base.startswith("gray") and frame.color_range == 1):
        low, span = 16 << bits - 8, 219 << bits - 8
        wide = (found.astype(np.int64) - low).clip(0, span) * 65535
        return ((wide + span // 2) // span).astype(np.uint16)
    if largest == 65535:
        return found.astype(np.uint16)
    return ((found.astype(np.uint32) * 65535 + largest // 2) // largest).astype(np.uint16)


def _rows(frame: VideoFrame, kind: Any) -> NDArray[Any]:
    """The first plane with the padding of its lines."""
    plane: Any = frame.planes[0]
    return np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)
