"""AAC that has its form in every packet (ADTS, ISO/IEC 14496-3 1.A.2.2), and may change it on the way: broadcasts do.

mp4, Matroska and HLS tell the form once, so that packets of another one decode nowhere. A sound that changes is found
before the film is written (`changing`), and is decoded then. Runs in the jail.
"""

from __future__ import annotations

from typing import Any

import av.stream

from stereospot.jail import SourceFile
from stereospot.media.carried import name_of
from stereospot.media.demuxing import packets
from stereospot.media.opener import opened

LASTING_PACKETS = 8
"""A form that does not last so long is a damaged header."""

_LAYOUTS = ("stereo", "mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
"""By channel configuration; 0 says it in the packet, and is two voices of a broadcast."""


def form(data: bytes) -> bytes | None:
    """Profile, rate and channels as the header has them; None if there is no header."""
    if len(data) < 8 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return None
    return bytes((data[2] & 0xFD, data[3] & 0xC0))


def layout(found: bytes) -> str:
    """The name of a form's channels."""
    return _LAYOUTS[(found[0] & 1) << 2 | found[1] >> 6]


def changing(source: SourceFile, request: dict[str, Any]) -> dict[int, str]:
    """The widest layout of each sound, by its index, whose form changes; reads the source to its end if it is a TS."""
    with opened(source, request) as container:
        wanted = set(request["audio"])
        streams: list[Any] = []
        for stream in container.streams:
            if stream.index in wanted and container.format.name == "mpegts" and name_of(stream) == "aac":
                streams.append(stream)
            else:
                stream.discard = av.stream.Discard.all
        runs: dict[int, tuple[bytes, int]] = {}
        lasting: dict[int, set[bytes]] = {stream.index: set() for stream in streams}
        for packet in packets(container, streams):
            found = form(bytes(packet))
            if found is None:
                continue
            before, count = runs.get(packet.stream_index, (found, 0))
            count = count + 1 if found == before else 1
            runs[packet.stream_index] = (found, count)
            if count == LASTING_PACKETS:
                lasting[packet.stream_index].add(found)
    return {
        index: max((layout(found) for found in forms), key=lambda name: av.AudioLayout(name).nb_channels)
        for index, forms in lasting.items()
        if len(forms) > 1
    }
