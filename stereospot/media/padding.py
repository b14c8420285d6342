"""Priming for Matroska: how many samples a decoder drops at the start of a track that comes from an mp4.

An mp4 says it in its edit list, which libavformat applies and does not pass on; Matroska says it in CodecDelay, which
libavformat writes from a field that PyAV has no way to set. So a Matroska of one packet is made in memory, the element
is put into it by hand, and the stream that is read back from it is a template that has the field.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import av

_SEGMENT, _INFO, _TRACKS, _ENTRY, _CLUSTER, _CODEC_DELAY = (
    0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0x1F43B675, 0x56AA,
)  # fmt: skip
_EBML = 0x1A45DFA3


def priming(packets: list[Any]) -> int:
    """Samples before the first that is heard, from the first packets of a track (the last of them is heard)."""
    first, heard = packets[0], packets[-1]
    rate = heard.stream.codec_context.sample_rate
    before = 0
    if first.pts is not None and heard.pts is not None and first is not heard:
        before = round((heard.pts - first.pts) * heard.time_base * rate)
    if heard.has_sidedata("skip_samples") and not heard.is_discard:
        before += int.from_bytes(bytes(heard.get_sidedata("skip_samples"))[:4], "little")
    return before


@contextmanager
def template(stream: Any, packet: Any, samples: int) -> Generator[Any]:
    """`stream` as a template that knows its priming; `packet` is any of its packets."""
    file = io.BytesIO()
    options = {"fflags": "+bitexact", "avoid_negative_ts": "make_zero", "strict": "experimental"}
    with av.open(file, "w", format="matroska", options=options) as output:
        target = output.add_stream_from_template(stream, opaque=True)
        copy = av.Packet(bytes(packet))
        copy.time_base = packet.time_base
        copy.pts = copy.dts = 0
        copy.is_keyframe = True
        copy.stream = target
        output.mux(copy)
    nanoseconds = round(samples * 1_000_000_000 / stream.codec_context.sample_rate)
    with av.open(io.BytesIO(with_codec_delay(file.getvalue(), nanoseconds)), "r") as container:
        yield container.streams[0]


def with_codec_delay(data: bytes, nanoseconds: int) -> bytes:
    """A one-track Matroska with CodecDelay in its track; what would hold stale positions is left out."""
    parts: list[bytes] = []
    for identifier, body in _elements(data):
        if identifier == _EBML:
            parts.append(_element(identifier, body))
        elif identifier == _SEGMENT:
            inner: list[bytes] = []
            for kind, content in _elements(body):
                if kind == _TRACKS:
                    ((_, entry),) = [item for item in _elements(content) if item[0] == _ENTRY]
                    delay = _element(_CODEC_DELAY, nanoseconds.to_bytes(8, "big"))
                    inner.append(_element(_TRACKS, _element(_ENTRY, entry + delay)))
                elif kind in (_INFO, _CLUSTER):
                    inner.append(_element(kind, content))
            parts.append(_element(_SEGMENT, b"".join(inner)))
    return b"".join(parts)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(identifier, content) of the EBML elements in `data` (RFC 8794 4 and 5)."""
    at = 0
    while at < len(data):
        length = 9 - data[at].bit_length()
        identifier = int.from_bytes(data[at : at + length], "big")
        at += length
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        at += length
        if size == (1 << 7 * length) - 1:  # unknown: to the end
            size = len(data) - at
        yield identifier, data[at : at + size]
        at += size


def _element(identifier: int, content: bytes) -> bytes:
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (len(content) | 1 << 56).to_bytes(8, "big") + content
