"""A decoder's packets and what it makes of them, in the jail: bad packets are skipped, a broken end is the end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import av.error
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from stereospot.jail.cell import SourceUnavailable

SKIPPED_ERRORS = (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError, av.error.BugError)
"""What a decoder says of one bad packet; the next one is tried, as every player does."""


BROKEN_END = (av.error.FFmpegError, IndexError)
"""What ends a demux early: FFmpeg gives up, or (IndexError) PyAV flushes a stream that only appeared on the way."""

ROOM_BYTES = 2**24
"""With less than this and two pictures left, a decoder's failure is taken for one of memory."""


def raw_frames(
    container: InputContainer, stream: VideoStream, seen: Callable[[Any], None] = lambda _: None
) -> Generator[VideoFrame]:
    """Frames in output order from where the container stands; bad packets are skipped, a broken end is the end.

    seen: called for every packet before it is decoded.
    """
    try:
        for packet in container.demux(stream):
            seen(packet)
            try:
                yield from decode(packet)
            except av.error.EOFError:
                return
            except SKIPPED_ERRORS:
                continue
        return
    except BROKEN_END as failure:
        if isinstance(failure, (SourceUnavailable, MemoryError)):
            raise
    yield from flushed(stream.codec_context)


def decode(packet: Any) -> list[VideoFrame]:
    """The frames of one packet, or of the flush. MemoryError where the decoder's failure may be one of memory."""
    try:
        return packet.decode()
    except SKIPPED_ERRORS:
        _has_room(packet.stream.codec_context)
        raise


def _has_room(context: Any) -> None:
    """Raise MemoryError unless two more pictures fit: of an allocation that failed some decoders say "invalid data".

    Such a frame must not be skipped like a damaged one: the next worker, with more memory, has it.
    """
    bytearray(ROOM_BYTES + 2 * 3 * 2 * context.width * context.height)


def flushed(context: Any) -> Iterator[VideoFrame]:
    """What the decoder still holds."""
    while True:
        try:
            yield from context.decode(None)
            return
        except SKIPPED_ERRORS:
            _has_room(context)
        except av.error.EOFError:
            return


def picture_bytes(context: Any) -> int:
    """What a decoded picture takes; of a format that is not known yet, what 4:4:4 of 16 bits does."""
    bits = context.format.padded_bits_per_pixel if context.format else 48
    return max(1, context.width * context.height * bits // 8)
