"""Priming for Matroska: how many samples a decoder drops at the start of a track that comes from an mp4.

An mp4 says it in its edit list, which libavformat applies and does not pass on; Matroska says it in CodecDelay, which
libavformat writes from a field that PyAV has no way to set. So a Matroska of one packet is made in memory, the element
is put into it by hand, and the stream that is read back from it is a template that has the field.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import av

from stereospot.media import ebml
from stereospot.media.copied import skipped


def priming(packets: list[Any]) -> int:
    """Samples before the first that is heard, from the first packets of a track (the last of them is heard)."""
    first, heard = packets[0], packets[-1]
    rate = heard.stream.codec_context.sample_rate
    before = 0
    if first.pts is not None and heard.pts is not None and first is not heard:
        before = round((heard.pts - first.pts) * heard.time_base * rate)
    if not heard.is_discard:
        before += skipped(heard)[0]
    return max(before, skipped(first)[0])  # the first packet tells of all of it, which need not be whole packets


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
    for item in ebml.walk(data):
        if item.kind == ebml.HEADER:
            parts.append(data[item.start : item.end])
        elif item.kind == ebml.SEGMENT:
            inner: list[bytes] = []
            for part in ebml.walk(data, item.body, item.end):
                if part.kind == ebml.TRACKS:
                    (entry,) = [one for one in ebml.walk(data, part.body, part.end) if one.kind == ebml.ENTRY]
                    delay = ebml.element(ebml.CODEC_DELAY, nanoseconds.to_bytes(8, "big"))
                    changed = ebml.element(ebml.ENTRY, data[entry.body : entry.end] + delay)
                    inner.append(ebml.element(ebml.TRACKS, changed))
                elif part.kind in (ebml.INFO, ebml.CLUSTER):
                    inner.append(ebml.element(part.kind, data[part.body : part.end]))
            parts.append(ebml.element(ebml.SEGMENT, b"".join(inner)))
    return b"".join(parts)
