"""What one track of the source looks like on its way into a film. Runs in the jail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stereospot.media.film import Edit, Track

Sink = Callable[[Track, bytes, int], None]
"""Where samples go: their track, their bytes in order, and how many they are; the track counts their durations."""


class Carried(Protocol):
    """One track on its way."""

    stream: Any
    track: Track
    heads: list[Any]
    """Packets from which the header is written."""
    warnings: list[str]

    def template(self, container: Any) -> Any:
        """Add this track to the skeleton's container and return its stream there."""
        ...

    def take(self, packet: Any, sink: Sink) -> None: ...

    def finish(self, sink: Sink) -> Edit | None:
        """Flush; None if the track turned out to be empty."""
        ...


def name_of(stream: Any) -> str:
    """The codec's plain name, whatever decoder libavcodec picked: `opus`, not `libopus`."""
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name or "")


def nothing_heard(stream: Any) -> str:
    """The warning for a sound of which the film has nothing, be it that it ends before the first picture."""
    return f"Track {stream.index} holds no sound and was left out."


def known_layout(layout: Any) -> str:
    """The layout's name; where a source only counts channels (PCM in Matroska), what such a count usually means."""
    usual = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
    name, count = str(layout.name), int(layout.nb_channels)
    return usual.get(count, name) if name == f"{count} channels" else name
