"""How many bits a second a stream takes: BANDWIDTH of its master playlist (RFC 8216 4.3.4.2), from what is stored.

`whole` is the truth about a stream to which nothing is added any more; `guessed` serves until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial

from stereospot import keys
from stereospot.media import hls
from stereospot.media.model import EncodeSpec
from stereospot.storage.base import ObjectStore

BITS_PER_PIXEL = 0.12
"""What CRF 20 needs at most, as films were measured."""
SOUND_BITS = 160_000
"""Of sound that is encoded for the stream: AAC of 128 kbit/s in its boxes. What is passed on may have more."""

Lasting = Mapping[int, Fraction]
"""Seconds by the index of a segment, in order."""


async def whole(
    store: ObjectStore, place: tuple[str, int], lasting: Lasting, sounds: int, target: float
) -> tuple[int, int]:
    """(peak, average) of the pictures and the largest of so many sounds; lists all segments of a job's generation."""
    sizes: dict[str, int] = {}
    for prefix in (keys.segments_prefix(*place), keys.audio_prefix(*place)):
        sizes |= {info.key: info.size async for info in store.list(prefix)}
    pictures, *heard = (_rates(sizes, name, lasting, target) for name in _names(place, sounds))
    sound = max(heard, default=(0, 0))
    return pictures[0] + sound[0], pictures[1] + sound[1]


async def guessed(
    store: ObjectStore, place: tuple[str, int], lasting: Lasting, sounds: int, target: float, spec: EncodeSpec
) -> tuple[int, int]:
    """(peak, 0) of a stream that is being made: what such ones take, or what is stored where that is more."""
    asked = [await store.head(name(index)) for name in _names(place, sounds) for index in lasting]
    sizes = {info.key: info.size for info in asked if info is not None}
    pictures, *heard = (_rates(sizes, name, lasting, target)[0] for name in _names(place, sounds))
    guess = max(int(spec.width * spec.height * float(spec.rate) * BITS_PER_PIXEL), 64_000)
    return max(pictures, guess) + (max(*heard, SOUND_BITS) if heard else 0), 0


def _names(place: tuple[str, int], sounds: int) -> list[Callable[[int], str]]:
    return [partial(keys.segment, *place), *(partial(keys.audio_segment, *place, number) for number in range(sounds))]


def _rates(sizes: Mapping[str, int], name: Callable[[int], str], lasting: Lasting, target: float) -> tuple[int, int]:
    return hls.bandwidth([(sizes.get(name(index), 0), seconds) for index, seconds in lasting.items()], target)
