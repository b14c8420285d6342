"""Which windows of a curve each segment of a plan part looks at, in a few bytes a segment.

    [(first, last), …] ─pack─> base64 of varints: how far `first` is beyond the one before, how many follow it

Windows are numbers on the film's time axis and may be negative or huge. Segments follow each other, so differences are
small: a three-hour film of 5 s segments takes 6 kB.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable


def pack(spans: Iterable[tuple[int, int]]) -> str:
    """Text of the windows `first … last` of consecutive segments; raises ValueError where last < first."""
    found = bytearray()
    before = 0
    for first, last in spans:
        if last < first:
            raise ValueError(f"no span: {first} … {last}")
        _put(found, _zigzag(first - before))
        _put(found, last - first)
        before = first
    return base64.b64encode(bytes(found)).decode()


@functools.lru_cache(maxsize=4096)
def unpack(text: str) -> tuple[tuple[int, int], ...]:
    """The spans of a text that `pack` made; raises ValueError for any other."""
    data = base64.b64decode(text, validate=True)
    numbers: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    if shift or len(numbers) % 2:
        raise ValueError("spans end in the middle")
    found: list[tuple[int, int]] = []
    first = 0
    for step, more in zip(numbers[::2], numbers[1::2], strict=True):
        first += (step >> 1) ^ -(step & 1)
        found.append((first, first + more))
    return tuple(found)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _put(target: bytearray, value: int) -> None:
    while value > 0x7F:
        target.append(value & 0x7F | 0x80)
        value >>= 7
    target.append(value)
